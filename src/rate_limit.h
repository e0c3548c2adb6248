/*
 * A rate limit: two token buckets, operations and bytes. Pure arithmetic over a clock that the caller reads.
 *
 * A bucket fills at its rate and holds at most its burst. An operation that is larger than the burst passes when the
 * bucket is full, and leaves it in debt: large requests are slowed down, never stuck. What needs nothing from a bucket
 * (a flush moves no bytes) does not wait for it. Not locked: a limit belongs to one thread, or its owner's
 * lock guards it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct token_bucket {
	uint64_t rate_per_s; /* 0: no limit */
	uint64_t burst;      /* at least 1 */
	int64_t tokens;
	uint64_t filled_ns; /* when `tokens` was right */
};

struct rate_limit {
	struct token_bucket ops, bytes;
};

struct rate_limit_config {
	uint64_t ops_per_s, bytes_per_s; /* 0: no limit */
	uint64_t ops_burst, bytes_burst; /* 0: a tenth of a second's worth, at least 1 */
};

void rate_limit_init(struct rate_limit *limit, const struct rate_limit_config *config, uint64_t now_ns);

/* Is there any limit at all? */
bool rate_limit_is_set(const struct rate_limit *limit);

/*
 * May `ops` operations with `bytes` bytes pass now? 0: yes, and both are counted; else neither is, and it returns the
 * time (of the same clock, later than now_ns) at which to ask again.
 */
uint64_t rate_limit_take(struct rate_limit *limit, uint64_t ops, uint64_t bytes, uint64_t now_ns);
