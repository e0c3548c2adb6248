/* How far a fleet of tests is, on standard error: a line that changes on a terminal, calm lines elsewhere. */
#pragma once

#include "cli/test_report.h"

struct test_progress {
	const struct test_fleet *fleet;
	struct test_counts counts;
	bool is_terminal;
	bool is_shown; /* the line is on the terminal */
	uint64_t shown_ns;
};

void test_progress_begin(struct test_progress *progress, const struct test_fleet *fleet);

/* A test is over: says so when it failed. */
void test_progress_done(struct test_progress *progress, size_t index);
void test_progress_tick(struct test_progress *progress, unsigned running);

/* Take the line away: something else is about to be printed. */
void test_progress_hide(struct test_progress *progress);

/* The line that sums up. */
void test_progress_end(struct test_progress *progress);
