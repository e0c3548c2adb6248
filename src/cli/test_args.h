/* The command line of a test's `vmlet run` or `vmlet exec`. Pure. */
#pragma once

#include "cli/test_plan.h"

/* Where the child is to write; borrowed. */
struct test_paths {
	const char *status, *events, *console;
};

struct test_args {
	const char **argv; /* allocated array of borrowed strings; ends with NULL */
	int argc;
	char **joined; /* allocated strings that argv has too */
	size_t joined_count;
};

/* Room for so many arguments, of so many values. 0, or -ENOMEM. */
int test_args_init(struct test_args *args, size_t arg_count, size_t value_count);

/* Add the option of a key that has one. 0, or -ENOMEM. */
int test_args_add_option(struct test_args *args, const struct test_value *value);

/* 0: test_args_free it when done; or -ENOMEM. `paths` NULL: only what the file says, for checking. */
int test_args_build(const struct test_case *test, const struct test_paths *paths, struct test_args *ret_args);
void test_args_free(struct test_args *args);
