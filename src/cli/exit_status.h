/*
 * Exit statuses, which are enum vmlet_exit_status: one table that the code, the help and (by a test) the manual page
 * agree on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <vmlet.h>

struct exit_status_entry {
	const char *label;    /* "80", "128+N" */
	const char *meaning;  /* a phrase without a full stop */
	int status;           /* -1: the label says how it is made */
	enum vmlet_end end;   /* the end that has this status, or VMLET_END_NONE */
	const char *sentence; /* said at that end when the library has nothing to add */
};

/* Ends with a NULL label. */
extern const struct exit_status_entry exit_status_table[];

/* What the command line gives vmlet_stop: a signal's number, or one of these: the keys that leave; an expectation. */
enum { STOP_VALUE_LEFT = 0, STOP_VALUE_VERDICT = 1000 };

int exit_status_of_error(const struct vmlet_error *error);
int exit_status_of_result(const struct vmlet_result *result);

/* The line that tells how the VM ended. False when there is nothing to tell (a debug-exit of 0). */
bool exit_status_sentence(const struct vmlet_result *result, char *ret_text, size_t size_bytes);
