/* The watcher of a console, driven byte by byte and with a clock of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/console_text.h"
#include "cli/expect.h"

enum { MS = 1000000 };

struct rig {
	struct expect *expect;
	char log[1024]; /* "met:PATTERN;sent:TEXT;" */
};

static void add_log(struct rig *rig, const char *what, const char *text, size_t size)
{
	size_t used = strlen(rig->log);

	snprintf(rig->log + used, sizeof(rig->log) - used, "%s:%.*s;", what, (int)size, text);
}

static void on_send(void *ctx, const char *text, size_t size)
{
	add_log(ctx, "sent", text, size);
}

static void on_met(void *ctx, const char *pattern)
{
	add_log(ctx, "met", pattern, strlen(pattern));
}

static struct rig *rig_new(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->expect = expect_new(&(struct expect_actions){.send = on_send, .met = on_met, .ctx = rig});
	assert_non_null(rig->expect);
	return rig;
}

static void rig_free(struct rig *rig)
{
	expect_free(rig->expect);
	free(rig);
}

static void want(struct rig *rig, enum expect_sequence sequence, const char *pattern)
{
	char why[128];

	assert_int_equal(expect_add_pattern(rig->expect, sequence, pattern, 0, why, sizeof(why)), 0);
}

static void want_not(struct rig *rig, const char *pattern)
{
	char why[128];

	assert_int_equal(expect_add_fail_on(rig->expect, EXPECT_SEQUENCES, pattern, why, sizeof(why)), 0);
}

static void reply(struct rig *rig, enum expect_sequence sequence, const char *text)
{
	assert_int_equal(expect_add_send(rig->expect, sequence, text, strlen(text)), 0);
}

static void feed(struct rig *rig, const char *text)
{
	expect_feed(rig->expect, (const uint8_t *)text, strlen(text), 0);
}

static enum expect_verdict verdict(const struct rig *rig)
{
	return expect_verdict(rig->expect);
}

/* One expectation and this output: is it met? In one piece, and byte by byte. */
static void check(const char *pattern, const char *text, enum expect_verdict expected)
{
	for (size_t piece = 1; piece <= 4096; piece *= 64) {
		struct rig *rig = rig_new();

		want(rig, EXPECT_DIALOGUE, pattern);
		for (size_t at = 0, size = strlen(text); at < size; at += piece)
			expect_feed(rig->expect, (const uint8_t *)text + at, size - at < piece ? size - at : piece, 0);
		if (verdict(rig) != expected)
			fail_msg("'%s' in '%s' by %zu: %d", pattern, text, piece, verdict(rig));
		rig_free(rig);
	}
}

static void test_what_is_found(void **state)
{
	(void)state;
	check("login:", "debian login: ", EXPECT_MET);
	check("^login: ", "login: ", EXPECT_MET);
	check("^login", "debian login: ", EXPECT_OPEN);
	check("a.*b", "a\nb", EXPECT_OPEN);
	check("^two$", "one\ntwo\nthree", EXPECT_MET);
	check("one$", "one two", EXPECT_OPEN);
	check("^$", "one\n\ntwo", EXPECT_MET);
	check("^[0-9]+ tests? (passed|ok)", "12 tests passed", EXPECT_MET);
	check("line 1line", "line 1\r\nline 2\r\n", EXPECT_OPEN);
	check("^line 1$", "line 1\r\n", EXPECT_MET);
	check("a+b", "aab", EXPECT_MET);
	check("a[+]b", "a+b", EXPECT_MET);
	check("\xc3\xa4", "\xc3\xa4", EXPECT_MET);
}

static void test_what_is_not_text(void **state)
{
	static const char with_nul[] = "lo\0gin";
	struct rig *rig = rig_new();

	(void)state;
	check("OK done", "\033[1;32mOK\033[0m done", EXPECT_MET);
	check("^OK$", "\033]0;a title\007\033(B\033=OK\033[K\n", EXPECT_MET);
	check("^OK$", "\033]0;a title\033\\OK\r\n", EXPECT_MET);
	check("^OK$", "\033]a title without end\nOK\n", EXPECT_MET);
	check("^OK$", "\033[12\nOK\n", EXPECT_MET);
	check("^ok$", "\033[\033[1mok\n", EXPECT_MET);
	want(rig, EXPECT_DIALOGUE, "login");
	expect_feed(rig->expect, (const uint8_t *)with_nul, sizeof(with_nul) - 1, 0);
	assert_int_equal(verdict(rig), EXPECT_MET);
	rig_free(rig);
}

static void test_in_order(void **state)
{
	struct rig *rig = rig_new();
	struct expect_summary summary;

	(void)state;
	want(rig, EXPECT_DIALOGUE, "a");
	want(rig, EXPECT_DIALOGUE, "b+");
	want(rig, EXPECT_DIALOGUE, "a");
	feed(rig, "b a");
	expect_summarize(rig->expect, &summary);
	assert_int_equal(summary.met, 1);
	assert_int_equal(summary.total, 3);
	assert_string_equal(summary.pattern, "b+");
	feed(rig, "nd b");
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	feed(rig, " a");
	assert_int_equal(verdict(rig), EXPECT_MET);
	assert_string_equal(rig->log, "met:a;met:b+;met:a;");
	rig_free(rig);
}

static void test_fail_on(void **state)
{
	struct rig *rig = rig_new();
	struct expect_summary summary;

	(void)state;
	want(rig, EXPECT_DIALOGUE, "done");
	want_not(rig, "Oops|BUG");
	want_not(rig, "never");
	feed(rig, "all is well\nthen: Oo");
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	feed(rig, "ps: 0000 done\n");
	assert_int_equal(verdict(rig), EXPECT_FAILED);
	expect_summarize(rig->expect, &summary);
	assert_string_equal(summary.pattern, "Oops|BUG");
	assert_string_equal(summary.line, "then: Oops: 0000 done");
	rig_free(rig);
}

/* In one line what is shown first counts, however the line came. */
static void test_first_of_both(void **state)
{
	for (int whole = 0; whole < 2; whole++) {
		struct rig *rig = rig_new();
		const char *text = "done Oops\n";

		want(rig, EXPECT_DIALOGUE, "done");
		want_not(rig, "Oops");
		if (whole)
			feed(rig, text);
		for (; !whole && *text; text++)
			expect_feed(rig->expect, (const uint8_t *)text, 1, 0);
		assert_int_equal(verdict(rig), EXPECT_MET);
		rig_free(rig);
	}
	(void)state;
}

static void test_a_prompt(void **state)
{
	struct rig *rig = rig_new();

	(void)state;
	want(rig, EXPECT_DIALOGUE, "[#$] $");
	feed(rig, "root# ");
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	assert_int_equal(expect_deadline(rig->expect), EXPECT_QUIET_NS);
	expect_tick(rig->expect, EXPECT_QUIET_NS - 1);
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	expect_tick(rig->expect, EXPECT_QUIET_NS);
	assert_int_equal(verdict(rig), EXPECT_MET);
	rig_free(rig);
}

static void test_a_quiet_line_is_looked_at_once(void **state)
{
	struct rig *rig = rig_new();

	(void)state;
	want(rig, EXPECT_DIALOGUE, "x$");
	feed(rig, "text");
	expect_tick(rig->expect, EXPECT_QUIET_NS);
	assert_true(expect_deadline(rig->expect) == UINT64_MAX);
	expect_end(rig->expect, 0);
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	rig_free(rig);
}

static void test_the_end_ends_the_line(void **state)
{
	struct rig *rig = rig_new();

	(void)state;
	want(rig, EXPECT_DIALOGUE, "bye$");
	feed(rig, "good bye");
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	expect_end(rig->expect, 1);
	assert_int_equal(verdict(rig), EXPECT_MET);
	rig_free(rig);
}

static void test_replies(void **state)
{
	struct rig *rig = rig_new();

	(void)state;
	want(rig, EXPECT_REPLIES, "login: ");
	reply(rig, EXPECT_REPLIES, "root");
	want(rig, EXPECT_REPLIES, "[Pp]assword: ");
	reply(rig, EXPECT_REPLIES, "secret");
	feed(rig, "password: login: ");
	assert_string_equal(rig->log, "sent:root;");
	feed(rig, "root\nPassword: ");
	assert_string_equal(rig->log, "sent:root;sent:secret;");
	feed(rig, "login: ");
	assert_string_equal(rig->log, "sent:root;sent:secret;");
	expect_end(rig->expect, 1);
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	rig_free(rig);
}

static void test_sleep_delays_what_is_sent(void **state)
{
	struct rig *rig = rig_new();

	(void)state;
	want(rig, EXPECT_DIALOGUE, "one");
	assert_int_equal(expect_add_sleep(rig->expect, EXPECT_DIALOGUE, 50 * MS), 0);
	reply(rig, EXPECT_DIALOGUE, "x");
	want(rig, EXPECT_DIALOGUE, "two");
	assert_int_equal(expect_add_sleep(rig->expect, EXPECT_DIALOGUE, 70 * MS), 0);
	feed(rig, "one\n");
	assert_string_equal(rig->log, "met:one;");
	assert_int_equal(expect_deadline(rig->expect), 50 * MS);
	expect_tick(rig->expect, 49 * MS);
	assert_string_equal(rig->log, "met:one;");
	expect_tick(rig->expect, 50 * MS);
	assert_string_equal(rig->log, "met:one;sent:x;");
	expect_feed(rig->expect, (const uint8_t *)"two\n", 4, 60 * MS);
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	assert_int_equal(expect_deadline(rig->expect), 130 * MS);
	expect_tick(rig->expect, 130 * MS);
	assert_int_equal(verdict(rig), EXPECT_MET);
	rig_free(rig);
}

static void test_a_sleep_that_is_over_wakes_nobody(void **state)
{
	struct rig *rig = rig_new();

	(void)state;
	assert_int_equal(expect_add_sleep(rig->expect, EXPECT_DIALOGUE, MS), 0);
	expect_tick(rig->expect, 0);
	assert_int_equal(expect_deadline(rig->expect), MS);
	expect_tick(rig->expect, MS);
	assert_true(expect_deadline(rig->expect) == UINT64_MAX);
	assert_int_equal(verdict(rig), EXPECT_OPEN);
	rig_free(rig);
}

static void test_late(void **state)
{
	struct rig *rig = rig_new();
	struct expect_summary summary;
	char why[64];

	(void)state;
	want(rig, EXPECT_DIALOGUE, "one");
	assert_int_equal(expect_add_pattern(rig->expect, EXPECT_DIALOGUE, "two", 10 * MS, why, sizeof(why)), 0);
	expect_tick(rig->expect, 0);
	assert_true(expect_deadline(rig->expect) == UINT64_MAX);
	expect_feed(rig->expect, (const uint8_t *)"one\n", 4, 5 * MS);
	assert_int_equal(expect_deadline(rig->expect), 15 * MS);
	expect_tick(rig->expect, 15 * MS);
	assert_int_equal(verdict(rig), EXPECT_LATE);
	expect_summarize(rig->expect, &summary);
	assert_string_equal(summary.pattern, "two");
	rig_free(rig);
}

static void test_bad_expressions(void **state)
{
	struct rig *rig = rig_new();
	char why[128] = "";

	(void)state;
	assert_int_equal(expect_add_pattern(rig->expect, EXPECT_DIALOGUE, "a(b", 0, why, sizeof(why)), -EINVAL);
	assert_true(strlen(why) > 0);
	assert_int_equal(expect_add_fail_on(rig->expect, EXPECT_SEQUENCES, "[", why, sizeof(why)), -EINVAL);
	rig_free(rig);
}

/* A line of a megabyte, with the words across every place where it could be cut. */
static void test_a_very_long_line(void **state)
{
	(void)state;
	for (size_t at = EXPECT_LINE_MAX_BYTES - 8; at < EXPECT_LINE_MAX_BYTES + 8; at++) {
		struct rig *rig = rig_new();
		char *text = malloc(1 << 20);

		assert_non_null(text);
		memset(text, 'x', 1 << 20);
		memcpy(text + at, "needle", 6);
		want(rig, EXPECT_DIALOGUE, "ne{2}dle");
		want(rig, EXPECT_DIALOGUE, "^x|needle");
		expect_feed(rig->expect, (const uint8_t *)text, 1 << 20, 0);
		assert_string_equal(rig->log, "met:ne{2}dle;");
		rig_free(rig);
		free(text);
	}
}

/* A megabyte in pieces of one byte, as a slow UART gives them: linear, or this takes hours. */
static void test_many_pieces(void **state)
{
	struct rig *rig = rig_new();
	struct timespec before, after;

	(void)state;
	want(rig, EXPECT_DIALOGUE, "needle");
	want_not(rig, "(B|b)ad");
	clock_gettime(CLOCK_MONOTONIC, &before);
	for (size_t i = 0; i < 1 << 20; i++)
		expect_feed(rig->expect, (const uint8_t *)"x", 1, 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_in_range(after.tv_sec - before.tv_sec, 0, 20);
	feed(rig, "needle\n");
	assert_int_equal(verdict(rig), EXPECT_MET);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_found),
		cmocka_unit_test(test_what_is_not_text),
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_fail_on),
		cmocka_unit_test(test_first_of_both),
		cmocka_unit_test(test_a_prompt),
		cmocka_unit_test(test_a_quiet_line_is_looked_at_once),
		cmocka_unit_test(test_the_end_ends_the_line),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_sleep_delays_what_is_sent),
		cmocka_unit_test(test_a_sleep_that_is_over_wakes_nobody),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_bad_expressions),
		cmocka_unit_test(test_a_very_long_line),
		cmocka_unit_test(test_many_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
