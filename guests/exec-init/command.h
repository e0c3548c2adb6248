/* The command as a process. */
#pragma once

#include "job.h"
#include "sys.h"

/* Our ends; -1 where there is none. On a terminal `in` and `out` are one descriptor. Non-blocking. */
struct command {
	long pid;
	int in, out, err;
};

enum { STATUS_NOT_EXECUTABLE = 126, STATUS_NOT_FOUND = 127 };

/*
 * Starts it. 0; or the status that stands for it (126, 127) with the reason in `why`, as shells do; or -errno: the
 * kernel has no pipe or terminal for it.
 */
long command_start(struct command *command, struct job *job, struct sentence *why);

/* The window's size, rows << 16 and columns. */
void command_set_size(const struct command *command, uint32_t size);

/* Takes the dead, ours and those whose parents are gone. True when the command is one: its status as shells have it. */
bool command_reap(const struct command *command, int *ret_status);
