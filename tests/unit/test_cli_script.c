/* Scripts and --send: what is understood, and what a mistake is told as. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/script.h"
#include "cli/values.h"

enum { MS = 1000000 };

static void on_send(void *ctx, const char *text, size_t size)
{
	char *log = ctx;
	size_t used = strlen(log);

	snprintf(log + used, 256 - used, "[%.*s]", (int)size, text);
}

static void on_met(void *ctx, const char *pattern)
{
	(void)ctx;
	(void)pattern;
}

static struct expect *make(char *log)
{
	struct expect *expect = expect_new(&(struct expect_actions){.send = on_send, .met = on_met, .ctx = log});

	assert_non_null(expect);
	log[0] = '\0';
	return expect;
}

static void refused(const char *text, const char *where, const char *word)
{
	char log[256];
	struct expect *expect = make(log);
	struct cli_error error = {0};

	assert_int_equal(script_parse("boot.vmlet", text, strlen(text), expect, &error), -EINVAL);
	assert_memory_equal(error.text, where, strlen(where));
	if (!strstr(error.text, word))
		fail_msg("no '%s' in '%s'", word, error.text);
	assert_null(strchr(error.text, '\n'));
	expect_free(expect);
}

static void feed(struct expect *expect, const char *text, uint64_t now_ns)
{
	expect_feed(expect, (const uint8_t *)text, strlen(text), now_ns);
}

static void test_a_dialogue(void **state)
{
	static const char text[] = "# log in\r\n"
				   "\n"
				   "  expect login: \n"
				   "send root\\n\n"
				   "timeout 2s\n"
				   "expect ^# $\n"
				   "fail-on [Nn]ot found\n"
				   "sleep 10ms\n"
				   "send \\x20a\\\\b\\t\\r\n"
				   "timeout none\n"
				   "expect done";
	char log[256];
	struct expect *expect = make(log);
	struct cli_error error;

	(void)state;
	assert_int_equal(script_parse("s", text, strlen(text), expect, &error), 0);
	expect_tick(expect, 0);
	feed(expect, "not found\nlogin:", 0);
	assert_string_equal(log, "");
	feed(expect, " ", 0);
	assert_string_equal(log, "[root\n]");
	feed(expect, "\r\n# \n", 20 * MS);
	assert_string_equal(log, "[root\n]");
	assert_int_equal(expect_deadline(expect), 30 * MS);
	expect_tick(expect, 30 * MS);
	assert_string_equal(log, "[root\n][ a\\b\t\r]");
	feed(expect, "done\n", 40 * MS);
	assert_int_equal(expect_verdict(expect), EXPECT_MET);
	expect_free(expect);
}

static void test_a_fail_on_counts_from_its_line_on(void **state)
{
	static const char text[] = "expect a\nfail-on b\nexpect c\n";
	char log[256];
	struct expect *expect = make(log);
	struct cli_error error;

	(void)state;
	assert_int_equal(script_parse("s", text, strlen(text), expect, &error), 0);
	expect_tick(expect, 0);
	feed(expect, "b a ", 0);
	assert_int_equal(expect_verdict(expect), EXPECT_OPEN);
	feed(expect, "b c\n", 0);
	assert_int_equal(expect_verdict(expect), EXPECT_FAILED);
	expect_free(expect);
}

static void test_mistakes(void **state)
{
	(void)state;
	refused("expect a\nexpct b\n", "boot.vmlet:2: ", "did you mean expect?");
	refused("# x\n\nshout b", "boot.vmlet:3: ", "there are expect, send");
	refused("expect", "boot.vmlet:1: ", "needs something");
	refused("expect \r\n", "boot.vmlet:1: ", "needs something");
	refused("expect a(\n", "boot.vmlet:1: ", "'a('");
	refused("fail-on [\n", "boot.vmlet:1: ", "regular expression");
	refused("send a\\q\n", "boot.vmlet:1: ", "backslash");
	refused("send a\\\n", "boot.vmlet:1: ", "backslash");
	refused("send \\x4\n", "boot.vmlet:1: ", "\\xHH");
	refused("sleep soon\n", "boot.vmlet:1: ", "'soon'");
	refused("timeout 0\n", "boot.vmlet:1: ", "'0'");
}

static void test_no_text(void **state)
{
	struct cli_error error;
	char log[256];
	struct expect *expect = make(log);

	(void)state;
	assert_int_equal(script_parse("s", "send a\0b", 8, expect, &error), -EINVAL);
	assert_int_equal(script_read("/nonexistent/script", expect, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/script"));
	assert_int_equal(script_read("/", expect, &error), -EISDIR);
	assert_int_equal(script_read("/dev/zero", expect, &error), -EINVAL);
	expect_free(expect);
}

static void test_replies(void **state)
{
	struct cli_error error;
	char log[256];
	struct expect *expect = make(log);

	(void)state;
	assert_int_equal(script_add_reply("go=>a=>b\\x0a", expect, &error), 0);
	assert_int_equal(script_add_reply("(=>a", expect, &error), -EINVAL);
	assert_non_null(strstr(error.text, "'('"));
	assert_int_equal(script_add_reply("x=>\\y", expect, &error), -EINVAL);
	feed(expect, "go", 0);
	assert_string_equal(log, "[a=>b\n]");
	expect_free(expect);
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{"90", 90000000000},     {"90s", 90000000000},  {"1.5m", 90000000000},
		{"500ms", 500000000},    {"2h", 7200000000000}, {"0.5", 500000000},
		{"0.25h", 900000000000}, {"0.001ms", 1000},     {"86400000", 86400000000000000},
	};
	static const char *const bad[] = {
		"",   "0",  "0.0s",     "-1",        "+1",  "1.",    ".5",
		"1d", "1S", "1 s",      "1s ",       "1e3", "0x10",  "inf",
		"ms", "s",  "86400001", "99999999h", "1,5", "1.5.5", "18446744073709551616",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint64_t ns;

		assert_int_equal(value_duration(good[i].text, &ns), 0);
		if (ns != good[i].ns)
			fail_msg("%s: %llu", good[i].text, (unsigned long long)ns);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t ns = 7;

		if (value_duration(bad[i], &ns) != -EINVAL || ns != 7)
			fail_msg("%s: %llu", bad[i], (unsigned long long)ns);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_dialogue), cmocka_unit_test(test_a_fail_on_counts_from_its_line_on),
		cmocka_unit_test(test_mistakes),   cmocka_unit_test(test_no_text),
		cmocka_unit_test(test_replies),    cmocka_unit_test(test_durations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
