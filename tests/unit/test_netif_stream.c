/* QEMU's stream framing against a peer that is a socket in this test. */
#include "netif_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include "child.h"
#include "skips.h"

static char dir[] = "/tmp/vmlet-test-netif-XXXXXX", path[64];
static int peer = -1;

static int setup(void **state)
{
	memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
	if (rig_setup(state) < 0 || !mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/socket", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)rig_teardown(state);
	if (peer >= 0)
		close(peer);
	peer = -1;
	return rmdir(dir); /* netif_free has removed the socket */
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static struct netif *open_config(const char *with_path, bool listens, int fd, struct err *err)
{
	return netif_stream_open(rig.loop, &rig_log, &(struct netif_stream_config){with_path, listens, fd}, err);
}

static void open_pair(void)
{
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	rig.netif = open_config(NULL, false, pair[0], NULL);
	assert_non_null(rig.netif);
	assert_int_equal(close(pair[0]), 0);
	peer = pair[1];
	rig_connect_client();
	assert_true(rig.link_up);
}

static int connect_peer(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int listen_here(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

static int accept_here(int listen_fd)
{
	int fd = -1;
	rig_wait_until((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0);
	return fd;
}

static void open_listening(void)
{
	rig.netif = open_config(path, true, -1, NULL);
	assert_non_null(rig.netif);
	rig_connect_client();
	assert_false(rig.link_up);
}

/* --- the peer ----------------------------------------------------------------------------------------------------- */

static void peer_send(const void *bytes, size_t size)
{
	size_t sent = 0;
	while (sent < size) {
		ssize_t n = send(peer, (const uint8_t *)bytes + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		assert_true(n > 0 || errno == EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		if (sent < size)
			rig_pump();
	}
}

static size_t make_frame(uint8_t *ret_bytes, unsigned i, uint32_t size)
{
	uint32_t prefix = htonl(size);
	memcpy(ret_bytes, &prefix, sizeof(prefix));
	rig_fill(i, ret_bytes + sizeof(prefix), size);
	return sizeof(prefix) + size;
}

static void peer_send_frame(unsigned i, uint32_t size)
{
	static uint8_t bytes[4 + NETIF_FRAME_MAX_BYTES];
	peer_send(bytes, make_frame(bytes, i, size));
}

static void peer_read(void *ret_bytes, size_t size)
{
	size_t got = 0;
	while (got < size) {
		ssize_t n = recv(peer, (uint8_t *)ret_bytes + got, size - got, MSG_DONTWAIT);
		assert_true(n > 0 || (n < 0 && errno == EAGAIN));
		got += n > 0 ? (size_t)n : 0;
		if (n < 0)
			rig_pump();
	}
}

static void peer_expect_frame(unsigned i, uint32_t size)
{
	static uint8_t bytes[NETIF_FRAME_MAX_BYTES];
	uint32_t prefix;
	peer_read(&prefix, sizeof(prefix));
	assert_int_equal(ntohl(prefix), size);
	peer_read(bytes, size);
	for (uint32_t at = 0; at < size; at++)
		assert_int_equal(bytes[at], rig_byte(i, at));
}

static uint32_t some_size(unsigned i)
{
	static const uint32_t SIZES[] = {14, 60, 1514, 65520, 15, NETIF_STREAM_FRAME_MAX_BYTES, 9014, 64};
	return SIZES[i % ARRAY_SIZE(SIZES)];
}

/* --- frames ------------------------------------------------------------------------------------------------------- */

static void it_has_one_queue_and_no_offloads(void **state)
{
	(void)state;
	open_pair();
	assert_int_equal(rig.netif->info.queues, 1);
	assert_int_equal(rig.netif->info.offloads, 0);
	assert_int_equal(rig.netif->info.mtu, 0);
}

static void frames_go_out_whole_and_in_order(void **state)
{
	(void)state;
	open_pair();
	for (unsigned i = 0; i < RIG_PACKETS; i++)
		rig_send(i, some_size(i));
	for (unsigned i = 0; i < RIG_PACKETS; i++)
		peer_expect_frame(i, some_size(i));
	rig_wait_until(rig.ends == RIG_PACKETS);
	for (unsigned i = 0; i < RIG_PACKETS; i++) {
		assert_int_equal(rig.packets[i].turn, i);
		assert_int_equal(rig.packets[i].res, 0);
	}
	assert_int_equal(rig.netif->counters.sent, RIG_PACKETS);
	assert_int_equal(rig.netif->counters.dropped, 0);
}

/* It may be a passt, which leaves. */
static void a_frame_too_large_for_the_peer_is_dropped(void **state)
{
	(void)state;
	open_pair();
	rig_send(0, NETIF_STREAM_FRAME_MAX_BYTES + 1);
	rig_send(1, NETIF_STREAM_FRAME_MAX_BYTES);
	peer_expect_frame(1, NETIF_STREAM_FRAME_MAX_BYTES);
	rig_wait_until(rig.ends == 2);
	assert_int_equal(rig.netif->counters.sent, 1);
	assert_int_equal(rig.netif->counters.dropped, 1);
}

static void small_frames_leave_together(void **state)
{
	(void)state;
	enum { FRAMES = 100, EACH = 4 + 60 };
	uint8_t bytes[FRAMES * EACH];
	open_pair();
	for (unsigned i = 0; i < FRAMES; i++)
		rig_send(i, 60);
	rig_wait_until(rig.ends == FRAMES);
	/* A read of a stream socket ends where a message's memory does: one message, one piece. */
	assert_int_equal(recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT), sizeof(bytes));
}

/* How many bytes of the last frame are missing behind the `size` that came. Only a large one may be cut, and far in. */
static size_t missing(const uint8_t *bytes, size_t size)
{
	enum { LARGE = 32 << 10 };
	size_t at = 0, begin = 0;
	while (at < size) {
		uint32_t prefix;
		begin = at;
		assert_true(size - at > sizeof(prefix));
		memcpy(&prefix, bytes + at, sizeof(prefix));
		at += sizeof(prefix) + ntohl(prefix);
	}
	assert_true(at == size || size - begin >= LARGE);
	return at - size;
}

/* A passt before 2024-09 reads what is there, and what a frame lacks in one more read. It loses a prefix that is cut.
 */
static void two_reads_have_whole_frames(void **state)
{
	(void)state;
	enum { FRAMES = 400, BUFFER = 8 << 20 };
	static uint8_t bytes[BUFFER];
	open_pair();
	for (unsigned i = 0; i < FRAMES; i++)
		rig_send(i, i < FRAMES / 2 ? 9014 : some_size(i));
	while (rig.ends < FRAMES) {
		rig_settle();
		ssize_t size = recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT);
		assert_true(size > 0);
		size_t rest = missing(bytes, (size_t)size);
		if (!rest)
			continue;
		rig_settle();
		assert_int_equal(recv(peer, bytes, rest, MSG_DONTWAIT), rest);
	}
}

static void frames_come_in_in_order(void **state)
{
	(void)state;
	open_pair();
	for (unsigned i = 0; i < 100; i++)
		rig_receive(i, NETIF_FRAME_MAX_BYTES);
	for (unsigned i = 0; i < 100; i++)
		peer_send_frame(i, some_size(i));
	rig_wait_until(rig.ends == 100);
	for (unsigned i = 0; i < 100; i++) {
		rig_assert_frame(&rig.packets[i], i, some_size(i));
		assert_int_equal(rig.packets[i].turn, i);
	}
	assert_int_equal(rig.netif->counters.received, 100);
}

/* Of what the peer sent. */
static int unread_bytes(void)
{
	int bytes = -1;
	assert_int_equal(ioctl(peer, TIOCOUTQ, &bytes), 0);
	return bytes;
}

static void frames_may_be_split_at_every_byte(void **state)
{
	(void)state;
	uint8_t bytes[512];
	size_t size = make_frame(bytes, 0, 60);
	size += make_frame(bytes + size, 1, 14);
	size += make_frame(bytes + size, 2, 100);
	open_pair();
	for (size_t cut = 1; cut < size; cut++) {
		for (unsigned i = 0; i < 3; i++)
			rig_receive(i, 1514);
		rig.ends = 0;
		peer_send(bytes, cut);
		rig_wait_until(unread_bytes() == 0);
		peer_send(bytes + cut, size - cut);
		rig_wait_until(rig.ends == 3);
		rig_assert_frame(&rig.packets[0], 0, 60);
		rig_assert_frame(&rig.packets[1], 1, 14);
		rig_assert_frame(&rig.packets[2], 2, 100);
	}
	assert_int_equal(rig.warnings, 0);
}

/* The peer writes until it has to wait; then everything arrives. */
static void nothing_is_lost_when_nobody_receives(void **state)
{
	(void)state;
	static uint8_t frame[4 + 1000];
	unsigned sent = 0, got = 0, calm = 0;
	size_t size = make_frame(frame, 7, 1000), part = 0;
	open_pair();
	while (calm < 5) {
		ssize_t n = send(peer, frame + part, size - part, MSG_DONTWAIT | MSG_NOSIGNAL);
		assert_true(n > 0 || errno == EAGAIN);
		calm = n < 0 ? calm + 1 : 0;
		part += n > 0 ? (size_t)n : 0;
		sent += part == size;
		part = part == size ? 0 : part;
		if (n < 0)
			rig_pump();
	}
	assert_in_range(sent, 100, 4000); /* the buffer's worth and the socket's: not for ever */
	while (got < sent) {
		rig_receive(0, 1514);
		rig_wait_until(rig.packets[0].ends == 1);
		rig_assert_frame(&rig.packets[0], 7, 1000);
		got++;
	}
	assert_int_equal(rig.netif->counters.dropped, 0);
	assert_true(rig.link_up);
}

static void a_frame_that_does_not_fit_is_dropped(void **state)
{
	(void)state;
	open_pair();
	rig_receive(0, 1514);
	peer_send_frame(1, 1515);
	peer_send_frame(2, 1514);
	rig_wait_until(rig.ends == 1);
	rig_assert_frame(&rig.packets[0], 2, 1514);
	assert_int_equal(rig.netif->counters.dropped, 1);
	assert_int_equal(rig.netif->counters.received, 1);
}

/* --- cancelling --------------------------------------------------------------------------------------------------- */

static void a_receive_can_be_taken_back(void **state)
{
	(void)state;
	open_pair();
	rig_receive(0, 1514);
	rig_receive(1, 1514);
	netif_cancel(rig.netif, &rig.packets[0].packet);
	assert_int_equal(rig.packets[0].ends, 0); /* never from inside */
	peer_send_frame(5, 60);
	rig_wait_until(rig.ends == 2);
	assert_int_equal(rig.packets[0].res, -ECANCELED);
	rig_assert_frame(&rig.packets[1], 5, 60);
}

/* Until the peer's socket is full and the front packet has gone in part. */
static void stuff(unsigned count, uint32_t size)
{
	for (unsigned i = 0; i < count; i++)
		rig_send(i, size);
	for (unsigned before = UINT_MAX; before != rig.ends;) {
		before = rig.ends;
		rig_settle();
	}
	assert_in_range(rig.ends, 1, count - 2);
}

/* What has begun goes on from a copy: the peer sees whole frames, and no byte of the memory that was given back. */
static void a_reset_does_not_wait_for_a_peer_that_does_not_read(void **state)
{
	(void)state;
	enum { COUNT = 128, SIZE = 60001 };
	open_pair();
	stuff(COUNT, SIZE);
	for (unsigned i = 0; i < COUNT; i++)
		if (rig.packets[i].packet.netif)
			netif_cancel(rig.netif, &rig.packets[i].packet);
	rig_wait_until(rig.ends == COUNT);
	unsigned whole = 0;
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(rig.packets[i].ends, 1);
		whole += rig.packets[i].res == 0;
		assert_true(rig.packets[i].res == 0 || rig.packets[i].res == -ECANCELED);
		memset(rig.packets[i].data, 0xee, SIZE);
	}
	/* The next of them waits behind the copy, and is taken back as well. */
	rig_send(COUNT, SIZE);
	rig_pump();
	netif_cancel(rig.netif, &rig.packets[COUNT].packet);
	rig_wait_until(rig.packets[COUNT].ends == 1);
	assert_int_equal(rig.packets[COUNT].res, -ECANCELED);

	rig_send(COUNT + 1, 77);
	for (unsigned i = 0; i < whole; i++)
		peer_expect_frame(i, SIZE);
	peer_expect_frame(COUNT + 1, 77);
	assert_true(rig.link_up);
}

static void one_of_many_can_be_taken_back(void **state)
{
	(void)state;
	enum { COUNT = 128, SIZE = 60001 };
	open_pair();
	stuff(COUNT, SIZE);
	netif_cancel(rig.netif, &rig.packets[COUNT - 1].packet);
	rig_wait_until(rig.packets[COUNT - 1].ends == 1);
	assert_int_equal(rig.packets[COUNT - 1].res, -ECANCELED);
	for (unsigned i = 0; i < COUNT - 1; i++)
		peer_expect_frame(i, SIZE);
	rig_wait_until(rig.ends == COUNT);
	assert_int_equal(rig.netif->counters.sent, COUNT - 1);
}

/* --- peers that leave, and hostile ones ------------------------------------------------------------------------------
 */

static void what_was_under_way_is_dropped_with_the_link(void **state)
{
	(void)state;
	enum { COUNT = 128, SIZE = 60001 };
	open_pair();
	stuff(COUNT, SIZE);
	rig_receive(COUNT, 1514);
	close(peer);
	peer = -1;
	rig_wait_until(rig.ends == COUNT);
	assert_false(rig.link_up);
	assert_int_equal(rig.link_changes, 1);
	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(rig.packets[i].res, 0);
	assert_int_equal(rig.netif->counters.sent + rig.netif->counters.dropped, COUNT);
	assert_in_range(rig.netif->counters.dropped, 1, COUNT);
	/* And so is what comes later; a receive waits. */
	rig_send(0, 60);
	rig_wait_until(rig.ends == COUNT + 1);
	rig_settle();
	assert_int_equal(rig.packets[COUNT].ends, 0);
}

static void expect_disconnect(const void *bytes, size_t size)
{
	unsigned before = rig.warnings;
	char byte;
	peer = connect_peer();
	rig_wait_until(rig.link_up);
	rig_receive(0, 1514);
	peer_send(bytes, size);
	rig_wait_until(!rig.link_up);
	assert_int_equal(rig.warnings, before + 1);
	assert_non_null(strstr(rig.last_warning, path));
	assert_int_equal(recv(peer, &byte, 1, 0), 0);
	close(peer);
	peer = -1;
	netif_cancel(rig.netif, &rig.packets[0].packet);
	rig_wait_until(rig.packets[0].ends == 1);
	assert_int_equal(rig.packets[0].res, -ECANCELED);
}

static void impossible_lengths_end_the_connection(void **state)
{
	(void)state;
	static const uint32_t LENGTHS[] = {0, 1, 13, NETIF_FRAME_MAX_BYTES + 1, 0x80000000, UINT32_MAX};
	open_listening();
	for (unsigned i = 0; i < ARRAY_SIZE(LENGTHS); i++) {
		uint32_t prefix = htonl(LENGTHS[i]);
		expect_disconnect(&prefix, sizeof(prefix));
	}
	/* The next peer is as good as any. */
	peer = connect_peer();
	rig_receive(0, 1514);
	peer_send_frame(3, 200);
	rig_wait_until(rig.packets[0].ends == 1);
	rig_assert_frame(&rig.packets[0], 3, 200);
}

static void a_peer_that_errs_for_ever_does_not_fill_the_log(void **state)
{
	(void)state;
	uint32_t prefix = 0;
	open_listening();
	rig_receive(0, 1514);
	for (unsigned i = 0; i < 100; i++) {
		peer = connect_peer();
		peer_send(&prefix, sizeof(prefix));
		rig_wait_until(rig.link_changes == 2 * (i + 1));
		close(peer);
		peer = -1;
	}
	assert_in_range(rig.warnings, 1, LOG_LIMIT_BURST + RIG_PATIENCE_NS / 1000000000);
	assert_int_equal(rig.packets[0].ends, 0);
}

static void only_an_end_within_a_frame_is_worth_a_line(void **state)
{
	(void)state;
	uint8_t bytes[128];
	size_t size = make_frame(bytes, 0, 60);
	open_listening();
	for (size_t cut = 0; cut < size; cut += 9) {
		unsigned before = rig.warnings;
		peer = connect_peer();
		rig_wait_until(rig.link_up);
		rig_receive(0, 1514);
		peer_send(bytes, cut);
		close(peer);
		peer = -1;
		rig_wait_until(!rig.link_up);
		assert_int_equal(rig.warnings, before + (cut > 0));
		netif_cancel(rig.netif, &rig.packets[0].packet);
		rig_wait_until(rig.packets[0].ends == 1);
	}
}

/* --- making the connection
 * --------------------------------------------------------------------------------------------- */

static void it_connects_again(void **state)
{
	(void)state;
	struct err err = {0};
	assert_null(open_config(path, false, -1, &err));
	assert_int_equal(err.code, -ENOENT);
	assert_non_null(strstr(err.text, path));

	int listen_fd = listen_here();
	rig.netif = open_config(path, false, -1, &err);
	assert_non_null(rig.netif);
	rig_connect_client();
	assert_true(rig.link_up);
	for (unsigned i = 0; i < 4; i++) {
		peer = accept_here(listen_fd);
		rig_wait_until(rig.link_up);
		rig_send(i, 300);
		peer_expect_frame(i, 300);
		close(peer);
		peer = -1;
		rig_wait_until(!rig.link_up);
	}
	/* The listener goes, and comes again: one line for each time. */
	close(listen_fd);
	assert_int_equal(unlink(path), 0);
	rig_wait_until(rig.warnings == 1);
	rig_settle();
	assert_false(rig.link_up);
	listen_fd = listen_here();
	rig_wait_until(rig.link_up);
	assert_int_equal(rig.warnings, 1);
	peer = accept_here(listen_fd);
	rig_send(9, 14);
	peer_expect_frame(9, 14);
	close(listen_fd);
	assert_int_equal(unlink(path), 0);
}

static void a_second_peer_is_turned_away(void **state)
{
	(void)state;
	char byte;
	open_listening();
	peer = connect_peer();
	rig_wait_until(rig.link_up);
	for (unsigned i = 0; i < 20; i++) {
		int second = connect_peer();
		ssize_t n;
		rig_wait_until((n = recv(second, &byte, 1, MSG_DONTWAIT)) >= 0);
		assert_int_equal(n, 0);
		close(second);
	}
	rig_send(1, 60);
	peer_expect_frame(1, 60);
	assert_int_equal(rig.link_changes, 1);
	assert_int_equal(rig.said, 0); /* it may try without end */
}

static void peers_come_and_go(void **state)
{
	(void)state;
	open_listening();
	for (unsigned i = 0; i < 20; i++) {
		peer = connect_peer();
		rig_receive(0, 1514);
		peer_send_frame(i, 90);
		rig_wait_until(rig.packets[0].ends == 1);
		rig_assert_frame(&rig.packets[0], i, 90);
		rig_send(1, 91);
		peer_expect_frame(1, 91);
		close(peer);
		peer = -1;
		/* The next may come before the last one's end was seen: then it is turned away, and tries again. */
		rig_wait_until(!rig.link_up);
	}
	assert_int_equal(rig.said, 0);
}

/* Two back ends joined: what two VMs do. */
static void two_of_us_can_be_joined(void **state)
{
	(void)state;
	open_listening();
	struct netif *listening = rig.netif, *connecting = open_config(path, false, -1, NULL);
	assert_non_null(connecting);
	rig_wait_until(listening->info.link_up);
	for (unsigned i = 0; i < 50; i++)
		rig_receive(i, NETIF_FRAME_MAX_BYTES);
	rig.netif = connecting;
	for (unsigned i = 0; i < 50; i++)
		rig_send(100 + i, some_size(i));
	rig_wait_until(rig.ends == 100);
	for (unsigned i = 0; i < 50; i++)
		rig_assert_frame(&rig.packets[i], 100 + i, some_size(i));
	netif_free(connecting);
	rig.netif = listening;
	rig_wait_until(!rig.link_up);
}

/* --- QEMU, which made this framing
 * --------------------------------------------------------------------------------------- */

static void qemu_said(void *ctx, const char *line)
{
	(void)ctx;
	print_message("qemu: %s\n", line);
}

enum { HELLO = 200, HELLO_BYTES = 20 };

static void start_qemu(struct child *child, const char *other_path)
{
	static const char QEMU[] = "/usr/bin/qemu-system-x86_64";
	char a[160], b[160];
	if (access(QEMU, X_OK) < 0) {
		print_message("no QEMU\n");
		netif_free(rig.netif);
		rig.netif = NULL;
		skip_one();
	}
	(void)snprintf(a, sizeof(a), "stream,id=a,server=off,addr.type=unix,addr.path=%s", path);
	(void)snprintf(b, sizeof(b), "stream,id=b,server=off,addr.type=unix,addr.path=%s", other_path);
	const char *argv[] = {QEMU,       "-M",
			      "none",     "-nodefaults",
			      "-display", "none",
			      "-netdev",  a,
			      "-netdev",  b,
			      "-netdev",  "hubport,hubid=0,id=ha,netdev=a",
			      "-netdev",  "hubport,hubid=0,id=hb,netdev=b",
			      NULL};
	const struct child_client client = {qemu_said, NULL, NULL};
	assert_int_equal(child_start(child, rig.loop, &client, argv, NULL, 0, NULL), 0);
}

/* QEMU drops what comes before it knows that both ends are connected: so until one has passed. */
static void greet(struct netif *from, struct netif *to)
{
	uint64_t deadline_ns = loop_now_ns() + RIG_PATIENCE_NS;
	rig.netif = to;
	rig_receive(0, NETIF_FRAME_MAX_BYTES);
	rig.netif = from;
	while (!rig.packets[0].ends) {
		assert_true(loop_now_ns() < deadline_ns);
		rig_send(HELLO, HELLO_BYTES);
		rig_wait_until(rig.packets[HELLO].ends);
		rig_settle();
	}
}

static bool is_hello(const struct rig_packet *p)
{
	return p->res == NETIF_HEADER_BYTES + HELLO_BYTES && p->data[NETIF_HEADER_BYTES] == rig_byte(HELLO, 0);
}

static void exchange(struct netif *from, struct netif *to, uint32_t size)
{
	rig.netif = from;
	rig_send(1, size);
	rig.netif = to;
	do {
		rig_receive(0, NETIF_FRAME_MAX_BYTES);
		rig_wait_until(rig.packets[0].ends);
	} while (is_hello(&rig.packets[0]));
	rig_assert_frame(&rig.packets[0], 1, size);
	rig_wait_until(rig.packets[1].ends);
}

/* Two of ours, and between them a hub of QEMU's. */
static void qemu_speaks_the_same(void **state)
{
	(void)state;
	enum { COUNT = 16 };
	struct child child;
	char other_path[80];
	open_listening();
	(void)snprintf(other_path, sizeof(other_path), "%s/other", dir);
	start_qemu(&child, other_path);
	struct netif *near = rig.netif, *far = open_config(other_path, true, -1, NULL);
	assert_non_null(far);
	rig_wait_until((child_look(&child), near->info.link_up && far->info.link_up));
	greet(near, far);
	greet(far, near);
	/* One after the other: QEMU changes their order when it has to wait. */
	for (unsigned i = 0; i < COUNT; i++) {
		exchange(near, far, some_size(i));
		exchange(far, near, some_size(i));
	}
	rig.netif = far;
	child_close(&child);
	rig_wait_until(!near->info.link_up && !far->info.link_up);
	netif_free(far);
	rig.netif = near;
	assert_int_equal(rig.warnings, 0);
}

static void a_datagram_socket_is_refused(void **state)
{
	(void)state;
	struct err err = {0};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_null(open_config(NULL, false, fd, &err));
	assert_int_equal(err.code, -EPROTOTYPE);
	close(fd);
	assert_null(open_config(NULL, false, 999999, &err));
	assert_int_equal(err.code, -EBADF);
}

/* With everything under way that can be. */
static void it_can_be_freed_at_any_time(void **state)
{
	(void)state;
	open_pair();
	rig_close();
	close(peer);
	open_pair();
	stuff(128, 60001);
	rig_close();
	close(peer);
	peer = -1;
	open_listening();
	rig_pump();
	rig_close();
	assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(it_has_one_queue_and_no_offloads),
		CASE(frames_go_out_whole_and_in_order),
		CASE(a_frame_too_large_for_the_peer_is_dropped),
		CASE(small_frames_leave_together),
		CASE(two_reads_have_whole_frames),
		CASE(frames_come_in_in_order),
		CASE(frames_may_be_split_at_every_byte),
		CASE(nothing_is_lost_when_nobody_receives),
		CASE(a_frame_that_does_not_fit_is_dropped),
		CASE(a_receive_can_be_taken_back),
		CASE(a_reset_does_not_wait_for_a_peer_that_does_not_read),
		CASE(one_of_many_can_be_taken_back),
		CASE(what_was_under_way_is_dropped_with_the_link),
		CASE(impossible_lengths_end_the_connection),
		CASE(a_peer_that_errs_for_ever_does_not_fill_the_log),
		CASE(only_an_end_within_a_frame_is_worth_a_line),
		CASE(it_connects_again),
		CASE(a_second_peer_is_turned_away),
		CASE(peers_come_and_go),
		CASE(two_of_us_can_be_joined),
		CASE(qemu_speaks_the_same),
		CASE(a_datagram_socket_is_refused),
		CASE(it_can_be_freed_at_any_time),
	};
	return status_of(cmocka_run_group_tests(tests, NULL, NULL));
}
