/*
 * Places in guest memory: the one door through which everything that is loaded gets its range, so that all of
 * it lies in RAM and nothing overlaps anything else.
 */
#pragma once

#include "loader/kernel.h"

struct place_range {
	gpa_t base;
	uint64_t size_bytes; /* not 0; base + size_bytes does not wrap */
	const char *what;
};

struct place {
	const struct load_plan *plan;
	unsigned count;
	struct place_range taken[KERNEL_SEGMENTS_MAX + 4];
};

/* Begin with the plan's load_area taken. */
void place_init(struct place *place, const struct load_plan *plan);

/* Take this range. 0; -ENOSPC when it is not all RAM, -EINVAL when it overlaps; both with a sentence. */
int place_take(struct place *place, const char *what, gpa_t base, uint64_t size_bytes, struct err *err);

/* Take the highest page-aligned range that ends at or below `end` and does not begin below 1 MiB; or -ENOSPC. */
int place_take_highest(struct place *place, const char *what, uint64_t size_bytes, gpa_t end, gpa_t *ret_base);

/* Sizes in sentences. */
static inline uint64_t mib_up(uint64_t bytes)
{
	return (bytes >> 20) + ((bytes & 0xfffff) != 0);
}
