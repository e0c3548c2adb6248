/* How an end becomes a status and a reason, and the JSON that tells of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cli/exit_status.h"
#include "cli/json.h"
#include "cli/outcome.h"
#include "cli/status_file.h"

/* Linked for the version in the status file. */
const char *vmlet_version(void)
{
	return "0.0.test";
}

static void on_send(void *ctx, const char *text, size_t size)
{
	(void)ctx;
	(void)text;
	(void)size;
}

static void on_met(void *ctx, const char *pattern)
{
	(void)ctx;
	(void)pattern;
}

/* Expects "one", then "two"; must not see "bad". */
static struct expect *watch(const char *text)
{
	struct expect *expect = expect_new(&(struct expect_actions){.send = on_send, .met = on_met});
	char why[64];

	assert_non_null(expect);
	assert_int_equal(expect_add_pattern(expect, EXPECT_DIALOGUE, "one", 0, why, sizeof(why)), 0);
	assert_int_equal(expect_add_pattern(expect, EXPECT_DIALOGUE, "two", 0, why, sizeof(why)), 0);
	assert_int_equal(expect_add_fail_on(expect, EXPECT_SEQUENCES, "bad", why, sizeof(why)), 0);
	expect_feed(expect, (const uint8_t *)text, strlen(text), 0);
	return expect;
}

static void check(enum vmlet_end end, uint32_t value, const char *console, int status, const char *reason,
		  const char *words)
{
	struct vmlet_result result = {.end = end, .value = value};
	struct expect *expect = console ? watch(console) : NULL;
	struct outcome outcome;

	outcome_of_result(&outcome, &result, expect);
	if (outcome.status != status || strcmp(outcome.reason, reason) != 0 || !strstr(outcome.text, words))
		fail_msg("%d '%s': %d %s '%s'", end, console, outcome.status, outcome.reason, outcome.text);
	expect_free(expect);
}

static void test_what_counts_first(void **state)
{
	const char *met = "one two", *unmet = "one", *bad = "one bad two";

	(void)state;
	check(VMLET_END_POWEROFF, 0, NULL, 0, "poweroff", "powered off");
	check(VMLET_END_POWEROFF, 0, met, 0, "expected", "all that was expected");
	check(VMLET_END_POWEROFF, 0, unmet, 84, "expect", "powered off, but its console never showed 'two'");
	check(VMLET_END_POWEROFF, 0, bad, 84, "fail-on", "'bad', in the line 'one bad two'");
	check(VMLET_END_DEBUG_EXIT, 3, met, 0, "expected", "");
	check(VMLET_END_DEBUG_EXIT, 3, unmet, 84, "expect", "wrote 3");
	check(VMLET_END_DEBUG_EXIT, 0, unmet, 84, "expect", "wrote 0");
	check(VMLET_END_DEBUG_EXIT, 3, NULL, 3, "debug-exit", "wrote 3");
	check(VMLET_END_PANIC, 0, unmet, 84, "expect", "panicked, but");
	check(VMLET_END_PANIC, 0, met, 0, "expected", "");
	check(VMLET_END_PANIC, 0, NULL, 81, "panic", "");
	check(VMLET_END_REBOOT, 0, NULL, 80, "reboot", "");
	check(VMLET_END_TRIPLE_FAULT, 0, bad, 84, "fail-on", "");
	check(VMLET_END_TRIPLE_FAULT, 0, NULL, 82, "triple-fault", "");
	check(VMLET_END_STOPPED, STOP_VALUE_VERDICT, met, 0, "expected", "");
	check(VMLET_END_STOPPED, STOP_VALUE_VERDICT, bad, 84, "fail-on", "");
	check(VMLET_END_STOPPED, 15, met, 143, "signal", "SIGTERM");
	check(VMLET_END_STOPPED, STOP_VALUE_LEFT, unmet, 85, "left", "");
	check(VMLET_END_TIMEOUT, 0, bad, 124, "timeout", "");
	check(VMLET_END_TIMEOUT, 0, met, 124, "timeout", "");
	check(VMLET_END_TIMEOUT, 0, unmet, 124, "timeout", "had not shown 'two'");
	check(VMLET_END_KVM_ERROR, 0, bad, 83, "kvm", "");
	check(VMLET_END_HOST_ERROR, 0, met, 1, "host", "");
}

static void test_an_incomplete_record_is_no_success(void **state)
{
	struct vmlet_result poweroff = {.end = VMLET_END_POWEROFF}, panic = {.end = VMLET_END_PANIC};
	struct outcome outcome;

	(void)state;
	outcome_of_result(&outcome, &poweroff, NULL);
	outcome_add_incomplete(&outcome, "full");
	assert_int_equal(outcome.status, 1);
	assert_string_equal(outcome.reason, "host");
	assert_string_equal(outcome.text, "full");
	assert_int_equal(outcome.end, VMLET_END_POWEROFF);
	outcome_of_result(&outcome, &panic, NULL);
	outcome_add_incomplete(&outcome, "full");
	assert_int_equal(outcome.status, 81);
}

static void render_string(const char *string, size_t max, const char *expected)
{
	char text[128];
	struct json json;

	json_init(&json, text, sizeof(text));
	json_string(&json, string, max);
	assert_string_equal(text, expected);
}

static void test_json_strings(void **state)
{
	(void)state;
	render_string(NULL, 9, "null");
	render_string("", 9, "\"\"");
	render_string("a\"b\\c", 9, "\"a\\\"b\\\\c\"");
	render_string("\x01\n\x7f", 9, "\"\\u0001\\u000a\\u007f\"");
	render_string("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 99, "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
	render_string("\xff\xc3_\xc0\x80\xed\xa0\x80\xe2\x82", 99, "\"?\?_?\?\?\?\?\?\?\"");
	render_string("abcdef", 3, "\"abc\"");
	render_string("ab\xc3\xa4", 3, "\"ab\"");
}

static void test_json_that_does_not_fit(void **state)
{
	char text[8];
	struct json json;

	(void)state;
	json_init(&json, text, sizeof(text));
	json_raw(&json, "1234567");
	assert_false(json.cut);
	json_raw(&json, "8");
	assert_true(json.cut);
	assert_string_equal(text, "1234567");
}

/* The longest texts there can be, all of characters that grow to six. */
static void test_a_status_fits(void **state)
{
	char text[STATUS_FILE_MAX_BYTES], pattern[2000];
	char line[EXPECT_SHOWN_MAX_BYTES + 1] = {0};
	struct outcome outcome = {.status = 255, .reason = "debug-exit"};
	size_t size;

	(void)state;
	memset(outcome.text, 1, sizeof(outcome.text) - 1);
	memset(pattern, 1, sizeof(pattern) - 1);
	pattern[sizeof(pattern) - 1] = '\0';
	memset(line, 1, sizeof(line) - 1);
	outcome.expect = (struct expect_summary){.met = 1, .total = 2, .pattern = pattern, .line = line};
	size = status_file_render(text, sizeof(text), &outcome, NULL, 1, 2);
	assert_int_equal(size, strlen(text));
	assert_string_equal(text + size - 4, "}\n}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_counts_first), cmocka_unit_test(test_an_incomplete_record_is_no_success),
		cmocka_unit_test(test_json_strings),      cmocka_unit_test(test_json_that_does_not_fit),
		cmocka_unit_test(test_a_status_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
