/*
 * `vmlet exec`: what makes a run of `vmlet run` into one command in a guest. cli/run.c runs it; this is what is added:
 * an initrd with our init, words for the kernel, the streams, and what its end means.
 */
#pragma once

#include <stdint.h>

#include "cli/exec_job.h"
#include "cli/outcome.h"

enum { EXEC_TAIL_BYTES = 64 << 10 };

struct exec {
	struct options options; /* the user's, with what is added; what it shares with them is not freed */
	struct exec_terminal terminal;
	struct initrd_cpio initrd;
	char initrd_path[32];
	struct {
		uint64_t size_bytes; /* all of it; the last EXEC_TAIL_BYTES are there */
		uint8_t bytes[EXEC_TAIL_BYTES];
	} console;
};

/*
 * A new one, or NULL with the outcome filled, 126 and 127 among them. `interactive`: standard input is a terminal that
 * we are in the foreground of. [main thread]
 */
struct exec *exec_new(const struct options *options, bool interactive, struct outcome *outcome);
void exec_free(struct exec *exec); /* NULL is accepted */

/* Add the streams and a look at the console to what run has filled in. */
void exec_fill_config(struct exec *exec, struct vmlet_config *config);

/* What the end of the VM means for the command; the sentence is "" when the command has a status. */
void exec_conclude(const struct exec *exec, struct outcome *outcome);

/* The console's last lines, when they may tell why the command has none. */
void exec_show_console(const struct exec *exec, const struct outcome *outcome);
