#include "cli/test_matrix.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/test_words.h"

static bool is_of_section(const struct test_entry *entry, const struct test_section *section,
			  const struct test_file *file)
{
	const struct test_entry *first = file->entries + section->first_entry;

	return entry >= first && entry < first + section->entry_count;
}

int test_matrix_add(struct test_matrix *matrix, const struct test_entry *entry, const struct test_section *section,
		    const struct test_file *file)
{
	for (size_t i = 0; i < matrix->count; i++)
		if (matrix->axes[i].entry->key == entry->key && is_of_section(matrix->axes[i].entry, section, file))
			return -EINVAL;
	test_matrix_drop(matrix, entry->key);
	if (matrix->count == TEST_MATRICES_MAX)
		return -E2BIG;
	matrix->axes[matrix->count++] = (struct test_axis){.entry = entry, .value = entry->value};
	return 0;
}

void test_matrix_drop(struct test_matrix *matrix, const struct test_key *key)
{
	size_t kept = 0;

	for (size_t i = 0; i < matrix->count; i++)
		if (matrix->axes[i].entry->key != key)
			matrix->axes[kept++] = matrix->axes[i];
	matrix->count = kept;
}

size_t test_matrix_size(const struct test_matrix *matrix)
{
	size_t size = 1;

	for (size_t i = 0; i < matrix->count; i++) {
		size *= matrix->axes[i].entry->word_count;
		if (size > TEST_CASES_MAX)
			return TEST_CASES_MAX + 1;
	}
	return size;
}

bool test_matrix_next(struct test_matrix *matrix)
{
	for (size_t i = matrix->count; i-- > 0;) {
		struct test_axis *axis = &matrix->axes[i];

		if (++axis->at < axis->entry->word_count) {
			axis->value = test_words_next(axis->value);
			return true;
		}
		axis->at = 0;
		axis->value = axis->entry->value;
	}
	return false;
}

static size_t name_size(const struct test_matrix *matrix, const char *name)
{
	size_t size = strlen(name) + sizeof("[]");

	for (size_t i = 0; i < matrix->count; i++)
		size += strlen(matrix->axes[i].entry->key->name) + strlen(matrix->axes[i].value) + sizeof("=,");
	return size;
}

char *test_matrix_name(const struct test_matrix *matrix, const char *name)
{
	char *text = malloc(name_size(matrix, name));
	char *at = text;

	if (!text)
		return NULL;
	at = stpcpy(at, name);
	for (size_t i = 0; i < matrix->count; i++) {
		at = stpcpy(at, i == 0 ? "[" : ",");
		at = stpcpy(at, matrix->axes[i].entry->key->name);
		at = stpcpy(at, "=");
		at = stpcpy(at, matrix->axes[i].value);
	}
	if (matrix->count > 0)
		stpcpy(at, "]");
	return text;
}
