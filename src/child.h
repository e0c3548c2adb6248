/*
 * A helper program of ours, in a host program that has children of its own.
 *
 * Theory of operation. The program is started as a child of a child that ends at once, so it is nobody's here: a host
 * program that waits for its children, or handles SIGCHLD, never meets it (an exit signal of 0 would not do: execve
 * makes it SIGCHLD again). It is known by its pidfd, which tells its end and takes signals; it is reaped by init, or by
 * us where we are that. Its exit status is therefore not known: what it said is.
 *
 * When we are killed nobody ends it. It must notice by itself, as passt does when its socket is closed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "loop.h"

enum { CHILD_FDS_MAX = 8, CHILD_LINE_MAX = 200 };

struct child_client {
	void (*line)(void *ctx, const char *line); /* it said so, on its output or error stream; printable. [loop] */
	void (*ended)(void *ctx);                  /* once, after its last line; child_close is due. [loop] */
	void *ctx;
};

struct child {
	int pidfd; /* polls readable when it has ended; -1: not started, or closed */
	int out_fd;
	struct loop *loop;
	struct child_client client;
	struct loop_op exit_op, read_op;
	struct loop_timer retry_timer;
	bool closing, has_ended;
	char line[CHILD_LINE_MAX]; /* begun */
	size_t line_bytes;
	char input[512];
};

/*
 * Start `argv[0]`, a path, with `fds` as its descriptors 3, 4, ... and no other; no input, no signal blocked or
 * ignored, in a process group of its own (Ctrl-C is for us). 0, or -errno with a sentence: the program cannot be run.
 * child_close is due after success. The client is not called before child_watch. [setup, loop]
 */
int child_start(struct child *child, struct loop *loop, const struct child_client *client, const char *const *argv,
		const int *fds, unsigned fd_count, struct err *err);

/* From now on the loop looks after it. [setup, loop] */
void child_watch(struct child *child);

/* Before child_watch: has it ended? Reads what it has said so far. [setup] */
bool child_look(struct child *child);

void child_signal(const struct child *child, int signo); /* if it has not ended. [setup, loop] */

/*
 * Ends it: SIGTERM, and SIGKILL when it has not gone by itself in half a second. Returns when it is gone, or after a
 * bounded time. A child that was not started is fine. [setup, loop]
 */
void child_close(struct child *child);
