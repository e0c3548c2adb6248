/*
 * The initrd of `vmlet exec`: our init, what it is to do (guests/exec-init/job.h), modules, and, when there is no other
 * initrd, the command with the files that it needs. It is the last of the initrds, and all of ours is below /.vmlet.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cli/initrd_cpio.h"
#include "cli/options.h"

enum {
	EXEC_JOB_SIZE_MAX = 256 << 10, /* all strings together; guests/exec-init/job.h has the same numbers */
	EXEC_JOB_WORDS_MAX = 8192,     /* arguments, variables, modules: of each */
};

#define EXEC_INIT_PATH "/.vmlet/init"

struct exec_terminal {
	bool stdio; /* standard input and output are a terminal */
	bool error; /* standard error is it too */
};

/*
 * Write it. `environment` is the host's. 0; 126 or 127 when the command cannot be had, or -errno, each with a sentence.
 * The archive is to be freed only at 0.
 */
int exec_job_write(const struct options *options, const struct exec_terminal *terminal, const char *const *environment,
		   struct initrd_cpio *ret_cpio, struct cli_error *error);
