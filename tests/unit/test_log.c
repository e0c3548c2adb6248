/* Log lines: levels, the sink, and the limit on what a guest can provoke. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"

static const uint64_t NS_PER_S = 1000000000;

static struct {
	unsigned count;
	enum log_level level;
	char line[1024];
} seen;

static void sink(void *ctx, enum log_level level, const char *line)
{
	assert_ptr_equal(ctx, &seen);
	seen.count++;
	seen.level = level;
	(void)snprintf(seen.line, sizeof(seen.line), "%s", line);
}

static struct log make_log(enum log_level level)
{
	memset(&seen, 0, sizeof(seen));
	return (struct log){level, sink, &seen};
}

static void levels_filter(void **state)
{
	(void)state;
	for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
		struct log log = make_log((enum log_level)level);
		log_error(&log, "e%d", 1);
		assert_string_equal(seen.line, "e1");
		assert_int_equal(seen.level, LOG_LEVEL_ERROR);
		log_warn(&log, "w");
		log_info(&log, "i");
		log_debug(&log, "d");
		assert_int_equal(seen.count, level + 1);
		assert_int_equal(seen.level, level);
	}
}

static void nobody_listens(void **state)
{
	(void)state;
	struct log silent = {LOG_LEVEL_DEBUG, NULL, NULL};
	struct log_limit limit = {0};
	log_error(NULL, "x");
	log_error(&silent, "x");
	log_guest(NULL, &limit, "x");
	log_guest(&silent, &limit, "x");
}

static void a_long_line_is_cut(void **state)
{
	(void)state;
	char words[2000];
	memset(words, 'w', sizeof(words));
	words[sizeof(words) - 1] = 0;
	struct log log = make_log(LOG_LEVEL_DEBUG);
	log_warn(&log, "%s", words);
	assert_int_equal(seen.count, 1);
	assert_int_equal(strlen(seen.line), 511);
}

/* Let `seconds` go by for the limit. */
static void pass(struct log_limit *limit, unsigned seconds)
{
	limit->window_start_ns -= seconds * NS_PER_S;
}

static void a_burst_and_then_silence(void **state)
{
	(void)state;
	struct log log = make_log(LOG_LEVEL_WARN);
	struct log_limit limit = {0};
	for (int i = 0; i < 100; i++)
		log_guest(&log, &limit, "line %d", i);
	assert_int_equal(seen.count, LOG_LIMIT_BURST);
	assert_string_equal(seen.line, "line 7");
	assert_int_equal(seen.level, LOG_LEVEL_WARN);

	/* One more a second, after a line that says what is missing. */
	pass(&limit, 1);
	log_guest(&log, &limit, "later");
	assert_int_equal(seen.count, LOG_LIMIT_BURST + 2);
	assert_string_equal(seen.line, "later");
	log_guest(&log, &limit, "again");
	assert_int_equal(seen.count, LOG_LIMIT_BURST + 2);
	assert_int_equal(limit.suppressed, 1);
}

static void a_quiet_time_gives_the_burst_back(void **state)
{
	(void)state;
	struct log log = make_log(LOG_LEVEL_WARN);
	struct log_limit limit = {0};
	for (int i = 0; i < LOG_LIMIT_BURST; i++)
		log_guest(&log, &limit, "x");
	pass(&limit, 3);
	for (int i = 0; i < 100; i++)
		log_guest(&log, &limit, "x");
	assert_int_equal(seen.count, LOG_LIMIT_BURST + 3);
	pass(&limit, 3600);
	for (int i = 0; i < 100; i++)
		log_guest(&log, &limit, "x");
	assert_int_equal(seen.count, 2 * LOG_LIMIT_BURST + 3 + 1); /* and one that tells of 97 */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels_filter),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(a_long_line_is_cut),
		cmocka_unit_test(a_burst_and_then_silence),
		cmocka_unit_test(a_quiet_time_gives_the_burst_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
