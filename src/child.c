#include "child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "util.h"

enum {
	STACK_BYTES = 64 << 10,
	FIRST_FD = 3,
	SIGNALS = 64,
	GRACE_MS = 500,   /* from SIGTERM to SIGKILL */
	KILLED_MS = 2000, /* from there to our giving up: it hangs in the kernel */
	ID_PIDFD = 3,     /* P_PIDFD of waitid(2), which not every C library names */
};
static const uint64_t RING_FULL_NS = 10 * 1000000ULL;

/* --- birth ------------------------------------------------------------------------------------------------------- */

/* Shared by the three: the children borrow our memory until the program runs (CLONE_VM, CLONE_VFORK). */
struct birth {
	const char *const *argv;
	const int *fds;
	unsigned fd_count;
	int out_fd; /* the pipe's end that is written */
	char *stack;
	int pidfd;
	int error; /* -errno of the step that failed */
};

/* The originals may have numbers that are to be taken: so all of them move away first. */
static int set_descriptors(const struct birth *birth)
{
	int moved[FIRST_FD + CHILD_FDS_MAX], count = FIRST_FD + (int)birth->fd_count;
	int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	for (int fd = 0; fd < count; fd++) {
		int from = fd == 0 ? null_fd : fd < FIRST_FD ? birth->out_fd : birth->fds[fd - FIRST_FD];
		moved[fd] = fcntl(from, F_DUPFD_CLOEXEC, count);
		if (moved[fd] < 0)
			return -errno;
	}
	for (int fd = 0; fd < count; fd++) {
		if (dup2(moved[fd], fd) < 0)
			return -errno;
	}
	return syscall(SYS_close_range, (unsigned)count, ~0U, 0) < 0 ? -errno : 0;
}

/*
 * Handlers go by themselves with execve; what is ignored, or blocked, would stay so. By the system call, because what a
 * C library or a sanitizer notes of it would be noted in the memory that we share. All zeroes are SIG_DFL.
 */
static void reset_signals(void)
{
	static const uint64_t fallback[8];
	sigset_t none;
	for (int signo = 1; signo <= SIGNALS; signo++)
		(void)syscall(SYS_rt_sigaction, signo, fallback, NULL, SIGNALS / 8);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The program-to-be: a copy of our descriptors, and signal actions of its own. */
static int become_program(void *ctx)
{
	struct birth *birth = ctx;
	int r = setpgid(0, 0) < 0 ? -errno : set_descriptors(birth);
	if (r == 0) {
		reset_signals();
		(void)execv(birth->argv[0], (char *const *)(uintptr_t)birth->argv);
		r = -errno;
	}
	birth->error = r;
	_exit(127);
}

/* In between: shares our descriptors, so that the pidfd is ours, and ends when the program runs. */
static int start_program(void *ctx)
{
	struct birth *birth = ctx;
	if (clone(become_program, birth->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, birth,
		  &birth->pidfd) < 0)
		birth->error = -errno;
	_exit(0);
}

/* Its end sends us no signal, and only who asks for "clone" children can wait for it. */
static int start_between(struct birth *birth)
{
	pid_t pid = clone(start_program, birth->stack + (size_t)2 * STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES,
			  birth);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	return birth->error;
}

/* While somebody borrows our memory, no handler of the host program's may run in it. */
static int give_birth(struct birth *birth)
{
	sigset_t all, before;
	birth->stack = aligned_alloc(4096, (size_t)2 * STACK_BYTES);
	if (!birth->stack)
		return -ENOMEM;
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = start_between(birth);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	free(birth->stack);
	return r;
}

int child_start(struct child *child, struct loop *loop, const struct child_client *client, const char *const *argv,
		const int *fds, unsigned fd_count, struct err *err)
{
	int out[2];
	assert(fd_count <= CHILD_FDS_MAX);
	if (pipe2(out, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", err_name(errno));
	struct birth birth = {.argv = argv, .fds = fds, .fd_count = fd_count, .out_fd = out[1], .pidfd = -1};
	int r = give_birth(&birth);
	close(out[1]);
	if (r < 0) {
		fd_close(&birth.pidfd);
		close(out[0]);
		return err_config(err, r, "cannot run '%s': %s", argv[0], err_name(r));
	}
	*child = (struct child){.pidfd = birth.pidfd, .out_fd = out[0], .loop = loop, .client = *client};
	return 0;
}

/* --- what it says --------------------------------------------------------------------------------------------------
 */

static void end_line(struct child *child)
{
	child->line[child->line_bytes] = '\0';
	if (child->line_bytes && child->client.line)
		child->client.line(child->client.ctx, child->line);
	child->line_bytes = 0;
}

/* Lines of any length, of which the begin is kept; nothing in them that a terminal would obey. */
static void hear(struct child *child, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i++) {
		char c = child->input[i];
		if (c == '\n')
			end_line(child);
		else if (child->line_bytes < sizeof(child->line) - 1 && (c != '\r'))
			child->line[child->line_bytes++] =
				c == '\t' || ((unsigned char)c >= ' ' && c != 0x7f) ? c : '?';
	}
}

/* Whatever is there now, up to a bound: a grandchild may hold the pipe, and write for ever. */
static void hear_rest(struct child *child)
{
	struct pollfd pollfd = {.fd = child->out_fd, .events = POLLIN};
	for (unsigned i = 0; child->out_fd >= 0 && i < 256 && poll(&pollfd, 1, 0) > 0; i++) {
		ssize_t n = read(child->out_fd, child->input, sizeof(child->input));
		if (n <= 0)
			break;
		hear(child, (size_t)n);
	}
}

/* --- its end -------------------------------------------------------------------------------------------------------
 */

static bool is_gone(const struct child *child, int timeout_ms)
{
	struct pollfd pollfd = {.fd = child->pidfd, .events = POLLIN};
	uint64_t deadline_ns = loop_now_ns() + (uint64_t)timeout_ms * 1000000;
	int r = poll(&pollfd, 1, timeout_ms);
	while (r < 0 && errno == EINTR) {
		uint64_t now = loop_now_ns();
		r = poll(&pollfd, 1, now < deadline_ns ? (int)((deadline_ns - now) / 1000000) : 0);
	}
	return r > 0;
}

bool child_look(struct child *child)
{
	child->has_ended = is_gone(child, 0);
	hear_rest(child);
	if (child->has_ended)
		end_line(child);
	return child->has_ended;
}

void child_signal(const struct child *child, int signo)
{
	if (child->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, child->pidfd, signo, NULL, 0);
}

static void watch_exit(struct child *child);
static void watch_output(struct child *child);

static void ring_may_have_room(struct loop_timer *timer)
{
	struct child *child = container_of(timer, struct child, retry_timer);
	if (child->exit_op.state == LOOP_OP_IDLE && !child->has_ended)
		watch_exit(child);
	if (child->read_op.state == LOOP_OP_IDLE && child->out_fd >= 0)
		watch_output(child);
}

static void ring_full(struct child *child)
{
	loop_timer_arm(child->loop, &child->retry_timer, loop_now_ns() + RING_FULL_NS);
}

/* Ended, and not reading: its last words are read, and it is reported. */
static void settle(struct child *child)
{
	if (child->closing || !child->has_ended || child->read_op.state != LOOP_OP_IDLE)
		return;
	hear_rest(child);
	end_line(child);
	child->client.ended(child->client.ctx);
}

static void exit_done(struct loop_op *op, int res)
{
	struct child *child = container_of(op, struct child, exit_op);
	if (child->closing)
		return;
	if (res < 0) {
		ring_full(child);
		return;
	}
	child->has_ended = true;
	loop_cancel(child->loop, &child->read_op);
	settle(child);
}

static void read_done(struct loop_op *op, int res)
{
	struct child *child = container_of(op, struct child, read_op);
	if (child->closing)
		return;
	if (res > 0)
		hear(child, (size_t)res);
	else if (res == 0)
		fd_close(&child->out_fd);
	if (child->has_ended)
		settle(child);
	else if (res > 0)
		watch_output(child);
	else if (res < 0)
		ring_full(child);
}

static void watch_exit(struct child *child)
{
	if (loop_poll(child->loop, &child->exit_op, child->pidfd, POLLIN) < 0)
		ring_full(child);
}

static void watch_output(struct child *child)
{
	if (loop_read(child->loop, &child->read_op, child->out_fd, child->input, sizeof(child->input), UINT64_MAX) < 0)
		ring_full(child);
}

void child_watch(struct child *child)
{
	child->exit_op.done = exit_done;
	child->read_op.done = read_done;
	child->retry_timer.fn = ring_may_have_room;
	watch_exit(child);
	watch_output(child);
}

static void end_op(struct child *child, struct loop_op *op)
{
	loop_cancel(child->loop, op);
	loop_drain(child->loop, op);
}

void child_close(struct child *child)
{
	if (child->pidfd < 0)
		return;
	child->closing = true;
	end_op(child, &child->exit_op);
	end_op(child, &child->read_op);
	loop_timer_disarm(child->loop, &child->retry_timer);
	child_signal(child, SIGTERM);
	if (!is_gone(child, GRACE_MS)) {
		child_signal(child, SIGKILL);
		(void)is_gone(child, KILLED_MS);
	}
	/* Where we are the ones that orphans are given to. */
	siginfo_t info;
	(void)waitid((idtype_t)ID_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG | __WALL);
	fd_close(&child->pidfd);
	fd_close(&child->out_fd);
}
