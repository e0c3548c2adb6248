#include "rate_limit.h"

#include "util.h"

enum { DEFAULT_BURSTS_PER_S = 10 };
static const uint64_t NS_PER_S = 1000000000;

/* A rate times a time does not fit 64 bits. */
__extension__ typedef unsigned __int128 wide_t;

static uint64_t narrow(wide_t n)
{
	return n > UINT64_MAX ? UINT64_MAX : (uint64_t)n;
}

/* How long the bucket takes to gain `tokens`; rounded up, so that they are there then. */
static uint64_t time_to_gain(const struct token_bucket *bucket, uint64_t tokens)
{
	return narrow(((wide_t)tokens * NS_PER_S + bucket->rate_per_s - 1) / bucket->rate_per_s);
}

static void init_bucket(struct token_bucket *bucket, uint64_t rate_per_s, uint64_t burst, uint64_t now_ns)
{
	if (!burst)
		burst = max_u64(rate_per_s / DEFAULT_BURSTS_PER_S, 1);
	bucket->rate_per_s = rate_per_s;
	bucket->burst = min_u64(burst, INT64_MAX);
	bucket->tokens = (int64_t)bucket->burst;
	bucket->filled_ns = now_ns;
}

/* filled_ns goes on by the time that the whole tokens took: the part of one that has begun is not lost. */
static void fill(struct token_bucket *bucket, uint64_t now_ns)
{
	if (now_ns <= bucket->filled_ns)
		return;
	wide_t gained = (wide_t)(now_ns - bucket->filled_ns) * bucket->rate_per_s / NS_PER_S;
	/* Exact in two's complement, whatever the debt. */
	uint64_t missing = bucket->burst - (uint64_t)bucket->tokens;
	if (gained >= missing) {
		bucket->tokens = (int64_t)bucket->burst;
		bucket->filled_ns = now_ns;
		return;
	}
	bucket->tokens += (int64_t)gained;
	bucket->filled_ns += time_to_gain(bucket, (uint64_t)gained);
}

/* When `count` may pass: 0 for now. What needs nothing from a bucket does not wait for it. */
static uint64_t when(struct token_bucket *bucket, uint64_t count, uint64_t now_ns)
{
	if (!bucket->rate_per_s || !count)
		return 0;
	fill(bucket, now_ns);
	int64_t needed = (int64_t)min_u64(count, bucket->burst);
	if (bucket->tokens >= needed)
		return 0;
	uint64_t wait_ns = time_to_gain(bucket, (uint64_t)needed - (uint64_t)bucket->tokens);
	return narrow((wide_t)bucket->filled_ns + wait_ns);
}

/* There is at least one token for a count above 0, so the debt cannot wrap. */
static void take(struct token_bucket *bucket, uint64_t count)
{
	if (bucket->rate_per_s)
		bucket->tokens -= (int64_t)min_u64(count, INT64_MAX);
}

void rate_limit_init(struct rate_limit *limit, const struct rate_limit_config *config, uint64_t now_ns)
{
	init_bucket(&limit->ops, config->ops_per_s, config->ops_burst, now_ns);
	init_bucket(&limit->bytes, config->bytes_per_s, config->bytes_burst, now_ns);
}

bool rate_limit_is_set(const struct rate_limit *limit)
{
	return limit->ops.rate_per_s || limit->bytes.rate_per_s;
}

uint64_t rate_limit_take(struct rate_limit *limit, uint64_t ops, uint64_t bytes, uint64_t now_ns)
{
	uint64_t ask_ns = max_u64(when(&limit->ops, ops, now_ns), when(&limit->bytes, bytes, now_ns));
	if (ask_ns)
		return ask_ns;
	take(&limit->ops, ops);
	take(&limit->bytes, bytes);
	return 0;
}
