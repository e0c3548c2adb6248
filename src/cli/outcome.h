/* How a run ended, as the exit status, the status file and the user are told: docs/status-file.md. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <vmlet.h>

#include "cli/expect.h"

struct outcome {
	int status;         /* the exit status */
	const char *reason; /* a word of docs/status-file.md; static */
	char text[512];     /* one sentence; "": there is nothing to tell */
	enum vmlet_end end;
	bool has_value, has_signal;
	uint32_t value, signal;
	struct expect_summary expect; /* borrowed from what was watching */
};

/* There never was a VM, or it could not be served. */
void outcome_of_error(struct outcome *outcome, const struct vmlet_error *error);
void outcome_of_failure(struct outcome *outcome, int status, const char *text); /* VMLET_EXIT_HOST or _CONFIG */

/* It ran. `expect` is what watched its console, or NULL. */
void outcome_of_result(struct outcome *outcome, const struct vmlet_result *result, const struct expect *expect);

/* Something that was asked for could not be written in full: not a success. */
void outcome_add_incomplete(struct outcome *outcome, const char *text);
