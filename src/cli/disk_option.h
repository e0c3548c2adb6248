/*
 * The value of --disk: PATH[,setting]... or nbd=ADDRESS[,setting]...; a comma inside is written twice. Pure, like all
 * of the parser: no file is looked at.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"

enum { DISKS_MAX = 31, DISK_QUEUES_MAX = 16, DISK_SERIAL_MAX_BYTES = 20 };

/* Of a number 0, and of a string NULL, stands for the library's default. */
struct disk_option {
	char *text; /* allocated; the strings point into it */
	enum vmlet_disk_kind kind;
	const char *path; /* never "" */
	const char *id, *serial, *overlay_path;
	bool read_only, direct, overlay, packed;
	enum vmlet_disk_cache cache;
	unsigned queues;
	uint64_t iops, iops_burst;
	uint64_t bandwidth_bytes, bandwidth_burst_bytes;
};

enum disk_value { DISK_VALUE_NONE, DISK_VALUE_OPTIONAL, DISK_VALUE_REQUIRED };

/* A setting; help is made from it too. */
struct disk_setting {
	const char *name;
	enum disk_value value;
	const char *label;   /* "queues=N" */
	const char *help;    /* one line */
	const char *accepts; /* which values there are, for the sentence that refuses one; NULL: takes none */
	int (*apply)(struct disk_option *disk, char *value); /* 0 or -EINVAL; may cut `value` up. NULL: not given */
};

/* Ends with a NULL name. */
extern const struct disk_setting disk_settings[];

/*
 * Parse `count` values of --disk into an allocated array (NULL when there are none). 0, -EINVAL with a sentence in
 * `error`, or -ENOMEM likewise.
 */
int disk_options_parse(const char *const *values, size_t count, struct disk_option **ret_disks,
		       struct cli_error *error);
void disk_options_free(struct disk_option *disks, size_t count); /* NULL is accepted */
