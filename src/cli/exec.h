/*
 * `vmlet exec`: what makes a run of `vmlet run` into one command in a guest. cli/run.c runs it; this is what is added:
 * an initrd with our init, words for the kernel, the streams, and what its end means.
 */
#pragma once

#include <stdint.h>

#include "cli/exec_job.h"

enum { EXEC_TAIL_BYTES = 64 << 10 };

struct exec {
	struct options options; /* the user's, with what is added; what it shares with them is not freed */
	struct exec_terminal terminal;
	struct initrd_cpio initrd;
	char initrd_path[32];
	int window_fd; /* readable when the terminal's size has changed; -1: nobody asks */
	struct {
		uint64_t size_bytes; /* all of it; the last EXEC_TAIL_BYTES are there */
		uint8_t bytes[EXEC_TAIL_BYTES];
	} console;
};

/*
 * A new one, or NULL with the exit status in ret_status, and reported. `interactive`: standard input is a terminal that
 * we are in the foreground of. [main thread]
 */
struct exec *exec_new(const struct options *options, bool interactive, int *ret_status);
void exec_free(struct exec *exec); /* NULL is accepted */

/* Add the streams and a look at the console to what run has filled in. */
void exec_fill_config(struct exec *exec, struct vmlet_config *config);

/* vmlet_run, and the window's size. */
int exec_serve(struct exec *exec, struct vmlet *vm, struct vmlet_result *ret_result);

/* The exit status, and a sentence with the console's last lines when there is no status of the command's. */
int exec_end(const struct exec *exec, const struct vmlet_result *result);
