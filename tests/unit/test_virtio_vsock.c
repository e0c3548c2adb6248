/* virtio-vsock, connection by connection: how they begin, end, and what is refused. */
#include <sys/resource.h>

#include "skips.h"
#include "vsock_rig.h"

enum { PORT = 1024, GUEST = 5000 };

/* Every kind of ring. */
static void for_each_ring(struct vr *v, void (*fn)(struct vr *v))
{
	for (unsigned kind = 0; kind < 4; kind++) {
		v->packed = kind & 1;
		v->event_idx = kind & 2;
		vr_start(v);
		fn(v);
	}
}

/* --- what it is ----------------------------------------------------------------------------------------------------
 */

static void it_tells_its_cid(void **state)
{
	struct vr *v = *state;
	uint64_t cid = 0;
	virtio_lock(v->dev);
	virtio_read_config(v->dev, 0, &cid, sizeof(cid));
	virtio_unlock(v->dev);
	assert_int_equal(cid, VR_CID);
	assert_true(v->dev->features & 1); /* VIRTIO_VSOCK_F_STREAM */
	assert_false(v->dev->features & 1 << VIRTIO_VSOCK_F_SEQPACKET);
	assert_int_equal(v->dev->queue_count, 3);
}

/* --- connections of the guest --------------------------------------------------------------------------------------
 */

static void say_both_ways(struct vr *v, int fd, uint32_t host_port, uint32_t guest_port)
{
	vr_send_data(v, host_port, guest_port, "hello, host", 11);
	vr_expect_text(v, fd, "hello, host");
	assert_int_equal(write(fd, "hello, guest", 12), 12);
	struct vr_packet packet = vr_next(v);
	assert_int_equal(packet.header.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(packet.header.len, 12);
	assert_int_equal(packet.header.fwd_cnt, 11);
	assert_int_equal(packet.header.src_cid, VR_HOST);
	assert_int_equal(packet.header.dst_cid, VR_CID);
	assert_memory_equal(packet.data, "hello, guest", 12);
	free(packet.data);
}

static void speak_to_the_host(struct vr *v)
{
	int listener = vr_listen(v, PORT), fd = vr_connect_out(v, listener, PORT, GUEST);
	say_both_ways(v, fd, PORT, GUEST);
	vr_send_shutdown(v, PORT, GUEST, 3);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_expect_end(v, fd);
	vr_stop_listening(v, PORT, listener);
}

static void the_guest_connects(void **state)
{
	for_each_ring(*state, speak_to_the_host);
}

static void nobody_listens(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	vr_send(v, VIRTIO_VSOCK_OP_REQUEST, PORT, GUEST);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	int listener = vr_listen(v, PORT);
	char path[80];
	close(listener); /* the file is still there */
	vr_send(v, VIRTIO_VSOCK_OP_REQUEST, PORT, GUEST);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_port_path(v, PORT, path);
	unlink(path);
}

/* --- connections of the host ----------------------------------------------------------------------------------------
 */

static void speak_to_the_guest(struct vr *v)
{
	uint32_t port;
	int fd = vr_connect_in(v, GUEST, &port);
	assert_true(port >= 1U << 30);
	say_both_ways(v, fd, port, GUEST);
	close(fd);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_SHUTDOWN, port, GUEST).flags, 3);
	vr_send(v, VIRTIO_VSOCK_OP_RST, port, GUEST);
	vr_send_data(v, port, GUEST, "x", 1); /* it is known no more */
	vr_expect(v, VIRTIO_VSOCK_OP_RST, port, GUEST);
}

static void the_host_connects(void **state)
{
	for_each_ring(*state, speak_to_the_guest);
}

static void the_guest_refuses(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int fd = vr_call(v, "CONNECT 77\n");
	struct vr_packet packet = vr_next(v);
	assert_int_equal(packet.header.op, VIRTIO_VSOCK_OP_REQUEST);
	vr_send(v, VIRTIO_VSOCK_OP_RST, packet.header.src_port, 77);
	free(packet.data);
	vr_expect_end(v, fd);
	vr_expect_nothing(v);
}

/* What a program sends with its line, before it has an answer, is data. */
static void data_right_behind_the_line(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int fd = vr_call(v, "CONNECT 9\nfirst\nCONNECT 10\n");
	struct vr_packet packet = vr_next(v);
	uint32_t port = packet.header.src_port;
	free(packet.data);
	vr_send(v, VIRTIO_VSOCK_OP_RESPONSE, port, 9);
	packet = vr_next(v);
	assert_int_equal(packet.header.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(packet.header.len, 17);
	assert_memory_equal(packet.data, "first\nCONNECT 10\n", 17);
	free(packet.data);
	close(fd);
}

static void without_a_driver_the_host_is_refused(void **state)
{
	struct vr *v = *state;
	int fd = vr_call(v, "CONNECT 9\n");
	vr_expect_end(v, fd);
	vr_start(v);
	vr_write_status(v, 0);
	vr_expect_end(v, vr_call(v, "CONNECT 9\n"));
}

static void host_ports_are_unique(void **state)
{
	struct vr *v = *state;
	uint32_t ports[20];
	int fds[20];
	vr_start(v);
	for (unsigned i = 0; i < 20; i++) {
		fds[i] = vr_connect_in(v, GUEST, &ports[i]);
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(ports[i], ports[j]);
	}
	for (unsigned i = 0; i < 20; i++)
		close(fds[i]);
}

/* --- halves ---------------------------------------------------------------------------------------------------------
 */

static void the_guest_sends_no_more(void **state)
{
	struct vr *v = *state;
	char byte;
	vr_start(v);
	int listener = vr_listen(v, PORT), fd = vr_connect_out(v, listener, PORT, GUEST);
	vr_send_data(v, PORT, GUEST, "bye", 3);
	vr_send_shutdown(v, PORT, GUEST, VIRTIO_VSOCK_SHUTDOWN_SEND);
	vr_expect_text(v, fd, "bye");
	assert_int_equal(vr_read(v, fd, &byte, 1), 0);
	assert_int_equal(write(fd, "more", 4), 4); /* the other way is open */
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_RW, PORT, GUEST).len, 4);
	close(fd);
	/* Then both ways are over, and it is ended by us or by the guest's answer. */
	struct vr_packet packet = vr_next(v);
	assert_int_equal(packet.header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	free(packet.data);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_stop_listening(v, PORT, listener);
}

static void the_guest_reads_no_more(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT), fd = vr_connect_out(v, listener, PORT, GUEST);
	vr_send_shutdown(v, PORT, GUEST, VIRTIO_VSOCK_SHUTDOWN_RCV);
	vr_settle(v);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	vr_send_data(v, PORT, GUEST, "still", 5);
	vr_expect_text(v, fd, "still");
	vr_send_shutdown(v, PORT, GUEST, VIRTIO_VSOCK_SHUTDOWN_SEND);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_expect_end(v, fd);
	vr_stop_listening(v, PORT, listener);
}

static void the_host_sends_no_more(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT), fd = vr_connect_out(v, listener, PORT, GUEST);
	assert_int_equal(write(fd, "last", 4), 4);
	shutdown(fd, SHUT_WR);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_RW, PORT, GUEST).len, 4);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_SHUTDOWN, PORT, GUEST).flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	vr_send_data(v, PORT, GUEST, "answer", 6);
	vr_expect_text(v, fd, "answer");
	close(fd);
	vr_send_data(v, PORT, GUEST, "too late", 8);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_SHUTDOWN, PORT, GUEST).flags, 3);
	vr_send_shutdown(v, PORT, GUEST, 3);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_stop_listening(v, PORT, listener);
}

/* --- what cannot be --------------------------------------------------------------------------------------------------
 */

static void packets_for_nobody(void **state)
{
	static const uint16_t ops[] = {VIRTIO_VSOCK_OP_RESPONSE,
				       VIRTIO_VSOCK_OP_SHUTDOWN,
				       VIRTIO_VSOCK_OP_RW,
				       VIRTIO_VSOCK_OP_CREDIT_UPDATE,
				       VIRTIO_VSOCK_OP_CREDIT_REQUEST,
				       VIRTIO_VSOCK_OP_INVALID,
				       8,
				       0xffff};
	struct vr *v = *state;
	vr_start(v);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		vr_send(v, ops[i], PORT, GUEST);
		vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	}
	vr_send(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST); /* is not answered */
	vr_expect_nothing(v);
}

static void other_types_and_cids(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct virtio_vsock_hdr header = vr_header(VIRTIO_VSOCK_OP_REQUEST, PORT, GUEST);
	header.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	vr_send_header(v, &header, NULL);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST).type, VIRTIO_VSOCK_TYPE_SEQPACKET);
	header = vr_header(VIRTIO_VSOCK_OP_REQUEST, PORT, GUEST);
	header.dst_cid = (1ULL << 32) + VR_HOST;
	vr_send_header(v, &header, NULL);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST).src_cid, header.dst_cid);
	header = vr_header(VIRTIO_VSOCK_OP_REQUEST, PORT, GUEST);
	header.src_cid = VR_CID + 1;
	vr_send_header(v, &header, NULL);
	vr_expect_nothing(v);
	assert_false(vr_is_readable(listener));
	vr_stop_listening(v, PORT, listener);
}

/* A connection of another type between the same ports is not that connection. */
static void another_type_harms_no_connection(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT), fd = vr_connect_out(v, listener, PORT, GUEST);
	struct virtio_vsock_hdr header = vr_header(VIRTIO_VSOCK_OP_RW, PORT, GUEST);
	header.type = 77;
	vr_send_header(v, &header, NULL);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST).type, 77);
	say_both_ways(v, fd, PORT, GUEST);
	close(fd);
	vr_stop_listening(v, PORT, listener);
}

/* Each ends its connection and no other. */
static void wrong_packets_end_their_connection(void **state)
{
	static const uint16_t ops[] = {VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_INVALID, 8};
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT), other = vr_connect_out(v, listener, PORT, GUEST + 1);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		int fd = vr_connect_out(v, listener, PORT, GUEST);
		vr_send(v, ops[i], PORT, GUEST);
		vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
		vr_expect_end(v, fd);
	}
	int fd = vr_connect_out(v, listener, PORT, GUEST);
	vr_send_shutdown(v, PORT, GUEST, VIRTIO_VSOCK_SHUTDOWN_SEND);
	vr_send_data(v, PORT, GUEST, "x", 1);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_expect_end(v, fd);
	assert_true(v->log_lines > 0);
	say_both_ways(v, other, PORT, GUEST + 1);
	close(other);
	vr_stop_listening(v, PORT, listener);
}

static void wrong_answers(void **state)
{
	static const uint16_t ops[] = {VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN,
				       VIRTIO_VSOCK_OP_CREDIT_UPDATE};
	struct vr *v = *state;
	vr_start(v);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		int fd = vr_call(v, "CONNECT 5\n");
		struct vr_packet packet = vr_next(v);
		uint32_t port = packet.header.src_port;
		free(packet.data);
		vr_send(v, ops[i], port, 5);
		vr_expect(v, VIRTIO_VSOCK_OP_RST, port, 5);
		vr_expect_end(v, fd);
	}
}

static void expect_broken(struct vr *v, const struct virtio_vsock_hdr *header, const struct virtq_buffer *buffers,
			  unsigned count)
{
	vr_start(v);
	int listener = vr_listen(v, PORT), fd = vr_connect_out(v, listener, PORT, GUEST);
	memcpy(v->ram + VR_TX_DATA, header, VR_HEADER);
	assert_true(virtq_driver_add(&v->drivers[1], buffers, count) >= 0);
	vr_ring(v, 1);
	while (!(vr_status(v) & VIRTIO_CONFIG_S_NEEDS_RESET))
		vr_turn(v);
	vr_start(v); /* ends what there was */
	vr_expect_end(v, fd);
	vr_expect_nothing(v);
	vr_stop_listening(v, PORT, listener);
}

static void what_is_no_packet_breaks_the_device(void **state)
{
	struct vr *v = *state;
	struct virtio_vsock_hdr header = vr_header(VIRTIO_VSOCK_OP_RW, PORT, GUEST);
	expect_broken(v, &header, (struct virtq_buffer[]){{VR_TX_DATA, VR_HEADER - 1, false}}, 1);
	expect_broken(v, &header, (struct virtq_buffer[]){{VR_TX_DATA, VR_HEADER, true}}, 1);
	header.len = 1;
	expect_broken(v, &header, (struct virtq_buffer[]){{VR_TX_DATA, VR_HEADER, false}}, 1);
	header.len = UINT32_MAX;
	expect_broken(v, &header, (struct virtq_buffer[]){{VR_TX_DATA, VR_HEADER + 100, false}}, 1);
	header.op = VIRTIO_VSOCK_OP_RST;
	expect_broken(v, &header, (struct virtq_buffer[]){{VR_TX_DATA, VR_HEADER + 100, false}}, 1);
}

static void buffers_too_small_for_data_break_the_device(void **state)
{
	struct vr *v = *state;
	v->rx_bytes = VR_HEADER;
	vr_start(v);
	struct virtio_vsock_hdr header = vr_header(VIRTIO_VSOCK_OP_REQUEST, PORT, GUEST);
	vr_post(v, &header, 0);
	while (!(vr_status(v) & VIRTIO_CONFIG_S_NEEDS_RESET))
		vr_turn(v);
}

/* --- limits ----------------------------------------------------------------------------------------------------------
 */

/* Resets that nobody takes hold up the guest's own packets, and nothing is lost. */
static void resets_that_are_not_taken(void **state)
{
	enum { COUNT = 200 };
	struct vr *v = *state;
	vr_start_with(v, 0);
	unsigned sent = 0;
	struct virtio_vsock_hdr header = vr_header(VIRTIO_VSOCK_OP_RW, PORT, GUEST);
	for (unsigned i = 0; i < COUNT; i++)
		vr_post(v, &header, 0);
	v->rx_holds = true;
	for (; sent < 64; sent += vr_is_sent(v))
		vr_turn(v);
	vr_settle(v);
	assert_false(vr_is_sent(v));
	v->rx_holds = false;
	vr_give_some(v, 3);
	for (unsigned i = 0; i < COUNT; i++)
		vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	while (vr_is_sent(v))
		sent++;
	assert_int_equal(sent, COUNT);
	vr_expect_nothing(v);
}

/* A full rx never keeps the guest from sending on its connections. */
static void tx_goes_on_without_rx_buffers(void **state)
{
	struct vr *v = *state;
	uint8_t block[1024] = {7};
	char got[1024];
	v->rx_holds = true;
	vr_start_with(v, 1);
	int listener = vr_listen(v, PORT), fd = vr_connect_out(v, listener, PORT, GUEST);
	for (unsigned i = 0; i < 200; i++) { /* 200 KiB: no credit is needed yet */
		vr_send_data(v, PORT, GUEST, block, sizeof(block));
		for (size_t have = 0; have < sizeof(got);)
			have += (size_t)vr_read(v, fd, got, sizeof(got) - have);
	}
	vr_expect_nothing(v);
	vr_send(v, VIRTIO_VSOCK_OP_CREDIT_REQUEST, PORT, GUEST);
	vr_give_some(v, 1);
	assert_int_equal(vr_expect(v, VIRTIO_VSOCK_OP_CREDIT_UPDATE, PORT, GUEST).fwd_cnt, 200 << 10);
	close(fd);
	vr_stop_listening(v, PORT, listener);
}

/* Both ends of each are ours here. */
static unsigned connect_many(struct vr *v, int listener, int *ret_fds)
{
	unsigned count = 0;
	for (; count <= VIRTIO_VSOCK_CONNECTIONS_MAX; count++) {
		vr_send(v, VIRTIO_VSOCK_OP_REQUEST, PORT, count);
		struct vr_packet packet = vr_next(v);
		free(packet.data);
		if (packet.header.op != VIRTIO_VSOCK_OP_RESPONSE)
			break;
		assert_true(count < VIRTIO_VSOCK_CONNECTIONS_MAX);
		ret_fds[count] = accept(listener, NULL, NULL);
		assert_true(ret_fds[count] >= 0);
	}
	return count;
}

static void set_descriptors(struct vr *v, rlim_t soft)
{
	struct rlimit limit;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = soft;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	virtio_free(v->dev);
	vr_new_device(v);
}

static void there_is_a_limit_of_connections(void **state)
{
	static int fds[VIRTIO_VSOCK_CONNECTIONS_MAX];
	struct vr *v = *state;
	struct rlimit limit;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_max < 2 * VIRTIO_VSOCK_CONNECTIONS_MAX + 100)
		skip_one();
	set_descriptors(v, 2 * VIRTIO_VSOCK_CONNECTIONS_MAX + 100);
	vr_start(v);
	int listener = vr_listen(v, PORT);
	assert_int_equal(connect_many(v, listener, fds), VIRTIO_VSOCK_CONNECTIONS_MAX);
	vr_send(v, VIRTIO_VSOCK_OP_REQUEST, PORT, 5000);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, 5000);
	vr_expect_end(v, vr_call(v, "CONNECT 9\n"));
	vr_send(v, VIRTIO_VSOCK_OP_RST, PORT, 77);
	for (uint16_t op = VIRTIO_VSOCK_OP_RST; op != VIRTIO_VSOCK_OP_RESPONSE;) { /* until its poll has ended */
		vr_send(v, VIRTIO_VSOCK_OP_REQUEST, PORT, 5001);
		struct vr_packet packet = vr_next(v);
		op = packet.header.op;
		free(packet.data);
	}
	for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS_MAX; i++)
		close(fds[i]);
	vr_stop_listening(v, PORT, listener);
}

/* A guest cannot take all descriptors of the process. */
static void half_of_the_descriptors_are_left(void **state)
{
	struct vr *v = *state;
	set_descriptors(v, 200);
	vr_start(v);
	int listener = vr_listen(v, PORT);
	unsigned count = 0; /* nobody accepts: the others' ends have no descriptor */
	for (;; count++) {
		vr_send(v, VIRTIO_VSOCK_OP_REQUEST, PORT, count);
		struct vr_packet packet = vr_next(v);
		free(packet.data);
		if (packet.header.op != VIRTIO_VSOCK_OP_RESPONSE)
			break;
	}
	assert_int_equal(count, 100);
	vr_stop_listening(v, PORT, listener);
}

/* --- resets ----------------------------------------------------------------------------------------------------------
 */

static void a_reset_ends_all(void **state)
{
	struct vr *v = *state;
	uint32_t port;
	vr_start(v);
	int listener = vr_listen(v, PORT), out = vr_connect_out(v, listener, PORT, GUEST);
	int in = vr_connect_in(v, GUEST, &port), asking = vr_call(v, "CONNECT 9\n");
	vr_settle(v);
	static const uint8_t block[64 << 10];
	for (unsigned i = 0; i < 4; i++) /* more than the socket takes: some is in the buffer */
		vr_send_data(v, PORT, GUEST, block, sizeof(block));
	assert_int_equal(write(in, block, 1000), 1000);
	vr_forget_packets(v);
	vr_write_status(v, 0);
	static char got[512 << 10];
	while (vr_read(v, out, got, sizeof(got)) > 0)
		;
	close(out);
	vr_expect_end(v, in);
	vr_expect_end(v, asking);
	vr_start(v);
	speak_to_the_guest(v);
	vr_stop_listening(v, PORT, listener);
}

static void it_can_be_freed_at_any_time(void **state)
{
	struct vr *v = *state;
	uint32_t port;
	vr_start(v);
	int in = vr_connect_in(v, GUEST, &port);
	virtio_free(v->dev);
	vr_expect_end(v, vr_call(v, "CONNECT 1\n")); /* no device */
	vr_new_device(v);
	char byte;
	assert_int_equal(read(in, &byte, 1), 0);
	close(in);
	vr_start(v);
	speak_to_the_guest(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_tells_its_cid, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(the_guest_connects, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(nobody_listens, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(the_host_connects, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(the_guest_refuses, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(data_right_behind_the_line, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(without_a_driver_the_host_is_refused, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(host_ports_are_unique, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(the_guest_sends_no_more, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(the_guest_reads_no_more, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(the_host_sends_no_more, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(packets_for_nobody, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(other_types_and_cids, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(another_type_harms_no_connection, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(wrong_packets_end_their_connection, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(wrong_answers, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(what_is_no_packet_breaks_the_device, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(buffers_too_small_for_data_break_the_device, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(resets_that_are_not_taken, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(tx_goes_on_without_rx_buffers, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(there_is_a_limit_of_connections, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(half_of_the_descriptors_are_left, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(a_reset_ends_all, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(it_can_be_freed_at_any_time, vr_setup, vr_teardown),
	};
	return status_of(cmocka_run_group_tests(tests, NULL, NULL));
}
