/* What is wrong with a test, as far as that can be said without looking at a file. Pure. */
#pragma once

#include "cli/test_plan.h"

/*
 * Check the values and fill in `timeout_ns` and what is expected. 0, or -EINVAL with a sentence that begins with
 * "FILE:LINE: ", or -ENOMEM likewise. Values of options are checked by the parser of `vmlet run` itself.
 */
int test_check(struct test_case *test, struct cli_error *error);
