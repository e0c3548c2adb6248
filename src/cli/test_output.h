/* Where the files of tests go: a directory each. [main thread] */
#pragma once

#include "cli/test_result.h"

struct test_output {
	char *base;    /* allocated, absolute */
	bool is_fresh; /* made for this run: what passed is not worth keeping */
	char **names;  /* allocated: the directory of each test under `base` */
	size_t count;
};

/* One attempt's directory and the files in it, all allocated. */
struct test_attempt {
	char *directory;
	char *status, *events, *console, *out, *err;
};

/* `path` NULL: a fresh directory under $TMPDIR. 0, or -errno with a sentence. */
int test_output_open(struct test_output *output, const char *path, const struct test_plan *plan,
		     struct cli_error *error);

/* Remove what is empty of a fresh one, and forget it. */
void test_output_close(struct test_output *output);

/*
 * Make the directory of test `index`, attempt 1..., without files of an earlier run. 0, or -errno. test_attempt_free it
 * in either case.
 */
int test_output_begin(const struct test_output *output, size_t index, unsigned attempt,
		      struct test_attempt *ret_attempt);

/* Remove its files and the directory. */
void test_attempt_remove(const struct test_attempt *attempt);
void test_attempt_free(struct test_attempt *attempt);
