/* Token buckets: bursts, debt, long idle times, huge numbers, and two limits at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rate_limit.h"
#include "util.h"

static const uint64_t SECOND = 1000000000;
static const uint64_t START = 77; /* a clock begins anywhere */

static struct rate_limit make(uint64_t ops_per_s, uint64_t ops_burst, uint64_t bytes_per_s, uint64_t bytes_burst)
{
	struct rate_limit limit;
	const struct rate_limit_config config = {
		.ops_per_s = ops_per_s,
		.ops_burst = ops_burst,
		.bytes_per_s = bytes_per_s,
		.bytes_burst = bytes_burst,
	};
	rate_limit_init(&limit, &config, START);
	return limit;
}

/* How many single operations pass at one moment. */
static unsigned count_passing(struct rate_limit *limit, uint64_t now_ns)
{
	unsigned count = 0;
	while (rate_limit_take(limit, 1, 0, now_ns) == 0)
		count++;
	return count;
}

static void without_a_limit_everything_passes(void **state)
{
	(void)state;
	struct rate_limit limit = make(0, 0, 0, 0);
	assert_false(rate_limit_is_set(&limit));
	for (int i = 0; i < 1000; i++)
		assert_int_equal(rate_limit_take(&limit, UINT64_MAX, UINT64_MAX, START), 0);

	limit = make(1, 0, 0, 0);
	assert_true(rate_limit_is_set(&limit));
	limit = make(0, 0, 1, 0);
	assert_true(rate_limit_is_set(&limit));
}

static void a_burst_passes_at_once_and_no_more(void **state)
{
	(void)state;
	struct rate_limit limit = make(10, 5, 0, 0);
	assert_int_equal(count_passing(&limit, START), 5);
	/* The next one is a tenth of a second away: not a nanosecond less. */
	uint64_t ask_ns = rate_limit_take(&limit, 1, 0, START);
	assert_int_equal(ask_ns, START + SECOND / 10);
	assert_int_equal(rate_limit_take(&limit, 1, 0, ask_ns - 1), ask_ns);
	assert_int_equal(rate_limit_take(&limit, 1, 0, ask_ns), 0);
	assert_int_not_equal(rate_limit_take(&limit, 1, 0, ask_ns), 0);
}

static void the_default_burst_is_a_tenth_of_a_second(void **state)
{
	(void)state;
	struct rate_limit limit = make(1000, 0, 0, 0);
	assert_int_equal(count_passing(&limit, START), 100);
	limit = make(3, 0, 0, 0);
	assert_int_equal(count_passing(&limit, START), 1);
}

static void an_idle_time_fills_up_to_the_burst(void **state)
{
	(void)state;
	struct rate_limit limit = make(100, 7, 0, 0);
	count_passing(&limit, START);
	assert_int_equal(count_passing(&limit, START + 3600 * SECOND), 7);
	assert_int_equal(count_passing(&limit, UINT64_MAX), 7);
}

/* Asked much more often than tokens come, the long-run rate is still the rate. */
static void parts_of_tokens_are_not_lost(void **state)
{
	(void)state;
	struct rate_limit limit = make(3, 1, 0, 0);
	unsigned passed = 0;
	for (uint64_t t = 0; t <= 100 * SECOND; t += SECOND / 1000)
		passed += rate_limit_take(&limit, 1, 0, START + t) == 0;
	assert_in_range(passed, 299, 301);
}

static void a_caller_that_sleeps_as_told_gets_the_rate(void **state)
{
	(void)state;
	struct rate_limit limit = make(0, 0, 1000003, 4096);
	uint64_t now_ns = START, bytes = 0;
	while (now_ns < START + 10 * SECOND) {
		uint64_t ask_ns = rate_limit_take(&limit, 1, 1500, now_ns);
		if (ask_ns) {
			assert_true(ask_ns > now_ns);
			now_ns = ask_ns;
		} else {
			bytes += 1500;
		}
	}
	assert_in_range(bytes, 10 * 1000003 - 3000, 10 * 1000003 + 4096 + 3000);
}

static void larger_than_the_burst_goes_into_debt(void **state)
{
	(void)state;
	struct rate_limit limit = make(0, 0, 1000, 100);
	assert_int_equal(rate_limit_take(&limit, 1, 5000, START), 0);
	/* 4900 of debt and a full bucket of 100: five seconds until the next such one, 4.901 until a byte. */
	assert_int_equal(rate_limit_take(&limit, 1, 5000, START), START + 5 * SECOND);
	assert_int_equal(rate_limit_take(&limit, 1, 1, START), START + 4901 * (SECOND / 1000));
	assert_int_not_equal(rate_limit_take(&limit, 1, 5000, START + 5 * SECOND - 1), 0);
	assert_int_equal(rate_limit_take(&limit, 1, 5000, START + 5 * SECOND), 0);
}

static void a_large_one_waits_for_a_full_bucket(void **state)
{
	(void)state;
	struct rate_limit limit = make(0, 0, 1000, 100);
	assert_int_equal(rate_limit_take(&limit, 1, 10, START), 0);
	assert_int_equal(rate_limit_take(&limit, 1, 101, START), START + SECOND / 100);
}

static void both_or_neither(void **state)
{
	(void)state;
	struct rate_limit limit = make(10, 10, 1000, 1000);
	assert_int_equal(rate_limit_take(&limit, 1, 1000, START), 0);
	/* No bytes left: the operations keep their tokens however often it is asked. */
	for (int i = 0; i < 100; i++)
		assert_int_equal(rate_limit_take(&limit, 1, 500, START), START + SECOND / 2);
	assert_int_equal(limit.ops.tokens, 9);
	/* What moves no bytes (a flush) does not wait for them. */
	assert_int_equal(count_passing(&limit, START), 9);
	/* No operations left, and the bytes are back first: the later of the two counts. */
	assert_int_equal(rate_limit_take(&limit, 1, 50, START), START + SECOND / 10);
	assert_int_equal(rate_limit_take(&limit, 1, 50, START + SECOND / 20), START + SECOND / 10);
	assert_int_equal(limit.bytes.tokens, 50);
	assert_int_equal(rate_limit_take(&limit, 1, 50, START + SECOND / 10), 0);
}

static void huge_numbers_do_not_wrap(void **state)
{
	(void)state;
	struct rate_limit limit = make(UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX);
	assert_int_equal(rate_limit_take(&limit, UINT64_MAX, UINT64_MAX, START), 0);
	assert_int_equal(limit.bytes.tokens, 0);
	assert_int_equal(rate_limit_take(&limit, 1, 1, START), START + 1);
	assert_int_equal(rate_limit_take(&limit, 1, 1, UINT64_MAX), 0);

	/* A debt of more than 2^62 seconds: not now, and not in this life. */
	limit = make(1, 1, 0, 0);
	assert_int_equal(rate_limit_take(&limit, UINT64_MAX, 0, START), 0);
	assert_int_equal(rate_limit_take(&limit, UINT64_MAX, 0, START), UINT64_MAX);
	assert_int_equal(rate_limit_take(&limit, 1, 0, START + SECOND), UINT64_MAX);
	assert_true(limit.ops.tokens < 0);
}

static void a_clock_that_goes_back_gives_nothing(void **state)
{
	(void)state;
	struct rate_limit limit = make(10, 1, 0, 0);
	assert_int_equal(rate_limit_take(&limit, 1, 0, START), 0);
	assert_int_equal(rate_limit_take(&limit, 1, 0, 0), START + SECOND / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_limit_everything_passes),
		cmocka_unit_test(a_burst_passes_at_once_and_no_more),
		cmocka_unit_test(the_default_burst_is_a_tenth_of_a_second),
		cmocka_unit_test(an_idle_time_fills_up_to_the_burst),
		cmocka_unit_test(parts_of_tokens_are_not_lost),
		cmocka_unit_test(a_caller_that_sleeps_as_told_gets_the_rate),
		cmocka_unit_test(larger_than_the_burst_goes_into_debt),
		cmocka_unit_test(a_large_one_waits_for_a_full_bucket),
		cmocka_unit_test(both_or_neither),
		cmocka_unit_test(huge_numbers_do_not_wrap),
		cmocka_unit_test(a_clock_that_goes_back_gives_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
