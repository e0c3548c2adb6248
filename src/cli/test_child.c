#include "cli/test_child.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_BYTES = 64 << 10 };

/* Shared with the child until it executes the program: CLONE_VM and CLONE_VFORK. */
struct birth {
	const struct test_child_start *start;
	pid_t parent;
	int error; /* -errno of the step that failed */
};

static int become(const struct birth *birth)
{
	const struct test_child_start *start = birth->start;
	struct sigaction fallback = {.sa_handler = SIG_DFL};

	/* It dies when we do, however that is; and at once if that was before this line. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	if (getppid() != birth->parent)
		return -ESRCH;
	/* Ctrl-C at the terminal is for us only: we end the children, and wait for them. */
	if (setpgid(0, 0) < 0)
		return -errno;
	for (int fd = 0; fd < 3; fd++)
		if (dup2(start->fds[fd], fd) < 0)
			return -errno;
	if (chdir(start->directory) < 0)
		return -errno;
	sigaction(SIGPIPE, &fallback, NULL);
	sigprocmask(SIG_SETMASK, start->mask, NULL);
	execve(start->program, (char *const *)(uintptr_t)start->argv, environ);
	return -errno;
}

static int child_main(void *ctx)
{
	struct birth *birth = ctx;

	birth->error = become(birth);
	_exit(127);
}

/*
 * As posix_spawn does it, which cannot ask for a death signal. The process is ours alone: no thread of ours runs while
 * the child borrows our memory.
 */
int test_child_start(const struct test_child_start *start, struct test_child *ret_child)
{
	struct birth birth = {.start = start, .parent = getpid()};
	struct test_child child = {.pid = -1, .pidfd = -1};
	char *stack = aligned_alloc(4096, STACK_BYTES);

	if (!stack)
		return -ENOMEM;
	child.pid = clone(child_main, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &birth,
			  &child.pidfd);
	if (child.pid < 0)
		birth.error = -errno;
	free(stack);
	if (birth.error < 0) {
		if (child.pid > 0)
			test_child_reap(&child);
		return birth.error;
	}
	*ret_child = child;
	return 0;
}

void test_child_signal(const struct test_child *child, int signo)
{
	kill(-child->pid, signo);
}

int test_child_reap(struct test_child *child)
{
	int status = 0;

	/* Until it is reaped its number is nobody else's. */
	test_child_signal(child, SIGKILL);
	while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(child->pidfd);
	*child = (struct test_child){.pid = -1, .pidfd = -1};
	return status;
}
