/* Do the files that tests name exist? Asked before anything runs. */
#pragma once

#include "cli/test_plan.h"

/* 0, or -EINVAL with a sentence that begins with "FILE:LINE: ". Relative paths are relative to the test's file. */
int test_access_check(const struct test_case *test, struct cli_error *error);
