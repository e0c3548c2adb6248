/* Results and reports, letter by letter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/test_report.h"
#include "cli/test_text.h"

static void assert_clean(const char *text, size_t size, const char *expected)
{
	char clean[128];

	test_text_clean(text, size, clean);
	assert_string_equal(clean, expected);
}
#define CLEAN(text, expected) assert_clean(text, sizeof(text) - 1, expected)

static void test_clean(void **state)
{
	(void)state;
	CLEAN("a\tb\r\nc\0d\x7f", "a\tb\nc?d?");
	CLEAN("\x1b[0;31mred\x1b[m\x1b[", "red");
	CLEAN("\x1b"
	      "cx\x1b",
	      "x");
	CLEAN("\x1b]0;title\x07plain \x1b]2;title\x1b\\text \x1b(B.", "plain text .");
	CLEAN("\x1b[0;\nnext", "\nnext"); /* a sequence that never ends costs a line */
	CLEAN("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
	CLEAN("\xc3", "?");
	CLEAN("\xc0\x80 \xed\xa0\x80 \xef\xbf\xbf \xf4\x90\x80\x80", "?? ??? ??? ????");
	CLEAN("\xc2\x85 \xe0\x9f\xbf", "?? ???"); /* C1, overlong */
}

static void test_last_lines(void **state)
{
	(void)state;
	assert_string_equal(test_text_last_lines("a\nb\nc\n", 2), "b\nc\n");
	assert_string_equal(test_text_last_lines("a\nb", 1), "b");
	assert_string_equal(test_text_last_lines("a\nb", 9), "a\nb");
	assert_string_equal(test_text_last_lines("", 1), "");
	assert_string_equal(test_text_last_lines("\n", 1), "\n");
}

static void test_json(void **state)
{
	static const char json[] = "{\"a\": {\"reason\": \"no\"}, \"b\": [\"reason\", 1], \"c\": \"reason\","
				   "\"text\": \"x \\\"q\\\" \\u000a\\\\\", \"n\": 7, \"reason\" : \"panic\"}";
	char text[32];

	(void)state;
	assert_true(test_json_string(json, "reason", text, sizeof(text)));
	assert_string_equal(text, "panic");
	assert_true(test_json_string(json, "reason", text, 3));
	assert_string_equal(text, "pa");
	assert_true(test_json_string(json, "text", text, sizeof(text)));
	assert_string_equal(text, "x \"q\" ?\\");
	assert_false(test_json_string(json, "n", text, sizeof(text)));
	assert_false(test_json_string(json, "missing", text, sizeof(text)));
	assert_false(test_json_string("{\"reason\": \"pan", "reason", text, sizeof(text)));
	assert_false(test_json_string("", "reason", text, sizeof(text)));
	assert_false(test_json_string("{\"reason\\", "reason", text, sizeof(text)));
}

static struct test_result judge(struct test_case test, int wait_status, const char *status_file)
{
	struct test_end end = {.wait_status = wait_status, .status_file = status_file, .complaint = "why"};
	struct test_result result = {0};

	test_judge(&test, &end, &result);
	return result;
}
#define EXITED(status) ((status) << 8)

static void assert_judged(struct test_case test, int wait_status, const char *status_file, const char *reason)
{
	struct test_result result = judge(test, wait_status, status_file);

	assert_int_equal(result.outcome, reason ? TEST_FAILED : TEST_PASSED);
	assert_string_equal(result.reason, reason ? reason : "");
}

static void test_judging(void **state)
{
	struct test_case zero = {0}, one = {.expected_status = 1}, panic = {.expected_reason = "panic"};

	(void)state;
	assert_judged(zero, EXITED(0), "{\"reason\":\"poweroff\"}", NULL);
	assert_judged(zero, EXITED(0), "{\"reason\":\"expected\"}", NULL);
	assert_judged(zero, EXITED(84), "{\"reason\":\"expect\",\"text\":\"not shown\"}",
		      "status 84 (expect) instead of 0: not shown");
	assert_judged(one, EXITED(1), "{\"reason\":\"debug-exit\"}", NULL);
	assert_judged(one, EXITED(1), "{\"reason\":\"host\",\"text\":\"no kvm\"}",
		      "status 1 (host) instead of 1: no kvm");
	assert_judged(panic, EXITED(81), "{\"reason\":\"panic\"}", NULL);
	assert_judged(panic, EXITED(81), "{\"reason\":\"debug-exit\"}", "status 81 (debug-exit) instead of panic");
	assert_judged(zero, EXITED(0), NULL, "vmlet ended with status 0 and without a status file: why");
	assert_judged(zero, EXITED(0), "{", "vmlet ended with status 0 and without a status file: why");
	assert_judged(zero, 6, "{\"reason\":\"poweroff\"}", "vmlet was killed by signal 6: why");
}

/* --- the reports --- */

static struct test_file file = {.path = "a&b.ini"};

static struct test_case cases[] = {
	{.file = &file, .name = (char *)"good", .line = 1},
	{.file = &file, .name = (char *)"bad<#|1>", .line = 5},
	{.file = &file, .name = (char *)"flaky", .line = 7},
	{.file = &file, .name = (char *)"left", .line = 9},
};

static struct test_result results[] = {
	{.outcome = TEST_PASSED, .attempts = 1, .duration_ns = 1500000000},
	{.outcome = TEST_FAILED,
	 .attempts = 2,
	 .duration_ns = 250000000,
	 .reason = "status 3 \"x\" & <y>",
	 .console = (char *)"one\n\ttwo \"2\" ]]>\n",
	 .directory = (char *)"/o/bad"},
	{.outcome = TEST_PASSED, .attempts = 2, .duration_ns = 1000000},
	{.outcome = TEST_SKIPPED, .reason = "interrupted"},
};

static const struct test_plan plan = {.cases = cases, .count = 4};
static const struct test_fleet fleet = {.plan = &plan, .results = results, .duration_ns = 2000000000, .signo = 2};

static void print_tap(FILE *out, const struct test_fleet *of)
{
	test_tap_begin(out, of->plan->count);
	for (size_t i = 0; i < of->plan->count; i++)
		test_tap_point(out, i + 1, &of->plan->cases[i], &of->results[i]);
	test_tap_end(out, of);
}

static void assert_printed(void (*print)(FILE *out, const struct test_fleet *of), const char *expected)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	print(out, &fleet);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

static void test_tap(void **state)
{
	(void)state;
	assert_printed(print_tap, "TAP version 14\n"
				  "1..4\n"
				  "ok 1 - good\n"
				  "not ok 2 - bad<\\#|1>\n"
				  "  ---\n"
				  "  reason: \"status 3 \\\"x\\\" & <y>\"\n"
				  "  at: \"a&b.ini\"\n"
				  "  line: 5\n"
				  "  duration_ms: 250\n"
				  "  attempts: 2\n"
				  "  output: \"/o/bad\"\n"
				  "  console:\n"
				  "    - \"one\"\n"
				  "    - \"\\ttwo \\\"2\\\" ]]>\"\n"
				  "  ...\n"
				  "ok 3 - flaky\n"
				  "# passed at attempt 2\n"
				  "ok 4 - left # SKIP interrupted\n"
				  "# 2 passed, 1 failed, 1 skipped\n"
				  "Bail out! interrupted by signal 2\n");
}

static void test_junit(void **state)
{
	(void)state;
	assert_printed(
		test_junit_print,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<testsuites name=\"vmlet\" tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"2.000\">\n"
		"  <testsuite name=\"a&amp;b.ini\" tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\" "
		"time=\"1.751\">\n"
		"    <testcase name=\"good\" classname=\"a&amp;b.ini\" file=\"a&amp;b.ini\" time=\"1.500\">\n"
		"    </testcase>\n"
		"    <testcase name=\"bad&lt;#|1&gt;\" classname=\"a&amp;b.ini\" file=\"a&amp;b.ini\" "
		"time=\"0.250\">\n"
		"      <failure message=\"status 3 &quot;x&quot; &amp; &lt;y&gt;\">status 3 &quot;x&quot; &amp; "
		"&lt;y&gt;\n"
		"output: /o/bad\n"
		"console:\n"
		"one\n"
		"\ttwo &quot;2&quot; ]]&gt;\n"
		"</failure>\n"
		"    </testcase>\n"
		"    <testcase name=\"flaky\" classname=\"a&amp;b.ini\" file=\"a&amp;b.ini\" time=\"0.001\">\n"
		"      <system-out>passed at attempt 2</system-out>\n"
		"    </testcase>\n"
		"    <testcase name=\"left\" classname=\"a&amp;b.ini\" file=\"a&amp;b.ini\" time=\"0.000\">\n"
		"      <skipped message=\"interrupted\"/>\n"
		"    </testcase>\n"
		"  </testsuite>\n"
		"</testsuites>\n");
}

static void test_markdown(void **state)
{
	(void)state;
	assert_printed(test_markdown_print, "### vmlet test: failed\n"
					    "\n"
					    "4 tests in 2.0 s: 2 passed, 1 failed, 1 skipped\n"
					    "\n"
					    "| test | result | time | |\n"
					    "| --- | --- | ---: | --- |\n"
					    "| good | passed | 1.5 s |  |\n"
					    "| bad\\<\\#\\|1\\> | **failed** | 0.2 s | status 3 \"x\" \\& \\<y\\> |\n"
					    "| flaky | passed | 0.0 s | at attempt 2 |\n"
					    "| left | skipped | 0.0 s | interrupted |\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),    cmocka_unit_test(test_last_lines), cmocka_unit_test(test_json),
		cmocka_unit_test(test_judging),  cmocka_unit_test(test_tap),        cmocka_unit_test(test_junit),
		cmocka_unit_test(test_markdown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
