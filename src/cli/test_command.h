/* `vmlet test`: from its arguments to an exit status. */
#pragma once

#include <stddef.h>

/* Exit statuses of `vmlet test`; and 128 + the signal that interrupted it. */
enum test_exit {
	TEST_EXIT_PASSED = 0,
	TEST_EXIT_FAILED = 1,
	TEST_EXIT_CONFIG = 2, /* nothing was run */
	TEST_EXIT_HOST = 3,   /* the host failed us: no memory, a report that could not be written in full */
	TEST_EXIT_SIGNAL = 128,
};

/* `args` is what follows "test". `program` is executed for each test. */
int test_command(size_t count, const char *const *args, const char *program);
