/* What a child has left behind becomes a result. [main thread] */
#pragma once

#include "cli/test_output.h"

/* Read the attempt's files and fill in everything but `attempts` and `duration_ns`. */
void test_collect(const struct test_case *test, int wait_status, bool was_killed, const struct test_attempt *attempt,
		  struct test_result *result);

/* The child could not be started: `code` is -errno. */
void test_collect_failure(struct test_result *result, int code);
