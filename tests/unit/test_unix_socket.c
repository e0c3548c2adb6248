/* Socket files: stale ones are replaced, and nobody else's are touched. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "unix_socket.h"

static char dir[] = "/tmp/vmlet-test-unix-XXXXXX", path[64];

static int setup(void **state)
{
	(void)state;
	memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/socket", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

static void expect_refusal(int code)
{
	struct err err = {0};
	struct unix_listener listener;
	assert_int_equal(unix_listener_open(&listener, path, 1, &err), code);
	assert_int_equal(err.code, code);
	assert_true(strlen(err.text) > 0);
	unix_listener_close(&listener);
	assert_int_equal(access(path, F_OK), 0);
}

static void it_listens_and_removes_its_file(void **state)
{
	(void)state;
	struct unix_listener listener;
	assert_int_equal(unix_socket_connect(path), -ENOENT);
	assert_int_equal(unix_listener_open(&listener, path, 1, NULL), 0);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	int fd = unix_socket_connect(path);
	assert_true(fd >= 0);
	assert_int_equal(close(fd), 0);
	unix_listener_close(&listener);
	assert_int_equal(access(path, F_OK), -1);
	unix_listener_close(&listener);
}

static void a_live_one_is_refused_and_not_disturbed(void **state)
{
	(void)state;
	struct unix_listener listener;
	assert_int_equal(unix_listener_open(&listener, path, 1, NULL), 0);
	expect_refusal(-EADDRINUSE);
	/* Nobody has connected to it to find out. */
	assert_int_equal(fcntl(listener.fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(accept(listener.fd, NULL, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	unix_listener_close(&listener);
}

static void a_stale_one_is_replaced(void **state)
{
	(void)state;
	struct unix_listener dead, listener;
	assert_int_equal(unix_listener_open(&dead, path, 1, NULL), 0);
	assert_int_equal(close(dead.fd), 0); /* as when its program was killed */
	dead.fd = -1;
	assert_int_equal(unix_socket_connect(path), -ECONNREFUSED);
	assert_int_equal(unix_listener_open(&listener, path, 1, NULL), 0);
	int fd = unix_socket_connect(path);
	assert_true(fd >= 0);
	assert_int_equal(close(fd), 0);
	unix_listener_close(&dead); /* the file is another's now, unless it got the same number */
	unix_listener_close(&listener);
	assert_int_equal(access(path, F_OK), -1);
}

static void another_file_is_left_alone(void **state)
{
	(void)state;
	struct unix_listener listener;
	close(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	expect_refusal(-EEXIST);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/nowhere", path), 0);
	assert_int_equal(unix_listener_open(&listener, path, 1, NULL), -EEXIST);
	assert_int_equal(unlink(path), 0);

	/* One that took our file's place stays. */
	assert_int_equal(unix_listener_open(&listener, path, 1, NULL), 0);
	assert_int_equal(unlink(path), 0);
	close(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	char other[80];
	(void)snprintf(other, sizeof(other), "%s/other", dir);
	close(open(other, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)); /* not the number that was just freed */
	assert_int_equal(rename(other, path), 0);
	unix_listener_close(&listener);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(path), 0);
}

static void a_path_has_its_limits(void **state)
{
	(void)state;
	struct unix_listener listener;
	char text[200];
	memset(text, 'x', sizeof(text));
	text[108] = '\0';
	assert_int_equal(unix_listener_open(&listener, text, 1, NULL), -ENAMETOOLONG);
	unix_listener_close(&listener);
	assert_int_equal(unix_socket_connect(text), -ENAMETOOLONG);
	text[107] = '\0';
	assert_int_equal(unix_socket_connect(text), -ENOENT);
	assert_int_equal(unix_socket_connect(""), -EINVAL);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(it_listens_and_removes_its_file), CASE(a_live_one_is_refused_and_not_disturbed),
		CASE(a_stale_one_is_replaced),         CASE(another_file_is_left_alone),
		CASE(a_path_has_its_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
