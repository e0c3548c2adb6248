/*
 * virtio-vsock's streams: many bytes both ways at once, with readers that are slow on either side, and credit: counted,
 * used up, given back, and lied about.
 */
#include "vsock_rig.h"

enum { PORT = 1024, GUEST = 5000, TOTAL = 4 << 20 };

/* Byte `at` of a stream. */
static uint8_t byte_at(uint32_t stream, uint32_t at)
{
	uint32_t n = (at + stream * 0x9e3779b1U) * 0x85ebca6bU;
	return (uint8_t)(n >> 24 ^ n >> 11);
}

static void fill(uint8_t *data, uint32_t stream, uint32_t at, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++)
		data[i] = byte_at(stream, at + i);
}

static void check(const uint8_t *data, uint32_t stream, uint32_t at, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++) {
		if (data[i] != byte_at(stream, at + i))
			fail_msg("stream %u, byte %u: %#x instead of %#x", stream, at + i, data[i],
				 byte_at(stream, at + i));
	}
}

/* --- a connection, as the guest and the program of the host see it ------------------------------------------------ */

struct stream {
	struct vr *v;
	int fd;
	uint32_t host_port, guest_port, salt;
	uint32_t random;

	/* The guest's driver. */
	uint32_t sent, received, read; /* read: by its program; the rest is in its buffer */
	uint32_t told;                 /* of `read`, the device knows */
	uint32_t host_buf_alloc, host_fwd_cnt;
	unsigned credit_requests, credit_updates;

	/* The program of the host. */
	uint32_t host_sent, host_read;
};

static uint32_t random_below(struct stream *s, uint32_t bound)
{
	s->random = s->random * 1664525 + 1013904223;
	return (s->random >> 8) % bound;
}

static struct stream new_stream(struct vr *v, int listener, uint32_t guest_port)
{
	struct stream s = {.v = v,
			   .host_port = PORT,
			   .guest_port = guest_port,
			   .salt = guest_port,
			   .random = guest_port,
			   .host_buf_alloc = VIRTIO_VSOCK_BUFFER_BYTES};
	s.fd = vr_connect_out(v, listener, PORT, guest_port);
	return s;
}

static struct virtio_vsock_hdr guest_header(struct stream *s, uint16_t op)
{
	struct virtio_vsock_hdr header = vr_header(op, s->host_port, s->guest_port);
	header.fwd_cnt = s->told = s->read;
	return header;
}

static uint32_t guest_credit(const struct stream *s)
{
	return s->host_buf_alloc - (s->sent - s->host_fwd_cnt);
}

static void guest_sends(struct stream *s, uint32_t size)
{
	static uint8_t data[64 << 10];
	struct virtio_vsock_hdr header = guest_header(s, VIRTIO_VSOCK_OP_RW);
	header.len = size;
	fill(data, s->salt, s->sent, size);
	s->sent += size;
	vr_send_header(s->v, &header, data);
}

static void guest_tells_credit(struct stream *s)
{
	struct virtio_vsock_hdr header = guest_header(s, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	vr_send_header(s->v, &header, NULL);
}

static void guest_hears(struct stream *s, const struct vr_packet *packet)
{
	const struct virtio_vsock_hdr *header = &packet->header;
	assert_int_equal(header->src_port, s->host_port);
	assert_int_equal(header->type, VIRTIO_VSOCK_TYPE_STREAM);
	assert_true(header->fwd_cnt - s->host_fwd_cnt <= s->sent - s->host_fwd_cnt); /* never back, never ahead */
	s->host_buf_alloc = header->buf_alloc;
	s->host_fwd_cnt = header->fwd_cnt;
	if (header->op == VIRTIO_VSOCK_OP_RW) {
		check(packet->data, s->salt + 1, s->received, header->len);
		s->received += header->len;
		assert_true(s->received - s->told <= VR_BUF_ALLOC); /* it keeps to our credit */
	} else if (header->op == VIRTIO_VSOCK_OP_CREDIT_REQUEST) {
		s->credit_requests++;
		guest_tells_credit(s);
	} else {
		assert_int_equal(header->op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		s->credit_updates++;
	}
}

/* All packets that have come, to whom they are for. */
static void guests_hear(struct vr *v, struct stream *streams, unsigned count)
{
	while (v->packet_count) {
		struct vr_packet packet = vr_next(v);
		unsigned i = 0;
		while (i < count && streams[i].guest_port != packet.header.dst_port)
			i++;
		assert_true(i < count);
		guest_hears(&streams[i], &packet);
		free(packet.data);
	}
}

static void guest_reads(struct stream *s, uint32_t size)
{
	s->read += (uint32_t)min_u64(size, s->received - s->read);
	if (s->read - s->told > VR_BUF_ALLOC / 2 || (s->read == s->received && s->read != s->told))
		guest_tells_credit(s);
}

static void host_sends(struct stream *s, uint32_t size)
{
	static uint8_t data[64 << 10];
	fill(data, s->salt + 1, s->host_sent, size);
	ssize_t n = send(s->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	assert_true(n >= 0 || errno == EAGAIN);
	s->host_sent += n > 0 ? (uint32_t)n : 0;
}

static void host_reads(struct stream *s, uint32_t size)
{
	static uint8_t data[64 << 10];
	ssize_t n = recv(s->fd, data, size, MSG_DONTWAIT);
	assert_true(n > 0 || errno == EAGAIN);
	if (n > 0)
		check(data, s->salt, s->host_read, (uint32_t)n);
	s->host_read += n > 0 ? (uint32_t)n : 0;
}

/* How eager each side is: it moves at most so many bytes in a turn, and in one turn of `..._every` only. */
struct pace {
	uint32_t guest_write, guest_read, guest_read_every;
	uint32_t host_write, host_read, host_read_every;
};

static void one_turn(struct stream *s, const struct pace *pace, unsigned turn)
{
	uint32_t size = 1 + random_below(s, pace->guest_write);
	size = (uint32_t)min_u64(size, min_u64(guest_credit(s), TOTAL - s->sent));
	if (size)
		guest_sends(s, size);
	if (s->host_sent < TOTAL)
		host_sends(s, (uint32_t)min_u64(1 + random_below(s, pace->host_write), TOTAL - s->host_sent));
	if (turn % pace->guest_read_every == 0)
		guest_reads(s, 1 + random_below(s, pace->guest_read));
	if (turn % pace->host_read_every == 0)
		host_reads(s, 1 + random_below(s, pace->host_read));
}

static void move_all(struct vr *v, struct stream *streams, unsigned count, const struct pace *pace)
{
	unsigned done = 0;
	for (unsigned turn = 0; done < count; turn++) {
		done = 0;
		for (unsigned i = 0; i < count; i++) {
			struct stream *s = &streams[i];
			one_turn(s, pace, turn);
			done += s->host_read == TOTAL && s->read == TOTAL;
		}
		assert_int_equal(loop_wait(v->loop, 0), 0);
		vr_take_all(v);
		guests_hear(v, streams, count);
	}
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(streams[i].sent, TOTAL);
		assert_int_equal(streams[i].host_read, TOTAL);
		assert_int_equal(streams[i].received, TOTAL);
	}
}

static void move_at(struct vr *v, const struct pace *pace, unsigned count)
{
	struct stream streams[4];
	int listener = vr_listen(v, PORT);
	for (unsigned i = 0; i < count; i++)
		streams[i] = new_stream(v, listener, GUEST + 7 * i);
	move_all(v, streams, count, pace);
	for (unsigned i = 0; i < count; i++)
		close(streams[i].fd);
	vr_stop_listening(v, PORT, listener);
}

static const struct pace EAGER = {65536, 65536, 1, 65536, 65536, 1};

static void bytes_go_both_ways(void **state)
{
	struct vr *v = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		v->packed = kind & 1;
		v->event_idx = kind & 2;
		v->rx_bytes = kind & 1 ? 65536 + VR_HEADER : 4096 + VR_HEADER;
		vr_start(v);
		move_at(v, &EAGER, 1);
	}
}

static void a_slow_reader_in_the_host(void **state)
{
	static const struct pace pace = {65536, 65536, 1, 65536, 30000, 3};
	vr_start(*state);
	move_at(*state, &pace, 1);
}

static void a_slow_reader_in_the_guest(void **state)
{
	static const struct pace pace = {65536, 30000, 3, 65536, 65536, 1};
	vr_start(*state);
	move_at(*state, &pace, 1);
}

static void slow_readers_on_both_sides(void **state)
{
	static const struct pace pace = {65536, 40000, 5, 65536, 40000, 4};
	vr_start(*state);
	move_at(*state, &pace, 1);
}

static void odd_sizes(void **state)
{
	static const struct pace pace = {9000, 20000, 2, 5000, 30000, 3};
	struct vr *v = *state;
	v->rx_bytes = VR_HEADER + 1777;
	vr_start(v);
	move_at(v, &pace, 1);
}

static void many_at_once(void **state)
{
	vr_start(*state);
	move_at(*state, &EAGER, 4);
}

/* Buffers are few: what waits for them waits, and in turns. */
static void few_buffers(void **state)
{
	struct vr *v = *state;
	v->rx_bytes = 65536 + VR_HEADER;
	vr_start_with(v, 1);
	v->rx_free_count = 0; /* this one goes round */
	move_at(v, &EAGER, 2);
}

/* --- fairness --------------------------------------------------------------------------------------------------------
 */

/* Three that always have data take turns, packet by packet. */
static void turns_are_taken(void **state)
{
	struct vr *v = *state;
	struct stream streams[3];
	unsigned packets[3] = {0};
	v->rx_holds = true;
	vr_start_with(v, 3);
	int listener = vr_listen(v, PORT);
	for (unsigned i = 0; i < 3; i++)
		streams[i] = new_stream(v, listener, GUEST + i);
	for (unsigned i = 0; i < 3; i++)
		host_sends(&streams[i], 40000);
	vr_settle(v);
	vr_forget_packets(v);
	vr_give_some(v, 12);
	while (v->packet_count < 12)
		vr_turn(v);
	while (v->packet_count) {
		struct vr_packet packet = vr_next(v);
		packets[packet.header.dst_port - GUEST]++;
		free(packet.data);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_in_range(packets[i], 3, 5);
		close(streams[i].fd);
	}
	vr_stop_listening(v, PORT, listener);
}

/* --- credit ----------------------------------------------------------------------------------------------------------
 */

/* So much has come, so often was the guest asked for room, and nothing else comes. */
static void hear_until(struct stream *s, uint32_t received, unsigned credit_requests)
{
	while (s->received < received || s->credit_requests < credit_requests) {
		vr_turn(s->v);
		guests_hear(s->v, s, 1);
	}
	vr_settle(s->v);
	guests_hear(s->v, s, 1);
	assert_int_equal(s->received, received);
	assert_int_equal(s->credit_requests, credit_requests);
}

/* The host's program is held up, the guest is asked once, and it goes on when there is room. */
static void the_guests_room_is_kept_to(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	while (s.host_sent < VR_BUF_ALLOC + 1000) {
		host_sends(&s, 10000);
		vr_turn(v);
	}
	hear_until(&s, VR_BUF_ALLOC, 1);
	s.read = 500;
	guest_tells_credit(&s);
	hear_until(&s, VR_BUF_ALLOC + 500, 2);

	/* A buffer that shrinks below what is in it is no room, and no lie. */
	struct virtio_vsock_hdr header = guest_header(&s, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	header.buf_alloc = 10;
	vr_send_header(v, &header, NULL);
	vr_expect_nothing(v);
	close(s.fd);
	vr_stop_listening(v, PORT, listener);
}

/* With a reader that stops the guest can send what it was told that there is room for, and not one byte more. */
static void a_reader_that_stops(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	/* More than the buffer, because the socket takes some. */
	while (guest_credit(&s) || s.sent <= VIRTIO_VSOCK_BUFFER_BYTES) {
		uint32_t size = (uint32_t)min_u64(guest_credit(&s), 50000);
		if (size)
			guest_sends(&s, size);
		vr_settle(v);
		guests_hear(v, &s, 1);
	}
	while (s.host_read < s.sent) {
		host_reads(&s, 60000);
		vr_turn(v);
		guests_hear(v, &s, 1);
	}
	vr_settle(v);
	guests_hear(v, &s, 1);
	assert_true(guest_credit(&s) > VIRTIO_VSOCK_BUFFER_BYTES / 2);

	/* The same again, and one byte more. */
	while (s.sent - s.host_fwd_cnt < VIRTIO_VSOCK_BUFFER_BYTES) {
		guest_sends(&s, (uint32_t)min_u64(guest_credit(&s), 50000));
		vr_settle(v);
		guests_hear(v, &s, 1);
	}
	guest_sends(&s, 1);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	close(s.fd);
	vr_stop_listening(v, PORT, listener);
}

/* One packet as large as all the room there is; Linux sends 64 KiB at most. */
static void a_packet_of_all_the_room(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	fill(v->ram + VR_TX_DATA + VR_HEADER, s.salt, 0, VIRTIO_VSOCK_BUFFER_BYTES);
	struct virtio_vsock_hdr header = guest_header(&s, VIRTIO_VSOCK_OP_RW);
	header.len = VIRTIO_VSOCK_BUFFER_BYTES;
	vr_send_header(v, &header, NULL);
	s.sent = VIRTIO_VSOCK_BUFFER_BYTES;
	while (s.host_read < s.sent) {
		host_reads(&s, 60000);
		vr_turn(v);
		guests_hear(v, &s, 1);
	}
	header = guest_header(&s, VIRTIO_VSOCK_OP_RW);
	header.len = VIRTIO_VSOCK_BUFFER_BYTES + 1;
	vr_send_header(v, &header, NULL);
	vr_forget_packets(v);
	vr_settle(v);
	vr_expect_end(v, s.fd);
	vr_stop_listening(v, PORT, listener);
}

static void credit_is_told_when_asked(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	guest_sends(&s, 100);
	vr_expect_nothing(v); /* not worth a packet */
	vr_send(v, VIRTIO_VSOCK_OP_CREDIT_REQUEST, PORT, GUEST);
	struct virtio_vsock_hdr header = vr_expect(v, VIRTIO_VSOCK_OP_CREDIT_UPDATE, PORT, GUEST);
	assert_int_equal(header.fwd_cnt, 100);
	assert_int_equal(header.buf_alloc, VIRTIO_VSOCK_BUFFER_BYTES);
	close(s.fd);
	vr_stop_listening(v, PORT, listener);
}

/* What was not sent cannot have been taken. */
static void lies_end_the_connection(void **state)
{
	static const uint32_t lies[] = {1, 1001, 0x7fffffff};
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream other = new_stream(v, listener, GUEST + 1);
	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		struct stream s = new_stream(v, listener, GUEST);
		host_sends(&s, 1000);
		vr_expect(v, VIRTIO_VSOCK_OP_RW, PORT, GUEST);
		s.read = 1000 + lies[i];
		guest_tells_credit(&s);
		vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
		vr_expect_end(v, s.fd);
	}
	guest_sends(&other, 1000);
	while (other.host_read < 1000) {
		vr_turn(v);
		host_reads(&other, 1000);
	}
	close(other.fd);
	vr_stop_listening(v, PORT, listener);
}

/* Linux may send what it counted first after what it counted later. */
static void old_news_are_no_lies(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	host_sends(&s, 60000);
	while (s.received < 60000) {
		vr_turn(v);
		guests_hear(v, &s, 1);
	}
	s.read = 60000;
	guest_tells_credit(&s);
	s.read = 20000;
	guest_tells_credit(&s);
	vr_expect_nothing(v);
	s.read = 60000;
	guest_tells_credit(&s);
	while (s.received < 60000 + VR_BUF_ALLOC) {
		host_sends(&s, 4096);
		vr_turn(v);
		guests_hear(v, &s, 1);
	}
	close(s.fd);
	vr_stop_listening(v, PORT, listener);
}

/* --- the end of much data
 * --------------------------------------------------------------------------------------------- */

/* What the guest has sent arrives, also when it has closed and forgotten its end meanwhile. */
static void nothing_is_lost_at_the_end(void **state)
{
	struct vr *v = *state;
	char byte;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	while (guest_credit(&s) || s.sent < 300000) {
		if (guest_credit(&s))
			guest_sends(&s, (uint32_t)min_u64(guest_credit(&s), 65536));
		vr_settle(v);
		guests_hear(v, &s, 1);
	}
	vr_send_shutdown(v, PORT, GUEST, 3);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_send(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	while (s.host_read < s.sent) {
		host_reads(&s, 10000);
		vr_turn(v);
	}
	assert_int_equal(vr_read(v, s.fd, &byte, 1), 0);
	close(s.fd);
	vr_stop_listening(v, PORT, listener);
}

/* The same with half an end: the end of file comes behind the last byte. */
static void half_an_end_behind_the_data(void **state)
{
	struct vr *v = *state;
	char byte;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	while (guest_credit(&s)) {
		guest_sends(&s, (uint32_t)min_u64(guest_credit(&s), 65536));
		vr_settle(v);
		guests_hear(v, &s, 1);
	}
	vr_send_shutdown(v, PORT, GUEST, VIRTIO_VSOCK_SHUTDOWN_SEND);
	vr_settle(v);
	while (s.host_read < s.sent) {
		host_reads(&s, 10000);
		vr_turn(v);
	}
	assert_int_equal(vr_read(v, s.fd, &byte, 1), 0);
	vr_forget_packets(v);
	host_sends(&s, 5000);
	vr_expect(v, VIRTIO_VSOCK_OP_RW, PORT, GUEST);
	close(s.fd);
	vr_stop_listening(v, PORT, listener);
}

/* The host's program has written and left: the guest reads all, then the end. */
static void a_program_that_writes_and_leaves(void **state)
{
	struct vr *v = *state;
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	while (s.host_sent < 100000)
		host_sends(&s, 100000 - s.host_sent > 50000 ? 50000 : 100000 - s.host_sent);
	close(s.fd);
	struct vr_packet packet = vr_next(v);
	for (; packet.header.op == VIRTIO_VSOCK_OP_RW; packet = vr_next(v)) {
		guest_hears(&s, &packet);
		free(packet.data);
	}
	free(packet.data);
	assert_int_equal(s.received, 100000);
	assert_int_equal(packet.header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(packet.header.flags, 3);
	vr_send_shutdown(v, PORT, GUEST, 3);
	vr_expect(v, VIRTIO_VSOCK_OP_RST, PORT, GUEST);
	vr_stop_listening(v, PORT, listener);
}

/* --- rate limits
 * ------------------------------------------------------------------------------------------------------- */

static void rates_are_kept(void **state)
{
	struct vr *v = *state;
	virtio_free(v->dev);
	v->init.limit = (struct rate_limit_config){.bytes_per_s = 1 << 20, .bytes_burst = 64 << 10};
	vr_new_device(v);
	vr_start(v);
	int listener = vr_listen(v, PORT);
	struct stream s = new_stream(v, listener, GUEST);
	uint64_t since_ns = loop_now_ns();
	while (s.sent < 256 << 10)
		guest_sends(&s, 32 << 10); /* the socket and the buffer take them */
	uint64_t took_ns = loop_now_ns() - since_ns;
	assert_true(took_ns >= 150 * VR_MS); /* 192 KiB beyond the burst, the last of them in debt */
	vr_forget_packets(v);
	since_ns = loop_now_ns();
	while (s.received < 256 << 10) {
		if (s.host_sent < 256 << 10)
			host_sends(&s, (uint32_t)min_u64(4096, (256 << 10) - s.host_sent));
		vr_turn(v);
		guests_hear(v, &s, 1);
		guest_reads(&s, UINT32_MAX);
	}
	took_ns = loop_now_ns() - since_ns;
	assert_true(took_ns >= 150 * VR_MS);
	close(s.fd);
	vr_stop_listening(v, PORT, listener);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bytes_go_both_ways, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(a_slow_reader_in_the_host, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(a_slow_reader_in_the_guest, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(slow_readers_on_both_sides, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(odd_sizes, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(many_at_once, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(few_buffers, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(turns_are_taken, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(the_guests_room_is_kept_to, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(a_reader_that_stops, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(a_packet_of_all_the_room, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(credit_is_told_when_asked, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(lies_end_the_connection, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(old_news_are_no_lies, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(nothing_is_lost_at_the_end, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(half_an_end_behind_the_data, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(a_program_that_writes_and_leaves, vr_setup, vr_teardown),
		cmocka_unit_test_setup_teardown(rates_are_kept, vr_setup, vr_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
