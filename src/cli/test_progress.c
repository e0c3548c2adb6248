#include "cli/test_progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/report.h"

static const uint64_t line_interval_ns = 100000000;   /* of the line that changes */
static const uint64_t calm_interval_ns = 30000000000; /* CI systems end what is silent for minutes */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool is_terminal(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

void test_progress_begin(struct test_progress *progress, const struct test_fleet *fleet)
{
	*progress = (struct test_progress){.fleet = fleet, .is_terminal = is_terminal(), .shown_ns = now_ns()};
}

void test_progress_hide(struct test_progress *progress)
{
	if (progress->is_shown)
		fputs("\r\033[K", stderr);
	progress->is_shown = false;
}

void test_progress_done(struct test_progress *progress, size_t index)
{
	const struct test_result *result = &progress->fleet->results[index];

	progress->counts.passed += result->outcome == TEST_PASSED;
	progress->counts.failed += result->outcome == TEST_FAILED;
	progress->counts.skipped += result->outcome == TEST_SKIPPED;
	if (result->outcome != TEST_FAILED)
		return;
	test_progress_hide(progress);
	report("FAIL %s: %s", progress->fleet->plan->cases[index].name, result->reason);
}

static size_t done(const struct test_counts *counts)
{
	return counts->passed + counts->failed + counts->skipped;
}

void test_progress_tick(struct test_progress *progress, unsigned running)
{
	uint64_t now = now_ns();
	const struct test_counts *counts = &progress->counts;

	if (now - progress->shown_ns < (progress->is_terminal ? line_interval_ns : calm_interval_ns))
		return;
	progress->shown_ns = now;
	if (!progress->is_terminal) {
		report("%zu of %zu tests done, %zu failed, %u running", done(counts), progress->fleet->plan->count,
		       counts->failed, running);
		return;
	}
	test_progress_hide(progress);
	fprintf(stderr, "[%zu/%zu] %zu failed, %u running", done(counts), progress->fleet->plan->count, counts->failed,
		running);
	progress->is_shown = true;
}

void test_progress_end(struct test_progress *progress)
{
	const struct test_counts *counts = &progress->counts;

	test_progress_hide(progress);
	report("%zu test%s in %.1f s: %zu passed, %zu failed, %zu skipped", progress->fleet->plan->count,
	       progress->fleet->plan->count == 1 ? "" : "s", (double)progress->fleet->duration_ns / 1e9, counts->passed,
	       counts->failed, counts->skipped);
}
