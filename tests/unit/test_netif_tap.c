/* Packets through a real tap, both ways. Also built with a loop whose loop_try_readv is refused (Linux before 6.4). */
#include "test_netif_tap_rig.h"

enum { MANY = 200, RECEIVES = 40, SIZE = NETIF_HEADER_BYTES + 1518 };

static struct rig_packet packets[MANY];

static void cancel_all(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		netif_cancel(tap, &packets[i].packet);
	rig_wait_until(tap->in_flight == 0);
}

#ifdef NETIF_TAP_OLD_KERNEL
int __real_loop_try_readv(struct loop *l, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
			  uint64_t offset);
int __wrap_loop_try_readv(struct loop *l, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
			  uint64_t offset);
static unsigned tries;

/* A file of /proc cannot say that it would have to wait. */
int __wrap_loop_try_readv(struct loop *l, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
			  uint64_t offset)
{
	static int proc_fd = -1;
	(void)file;
	if (proc_fd < 0)
		proc_fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	assert_true(proc_fd >= 0);
	tries++;
	return __real_loop_try_readv(l, op, proc_fd, iov, iov_count, offset);
}

int __real_loop_readv(struct loop *l, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
		      uint64_t offset);
int __wrap_loop_readv(struct loop *l, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
		      uint64_t offset);
static bool reads_fail;
static unsigned reads;

int __wrap_loop_readv(struct loop *l, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
		      uint64_t offset)
{
	reads++;
	return reads_fail ? __wrap_loop_try_readv(l, op, file, iov, iov_count, offset)
			  : __real_loop_readv(l, op, file, iov, iov_count, offset);
}

/* A kernel in which a read cannot wait: it is asked again, but calmly, and said in few lines. */
static void reads_that_fail_do_not_spin(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	reads_fail = true;
	reads = 0;
	for (unsigned i = 0; i < RECEIVES; i++)
		rig_receive(&packets[i], 0, SIZE);
	uint64_t before_ns = loop_now_ns();
	while (loop_now_ns() - before_ns < 200000000)
		rig_round();
	reads_fail = false;
	assert_in_range(reads, 2, 100); /* about one each 10 ms; one that spins makes many thousands */
	assert_in_range(lines, 1, 15);  /* LOG_LIMIT_BURST, then one a second and how many were left out */
	assert_true(rig_peer_send(3, 60) && rig_peer_send(4, 60));
	rig_wait_until(tap->counters.received == 2);
	cancel_all(RECEIVES);
}
#endif

static bool all_done(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (!packets[i].done)
			return false;
	}
	return true;
}

static int64_t wait_for_peer(void)
{
	int64_t number = rig_peer_next();
	for (unsigned i = 0; i < RIG_ROUNDS_MAX && number < 0; i++) {
		rig_round();
		number = rig_peer_next();
	}
	return number;
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static void sent_packets_come_in_order(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	for (unsigned i = 0; i < MANY; i++)
		rig_send(&packets[i], 0, i);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(packets[i].done, 0); /* never from inside netif_send */
	rig_wait_until(all_done(MANY));
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(packets[i].res, 0);
		assert_int_equal(rig_peer_next(), i);
	}
	assert_int_equal(rig_peer_next(), -1);
	assert_int_equal(tap->counters.sent, MANY);
	assert_int_equal(tap->counters.sent_bytes, MANY * 60);
	assert_int_equal(tap->counters.dropped, 0);
}

/* More than the ring has entries, before the loop runs and after. */
static void more_than_the_ring_holds_stay_in_order(void **state)
{
	(void)state;
	static struct rig_packet many[500];
	rig_open(NULL, 1);
	int room = 4 << 20;
	assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)), 0); /* as much as there is */
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
			rig_send(&many[i], 0, i);
		for (unsigned i = 0; i < ARRAY_SIZE(many); i++) {
			rig_wait_until(many[i].done);
			assert_int_equal(wait_for_peer(), i);
		}
	}
}

static void a_packet_that_the_kernel_refuses_is_dropped(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	struct rig_packet *p = &packets[0];
	for (unsigned i = 0; i < 50; i++) {
		rig_fill(p->data + NETIF_HEADER_BYTES, 1);
		struct virtio_net_hdr_v1 bad = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
						.csum_start = 60000,
						.csum_offset = 60000,
						.gso_type = 77,
						.gso_size = 0};
		memcpy(p->data, &bad, sizeof(bad));
		rig_span(p, NETIF_HEADER_BYTES + 60);
		netif_send(tap, &p->packet);
		rig_wait_until(p->done);
		assert_int_equal(p->res, 0);
	}
	assert_int_equal(tap->counters.dropped, 50);
	assert_int_equal(tap->counters.sent, 0);
	assert_true(tap->info.link_up);
	assert_in_range(lines, 1, 20); /* not one for each */
	rig_send(p, 0, 7);
	assert_int_equal(wait_for_peer(), 7);
}

/* --- receiving ---------------------------------------------------------------------------------------------------- */

/* Each `done` is the next packet's, whichever receive it is of; then the receive serves again. */
static void receive_in_order(unsigned total, unsigned burst)
{
	unsigned next = 0, sent = 0;
	rig_done_count = 0;
	for (unsigned i = 0; i < RECEIVES; i++)
		rig_receive(&packets[i], 0, SIZE);
	for (unsigned rounds = 0; next < total && rounds < RIG_ROUNDS_MAX; rounds++) {
		for (unsigned i = 0; i < burst && sent < total; i++)
			sent += rig_peer_send(sent, 60);
		rig_round();
		for (unsigned ended = next; ended < rig_done_count;) {
			struct rig_packet *p = packets;
			while (p < packets + RECEIVES && (!p->done || p->order != ended))
				p++;
			assert_true(p < packets + RECEIVES);
			ended++;
			assert_int_equal(p->res, NETIF_HEADER_BYTES + 60);
			assert_int_equal(rig_number(p->data + NETIF_HEADER_BYTES), next++);
			rig_receive(p, 0, SIZE);
		}
	}
	assert_int_equal(next, total);
	assert_int_equal(tap->counters.received, total);
	assert_int_equal(tap->counters.received_bytes, total * 60);
	assert_int_equal(tap->counters.dropped, 0);
}

static void received_packets_come_in_order(void **state)
{
	(void)state;
	const unsigned bursts[] = {1, 3, 17, 100};
	for (unsigned i = 0; i < ARRAY_SIZE(bursts); i++) {
		rig_open(NULL, 1);
		receive_in_order(500, bursts[i]);
		cancel_all(RECEIVES);
		rig_close();
	}
#ifdef NETIF_TAP_OLD_KERNEL
	assert_in_range(tries, 1, 4 * 40); /* it has learnt */
#endif
}

static void a_cancelled_receive_ends_soon(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	for (unsigned times = 0; times < 5; times++) {
		for (unsigned i = 0; i < RECEIVES; i++)
			rig_receive(&packets[i], 0, SIZE);
		if (times)
			rig_round(); /* one is in the kernel by now */
		for (unsigned i = 0; i < RECEIVES; i++)
			netif_cancel(tap, &packets[i].packet);
		for (unsigned i = 0; i < RECEIVES; i++)
			assert_int_equal(packets[i].done, 0); /* never from inside netif_cancel */
		rig_wait_until(all_done(RECEIVES));
		for (unsigned i = 0; i < RECEIVES; i++) {
			assert_int_equal(packets[i].done, 1);
			assert_int_equal(packets[i].res, -ECANCELED);
		}
	}
	rig_receive(&packets[0], 0, SIZE);
	assert_true(rig_peer_send(5, 60));
	rig_wait_until(packets[0].done);
	assert_int_equal(packets[0].res, NETIF_HEADER_BYTES + 60);
}

/* The one that waits is cancelled; the others are given packets all the same. */
static void others_receive_after_a_cancel(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	for (unsigned i = 0; i < 3; i++)
		rig_receive(&packets[i], 0, SIZE);
	rig_round();
	netif_cancel(tap, &packets[0].packet);
	rig_wait_until(packets[0].done);
	assert_int_equal(packets[0].res, -ECANCELED);
	assert_true(rig_peer_send(1, 60) && rig_peer_send(2, 60));
	rig_wait_until(packets[1].done && packets[2].done);
	assert_int_equal(packets[1].res, NETIF_HEADER_BYTES + 60);
	assert_int_equal(packets[2].res, NETIF_HEADER_BYTES + 60);
}

static void what_does_not_fit_is_dropped_whole(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	rig_receive(&packets[0], 0, NETIF_HEADER_BYTES + 100);
	rig_receive(&packets[1], 0, NETIF_HEADER_BYTES + 100);
	rig_receive(&packets[2], 0, NETIF_HEADER_BYTES + 100);
	rig_done_count = 0;
	assert_true(rig_peer_send(1, 101) && rig_peer_send(2, 100) && rig_peer_send(3, 1000));
	assert_true(rig_peer_send(4, 99) && rig_peer_send(5, 101) && rig_peer_send(6, 60));
	rig_wait_until(all_done(3));
	const struct {
		int64_t number;
		int res;
	} expected[] = {{2, 112}, {4, 111}, {6, 72}};
	for (unsigned order = 0; order < 3; order++) {
		const struct rig_packet *p = packets;
		while (p->order != order)
			p++;
		assert_int_equal(rig_number(p->data + NETIF_HEADER_BYTES), expected[order].number);
		assert_int_equal(p->res, expected[order].res);
	}
	assert_int_equal(tap->counters.dropped, 3);
	assert_int_equal(tap->counters.received, 3);
}

/* Nothing comes: the loop sleeps, whatever number of receives is outstanding. */
static void an_idle_tap_costs_nothing(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	for (unsigned i = 0; i < MANY; i++)
		rig_receive(&packets[i], 0, SIZE);
	for (unsigned i = 0; i < 5; i++)
		rig_round();
	uint64_t before_ns = loop_now_ns();
	assert_int_equal(loop_wait(loop, 50000000), 0);
	assert_true(loop_now_ns() - before_ns >= 50000000);
	cancel_all(MANY);
}

/* --- several queues ----------------------------------------------------------------------------------------------- */

/* A frame of UDP over IPv4 of flow `flow`, from the guest or to it. */
static void fill_flow(uint8_t *frame, unsigned flow, bool from_guest)
{
	static const uint8_t IP[20] = {0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17};
	memset(frame, 0, 60);
	memset(frame, 0x02, 12);
	frame[12] = 0x08;
	memcpy(frame + 14, IP, sizeof(IP));
	frame[26] = frame[30] = 10;
	frame[from_guest ? 29 : 33] = 2; /* 10.0.0.2 is the guest, 10.0.0.0 the other side */
	frame[from_guest ? 35 : 37] = (uint8_t)(100 + flow);
	frame[from_guest ? 37 : 35] = 9;
	frame[39] = 26;
}

static void send_flow(unsigned queue, unsigned flow)
{
	static struct rig_packet p;
	memset(p.data, 0, NETIF_HEADER_BYTES);
	fill_flow(p.data + NETIF_HEADER_BYTES, flow, true);
	rig_span(&p, NETIF_HEADER_BYTES + 60);
	p.packet.queue = queue;
	netif_send(tap, &p.packet);
	rig_wait_until(p.done);
	assert_int_equal(p.res, 0);
}

static void peer_send_flow(unsigned flow)
{
	uint8_t data[sizeof(struct virtio_net_hdr) + 60] = {0};
	fill_flow(data + sizeof(struct virtio_net_hdr), flow, false);
	assert_int_equal(send(peer, data, sizeof(data), 0), sizeof(data));
}

/* What comes of a flow comes to the queue by which the guest has sent of it. */
static void each_queue_has_its_flows(void **state)
{
	(void)state;
	rig_open(NULL, 4);
	assert_int_equal(tap->info.queues, 4);
	netif_set_queues(tap, 4);
	for (unsigned flow = 0; flow < 4; flow++) {
		send_flow(flow, flow);
		rig_receive(&packets[flow], flow, SIZE);
	}
	for (unsigned flow = 0; flow < 4; flow++) {
		peer_send_flow(flow);
		rig_wait_until(packets[flow].done);
		assert_int_equal(packets[flow].res, NETIF_HEADER_BYTES + 60);
		assert_int_equal(packets[flow].data[NETIF_HEADER_BYTES + 37], 100 + flow);
	}
	assert_int_equal(tap->counters.sent, 4);
	assert_int_equal(tap->counters.received, 4);
}

static void only_the_first_queues_are_in_use(void **state)
{
	(void)state;
	const unsigned pairs[] = {1, 4, 2, 1, 3};
	rig_open(NULL, 4);
	for (unsigned times = 0; times < ARRAY_SIZE(pairs); times++) {
		unsigned in_use = pairs[times];
		if (times)
			netif_set_queues(tap, in_use);
		for (unsigned i = 0; i < MANY; i++)
			rig_receive(&packets[i], i % 4, SIZE);
		for (unsigned flow = 0; flow < 16; flow++)
			peer_send_flow(flow);
		uint64_t expected = 16 * (times + 1ULL);
		rig_wait_until(tap->counters.received == expected);
		for (unsigned i = 0; i < MANY; i++)
			assert_true(!packets[i].done || packets[i].packet.queue < in_use);
		cancel_all(MANY);
	}
}

/* --- offloads ----------------------------------------------------------------------------------------------------- */

enum { UDP_CSUM_AT = 14 + 20 + 6 };

/* The sum of the pseudo-header, which is what a partial checksum has in its place. */
static uint16_t pseudo_sum(const uint8_t *frame, unsigned protocol, unsigned size_bytes)
{
	return fold(sum_words(frame + 26, 8, protocol + size_bytes));
}

static struct virtio_net_hdr partial_udp(uint8_t *frame)
{
	fill_flow(frame, 1, false);
	put_be16(frame + UDP_CSUM_AT, pseudo_sum(frame, IPPROTO_UDP, 26));
	put_be16(frame + 24, (uint16_t)~fold(sum_words(frame + 14, 20, 0)));
	return (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
}

static void peer_send_udp(void)
{
	uint8_t data[sizeof(struct virtio_net_hdr) + 60];
	struct virtio_net_hdr header = partial_udp(data + sizeof(header));
	memcpy(data, &header, sizeof(header));
	assert_int_equal(send(peer, data, sizeof(data), 0), sizeof(data));
}

static void a_checksum_is_completed_for_who_cannot(void **state)
{
	(void)state;
	struct virtio_net_hdr_v1 header;
	rig_open(NULL, 1);
	assert_true(tap->info.offloads & NETIF_OFFLOAD_CSUM);
	for (unsigned times = 0; times < 3; times++) {
		bool can = times == 1;
		netif_set_offloads(tap, can ? NETIF_OFFLOAD_CSUM : 0);
		rig_receive(&packets[0], 0, SIZE);
		peer_send_udp();
		rig_wait_until(packets[0].done);
		const uint8_t *frame = packets[0].data + NETIF_HEADER_BYTES;
		memcpy(&header, packets[0].data, sizeof(header));
		assert_int_equal(header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, can ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
		bool is_whole = fold(sum_words(frame + 34, 26, pseudo_sum(frame, IPPROTO_UDP, 26))) == 0xffff;
		assert_int_equal(is_whole, !can);
	}
}

/* As a partial checksum it is taken by the host's UDP, without that flag it is wrong. */
static void a_partial_checksum_is_taken(void **state)
{
	(void)state;
	struct ifreq ifr = {0};
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)};
	rig_open(NULL, 1);
	memcpy(&ifr.ifr_addr, &address, sizeof(address));
	rig_control(netif_tap_interface(tap), SIOCSIFADDR, &ifr);
	rig_control(netif_tap_interface(tap), SIOCGIFHWADDR, &ifr);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	address.sin_port = htons(9);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	for (unsigned times = 0; times < 2; times++) {
		struct rig_packet *p = &packets[times];
		uint8_t *frame = p->data + NETIF_HEADER_BYTES, got[64];
		(void)partial_udp(frame);
		fill_flow(frame, 1, true);
		memcpy(frame, ifr.ifr_hwaddr.sa_data, 6);
		frame[33] = 1;
		put_be16(frame + 24, (uint16_t)~fold(sum_words(frame + 14, 20, 0)));
		put_be16(frame + UDP_CSUM_AT, pseudo_sum(frame, IPPROTO_UDP, 26));
		struct virtio_net_hdr_v1 header = {
			.flags = times == 0 ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0, .csum_start = 34, .csum_offset = 6};
		memcpy(p->data, &header, sizeof(header));
		rig_span(p, NETIF_HEADER_BYTES + 60);
		netif_send(tap, &p->packet);
		rig_wait_until(p->done);
		assert_int_equal(recv(fd, got, sizeof(got), 0), times == 0 ? 18 : -1);
	}
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sent_packets_come_in_order),
		TEST(more_than_the_ring_holds_stay_in_order),
		TEST(a_packet_that_the_kernel_refuses_is_dropped),
		TEST(received_packets_come_in_order),
		TEST(a_cancelled_receive_ends_soon),
		TEST(others_receive_after_a_cancel),
		TEST(what_does_not_fit_is_dropped_whole),
		TEST(an_idle_tap_costs_nothing),
#ifdef NETIF_TAP_OLD_KERNEL
		TEST(reads_that_fail_do_not_spin),
#endif
		TEST(each_queue_has_its_flows),
		TEST(only_the_first_queues_are_in_use),
		TEST(a_checksum_is_completed_for_who_cannot),
		TEST(a_partial_checksum_is_taken),
	};
	if (!rig_enter_namespace())
		return RIG_SKIPPED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
