#include "cli/test_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/grow.h"
#include "cli/test_check.h"
#include "cli/test_matrix.h"

#define DEFAULTS "defaults"

/* The entries that make a section's tests: first those of [defaults], then its own. */
struct maker {
	struct test_plan *plan;
	const struct test_file *file;
	const struct test_section *section;
	const struct test_section *defaults; /* or NULL */
	struct test_matrix matrix;
	struct cli_error *error;
};

static int fail_memory(const struct maker *maker)
{
	test_file_fail(maker->file->path, maker->section->line, maker->error, "out of memory");
	return -ENOMEM;
}

static void drop_key(struct test_case *test, const struct test_key *key)
{
	size_t kept = 0;

	for (size_t i = 0; i < test->value_count; i++)
		if (test->values[i].key != key)
			test->values[kept++] = test->values[i];
	test->value_count = kept;
}

static void apply_value(struct test_case *test, const struct test_value *value)
{
	bool is_empty = value->key->is_words ? value->word_count == 0 : *value->value == '\0';

	if (is_empty || !value->key->adds_up)
		drop_key(test, value->key);
	if (!is_empty)
		test->values[test->value_count++] = *value; /* there is room for every entry */
}

static void apply_section(struct test_case *test, const struct test_file *file, const struct test_section *section)
{
	for (size_t i = 0; i < section->entry_count; i++) {
		const struct test_entry *entry = &file->entries[section->first_entry + i];
		struct test_value value = {entry->key, entry->value, entry->word_count, entry->line};

		if (!entry->is_matrix)
			apply_value(test, &value);
	}
}

static void apply_matrix(struct test_case *test, const struct test_matrix *matrix)
{
	for (size_t i = 0; i < matrix->count; i++) {
		const struct test_axis *axis = &matrix->axes[i];
		struct test_value value = {axis->entry->key, axis->value, 0, axis->entry->line};

		apply_value(test, &value);
	}
}

static int add_case(struct maker *maker)
{
	struct test_plan *plan = maker->plan;
	size_t most = maker->section->entry_count + (maker->defaults ? maker->defaults->entry_count : 0);
	struct test_case *test, *grown = grow(plan->cases, plan->count, sizeof(*grown));

	if (!grown)
		return fail_memory(maker);
	plan->cases = grown;
	test = &plan->cases[plan->count++];
	*test = (struct test_case){.file = maker->file, .line = maker->section->line};
	test->name = test_matrix_name(&maker->matrix, maker->section->name);
	test->values = calloc(most + 1, sizeof(*test->values));
	if (!test->name || !test->values)
		return fail_memory(maker);
	if (maker->defaults)
		apply_section(test, maker->file, maker->defaults);
	apply_section(test, maker->file, maker->section);
	apply_matrix(test, &maker->matrix);
	return test_check(test, maker->error);
}

/* A plain value of a test's own stands against a matrix of [defaults]; both in one section contradict each other. */
static int add_plain(struct maker *maker, const struct test_entry *entry, const struct test_section *section)
{
	for (size_t i = 0; i < section->entry_count; i++) {
		const struct test_entry *other = &maker->file->entries[section->first_entry + i];

		if (other->is_matrix && other->key == entry->key && !entry->key->adds_up)
			return test_file_fail(maker->file->path, entry->line, maker->error,
					      "%s and matrix.%s (line %u) contradict each other", entry->key->name,
					      entry->key->name, other->line);
	}
	if (!entry->key->adds_up || *entry->value == '\0')
		test_matrix_drop(&maker->matrix, entry->key);
	return 0;
}

static int add_axis(struct maker *maker, const struct test_entry *entry, const struct test_section *section)
{
	switch (test_matrix_add(&maker->matrix, entry, section, maker->file)) {
	case 0:
		return 0;
	case -E2BIG:
		return test_file_fail(maker->file->path, entry->line, maker->error, "more than %d matrices",
				      TEST_MATRICES_MAX);
	default:
		return test_file_fail(maker->file->path, entry->line, maker->error,
				      "matrix.%s is given twice; its values go into one line", entry->key->name);
	}
}

static int add_matrices(struct maker *maker, const struct test_section *section)
{
	for (size_t i = 0; i < section->entry_count; i++) {
		const struct test_entry *entry = &maker->file->entries[section->first_entry + i];
		int r = entry->is_matrix ? add_axis(maker, entry, section) : add_plain(maker, entry, section);

		if (r < 0)
			return r;
	}
	return 0;
}

static int add_section(struct maker *maker)
{
	int r;

	if (maker->defaults) {
		r = add_matrices(maker, maker->defaults);
		if (r < 0)
			return r;
	}
	r = add_matrices(maker, maker->section);
	if (r < 0)
		return r;
	if (maker->plan->count + test_matrix_size(&maker->matrix) > TEST_CASES_MAX)
		return test_file_fail(maker->file->path, maker->section->line, maker->error, "more than %d tests",
				      TEST_CASES_MAX);
	do
		r = add_case(maker);
	while (r == 0 && test_matrix_next(&maker->matrix));
	return r;
}

static bool is_defaults(const struct test_section *section)
{
	return strcmp(section->name, DEFAULTS) == 0;
}

int test_plan_add(struct test_plan *plan, const struct test_file *file, struct cli_error *error)
{
	const struct test_section *defaults = NULL;
	size_t before = plan->count;

	for (size_t i = 0; i < file->section_count; i++)
		if (is_defaults(&file->sections[i]))
			defaults = &file->sections[i];
	for (size_t i = 0; i < file->section_count; i++) {
		struct maker maker = {.plan = plan,
				      .file = file,
				      .section = &file->sections[i],
				      .defaults = defaults,
				      .error = error};
		int r = is_defaults(&file->sections[i]) ? 0 : add_section(&maker);

		if (r < 0)
			return r;
	}
	if (plan->count == before)
		return test_file_fail(file->path, 1, error, "there is no test in it: no section [name]");
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	const struct test_case *const *left = a, *const *right = b;

	return strcmp((*left)->name, (*right)->name);
}

static int fail_same_name(const struct test_case *a, const struct test_case *b, struct cli_error *error)
{
	return test_file_fail(b->file->path, b->line, error, "there is a test '%.80s' already, in %.150s:%u", b->name,
			      a->file->path, a->line);
}

int test_plan_check_names(const struct test_plan *plan, struct cli_error *error)
{
	const struct test_case **sorted = calloc(plan->count ? plan->count : 1, sizeof(struct test_case *));
	int r = 0;

	if (!sorted) {
		*error = (struct cli_error){"out of memory"};
		return -ENOMEM;
	}
	for (size_t i = 0; i < plan->count; i++)
		sorted[i] = &plan->cases[i];
	qsort(sorted, plan->count, sizeof(struct test_case *), compare_names);
	for (size_t i = 1; i < plan->count && r == 0; i++) {
		const struct test_case *a = sorted[i - 1], *b = sorted[i];

		if (strcmp(a->name, b->name) == 0)
			r = fail_same_name(a < b ? a : b, a < b ? b : a, error);
	}
	free(sorted);
	return r;
}

void test_plan_free(struct test_plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		free(plan->cases[i].name);
		free(plan->cases[i].values);
	}
	free(plan->cases);
	*plan = (struct test_plan){0};
}

const struct test_value *test_case_find(const struct test_case *test, enum test_key_id id)
{
	for (size_t i = 0; i < test->value_count; i++)
		if (test->values[i].key->id == id)
			return &test->values[i];
	return NULL;
}
