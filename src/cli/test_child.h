/* A child process that cannot outlive us. [main thread] */
#pragma once

#include <signal.h>
#include <sys/types.h>

struct test_child_start {
	const char *program;
	const char *const *argv;
	const char *directory; /* it runs there */
	int fds[3];            /* its standard input, output and error; borrowed */
	const sigset_t *mask;  /* its signal mask */
};

struct test_child {
	pid_t pid; /* of the process and of its group */
	int pidfd; /* readable when it has ended */
};

/* 0 or -errno: the program cannot be started. Descriptors of ours must be close-on-exec. */
int test_child_start(const struct test_child_start *start, struct test_child *ret_child);

/* Send the signal to the child and all its group. */
void test_child_signal(const struct test_child *child, int signo);

/* After it has ended: end what is left of its group, and reap it. Returns what waitpid gives. */
int test_child_reap(struct test_child *child);
