/*
 * The value of --console: stdio, pty, null, file=PATH or unix=PATH; port=NAME: and one of these but stdio; or status.
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/settings.h"

enum { CONSOLES_MAX = 14, CONSOLE_NAME_MAX_BYTES = 63 };

struct console_option {
	struct settings_item base;
	bool is_status;              /* it is none: the status port is wanted */
	const char *name;            /* of a port; NULL: a console */
	enum vmlet_serial_kind kind; /* VMLET_SERIAL_FD: standard input and output */
	const char *path;
	uint64_t bandwidth_bytes, bandwidth_burst_bytes; /* 0: no limit, the default */
};

/* settings_parse makes struct console_option of it. */
extern const struct settings_kind console_kind;

/* Which of them is on standard input and output; `count`: none. */
size_t console_find_stdio(const struct console_option *consoles, size_t count);
