/* Keys that multiply: the combinations of the values of a section's matrices, one after another. Pure. */
#pragma once

#include "cli/test_plan.h"

/* One matrix and where it stands. */
struct test_axis {
	const struct test_entry *entry;
	const char *value; /* of its words, the one of this combination */
	size_t at;
};

struct test_matrix {
	struct test_axis axes[TEST_MATRICES_MAX];
	size_t count;
};

/* Add the entry as an axis, instead of one of the same key. 0, -EINVAL: one of this section is there; -E2BIG. */
int test_matrix_add(struct test_matrix *matrix, const struct test_entry *entry, const struct test_section *section,
		    const struct test_file *file);

/* Take away the axis of that key, if there is one. */
void test_matrix_drop(struct test_matrix *matrix, const struct test_key *key);

/* How many combinations there are; more than TEST_CASES_MAX: TEST_CASES_MAX + 1. */
size_t test_matrix_size(const struct test_matrix *matrix);

/* To the next combination, the last axis first. False: that was the last one. */
bool test_matrix_next(struct test_matrix *matrix);

/* "name[key=value,...]", allocated; NULL: no memory. */
char *test_matrix_name(const struct test_matrix *matrix, const char *name);
