/* Reports of a fleet of tests: TAP version 14, JUnit XML, Markdown. Write to a stream; errors stay in it. */
#pragma once

#include <stdio.h>

#include "cli/test_result.h"

struct test_fleet {
	const struct test_plan *plan;
	struct test_result *results; /* as many as there are tests */
	uint64_t duration_ns;
	int signo; /* that interrupted it; 0: none */
};

struct test_counts {
	size_t passed, failed, skipped;
};

struct test_counts test_count(const struct test_fleet *fleet);

void test_tap_begin(FILE *out, size_t tests);
void test_tap_point(FILE *out, size_t number, const struct test_case *test, const struct test_result *result);
void test_tap_end(FILE *out, const struct test_fleet *fleet);

void test_junit_print(FILE *out, const struct test_fleet *fleet);
void test_markdown_print(FILE *out, const struct test_fleet *fleet);
