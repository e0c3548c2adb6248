/*
 * Test files: "[name]" begins a section, "key = value" is an entry of it, lines that begin with # or ; are comments
 * (vmlet-test(5)). Pure: text in, sections out, so that a fuzzer can drive it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cli/options.h"
#include "cli/test_key.h"

enum { TEST_FILE_MAX_BYTES = 1 << 20, TEST_NAME_MAX_BYTES = 200, TEST_SECTIONS_MAX = 10000 };

/* Strings point into the file's text. */
struct test_entry {
	const struct test_key *key;
	bool is_matrix;    /* "matrix.KEY": each word is a value of its own */
	const char *value; /* "" when there is none; of words, the first */
	size_t word_count; /* of a matrix, and of a key with is_words */
	unsigned line;
};

struct test_section {
	const char *name;
	unsigned line;
	size_t first_entry, entry_count; /* in test_file.entries */
};

struct test_file {
	const char *path; /* borrowed; as the user wrote it */
	char *text;
	struct test_section *sections;
	size_t section_count;
	struct test_entry *entries;
	size_t entry_count;
};

/*
 * Parse a copy of `text`. `path` is borrowed, for sentences. 0: test_file_free it when done. -EINVAL with a sentence
 * that begins with "PATH:LINE: ", or -ENOMEM likewise: nothing needs freeing.
 */
int test_file_parse(struct test_file *file, const char *path, const char *text, size_t size_bytes,
		    struct cli_error *error);

/* Read the file and parse it; errors likewise. Another -errno: the file cannot be read. */
int test_file_read(struct test_file *file, const char *path, struct cli_error *error);
void test_file_free(struct test_file *file);

/* "PATH:LINE: sentence" into `error`; returns -EINVAL. */
int test_file_fail(const char *path, unsigned line, struct cli_error *error, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
