/* The value of --disk: PATH[,setting]... or nbd=ADDRESS[,setting]... Pure: no file is looked at. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/settings.h"

enum { DISKS_MAX = 31, DISK_QUEUES_MAX = 16, DISK_SERIAL_MAX_BYTES = 20 };

/* Of a number 0, and of a string NULL, stands for the library's default. */
struct disk_option {
	struct settings_item base;
	enum vmlet_disk_kind kind;
	const char *path; /* never "" */
	const char *serial, *overlay_path;
	bool read_only, direct, overlay;
	enum vmlet_disk_cache cache;
	unsigned queues;
	uint64_t iops, iops_burst;
	uint64_t bandwidth_bytes, bandwidth_burst_bytes;
};

/* settings_parse makes struct disk_option of it. */
extern const struct settings_kind disk_kind;
