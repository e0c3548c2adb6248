/* Back ends whose peers come and go: a pseudo-terminal, a listening Unix socket. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "test_chr_device.h"

static char dir[] = "/tmp/vmlet-test-chr-XXXXXX", path[64];

static int setup(void **state)
{
	(void)state;
	device_reset();
	loop = loop_new(NULL);
	memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
	if (!loop || !mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/socket", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return rmdir(dir); /* chr_free has removed the socket */
}

/* Write until the peer sees it: what is written to nobody is discarded. */
static void say(struct chr *chr, int peer, const char *text)
{
	char back[64] = "";
	size_t got = 0;
	chr_write(chr, (const uint8_t *)text, strlen(text));
	while (got < strlen(text)) {
		pump();
		got += (size_t)read_some(peer, back + got, sizeof(back) - 1 - got);
	}
	assert_string_equal(back, text);
}

static void type(int peer, const char *text)
{
	size_t before = device.count;
	assert_int_equal(write(peer, text, strlen(text)), strlen(text));
	pump_until_received(before + strlen(text));
	assert_memory_equal(device.data + before, text, strlen(text));
}

/* --- a Unix socket ---------------------------------------------------------------------------------------------- */

static struct chr *make_unix_chr(void)
{
	struct chr *chr = chr_unix_new(loop, &test_log, path, NULL);
	assert_non_null(chr);
	assert_string_equal(chr_path(chr), path);
	device.chr = chr;
	device_connect();
	return chr;
}

static int connect_peer(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* By its first byte of input: from then on output reaches it. */
static int connect_and_greet(void)
{
	int peer = connect_peer();
	type(peer, "+");
	return peer;
}

static void without_a_peer_output_is_discarded(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 1);
	settle();
	assert_int_equal(chr_pending(chr), 0);
	chr_free(chr);
	assert_int_equal(access(path, F_OK), -1);
}

static void peers_come_and_go(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	for (unsigned i = 0; i < 20; i++) {
		int peer = connect_and_greet();
		say(chr, peer, "hello");
		type(peer, "input");
		assert_int_equal(close(peer), 0);
	}
	assert_int_equal(log_lines, 0);
	chr_free(chr);
}

static void the_device_is_told_who_is_there(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	assert_false(chr_has_peer(chr));
	int peer = connect_and_greet();
	assert_true(chr_has_peer(chr));
	assert_int_equal(device.came, 1);
	assert_int_equal(close(peer), 0);
	while (!device.left)
		pump();
	assert_false(chr_has_peer(chr));
	close(connect_and_greet());
	while (device.left < 2)
		pump();
	assert_int_equal(device.came, 2);
	chr_free(chr);
}

/* A peer is there until its last byte was taken, so that a device does not end a stream early. */
static void a_peer_that_left_is_there_until_its_input_was_received(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	int peer = connect_and_greet();
	device.room = 0;
	assert_int_equal(write(peer, "last words", 10), 10);
	assert_int_equal(close(peer), 0);
	settle();
	assert_true(chr_has_peer(chr));
	assert_int_equal(device.left, 0);
	device_take_more(SIZE_MAX);
	pump_until_received(11);
	while (!device.left)
		pump();
	assert_memory_equal(device.data, "+last words", 11);
	assert_int_equal(device.left, 1);
	chr_free(chr);
}

static void given_descriptors_and_files_are_peers(void **state)
{
	(void)state;
	int in[2], out[2];
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	struct chr *chr = chr_fd_new(loop, &test_log, in[0], out[1], (struct chr_filter){0}, NULL);
	assert_non_null(chr);
	device.chr = chr;
	device_connect();
	assert_true(chr_has_peer(chr));
	close(in[1]); /* the end of its input is not the end of its output */
	while (!chr_input_has_ended(chr))
		pump();
	assert_true(chr_has_peer(chr));
	close(out[0]);
	(void)signal(SIGPIPE, SIG_IGN);
	assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 1);
	while (!device.left)
		pump();
	assert_false(chr_has_peer(chr));
	chr_free(chr);
	close(in[0]);
	close(out[1]);

	chr = chr_null_new(loop, &test_log, NULL);
	assert_non_null(chr);
	assert_true(chr_has_peer(chr)); /* which takes all */
	chr_free(chr);
	assert_int_equal(device.came, 0);
}

static void the_second_peer_waits_for_the_first(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	int first = connect_and_greet();
	int second = connect_peer();
	assert_int_equal(write(second, "2", 1), 1);
	settle();
	assert_int_equal(device.count, 1);
	say(chr, first, "only you");
	close(first);
	pump_until_received(2);
	assert_int_equal(device.data[1], '2');
	say(chr, second, "now you");
	close(second);
	chr_free(chr);
}

static void starve(struct chr *chr)
{
	static const uint8_t block[65536];
	unsigned before = device.writables;
	while (device.writables == before && chr_write(chr, block, sizeof(block)) == sizeof(block))
		;
	settle(); /* the first bytes go into the socket, and make room */
	while (chr_write(chr, block, sizeof(block)) == sizeof(block))
		;
	settle();
}

/* It holds the output up while it is there, and no longer. */
static void a_peer_that_never_reads(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	int peer = connect_and_greet();
	starve(chr);
	unsigned before = device.writables;
	assert_true(chr_pending(chr) > 0);
	close(peer);
	while (device.writables == before)
		pump();
	assert_int_equal(chr_pending(chr), 0);

	peer = connect_and_greet();
	say(chr, peer, "fresh"); /* nothing of the last one's output */
	close(peer);
	chr_free(chr);
}

/* A peer that pastes and leaves at once, while output to it fails: its input arrives. */
static void input_of_a_peer_that_has_left(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	int peer = connect_and_greet();
	assert_int_equal(shutdown(peer, SHUT_RD), 0);
	chr_write(chr, (const uint8_t *)"x", 1);
	while (chr_pending(chr) && log_lines == 0 && device.count == 1) {
		(void)loop_dispatch(loop); /* starts the write; its failure is seen in a later round */
		usleep(2000);
		if (write(peer, "poweroff", 8) == 8)
			break;
	}
	close(peer);
	pump_until_received(9);
	assert_memory_equal(device.data, "+poweroff", 9);

	peer = connect_and_greet();
	close(peer);
	chr_free(chr);
}

/* A guest that does not read its serial port: peers that leave are seen, and what they typed stays in order. */
static void a_device_that_takes_no_input(void **state)
{
	(void)state;
	struct chr *chr = make_unix_chr();
	device.room = 0;
	for (unsigned i = 0; i < 5; i++) {
		int peer = connect_peer();
		assert_int_equal(write(peer, "typed.", 6), 6);
		settle();
		say(chr, peer, "output");
		close(peer);
		settle();
	}
	device_take_more(100);
	pump_until_received(30);
	assert_memory_equal(device.data, "typed.typed.typed.typed.typed.", 30);
	chr_free(chr);
}

/* The debug console has no input at all. */
static void without_a_device_peers_come_and_go(void **state)
{
	(void)state;
	struct chr *chr = chr_unix_new(loop, &test_log, path, NULL);
	assert_non_null(chr);
	for (unsigned i = 0; i < 5; i++) {
		int peer = connect_peer();
		settle();
		say(chr, peer, "output");
		close(peer);
		settle();
	}
	chr_free(chr);
}

static void free_with_peers_in_every_state(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct chr *chr = make_unix_chr();
		int peer = i > 0 ? connect_peer() : -1, second = i > 1 ? connect_peer() : -1;
		if (i > 2)
			settle();
		if (i > 3)
			starve(chr);
		if (i > 4)
			fd_close(&peer);
		chr_free(chr);
		char byte;
		if (peer >= 0)
			assert_true(read(peer, &byte, 1) <= 0 || i > 3); /* it sees the end */
		fd_close(&peer);
		fd_close(&second);
	}
}

static void sockets_that_cannot_be(void **state)
{
	(void)state;
	struct err err;
	char longer[200];
	memset(longer, 'p', sizeof(longer));
	longer[108] = 0;
	assert_null(chr_unix_new(loop, &test_log, longer, &err));
	assert_int_equal(err.code, -ENAMETOOLONG);
	assert_non_null(strstr(err.text, "at most 107 characters"));

	struct chr *chr = make_unix_chr();
	assert_null(chr_unix_new(loop, &test_log, path, &err));
	assert_int_equal(err.code, -EADDRINUSE);
	assert_non_null(strstr(err.text, "a file is there already"));
	assert_int_equal(access(path, F_OK), 0); /* and stays there */
	int peer = connect_and_greet();
	close(peer);
	chr_free(chr);

	assert_null(chr_unix_new(loop, &test_log, "/nonexistent/socket", &err));
	assert_int_equal(err.code, -ENOENT);
	assert_int_equal(err.kind, ERR_CONFIG);
}

/* --- a pseudo-terminal ------------------------------------------------------------------------------------------- */

static void every_byte_both_ways(struct chr *chr, int peer)
{
	uint8_t bytes[256], back[256];
	for (unsigned i = 0; i < 256; i++)
		bytes[i] = (uint8_t)i;
	chr_write(chr, bytes, sizeof(bytes));
	for (size_t got = 0; got < sizeof(back);) {
		pump();
		got += (size_t)read_some(peer, back + got, sizeof(back) - got);
	}
	assert_memory_equal(back, bytes, sizeof(bytes));
	size_t before = device.count;
	assert_int_equal(write(peer, bytes, sizeof(bytes)), sizeof(bytes));
	pump_until_received(before + sizeof(bytes));
	assert_memory_equal(device.data + before, bytes, sizeof(bytes));
	settle();
	assert_int_equal(device.count, before + sizeof(bytes)); /* nothing is echoed */
}

static void a_terminal_is_opened_and_left_and_opened_again(void **state)
{
	(void)state;
	struct chr *chr = chr_pty_new(loop, &test_log, NULL);
	assert_non_null(chr);
	device.chr = chr;
	device_connect();
	assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 1);
	assert_int_equal(chr_pending(chr), 0); /* nobody there */

	for (unsigned i = 0; i < 2; i++) {
		int peer = open(chr_path(chr), O_RDWR | O_NOCTTY | O_CLOEXEC);
		assert_true(peer >= 0);
		type(peer, "first"); /* typed before the back end has noticed */
		say(chr, peer, "seen");
		if (i == 0)
			every_byte_both_ways(chr, peer);
		close(peer);
		settle();
		assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 1);
		settle();
		assert_int_equal(chr_pending(chr), 0);
	}
	assert_int_equal(log_lines, 0);
	chr_free(chr);
}

static void a_terminal_whose_peer_stalls(void **state)
{
	(void)state;
	struct chr *chr = chr_pty_new(loop, &test_log, NULL);
	device.chr = chr;
	device_connect();
	int peer = open(chr_path(chr), O_RDWR | O_NOCTTY | O_CLOEXEC);
	type(peer, "+");
	starve(chr);
	assert_true(chr_pending(chr) > 0);
	chr_free(chr);
	char byte[4096];
	while (read(peer, byte, sizeof(byte)) > 0) /* what it had, and then the end */
		;
	close(peer);
}

static void a_terminal_that_nobody_opens(void **state)
{
	(void)state;
	struct chr *chr = chr_pty_new(loop, &test_log, NULL);
	assert_non_null(chr);
	chr_free(chr);
	chr = chr_pty_new(loop, &test_log, NULL);
	device.chr = chr;
	device_connect();
	settle();
	chr_free(chr);
}

#define PEER_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PEER_TEST(without_a_peer_output_is_discarded),
		PEER_TEST(peers_come_and_go),
		PEER_TEST(the_device_is_told_who_is_there),
		PEER_TEST(a_peer_that_left_is_there_until_its_input_was_received),
		PEER_TEST(given_descriptors_and_files_are_peers),
		PEER_TEST(the_second_peer_waits_for_the_first),
		PEER_TEST(a_peer_that_never_reads),
		PEER_TEST(input_of_a_peer_that_has_left),
		PEER_TEST(a_device_that_takes_no_input),
		PEER_TEST(without_a_device_peers_come_and_go),
		PEER_TEST(free_with_peers_in_every_state),
		PEER_TEST(sockets_that_cannot_be),
		PEER_TEST(a_terminal_is_opened_and_left_and_opened_again),
		PEER_TEST(a_terminal_whose_peer_stalls),
		PEER_TEST(a_terminal_that_nobody_opens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
