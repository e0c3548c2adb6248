/* Programs that are started: what they get, what is heard of them, and that nothing of them is left. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "child.h"
#include "util.h"

static const uint64_t PATIENCE_NS = 30 * 1000000000ULL; /* only a test that fails waits so long */

static struct loop *loop;
static struct child child;
static unsigned lines, ends;
static char said[8192];
static volatile sig_atomic_t sigchlds;

static void on_sigchld(int signo)
{
	(void)signo;
	sigchlds = sigchlds + 1;
}

static void on_line(void *ctx, const char *line)
{
	(void)ctx;
	size_t used = strlen(said);
	lines++;
	(void)snprintf(said + used, sizeof(said) - used, "%s\n", line);
}

static void on_end(void *ctx)
{
	(void)ctx;
	ends++;
}

static const struct child_client CLIENT = {on_line, on_end, NULL};

static int setup(void **state)
{
	(void)state;
	lines = ends = 0;
	said[0] = '\0';
	sigchlds = 0;
	child = (struct child){.pidfd = -1};
	loop = loop_new(NULL);
	return loop ? signal(SIGCHLD, on_sigchld) == SIG_ERR : -1;
}

/* A host program that waits for its children has none, and was told of none. */
static int teardown(void **state)
{
	(void)state;
	child_close(&child);
	loop_free(loop);
	bool none = waitpid(-1, NULL, WNOHANG | __WALL) < 0 && errno == ECHILD;
	(void)signal(SIGCHLD, SIG_DFL);
	return none && sigchlds == 0 ? 0 : -1;
}

static int start_with(const char *script, const int *fds, unsigned fd_count)
{
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	return child_start(&child, loop, &CLIENT, argv, fds, fd_count, NULL);
}

static void start(const char *script)
{
	assert_int_equal(start_with(script, NULL, 0), 0);
	child_watch(&child);
}

#define wait_until(condition)                                                                                          \
	do {                                                                                                           \
		uint64_t until_ns = loop_now_ns() + PATIENCE_NS;                                                       \
		while (!(condition)) {                                                                                 \
			assert_true(loop_now_ns() < until_ns);                                                         \
			assert_int_equal(loop_wait(loop, 20000000), 0);                                                \
		}                                                                                                      \
	} while (0)

static void its_lines_are_heard_and_its_end(void **state)
{
	(void)state;
	start("echo one; echo two >&2; printf 'last, without an end'");
	wait_until(ends == 1);
	assert_string_equal(said, "one\ntwo\nlast, without an end\n");
	child_close(&child);
	assert_int_equal(ends, 1);
}

static void it_gets_the_descriptors_and_nothing_else(void **state)
{
	(void)state;
	int pipe_fds[2], leak = open("/dev/zero", O_RDONLY);
	assert_int_equal(pipe(pipe_fds), 0);
	/* Two that have each other's number, so that their order matters; stdin that is not empty. */
	int fds[] = {pipe_fds[1], leak};
	assert_int_equal(
		start_with("cat; echo through >&3; head -c 3 <&4 | od -An -tx1; exec ls /proc/self/fd", fds, 2), 0);
	child_watch(&child);
	wait_until(ends == 1);
	char text[16] = "";
	assert_int_equal(read(pipe_fds[0], text, sizeof(text)), 8);
	assert_string_equal(text, "through\n");
	assert_string_equal(said, " 00 00 00\n0\n1\n2\n3\n4\n5\n" /* 5: the directory that is listed */);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(leak);
}

static void descriptors_may_be_anywhere(void **state)
{
	(void)state;
	/* Wanted as 3 and 4, and they are 4 and 3. */
	int low[2] = {-1, -1}, saved[2];
	for (int i = 0; i < 2; i++)
		saved[i] = fcntl(3 + i, F_DUPFD_CLOEXEC, 100);
	int a = open("/dev/zero", O_RDONLY | O_CLOEXEC), b = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	low[0] = fcntl(a, F_DUPFD_CLOEXEC, 50);
	low[1] = fcntl(b, F_DUPFD_CLOEXEC, 50);
	dup2(low[0], 4);
	dup2(low[1], 3);
	int fds[] = {4, 3};
	int r = start_with("readlink /proc/$$/fd/3 /proc/$$/fd/4", fds, 2);
	for (int i = 0; i < 2; i++) {
		if (saved[i] >= 0)
			dup3(saved[i], 3 + i, O_CLOEXEC);
		close(saved[i]);
		close(low[i]);
	}
	if (a > 4)
		close(a);
	if (b > 4)
		close(b);
	assert_int_equal(r, 0);
	child_watch(&child);
	wait_until(ends == 1);
	assert_string_equal(said, "/dev/zero\n/etc/passwd\n");
}

/* Whatever the host program ignores and blocks. */
static void its_signals_are_as_new(void **state)
{
	(void)state;
	sigset_t all, before;
	sigfillset(&all);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &all, &before), 0);
	int r = start_with("exec grep -E '^Sig(Blk|Ign)' /proc/self/status", NULL, 0);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	assert_int_equal(r, 0);
	child_watch(&child);
	wait_until(ends == 1);
	assert_string_equal(said, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void ours_are_as_they_were(void **state)
{
	(void)state;
	sigset_t usr1, now;
	struct sigaction action;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &usr1, NULL), 0);
	start("true");
	assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &now), 0);
	assert_true(sigismember(&now, SIGUSR1));
	assert_false(sigismember(&now, SIGTERM));
	assert_int_equal(sigaction(SIGCHLD, NULL, &action), 0);
	assert_ptr_equal(action.sa_handler, on_sigchld);
	sigemptyset(&usr1);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &usr1, NULL), 0);
	wait_until(ends == 1);
}

static void what_cannot_be_run_is_an_error(void **state)
{
	(void)state;
	static const struct {
		const char *program;
		int code;
	} CASES[] = {{"/nowhere/passt", -ENOENT}, {"/etc/passwd", -EACCES}, {"/", -EACCES}};
	for (unsigned i = 0; i < ARRAY_SIZE(CASES); i++) {
		struct err err = {0};
		const char *argv[] = {CASES[i].program, NULL};
		assert_int_equal(child_start(&child, loop, &CLIENT, argv, NULL, 0, &err), CASES[i].code);
		assert_non_null(strstr(err.text, CASES[i].program));
		assert_int_equal(child.pidfd, -1);
	}
}

static bool has_closed(int fd)
{
	char byte;
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	return poll(&pollfd, 1, 30000) == 1 && read(fd, &byte, 1) == 0;
}

/* The pipe closes when the last who holds its other end is gone. */
static void start_holding(const char *script, int *ret_fd)
{
	int pipe_fds[2];
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(start_with(script, &pipe_fds[1], 1), 0);
	child_watch(&child);
	close(pipe_fds[1]);
	*ret_fd = pipe_fds[0];
}

static void it_is_ended(void **state)
{
	(void)state;
	int fd;
	start_holding("trap 'echo bye >&3; exit' TERM; echo up; while :; do sleep 0.01; done", &fd);
	wait_until(lines == 1);
	child_close(&child);
	char text[8] = "";
	assert_int_equal(read(fd, text, sizeof(text) - 1), 4);
	assert_string_equal(text, "bye\n");
	assert_true(has_closed(fd));
	close(fd);
}

static void one_that_will_not_end_is_killed(void **state)
{
	(void)state;
	int fd;
	start_holding("trap '' TERM; echo up; exec 1>&- 2>&-; while :; do sleep 0.01 3>&-; done", &fd);
	wait_until(lines == 1);
	child_close(&child);
	assert_true(has_closed(fd));
	close(fd);
	assert_int_equal(ends, 0); /* whoever ends it knows */
}

static void a_signal_reaches_it(void **state)
{
	(void)state;
	start("echo up; exec sleep 1000");
	wait_until(lines == 1);
	child_signal(&child, SIGKILL);
	wait_until(ends == 1);
	child_close(&child);
	child_signal(&child, SIGKILL); /* nobody */
}

static void early_ends_can_be_looked_for(void **state)
{
	(void)state;
	assert_int_equal(start_with("echo reason >&2; exit 3", NULL, 0), 0);
	uint64_t until_ns = loop_now_ns() + PATIENCE_NS;
	while (!child_look(&child))
		assert_true(loop_now_ns() < until_ns);
	assert_string_equal(said, "reason\n");
	child_close(&child);
}

/* Long ones, strange ones, and one that writes for ever while nobody of the family is left. */
static void its_words_are_tamed(void **state)
{
	(void)state;
	start("printf 'a\\033[31mb\\r\\n\\n'; head -c 100000 /dev/zero | tr '\\0' x; echo; echo end");
	wait_until(ends == 1);
	assert_int_equal(lines, 3);
	assert_memory_equal(said, "a?[31mb\nxxx", 11);
	assert_int_equal(strlen(said), strlen("a?[31mb\n") + CHILD_LINE_MAX + strlen("end\n"));
	child_close(&child);

	int fd;
	start_holding("yes & echo up", &fd);
	wait_until(ends == 2);
	child_close(&child); /* which closes the pipe that `yes` writes to */
	assert_true(has_closed(fd));
	close(fd);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(its_lines_are_heard_and_its_end),
		CASE(it_gets_the_descriptors_and_nothing_else),
		CASE(descriptors_may_be_anywhere),
		CASE(its_signals_are_as_new),
		CASE(ours_are_as_they_were),
		CASE(what_cannot_be_run_is_an_error),
		CASE(it_is_ended),
		CASE(one_that_will_not_end_is_killed),
		CASE(a_signal_reaches_it),
		CASE(early_ends_can_be_looked_for),
		CASE(its_words_are_tamed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
