/*
 * Escape keys: Ctrl-A and one more key, typed at a terminal, talk to vmlet instead of the guest.
 *
 * Ctrl-A Ctrl-A sends one Ctrl-A. Any other key after Ctrl-A that is not in the table sends nothing: the filter
 * may only shorten its input, so a Ctrl-A that ended one buffer could not be given back in front of the next.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum escape_action {
	ESCAPE_LEAVE,
	ESCAPE_POWER_BUTTON,
	ESCAPE_HELP,
};

struct escape {
	void (*act)(void *ctx, enum escape_action action);
	void *ctx;
	bool armed; /* the last byte was Ctrl-A */
};

/* Takes escape sequences out of `data`, in place; returns the new size. Fits vmlet_serial.input_filter. */
size_t escape_filter(void *escape, uint8_t *data, size_t size_bytes);

/* What the keys do, for help: one line a key; ends with a NULL keys. */
struct escape_key {
	const char *keys;
	const char *meaning;
	uint8_t key; /* after Ctrl-A */
	enum escape_action action;
};
extern const struct escape_key escape_keys[];

/* The line about Ctrl-A itself, which is no action. */
extern const char escape_literal_keys[];
extern const char escape_literal_meaning[];
