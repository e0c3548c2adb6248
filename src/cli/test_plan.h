/* Tests out of sections: [defaults] applied, matrices multiplied, everything checked that needs no file. Pure. */
#pragma once

#include <stdint.h>

#include "cli/test_file.h"

enum { TEST_CASES_MAX = 10000, TEST_MATRICES_MAX = 16 };

/* Strings are borrowed from the file's text. */
struct test_value {
	const struct test_key *key;
	const char *value;
	size_t word_count; /* of a key with is_words */
	unsigned line;
};

struct test_case {
	const struct test_file *file; /* borrowed; must not move */
	char *name;                   /* allocated: "boot[cpus=2]" */
	unsigned line;
	struct test_value *values; /* allocated, in order; of a key that does not add up there is one */
	size_t value_count;
	uint64_t timeout_ns;
	const char *expected_reason; /* of the status file, when the test expects a name; NULL: a number */
	unsigned expected_status;    /* when it is a number */
};

struct test_plan {
	struct test_case *cases;
	size_t count;
};

/* What a file without a key `timeout` has. */
#define TEST_TIMEOUT_DEFAULT "60s"

/* Add the tests of a file. 0; or -EINVAL or -ENOMEM with a sentence, and the plan is to be freed. */
int test_plan_add(struct test_plan *plan, const struct test_file *file, struct cli_error *error);

/* After the last file: -EINVAL with a sentence when two tests have one name. */
int test_plan_check_names(const struct test_plan *plan, struct cli_error *error);
void test_plan_free(struct test_plan *plan);

/* The value of a key that does not add up, or NULL. */
const struct test_value *test_case_find(const struct test_case *test, enum test_key_id id);
