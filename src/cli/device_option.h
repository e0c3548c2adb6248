/*
 * The values of --balloon, --vsock and --rng, devices that a machine has once; and what all options of devices are.
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/settings.h"

struct balloon_option {
	struct settings_item base;
	uint64_t target_bytes;
	bool deflate_on_oom, reporting;
};

struct vsock_option {
	struct settings_item base;
	const char *path;                                /* never "" */
	unsigned cid;                                    /* 0: the library's default */
	uint64_t packets_per_s, packets_burst;           /* 0: no limit, the default */
	uint64_t bandwidth_bytes, bandwidth_burst_bytes; /* the same */
};

struct rng_option {
	struct settings_item base;
	uint64_t bandwidth_bytes; /* 0: no limit */
};

/* settings_parse makes the structs above of them. */
extern const struct settings_kind balloon_kind, vsock_kind, rng_kind;

/* What parses the values of each. */
extern const struct settings_kind *const device_kinds[DEVICE_KINDS];
