/* The host's side of vsock: the line, the socket's file, and programs that behave badly. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h> /* cmocka wants these before it */

#include <cmocka.h>

#include "loop.h"
#include "unix_socket.h"
#include "util.h"
#include "vsock_host.h"

static const uint64_t MS = 1000000;

struct h {
	struct loop *loop;
	struct vsock_host *host;
	char dir[32], path[64];
	unsigned connects;
	int fd; /* the last that was connected; -1 */
	uint32_t port;
};

static void connected(void *ctx, int fd, uint32_t guest_port)
{
	struct h *h = ctx;
	if (h->fd >= 0)
		close(h->fd);
	h->connects++;
	h->fd = fd;
	h->port = guest_port;
}

static int setup(void **state)
{
	struct h *h = calloc(1, sizeof(*h));
	struct err err = {0};
	assert_non_null(h);
	alarm(30); /* a test that hangs has failed */
	h->fd = -1;
	h->loop = loop_new(NULL);
	assert_non_null(h->loop);
	(void)snprintf(h->dir, sizeof(h->dir), "/tmp/vmlet-vhost-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	(void)snprintf(h->path, sizeof(h->path), "%s/v.sock", h->dir);
	h->host = vsock_host_new(h->loop, NULL, h->path, &err);
	if (!h->host)
		fail_msg("%s", err.text);
	const struct vsock_host_client client = {connected, h};
	vsock_host_set_client(h->host, &client);
	*state = h;
	return 0;
}

static int teardown(void **state)
{
	struct h *h = *state;
	vsock_host_free(h->host);
	assert_int_equal(access(h->path, F_OK), -1);
	if (h->fd >= 0)
		close(h->fd);
	loop_free(h->loop);
	assert_int_equal(rmdir(h->dir), 0);
	free(h);
	return 0;
}

static void turn(struct h *h)
{
	assert_int_equal(loop_wait(h->loop, MS), 0);
}

static int call(struct h *h)
{
	int fd = unix_socket_connect(h->path);
	assert_true(fd >= 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void wait_for_connect(struct h *h)
{
	for (unsigned before = h->connects; h->connects == before;)
		turn(h);
}

static void expect_closed(struct h *h, int fd)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	char byte;
	while (poll(&pollfd, 1, 0) == 0)
		turn(h);
	assert_true(read(fd, &byte, 1) <= 0);
	close(fd);
}

/* --- the line --------------------------------------------------------------------------------------------------- */

static void a_port_is_asked_for(void **state)
{
	static const struct {
		const char *line;
		uint32_t port;
	} good[] = {
		{"CONNECT 0\n", 0},       {"CONNECT 52\n", 52},
		{"connect 1024\n", 1024}, {"CONNECT 4294967295\n", UINT32_MAX},
		{"CONNECT 7\r\n", 7},     {"CONNECT 00000000000000000000052\n", 52}, /* 32 bytes */
	};
	struct h *h = *state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		int fd = call(h);
		say(fd, good[i].line);
		wait_for_connect(h);
		assert_int_equal(h->port, good[i].port);
		assert_true(fcntl(h->fd, F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(h->fd, F_GETFD) & FD_CLOEXEC);
		close(fd);
	}
}

static void garbage_is_closed(void **state)
{
	static const char *const bad[] = {
		"\n",
		"CONNECT\n",
		"CONNECT \n",
		"CONNECT 4294967296\n",
		"CONNECT 99999999999999999999\n",
		"CONNECT -1\n",
		"CONNECT 1 \n",
		"CONNECT 1x\n",
		"CONNECT x\n",
		"CONNECT 1\r\r\n",
		"CONNECT\t1\n",
		" CONNECT 1\n",
		"OK 1\n",
		"GET / HTTP/1.1\r\n\r\n",
		"CONNECT 000000000000000000000052\n", /* 33 bytes */
		"0123456789abcdef0123456789abcdef",
		"0123456789abcdef0123456789abcdef0123456789abcdef",
	};
	struct h *h = *state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = call(h);
		say(fd, bad[i]);
		expect_closed(h, fd);
	}
	int fd = call(h);
	assert_int_equal(write(fd, "CONNECT 5\0\n", 11), 11);
	expect_closed(h, fd);
	assert_int_equal(h->connects, 0);
}

static void the_line_comes_in_pieces(void **state)
{
	static const char line[] = "CONNECT 80\n";
	struct h *h = *state;
	int fd = call(h);
	for (unsigned i = 0; i + 1 < sizeof(line); i++) {
		assert_int_equal(h->connects, 0);
		assert_int_equal(write(fd, &line[i], 1), 1);
		for (unsigned j = 0; j < 3; j++)
			turn(h);
	}
	while (h->connects == 0)
		turn(h);
	assert_int_equal(h->port, 80);
	close(fd);
}

static void nothing_behind_the_line_is_taken(void **state)
{
	struct h *h = *state;
	char got[64];
	int fd = call(h);
	say(fd, "CONNECT 80\nCONNECT 81\nand the rest of it, longer than a line may be");
	wait_for_connect(h);
	assert_int_equal(read(h->fd, got, 16), 16);
	assert_memory_equal(got, "CONNECT 81\nand t", 16);
	assert_int_equal(h->connects, 1);
	close(fd);
}

/* It has left before it had said all, or right after. */
static void programs_that_leave(void **state)
{
	struct h *h = *state;
	close(call(h));
	int fd = call(h);
	say(fd, "CONNE");
	close(fd);
	fd = call(h);
	say(fd, "CONNECT 3\n");
	close(fd);
	wait_for_connect(h);
	assert_int_equal(h->port, 3);
	assert_int_equal(h->connects, 1);
}

static void without_a_client_it_is_closed(void **state)
{
	struct h *h = *state;
	vsock_host_set_client(h->host, NULL);
	int fd = call(h);
	say(fd, "CONNECT 3\n");
	expect_closed(h, fd);
}

/* As many as may be silent are; who comes then waits until one has gone. */
static void silent_programs_are_few(void **state)
{
	enum { SILENT = 64 };
	struct h *h = *state;
	int silent[SILENT];
	for (unsigned i = 0; i < SILENT; i++)
		silent[i] = call(h);
	for (unsigned i = 0; i < SILENT + 20; i++)
		turn(h);
	int fd = call(h);
	say(fd, "CONNECT 3\n");
	for (unsigned i = 0; i < 20; i++)
		turn(h);
	assert_int_equal(h->connects, 0);
	close(silent[7]);
	wait_for_connect(h);
	assert_int_equal(h->port, 3);
	close(fd);
	for (unsigned i = 0; i < SILENT; i++) {
		if (i != 7)
			close(silent[i]);
	}
}

/* Five seconds, and the place is free again. */
static void silent_programs_are_sent_away(void **state)
{
	struct h *h = *state;
	int fd = call(h);
	say(fd, "CONN");
	uint64_t since_ns = loop_now_ns();
	expect_closed(h, fd);
	assert_true(loop_now_ns() - since_ns >= 4900 * MS);
	fd = call(h);
	say(fd, "CONNECT 3\n");
	wait_for_connect(h);
	close(fd);
}

/* --- the file ----------------------------------------------------------------------------------------------------- */

static void only_its_user_may_connect(void **state)
{
	struct h *h = *state;
	struct stat st;
	vsock_host_free(h->host);
	mode_t mask = umask(0);
	h->host = vsock_host_new(h->loop, NULL, h->path, NULL);
	umask(mask);
	assert_non_null(h->host);
	assert_int_equal(stat(h->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void expect_refused(struct h *h, const char *path, int code, const char *words)
{
	struct err err = {0};
	assert_null(vsock_host_new(h->loop, NULL, path, &err));
	assert_int_equal(err.code, code);
	assert_non_null(strstr(err.text, words));
	assert_non_null(strstr(err.text, path));
}

static void a_socket_in_use_is_left_alone(void **state)
{
	struct h *h = *state;
	expect_refused(h, h->path, -EADDRINUSE, "in use");
	int fd = call(h);
	say(fd, "CONNECT 3\n");
	wait_for_connect(h);
	close(fd);
}

static void what_a_dead_process_left_is_replaced(void **state)
{
	struct h *h = *state;
	char stale[80];
	struct err err = {0};
	(void)snprintf(stale, sizeof(stale), "%s/stale", h->dir);
	int fd = unix_socket_listen(stale, 1, NULL);
	assert_true(fd >= 0);
	close(fd);
	struct vsock_host *host = vsock_host_new(h->loop, NULL, stale, &err);
	assert_non_null(host);
	fd = unix_socket_connect(stale);
	assert_true(fd >= 0);
	close(fd);
	vsock_host_free(host);
}

static void other_files_are_left_alone(void **state)
{
	struct h *h = *state;
	char file[80];
	(void)snprintf(file, sizeof(file), "%s/file", h->dir);
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	expect_refused(h, file, -EEXIST, "not a socket");
	assert_int_equal(unlink(file), 0);
	assert_int_equal(symlink(h->path, file), 0);
	expect_refused(h, file, -EEXIST, "not a socket");
	assert_int_equal(unlink(file), 0);
	assert_int_equal(access(h->path, F_OK), 0);
	expect_refused(h, "/nowhere/v.sock", -ENOENT, "No such file");
	expect_refused(h, "", -EINVAL, "");
}

/* A port's path has to fit too. */
static void long_paths(void **state)
{
	struct h *h = *state;
	char path[128];
	memset(path, 'a', sizeof(path));
	memcpy(path, h->dir, strlen(h->dir));
	path[strlen(h->dir)] = '/';
	path[97] = 0;
	expect_refused(h, path, -ENAMETOOLONG, "96 characters");
	path[96] = 0;
	struct vsock_host *host = vsock_host_new(h->loop, NULL, path, NULL);
	assert_non_null(host);
	char port_path[160];
	(void)snprintf(port_path, sizeof(port_path), "%s_%u", path, UINT32_MAX);
	int listener = unix_socket_listen(port_path, 1, NULL);
	assert_true(listener >= 0);
	int fd = vsock_host_connect(host, UINT32_MAX);
	assert_true(fd >= 0);
	close(fd);
	close(listener);
	unlink(port_path);
	vsock_host_free(host);
}

/* --- the other way --------------------------------------------------------------------------------------------------
 */

static void programs_that_listen(void **state)
{
	struct h *h = *state;
	char path[80];
	assert_int_equal(vsock_host_connect(h->host, 52), -ENOENT);
	(void)snprintf(path, sizeof(path), "%s_52", h->path);
	int listener = unix_socket_listen(path, 0, NULL);
	assert_true(listener >= 0);
	int fds[8], count = 0;
	while (count < 8 && (fds[count] = vsock_host_connect(h->host, 52)) >= 0)
		count++;
	assert_true(count > 0 && count < 8); /* who does not accept is not waited for */
	assert_int_equal(fds[count], -EAGAIN);
	assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	while (count)
		close(fds[--count]);
	close(listener);
	assert_int_equal(vsock_host_connect(h->host, 52), -ECONNREFUSED);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_port_is_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(garbage_is_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(the_line_comes_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_behind_the_line_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(programs_that_leave, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_client_it_is_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(silent_programs_are_few, setup, teardown),
		cmocka_unit_test_setup_teardown(silent_programs_are_sent_away, setup, teardown),
		cmocka_unit_test_setup_teardown(only_its_user_may_connect, setup, teardown),
		cmocka_unit_test_setup_teardown(a_socket_in_use_is_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_dead_process_left_is_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(other_files_are_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(long_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(programs_that_listen, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
