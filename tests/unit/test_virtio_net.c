/* virtio-net, packet by packet: what it offers, what goes out, what comes in, and what becomes of it all at a reset. */
#include "net_rig.h"

enum { POISON = 0xdb, HEADER = NETIF_HEADER_BYTES, LARGEST = NETIF_PACKET_MAX_BYTES };

static bool offers(const struct nr *r, unsigned bit)
{
	return r->dev->features >> bit & 1;
}

/* Every kind of ring. */
static void for_each_ring(struct nr *r, void (*fn)(struct nr *r))
{
	for (unsigned kind = 0; kind < 8; kind++) {
		r->packed = kind & 1;
		r->event_idx = kind & 2;
		r->indirect = kind & 4;
		nr_start(r);
		fn(r);
	}
}

/* --- what it offers ------------------------------------------------------------------------------------------------
 */

/* 5.1.3.1: this needs one of those. */
static const struct {
	unsigned what, needs, or_needs;
} DEPENDENCIES[] = {
	{VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM, 63},
	{VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_CSUM, 63},
	{VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6},
	{NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_CSUM, 63},
	{NET_F_GUEST_USO6, VIRTIO_NET_F_GUEST_CSUM, 63},
	{VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM, 63},
	{VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM, 63},
	{VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6},
	{NET_F_HOST_USO, VIRTIO_NET_F_CSUM, 63},
	{VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ, 63},
	{VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_CTRL_VQ, 63},
	{VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ, 63},
	{VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ, 63},
};

static void check_dependencies(const struct nr *r)
{
	for (unsigned i = 0; i < ARRAY_SIZE(DEPENDENCIES); i++) {
		bool other = DEPENDENCIES[i].or_needs != 63 && offers(r, DEPENDENCIES[i].or_needs);
		if (offers(r, DEPENDENCIES[i].what))
			assert_true(other || offers(r, DEPENDENCIES[i].needs));
	}
}

static void features_follow_the_back_end(void **state)
{
	struct nr *r = *state;
	for (unsigned offloads = 0; offloads <= NR_ALL_OFFLOADS; offloads++) {
		r->net->netif.info.offloads = offloads;
		nr_renew_device(r);
		check_dependencies(r);
		bool csum = offloads & NETIF_OFFLOAD_CSUM;
		assert_int_equal(offers(r, VIRTIO_NET_F_CSUM), csum);
		assert_int_equal(offers(r, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), csum);
		assert_int_equal(offers(r, VIRTIO_NET_F_HOST_TSO6), csum && (offloads & NETIF_OFFLOAD_TSO6));
		assert_int_equal(offers(r, VIRTIO_NET_F_GUEST_TSO4), csum && (offloads & NETIF_OFFLOAD_TSO4));
		assert_int_equal(offers(r, NET_F_HOST_USO), csum && (offloads & NETIF_OFFLOAD_USO));
		assert_int_equal(offers(r, NET_F_GUEST_USO4), offers(r, NET_F_GUEST_USO6));
		assert_true(offers(r, VIRTIO_NET_F_MRG_RXBUF) && offers(r, VIRTIO_NET_F_SPEED_DUPLEX));
		assert_false(offers(r, VIRTIO_NET_F_RSS) || offers(r, VIRTIO_NET_F_HASH_REPORT));
		nr_start(r);
		assert_int_equal(r->net->offloads & ~offloads, 0);
		assert_int_equal(!!(r->net->offloads & NETIF_OFFLOAD_USO), offers(r, NET_F_GUEST_USO4));
	}
}

static void what_it_says_of_itself(void **state)
{
	struct nr *r = *state;
	struct virtio_net_config config = nr_config(r);
	assert_memory_equal(config.mac, NR_MAC, 6);
	assert_int_equal(config.status, VIRTIO_NET_S_LINK_UP);
	assert_int_equal(config.max_virtqueue_pairs, NR_PAIRS);
	assert_int_equal(config.mtu, NR_MTU);
	assert_int_equal(config.duplex, 1);
	assert_true(offers(r, VIRTIO_NET_F_MTU) && offers(r, VIRTIO_NET_F_MQ));

	r->init.mtu = 9000;
	r->init.link_down = true;
	nr_renew_device(r);
	assert_int_equal(nr_config(r).mtu, 9000);
	assert_int_equal(nr_config(r).status, 0);
	r->init.mtu = 0;
	r->net->netif.info.mtu = 0;
	r->net->netif.info.queues = 1;
	nr_renew_device(r);
	assert_false(offers(r, VIRTIO_NET_F_MTU) || offers(r, VIRTIO_NET_F_MQ));

	struct err err = {0};
	r->init.mtu = 67;
	assert_null(virtio_net_new(r->loop, r->gmem, &r->log, &r->net->netif, &r->init, &err));
	assert_int_equal(err.code, -EINVAL);
}

/* --- out ------------------------------------------------------------------------------------------------------------
 */

/* One packet, cut after `first` bytes, then every `step` bytes. */
static void send_cut(struct nr *r, unsigned number, uint32_t size_bytes, uint32_t first, uint32_t step)
{
	struct virtq_buffer buffers[400];
	unsigned count = 0, before = r->net->sent;
	gpa_t at = nr_fill_tx(r, number, size_bytes);
	for (uint32_t done = 0, piece = first; done < size_bytes; done += piece, piece = step) {
		piece = (uint32_t)min_u64(piece, size_bytes - done);
		assert_true(count < ARRAY_SIZE(buffers));
		buffers[count++] = (struct virtq_buffer){at + done, piece, false};
	}
	assert_true(nr_add(r, 1, buffers, count) >= 0);
	nr_ring(r, 1);
	nr_wait_sent(r, 0);
	assert_int_equal(r->net->sent, before + 1);
	nr_check_record(r, before, number, size_bytes);
}

static void any_framing(struct nr *r)
{
	for (uint32_t first = 1; first < 30; first++)
		send_cut(r, first, 100, first, 1000);
	send_cut(r, 1, HEADER + 14, 1, 1); /* the shortest */
	send_cut(r, 2, LARGEST, LARGEST, 1);
	send_cut(r, 3, LARGEST, 12, 4096);
	send_cut(r, 4, 64 * 100, 100, 100); /* as many pieces as a back end takes */
	send_cut(r, 5, 65 * 100, 100, 100); /* one more: gathered */
	send_cut(r, 6, LARGEST, 3, 200);
	assert_true(r->net->max_iov_count == NETIF_IOV_MAX);
}

static void what_is_sent_arrives(void **state)
{
	for_each_ring(*state, any_framing);
}

static void send_dropped(struct nr *r, const struct virtq_buffer *buffers, unsigned count)
{
	unsigned before = r->net->sent;
	assert_true(nr_add(r, 1, buffers, count) >= 0);
	nr_ring(r, 1);
	nr_wait_sent(r, 0);
	assert_int_equal(r->net->sent, before);
}

static void what_is_no_packet_is_dropped(void **state)
{
	struct nr *r = *state;
	nr_start(r);
	const struct virtq_buffer too_short = {NR_TX, HEADER + 13, false}, too_long = {NR_TX, LARGEST + 1, false},
				  huge = {NR_TX, 0x100000, false}, none = {NR_TX, 100, true}, byte = {NR_TX, 1, false};
	memset(r->ram + NR_TX, 0, 0x200);
	send_dropped(r, &too_short, 1);
	send_dropped(r, &too_long, 1);
	send_dropped(r, &huge, 1);
	send_dropped(r, &none, 1);
	send_dropped(r, &byte, 1);
	/* A writable part says nothing. */
	const struct virtq_buffer both[] = {{NR_TX, 100, false}, {NR_TX + 0x1000, 100, true}};
	assert_true(nr_add(r, 1, both, 2) >= 0);
	nr_ring(r, 1);
	nr_wait_sent(r, 0);
	assert_int_equal(r->net->records[0].size_bytes, 100);
	assert_false(nr_status(r) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_true(r->log_lines > 0);
}

static bool passes(struct nr *r, uint8_t flags, uint8_t gso_type)
{
	unsigned before = r->net->sent;
	const struct virtq_buffer buffer = {nr_fill_tx(r, 0, 100), 100, false};
	r->ram[buffer.gpa] = flags;
	r->ram[buffer.gpa + 1] = gso_type;
	assert_true(nr_add(r, 1, &buffer, 1) >= 0);
	nr_ring(r, 1);
	nr_wait_sent(r, 0);
	return r->net->sent == before + 1;
}

/* A back end that looks at no header would send a frame without its checksum. */
static void headers_that_ask_too_much(void **state)
{
	struct nr *r = *state;
	nr_start(r);
	assert_true(passes(r, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN));
	assert_true(passes(r, VIRTIO_NET_HDR_F_NEEDS_CSUM, NET_HDR_GSO_UDP_L4));
	assert_false(passes(r, 0, VIRTIO_NET_HDR_GSO_UDP));
	assert_false(passes(r, 0, 77));

	r->net->netif.info.offloads = NETIF_OFFLOAD_CSUM;
	nr_renew_device(r);
	nr_start(r);
	assert_true(passes(r, VIRTIO_NET_HDR_F_NEEDS_CSUM, 0));
	assert_false(passes(r, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV6));

	r->net->netif.info.offloads = 0;
	nr_renew_device(r);
	nr_start(r);
	assert_true(passes(r, 0, 0));
	assert_true(passes(r, VIRTIO_NET_HDR_F_DATA_VALID, 0));
	assert_false(passes(r, VIRTIO_NET_HDR_F_NEEDS_CSUM, 0));
	assert_false(passes(r, 0, VIRTIO_NET_HDR_GSO_TCPV4));
	assert_false(passes(r, 0, VIRTIO_NET_HDR_GSO_ECN));
}

/* The back end is slow: the whole ring is on its way, goes out in order, and comes back in any. */
static void many_on_their_way(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		r->packed = kind & 1;
		r->event_idx = kind & 2;
		nr_start(r);
		r->net->holds = true;
		r->net->sent = 0;
		for (unsigned i = 0; i < NET_QUEUE_SIZE; i++) {
			while (r->net->sent + NR_TX_SLOTS <= i) /* its slot is in use */
				assert_int_equal(loop_wait(r->loop, NR_MS), 0);
			nr_send(r, 0, i, 60 + i % NR_TX_SLOTS);
		}
		while (r->net->held_count < NET_QUEUE_SIZE)
			assert_int_equal(loop_wait(r->loop, NR_MS), 0);
		for (unsigned i = 0; i < NET_QUEUE_SIZE; i++)
			nr_check_record(r, i, i, 60 + i % NR_TX_SLOTS);
		assert_false(nr_take_sent(r, 0));
		unsigned interrupts = r->queue_interrupts[1];
		while (r->net->held_count)
			nr_complete(r, r->net->held_count * 5 / 7);
		for (unsigned i = 0; i < NET_QUEUE_SIZE; i++)
			nr_wait_sent(r, 0);
		nr_settle(r);
		assert_true(r->queue_interrupts[1] <= interrupts + 1);
		r->net->holds = false;
	}
}

/* Copies are bounded: beyond, packets are dropped, and later ones go again. */
static void copies_are_bounded(void **state)
{
	struct nr *r = *state;
	struct virtq_buffer buffers[70];
	r->indirect = true;
	nr_start(r);
	gpa_t at = nr_fill_tx(r, 1, 7000), table = NR_RX;
	for (unsigned i = 0; i < 70; i++) {
		buffers[i] = (struct virtq_buffer){at + i * 100, 100, false};
		struct vring_desc desc = {buffers[i].gpa, 100, i < 69 ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1)};
		memcpy(r->ram + table + i * sizeof(desc), &desc, sizeof(desc));
	}
	const struct virtq_buffer whole = {table, 70 * sizeof(struct vring_desc), false};
	for (unsigned round = 0; round < 2; round++) {
		r->net->holds = true;
		for (unsigned i = 0; i < NET_GATHERED_MAX + 5; i++)
			assert_true(virtq_driver_add_split(&r->drivers[1], &whole, 1, VRING_DESC_F_INDIRECT) >= 0);
		virtio_ring(r->dev, 1);
		for (unsigned i = 0; i < 5; i++)
			nr_wait_sent(r, 0);
		nr_settle(r);
		assert_false(nr_take_sent(r, 0));
		assert_int_equal(r->net->held_count, NET_GATHERED_MAX);
		while (r->net->held_count)
			nr_complete(r, 0);
		for (unsigned i = 0; i < NET_GATHERED_MAX; i++)
			nr_wait_sent(r, 0);
	}
	assert_int_equal(r->net->sent, 2 * NET_GATHERED_MAX);
	nr_check_record(r, 3, 1, 7000);
}

/* --- in -------------------------------------------------------------------------------------------------------------
 */

static const uint32_t SIZES[] = {HEADER + 14, 60, 1514, 1536, 1537, 3000, 9018, 65000, LARGEST - 1, LARGEST};

static void receive_sizes(struct nr *r, uint32_t buffer_bytes, unsigned buffers)
{
	nr_give_buffers(r, 0, buffers, buffer_bytes);
	nr_settle(r);
	for (unsigned i = 0; i < ARRAY_SIZE(SIZES); i++) {
		assert_true(nr_inject(r, 0, i, SIZES[i]));
		nr_settle(r);
		const struct nr_packet *packet = nr_take_packet(r, 0);
		assert_non_null(packet);
		assert_int_equal(packet->size_bytes, SIZES[i]);
		assert_int_equal(packet->buffers, (SIZES[i] + buffer_bytes - 1) / buffer_bytes);
		for (uint32_t at = HEADER; at < SIZES[i]; at++)
			assert_int_equal(packet->bytes[at], nr_byte(i, at));
		nr_give_buffers(r, 0, packet->buffers, buffer_bytes);
		nr_settle(r);
	}
}

static void merged_sizes(struct nr *r)
{
	receive_sizes(r, 1536, 200);
}

static void packets_are_merged(void **state)
{
	for_each_ring(*state, merged_sizes);
}

/* Buffers of which none is lost, and none filled twice: small packets use them up without a refill. */
static void every_buffer_is_used(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		r->packed = kind;
		nr_start(r);
		nr_give_buffers(r, 0, NET_QUEUE_SIZE, 1536);
		for (unsigned i = 0; i < NET_QUEUE_SIZE; i++) {
			while (!nr_inject(r, 0, i, 60 + i % 100))
				assert_int_equal(loop_wait(r->loop, NR_MS), 0);
			nr_expect_packet(r, 0, i, 60 + i % 100);
		}
		nr_settle(r);
		assert_false(nr_inject(r, 0, 0, 60));
		assert_int_equal(r->drivers[0].free_count, NET_QUEUE_SIZE);
		nr_give_buffers(r, 0, 100, 1536);
		nr_settle(r);
		assert_true(nr_inject(r, 0, 5, LARGEST));
		nr_expect_packet(r, 0, 5, LARGEST);
	}
}

/* Large packets wait for a driver that refills late; what is posted always has room for one. */
static void receives_are_large_enough(void **state)
{
	struct nr *r = *state;
	nr_start(r);
	nr_give_buffers(r, 0, 200, 1536);
	nr_settle(r);
	assert_int_equal(r->net->posted_count[0], 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(r->net->posted[0][i]->size_bytes, LARGEST);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(nr_inject(r, 0, i, LARGEST));
		nr_expect_packet(r, 0, i, LARGEST);
	}
	assert_false(nr_inject(r, 0, 4, LARGEST));

	/* Without segments the MTU says how large they are, and 32 wait. */
	r->without = UINT64_MAX << NET_F_GUEST_USO4 & 3ULL << NET_F_GUEST_USO4;
	r->without |=
		1ULL << VIRTIO_NET_F_GUEST_TSO4 | 1ULL << VIRTIO_NET_F_GUEST_TSO6 | 1ULL << VIRTIO_NET_F_GUEST_ECN;
	r->init.mtu = 3000;
	nr_renew_device(r);
	nr_start(r);
	nr_give_buffers(r, 0, 200, 1536);
	nr_settle(r);
	assert_int_equal(r->net->posted_count[0], NET_RECEIVES_MAX);
	assert_int_equal(r->net->posted[0][0]->size_bytes, 2 * 1536);
}

/* When none is left its driver rings at once, although so much is in flight. */
static void starved_receives_ask_for_a_doorbell(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		r->packed = kind & 1;
		r->event_idx = kind & 2;
		nr_start(r);
		nr_give_buffers(r, 0, 200, 1536);
		nr_settle(r);
		for (unsigned i = 0; i < 4; i++)
			assert_true(nr_inject(r, 0, i, LARGEST));
		while (r->dev->queues[0].kicked || r->dev->queues[0].resting) {
			assert_int_equal(loop_wait(r->loop, NR_MS), 0);
			assert_false(r->dev->queues[0].polled);
		}
		assert_true(r->dev->queues[0].in_flight > 20);
		for (unsigned i = 0; i < 4; i++)
			nr_expect_packet(r, 0, i, LARGEST);
		const struct virtq_buffer buffer = {NR_RX, 1536, true};
		(void)virtq_driver_rings(&r->drivers[0]);
		assert_true(nr_add(r, 0, &buffer, 1) >= 0);
		assert_true(virtq_driver_rings(&r->drivers[0]));
	}
}

/* A driver that never gives enough for the largest packet gets what fits; when it gives more, the largest. */
static void a_poor_driver(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		r->packed = kind;
		nr_start(r);
		nr_give_buffers(r, 0, 4, 1536);
		for (unsigned i = 0; i < 20; i++) {
			while (!nr_inject(r, 0, i, 2000))
				assert_int_equal(loop_wait(r->loop, NR_MS), 0);
			nr_expect_packet(r, 0, i, 2000);
			nr_give_buffers(r, 0, 2, 1536);
		}
		nr_settle(r);
		assert_int_equal(r->net->posted_count[0], 1);
		assert_true(r->net->posted[0][0]->size_bytes <= 4 * 1536);
		nr_give_buffers(r, 0, 100, 1536);
		nr_settle(r);
		assert_true(nr_inject(r, 0, 1, LARGEST));
		nr_expect_packet(r, 0, 1, LARGEST);
		assert_false(nr_take_packet(r, 0));
	}
}

/* Buffers larger than a packet, of many pieces, of pieces beyond what a back end takes, with readable parts. */
static void odd_buffers(void **state)
{
	struct nr *r = *state;
	struct virtq_buffer pieces[200];
	nr_start(r);
	nr_give_buffers(r, 0, 1, 0x20000);
	nr_settle(r);
	assert_true(nr_inject(r, 0, 3, LARGEST));
	nr_expect_packet(r, 0, 3, LARGEST);

	for (unsigned i = 0; i < 200; i++)
		pieces[i] = (struct virtq_buffer){NR_RX + i * 7, 7, true};
	int id = virtq_driver_add(&r->drivers[0], pieces, 200); /* of which 64 can be used */
	r->rx[0][id] = (struct nr_buffer){NR_RX, 1400};
	nr_ring(r, 0);
	while (!nr_inject(r, 0, 7, 64 * 7))
		assert_int_equal(loop_wait(r->loop, NR_MS), 0);
	nr_expect_packet(r, 0, 7, 64 * 7);

	const struct virtq_buffer mixed[] = {{NR_TX, 100, false}, {NR_RX, 5, true}, {NR_RX + 5, 0x11000, true}};
	id = nr_add(r, 0, mixed, 3);
	r->rx[0][id] = (struct nr_buffer){NR_RX, 0x11005};
	nr_ring(r, 0);
	nr_settle(r);
	assert_true(nr_inject(r, 0, 8, LARGEST));
	nr_expect_packet(r, 0, 8, LARGEST);
	assert_int_equal(r->drivers[0].free_count, NET_QUEUE_SIZE);
}

static void useless_buffers_come_back(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		r->without = kind ? 1ULL << VIRTIO_NET_F_MRG_RXBUF : 0;
		nr_start(r);
		const struct virtq_buffer readable = {NR_RX, 5000, false};
		assert_true(nr_add(r, 0, &readable, 1) >= 0);
		nr_give_buffers(r, 0, 1, 1);
		nr_give_buffers(r, 0, 1, HEADER + 13);
		nr_settle(r);
		for (unsigned i = 0; i < 3; i++) {
			uint16_t id;
			uint32_t written;
			assert_true(virtq_driver_take(&r->drivers[0], &id, &written));
			assert_int_equal(written, 0);
		}
		assert_int_equal(r->net->posted_count[0], 0);
		assert_false(nr_status(r) & VIRTIO_CONFIG_S_NEEDS_RESET);
	}
}

static void without_merging(void **state)
{
	struct nr *r = *state;
	r->without = 1ULL << VIRTIO_NET_F_MRG_RXBUF;
	for (unsigned kind = 0; kind < 4; kind++) {
		r->packed = kind & 1;
		r->indirect = kind & 2;
		nr_start(r);
		nr_give_buffers(r, 0, 40, 2000);
		nr_settle(r);
		assert_int_equal(r->net->posted_count[0], NET_RECEIVES_MAX);
		assert_true(nr_inject(r, 0, 0, 2001)); /* cannot take it: the network drops it */
		for (unsigned i = 0; i < 40; i++) {
			assert_true(nr_inject(r, 0, i, 1000 + i));
			nr_settle(r);
			const struct nr_packet *packet = nr_take_packet(r, 0);
			assert_non_null(packet);
			assert_int_equal(packet->buffers, 1);
			assert_int_equal(packet->size_bytes, 1000 + i);
		}
		assert_false(nr_inject(r, 0, 0, 60));
	}
}

/* A frame of so many bytes, with this gso_type in its header: is it delivered? */
static bool comes_in(struct nr *r, uint32_t frame_bytes, uint8_t gso_type)
{
	static uint8_t bytes[NETIF_PACKET_MAX_BYTES];
	bytes[offsetof(struct virtio_net_hdr_v1, gso_type)] = gso_type;
	assert_true(nr_inject_bytes(r, 0, bytes, HEADER + frame_bytes));
	nr_settle(r);
	return nr_take_packet(r, 0);
}

/* 5.1.4.1: a driver that knows the MTU gets nothing larger, but for what it segments itself. */
static void what_is_larger_than_the_mtu(void **state)
{
	enum { MTU = 1280, ETHERNET_AND_TAG = 18 };
	struct nr *r = *state;
	r->init.mtu = MTU;
	nr_renew_device(r);
	nr_start(r);
	nr_give_buffers(r, 0, 200, 1536);
	nr_settle(r);
	assert_true(comes_in(r, MTU + ETHERNET_AND_TAG, VIRTIO_NET_HDR_GSO_NONE));
	assert_false(comes_in(r, MTU + ETHERNET_AND_TAG + 1, VIRTIO_NET_HDR_GSO_NONE));
	assert_false(comes_in(r, 60000, VIRTIO_NET_HDR_GSO_ECN));
	assert_int_equal(r->net->netif.counters.dropped, 2);
	assert_true(comes_in(r, 60000, VIRTIO_NET_HDR_GSO_TCPV4));
	assert_true(comes_in(r, 60000, VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN));

	r->without = 1ULL << VIRTIO_NET_F_MTU;
	nr_start(r);
	nr_give_buffers(r, 0, 200, 1536);
	nr_settle(r);
	assert_true(comes_in(r, 60000, VIRTIO_NET_HDR_GSO_NONE));
}

/* 5.1.6.4.1: what the driver did not ask for, it is not told. */
static void flags_without_guest_csum(void **state)
{
	struct nr *r = *state;
	uint8_t packet[100] = {VIRTIO_NET_HDR_F_DATA_VALID};
	for (unsigned kind = 0; kind < 2; kind++) {
		r->without = kind ? 1ULL << VIRTIO_NET_F_GUEST_CSUM : 0;
		nr_start(r);
		assert_int_equal(!!r->net->offloads, !kind);
		nr_give_buffers(r, 0, 100, 1536);
		nr_settle(r);
		assert_true(nr_inject_bytes(r, 0, packet, sizeof(packet)));
		const struct nr_packet *got = nr_take_packet(r, 0);
		assert_non_null(got);
		assert_int_equal(got->bytes[0], kind ? 0 : VIRTIO_NET_HDR_F_DATA_VALID);
	}
}

/* --- resets with packets under way ------------------------------------------------------------------------------- */

static void check_poison(const struct nr *r)
{
	for (unsigned i = 0; i < NR_RAM_BYTES; i += 8) {
		uint64_t word;
		memcpy(&word, r->ram + i, sizeof(word));
		if (word != 0xdbdbdbdbdbdbdbdb)
			fail_msg("byte %#x was written after the reset", i);
	}
}

static void reset_and_poison(struct nr *r)
{
	nr_write_status(r, 0);
	assert_int_equal(nr_status(r), 0);
	assert_int_equal(r->net->netif.in_flight, 0);
	memset(r->ram, POISON, NR_RAM_BYTES);
}

static void put_under_way(struct nr *r)
{
	nr_start(r);
	r->net->holds = true;
	for (unsigned i = 0; i < 40; i++)
		nr_send(r, 0, i, 100);
	nr_give_buffers(r, 0, 300, 1536);
	nr_settle(r);
	assert_true(nr_inject(r, 0, 1, 60)); /* a receive is short of one, the stock has some */
	nr_settle(r);
	assert_int_equal(r->net->held_count, 40);
	assert_int_equal(r->net->posted_count[0], 6);
}

static void it_works(struct nr *r)
{
	r->net->holds = false;
	nr_start(r);
	send_cut(r, 1, 100, 100, 1);
	nr_give_buffers(r, 0, 100, 1536);
	nr_settle(r);
	assert_true(nr_inject(r, 0, 2, 3000));
	nr_expect_packet(r, 0, 2, 3000);
}

static void a_reset_waits_for_what_is_under_way(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		r->packed = kind & 1;
		r->net->cancel = kind & 2 ? NR_CANCEL_SLOW : NR_CANCEL_AT_ONCE;
		put_under_way(r);
		r->net->cancels = 0;
		nr_on_vcpu(r, reset_and_poison);
		assert_int_equal(r->net->cancels, 46);
		nr_settle(r);
		check_poison(r);
		it_works(r);
	}
}

static void a_free_waits_too(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		r->net->cancel = kind ? NR_CANCEL_SLOW : NR_CANCEL_AT_ONCE;
		put_under_way(r);
		nr_free_device(r);
		assert_int_equal(r->net->netif.in_flight, 0);
		memset(r->ram, POISON, NR_RAM_BYTES);
		nr_settle(r);
		check_poison(r);
		netif_set_link(&r->net->netif, false); /* nobody is told */
		netif_set_link(&r->net->netif, true);
		nr_new_device(r);
		it_works(r);
	}
}

static void reset_rings(struct nr *r)
{
	virtio_lock(r->dev);
	virtio_reset_queue(r->dev, virtio_get_queue(r->dev, 0));
	virtio_unlock(r->dev);
	memset(r->ram + NR_RX, POISON, NR_RX_BYTES);
}

/* The receive queue alone: what goes out is not touched. */
static void a_ring_is_reset_alone(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		r->packed = kind;
		put_under_way(r);
		nr_on_vcpu(r, reset_rings);
		nr_settle(r);
		assert_int_equal(r->net->held_count, 40);
		assert_int_equal(r->net->posted_count[0], 0);
		for (unsigned i = 0; i < NR_RX_BYTES; i++)
			assert_int_equal(r->ram[NR_RX + i], POISON);
		nr_set_up_queue(r, 0);
		nr_settle(r);
		nr_give_buffers(r, 0, 100, 1536);
		nr_settle(r);
		assert_true(nr_inject(r, 0, 2, 3000));
		nr_expect_packet(r, 0, 2, 3000);
		while (r->net->held_count)
			nr_complete(r, 0);
		for (unsigned i = 0; i < 40; i++)
			nr_wait_sent(r, 0);
	}
}

/* A broken device has its packets under way, too. */
static void a_broken_device_is_reset(void **state)
{
	struct nr *r = *state;
	put_under_way(r);
	r->drivers[1].desc[r->drivers[1].free[r->drivers[1].free_count - 1]].flags = 0;
	const struct virtq_buffer outside = {NR_RAM_BYTES, 100, false};
	assert_true(nr_add(r, 1, &outside, 1) >= 0);
	virtio_ring(r->dev, 1);
	nr_settle(r);
	assert_true(nr_status(r) & VIRTIO_CONFIG_S_NEEDS_RESET);
	nr_complete(r, 0);
	assert_true(nr_inject(r, 0, 1, 60));
	nr_settle(r);
	nr_on_vcpu(r, reset_and_poison);
	nr_settle(r);
	check_poison(r);
	it_works(r);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, nr_setup, nr_teardown)
	const struct CMUnitTest tests[] = {
		TEST(features_follow_the_back_end),
		TEST(what_it_says_of_itself),
		TEST(what_is_sent_arrives),
		TEST(what_is_no_packet_is_dropped),
		TEST(headers_that_ask_too_much),
		TEST(many_on_their_way),
		TEST(copies_are_bounded),
		TEST(packets_are_merged),
		TEST(every_buffer_is_used),
		TEST(receives_are_large_enough),
		TEST(starved_receives_ask_for_a_doorbell),
		TEST(a_poor_driver),
		TEST(odd_buffers),
		TEST(useless_buffers_come_back),
		TEST(without_merging),
		TEST(what_is_larger_than_the_mtu),
		TEST(flags_without_guest_csum),
		TEST(a_reset_waits_for_what_is_under_way),
		TEST(a_free_waits_too),
		TEST(a_ring_is_reset_alone),
		TEST(a_broken_device_is_reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
