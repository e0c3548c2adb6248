/* The arguments of `vmlet test`. Pure. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "cli/options.h"

enum { TEST_JOBS_MAX = 256, TEST_RETRIES_MAX = 100 };

/* Strings are borrowed from the arguments. */
struct test_options {
	const char **files; /* allocated array */
	size_t file_count;
	unsigned jobs; /* 0: as many as there are CPUs */
	unsigned retries;
	const char *filter; /* an extended regular expression; NULL: all */
	bool fail_fast;
	bool list;
	bool help;
	const char *tap_path; /* NULL: standard output */
	const char *junit_path;
	const char *markdown_path;
	const char *output_path; /* NULL: a fresh directory, kept when a test fails */
};

/* `args` is what follows "test". 0: test_options_free it when done; -EINVAL or -ENOMEM with a sentence. */
int test_options_parse(struct test_options *options, size_t count, const char *const *args, struct cli_error *error);
void test_options_free(struct test_options *options);

/* The page of `vmlet help test`. */
void test_options_print_help(FILE *out);
