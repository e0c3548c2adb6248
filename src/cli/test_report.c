#include "cli/test_report.h"

#include <inttypes.h>
#include <string.h>

#include "cli/test_text.h"

enum { NS_PER_S = 1000000000, NS_PER_MS = 1000000 };

struct test_counts test_count(const struct test_fleet *fleet)
{
	struct test_counts counts = {0};

	for (size_t i = 0; i < fleet->plan->count; i++) {
		counts.passed += fleet->results[i].outcome == TEST_PASSED;
		counts.failed += fleet->results[i].outcome == TEST_FAILED;
		counts.skipped += fleet->results[i].outcome == TEST_SKIPPED;
	}
	return counts;
}

static double seconds(uint64_t ns)
{
	return (double)ns / NS_PER_S;
}

/* --- TAP: https://testanything.org/tap-version-14-specification.html --- */

void test_tap_begin(FILE *out, size_t tests)
{
	fprintf(out, "TAP version 14\n1..%zu\n", tests);
}

static void print_console_as_yaml(FILE *out, const char *console)
{
	fputs("  console:\n", out);
	while (*console) {
		size_t length = strcspn(console, "\n");
		char line[1024];

		snprintf(line, sizeof(line), "%.*s", (int)(length < sizeof(line) ? length : sizeof(line) - 1), console);
		fputs("    - ", out);
		test_text_print_yaml(out, line);
		fputc('\n', out);
		console += length + (console[length] == '\n');
	}
}

static void print_diagnosis(FILE *out, const struct test_case *test, const struct test_result *result)
{
	fputs("  ---\n  reason: ", out);
	test_text_print_yaml(out, result->reason);
	fputs("\n  at: ", out);
	test_text_print_yaml(out, test->file->path);
	fprintf(out, "\n  line: %u\n  duration_ms: %" PRIu64 "\n  attempts: %u\n", test->line,
		result->duration_ns / NS_PER_MS, result->attempts);
	if (result->directory) {
		fputs("  output: ", out);
		test_text_print_yaml(out, result->directory);
		fputc('\n', out);
	}
	if (result->console && *result->console)
		print_console_as_yaml(out, result->console);
	fputs("  ...\n", out);
}

void test_tap_point(FILE *out, size_t number, const struct test_case *test, const struct test_result *result)
{
	fprintf(out, "%s %zu - ", result->outcome == TEST_FAILED ? "not ok" : "ok", number);
	test_text_print_tap(out, test->name);
	if (result->outcome == TEST_SKIPPED) {
		fputs(" # SKIP ", out);
		test_text_print_tap(out, result->reason);
	}
	fputc('\n', out);
	if (result->outcome == TEST_FAILED)
		print_diagnosis(out, test, result);
	else if (result->attempts > 1)
		fprintf(out, "# passed at attempt %u\n", result->attempts);
}

void test_tap_end(FILE *out, const struct test_fleet *fleet)
{
	struct test_counts counts = test_count(fleet);

	fprintf(out, "# %zu passed, %zu failed, %zu skipped\n", counts.passed, counts.failed, counts.skipped);
	if (fleet->signo != 0)
		fprintf(out, "Bail out! interrupted by signal %d\n", fleet->signo);
}

/* --- JUnit XML, as GitLab and the actions for GitHub read it --- */

static void print_attribute(FILE *out, const char *name, const char *value)
{
	fprintf(out, " %s=\"", name);
	test_text_print_xml(out, value);
	fputc('"', out);
}

static void print_failure(FILE *out, const struct test_result *result)
{
	fputs("      <failure", out);
	print_attribute(out, "message", result->reason);
	fputs(">", out);
	test_text_print_xml(out, result->reason);
	if (result->directory) {
		fputs("\noutput: ", out);
		test_text_print_xml(out, result->directory);
	}
	if (result->console && *result->console) {
		fputs("\nconsole:\n", out);
		test_text_print_xml(out, result->console);
	}
	fputs("</failure>\n", out);
}

static void print_testcase(FILE *out, const struct test_case *test, const struct test_result *result)
{
	fputs("    <testcase", out);
	print_attribute(out, "name", test->name);
	print_attribute(out, "classname", test->file->path);
	print_attribute(out, "file", test->file->path);
	fprintf(out, " time=\"%.3f\">\n", seconds(result->duration_ns));
	if (result->outcome == TEST_FAILED)
		print_failure(out, result);
	if (result->outcome == TEST_SKIPPED) {
		fputs("      <skipped", out);
		print_attribute(out, "message", result->reason);
		fputs("/>\n", out);
	}
	if (result->outcome == TEST_PASSED && result->attempts > 1)
		fprintf(out, "      <system-out>passed at attempt %u</system-out>\n", result->attempts);
	fputs("    </testcase>\n", out);
}

/* The tests of a file stand together: `count` of them. */
static size_t tests_of_file(const struct test_plan *plan, size_t first)
{
	size_t at = first;

	while (at < plan->count && plan->cases[at].file == plan->cases[first].file)
		at++;
	return at - first;
}

static void print_suite(FILE *out, const struct test_fleet *fleet, size_t first, size_t count)
{
	struct test_plan part = {.cases = fleet->plan->cases + first, .count = count};
	struct test_fleet some = {.plan = &part, .results = fleet->results + first};
	struct test_counts counts = test_count(&some);
	uint64_t duration_ns = 0;

	for (size_t i = 0; i < count; i++)
		duration_ns += some.results[i].duration_ns;
	fputs("  <testsuite", out);
	print_attribute(out, "name", part.cases[0].file->path);
	fprintf(out, " tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" time=\"%.3f\">\n", count,
		counts.failed, counts.skipped, seconds(duration_ns));
	for (size_t i = 0; i < count; i++)
		print_testcase(out, &part.cases[i], &some.results[i]);
	fputs("  </testsuite>\n", out);
}

void test_junit_print(FILE *out, const struct test_fleet *fleet)
{
	struct test_counts counts = test_count(fleet);

	fprintf(out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<testsuites name=\"vmlet\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" "
		"time=\"%.3f\">\n",
		fleet->plan->count, counts.failed, counts.skipped, seconds(fleet->duration_ns));
	for (size_t at = 0; at < fleet->plan->count;) {
		size_t count = tests_of_file(fleet->plan, at);

		print_suite(out, fleet, at, count);
		at += count;
	}
	fputs("</testsuites>\n", out);
}

/* --- Markdown: a line that says it all, and a table of what is not as it should be --- */

static const char *outcome_name(enum test_outcome outcome)
{
	switch (outcome) {
	case TEST_PASSED:
		return "passed";
	case TEST_FAILED:
		return "**failed**";
	case TEST_SKIPPED:
		return "skipped";
	case TEST_WAITING:
	default:
		return "not run";
	}
}

static void print_row(FILE *out, const struct test_case *test, const struct test_result *result)
{
	fputs("| ", out);
	test_text_print_markdown(out, test->name);
	fprintf(out, " | %s | %.1f s | ", outcome_name(result->outcome), seconds(result->duration_ns));
	if (result->outcome == TEST_PASSED && result->attempts > 1)
		fprintf(out, "at attempt %u", result->attempts);
	test_text_print_markdown(out, result->reason);
	fputs(" |\n", out);
}

void test_markdown_print(FILE *out, const struct test_fleet *fleet)
{
	struct test_counts counts = test_count(fleet);

	fprintf(out, "### vmlet test: %s\n\n%zu tests in %.1f s: %zu passed, %zu failed, %zu skipped",
		counts.failed > 0   ? "failed"
		: fleet->signo != 0 ? "interrupted"
				    : "passed",
		fleet->plan->count, seconds(fleet->duration_ns), counts.passed, counts.failed, counts.skipped);
	fputs("\n\n| test | result | time | |\n| --- | --- | ---: | --- |\n", out);
	for (size_t i = 0; i < fleet->plan->count; i++)
		print_row(out, &fleet->plan->cases[i], &fleet->results[i]);
}
