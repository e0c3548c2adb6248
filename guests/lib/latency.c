#include "latency.h"

static unsigned bucket_of(uint64_t ticks)
{
	unsigned power = 63 - (unsigned)__builtin_clzll(ticks | LATENCY_STEPS);

	return (power - 5) * LATENCY_STEPS + (unsigned)(ticks >> (power - 5));
}

/* The middle of a bucket. */
static uint64_t bucket_ticks(unsigned bucket)
{
	unsigned shift = bucket < 2 * LATENCY_STEPS ? 0 : bucket / LATENCY_STEPS - 1;

	return ((uint64_t)(bucket - shift * LATENCY_STEPS) << shift) + ((1ull << shift) >> 1);
}

void latency_add(struct latency *l, uint64_t ticks)
{
	l->buckets[bucket_of(ticks)]++;
	l->sum += ticks;
	l->count++;
}

uint64_t latency_percentile(const struct latency *l, unsigned permille)
{
	uint64_t seen = 0, wanted = l->count * permille / 1000;

	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		seen += l->buckets[i];
		if (seen > wanted)
			return bucket_ticks(i);
	}
	return 0;
}
