/*
 * Values of options that describe a device: SOURCE[,setting[=value]]..., where a comma inside is written twice. One
 * parser for --disk, --net, --console and the rest, each of which is a struct settings_kind. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"

/* %s of what the user typed is cut to this, so that the rest of the sentence is always there. */
#define TYPED "%.80s"

enum { SETTINGS_ID_MAX_BYTES = 32 };

enum setting_value { SETTING_NONE, SETTING_OPTIONAL, SETTING_REQUIRED };

/* One setting; help is made from it too. */
struct setting {
	const char *name;
	enum setting_value value;
	const char *label;   /* "queues=N" */
	const char *help;    /* one line */
	const char *accepts; /* which values there are, for the sentence that refuses one; NULL: takes none */
	int (*apply)(void *item, char *value); /* 0 or -EINVAL; may cut `value` up. NULL: not given */
	bool repeats;                          /* may be given several times */
};

/* What each parsed value begins with. */
struct settings_item {
	char *text;     /* allocated; the strings of the item point into it */
	const char *id; /* NULL: the kind's stem and the item's place, "disk0" */
	bool packed;    /* by SETTING_PACKED */
};

/* A row that every device's table has. */
#define SETTING_PACKED                                                                                                 \
	{                                                                                                              \
		"packed", SETTING_NONE, "packed", "offer packed rings to the guest", NULL, settings_apply_packed,      \
			false                                                                                          \
	}

struct settings_kind;

/* One value while it is parsed. */
struct settings_parser {
	const struct settings_kind *kind;
	const char *typed;
	struct cli_error *error;
	unsigned given; /* which of the settings, bit by bit */
};

/* The values of one option. */
struct settings_kind {
	const char *option; /* "--disk" */
	const char *topic;  /* of help, where its settings are listed */
	size_t item_bytes;  /* of the struct, which begins with a struct settings_item */
	size_t count_max;
	const char *noun;               /* "disk": what there may be count_max of */
	const char *id_stem;            /* NULL: they have no ids */
	const struct setting *settings; /* ends with a NULL name; at most 32 */
	/* What the value begins with. 0, 1: it is the first setting already, or -EINVAL with a sentence. */
	int (*take_source)(const struct settings_parser *parser, void *item, char *field);
	/* Of item `index` all is known, and of those before it. 0, or -EINVAL with a sentence. NULL: all is well. */
	int (*check)(const struct settings_parser *parser, const void *items, size_t index);
};

/*
 * Parse `count` values into an allocated array of items, which are zeroes where nothing is said (NULL when there are
 * none). 0; -EINVAL with a sentence in `error`, or -ENOMEM likewise.
 */
int settings_parse(const struct settings_kind *kind, const char *const *values, size_t count, void **ret_items,
		   struct cli_error *error);
void settings_free(const struct settings_kind *kind, void *items, size_t count); /* NULL is accepted */

/* "--disk 'x.img,...': sentence" as the error. Returns -EINVAL. */
int settings_fail(const struct settings_parser *parser, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For sources and settings; 0 or -EINVAL. */
int settings_take_id(struct settings_item *item, const char *value);
int settings_apply_packed(void *item, char *value);
int settings_take_number(const char *value, uint64_t min, uint64_t max, unsigned *ret_number);
/* LIMIT[:BURST]: requests or packets; bytes, with suffixes. Never 0, but a burst that is not given is. */
int settings_take_rate(char *value, uint64_t *ret_limit, uint64_t *ret_burst);
int settings_take_bandwidth(char *value, uint64_t *ret_limit, uint64_t *ret_burst);
/* What follows "NAME=" when `field` begins so, else NULL. */
char *settings_after(char *field, const char *name);
