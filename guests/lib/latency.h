/* How long things took, as a histogram of TSC ticks: 32 steps for each power of two, so within 3%. */
#ifndef GUEST_LATENCY_H
#define GUEST_LATENCY_H

#include <stdint.h>

enum { LATENCY_STEPS = 32, LATENCY_BUCKETS = 64 * LATENCY_STEPS };

struct latency {
	uint32_t buckets[LATENCY_BUCKETS];
	uint64_t sum, count;
};

void latency_add(struct latency *l, uint64_t ticks);
/* In ticks: the middle of the bucket. 500 is the median. 0 when there is nothing. */
uint64_t latency_percentile(const struct latency *l, unsigned permille);

#endif
