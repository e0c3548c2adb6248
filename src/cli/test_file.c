#include "cli/test_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/grow.h"
#include "cli/read_all.h"
#include "cli/test_words.h"

#define TYPED         "%.80s"
#define MATRIX_PREFIX "matrix."

struct reader {
	struct test_file *file;
	struct cli_error *error;
	unsigned line;
};

int test_file_fail(const char *path, unsigned line, struct cli_error *error, const char *fmt, ...)
{
	va_list ap;
	int used = snprintf(error->text, sizeof(error->text), "%.200s:%u: ", path, line);

	va_start(ap, fmt);
	if (used > 0 && (size_t)used < sizeof(error->text))
		vsnprintf(error->text + used, sizeof(error->text) - (size_t)used, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

#define FAIL(reader, ...) test_file_fail((reader)->file->path, (reader)->line, (reader)->error, __VA_ARGS__)

static int fail_memory(struct reader *reader)
{
	FAIL(reader, "out of memory");
	return -ENOMEM;
}

static char *trim(char *text)
{
	size_t length;

	text += strspn(text, " \t");
	length = strlen(text);
	while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
		text[--length] = '\0';
	return text;
}

/* One pair of quotes around a whole value keeps the blanks at its ends. */
static char *unquote(char *value)
{
	size_t length = strlen(value);

	if (length < 2 || value[0] != '"' || value[length - 1] != '"')
		return value;
	value[length - 1] = '\0';
	return value + 1;
}

static const struct test_section *find_section(const struct test_file *file, const char *name)
{
	for (size_t i = 0; i < file->section_count; i++)
		if (strcmp(file->sections[i].name, name) == 0)
			return &file->sections[i];
	return NULL;
}

static int add_section(struct reader *reader, const char *name)
{
	struct test_file *file = reader->file;
	const struct test_section *same = find_section(file, name);
	struct test_section *grown;

	if (same)
		return FAIL(reader, "there is a section [" TYPED "] already, in line %u", name, same->line);
	if (file->section_count == TEST_SECTIONS_MAX)
		return FAIL(reader, "more than %d sections", TEST_SECTIONS_MAX);
	grown = grow(file->sections, file->section_count, sizeof(*grown));
	if (!grown)
		return fail_memory(reader);
	file->sections = grown;
	file->sections[file->section_count++] =
		(struct test_section){.name = name, .line = reader->line, .first_entry = file->entry_count};
	return 0;
}

/* Up to the last ']', so that a name may have brackets itself. */
static int parse_section(struct reader *reader, char *text)
{
	char *end = strrchr(text, ']');
	char *name;

	if (!end || end[1] != '\0')
		return FAIL(reader, "a section is written [name], not '" TYPED "'", text);
	*end = '\0';
	name = trim(text + 1);
	if (*name == '\0')
		return FAIL(reader, "a test needs a name in its [ ]");
	if (strlen(name) > TEST_NAME_MAX_BYTES)
		return FAIL(reader, "the test's name is longer than %d bytes", TEST_NAME_MAX_BYTES);
	return add_section(reader, name);
}

static int fail_unknown_key(struct reader *reader, const char *key, const char *name)
{
	const char *meant = test_key_suggest(name);

	if (meant)
		return FAIL(reader, "unknown key '" TYPED "'; did you mean %s?", key, meant);
	return FAIL(reader, "unknown key '" TYPED "'; vmlet-test(5) lists the keys", key);
}

static int find_key(struct reader *reader, const char *name, struct test_entry *entry)
{
	const char *plain = name;

	if (strncmp(name, MATRIX_PREFIX, strlen(MATRIX_PREFIX)) == 0) {
		plain += strlen(MATRIX_PREFIX);
		entry->is_matrix = true;
	}
	entry->key = test_key_find(plain);
	if (!entry->key)
		return fail_unknown_key(reader, name, plain);
	if (entry->is_matrix && entry->key->is_words)
		return FAIL(reader, "%s takes words itself and cannot be a matrix", plain);
	return 0;
}

static int cut_words(struct reader *reader, char *value, struct test_entry *entry)
{
	int r = test_words_cut(value, &entry->word_count);

	if (r == -E2BIG)
		return FAIL(reader, "more than %d words", TEST_WORDS_MAX);
	if (r < 0)
		return FAIL(reader, "a quote is not closed, or nothing follows a backslash");
	if (entry->is_matrix && entry->word_count == 0)
		return FAIL(reader, "the matrix " MATRIX_PREFIX "%s has no values", entry->key->name);
	return 0;
}

static int parse_value(struct reader *reader, char *value, struct test_entry *entry)
{
	if (entry->is_matrix || entry->key->is_words) {
		entry->value = value;
		return cut_words(reader, value, entry);
	}
	entry->value = unquote(value);
	return 0;
}

static int add_entry(struct reader *reader, const struct test_entry *entry)
{
	struct test_file *file = reader->file;
	struct test_entry *grown = grow(file->entries, file->entry_count, sizeof(*grown));

	if (!grown)
		return fail_memory(reader);
	file->entries = grown;
	file->entries[file->entry_count++] = *entry;
	file->sections[file->section_count - 1].entry_count++;
	return 0;
}

static int parse_entry(struct reader *reader, char *text)
{
	struct test_entry entry = {.line = reader->line};
	char *equals = strchr(text, '=');
	int r;

	if (!equals)
		return FAIL(reader, "'" TYPED "' is neither [name] nor key = value", text);
	*equals = '\0';
	if (reader->file->section_count == 0)
		return FAIL(reader, "'" TYPED "' comes before the first [name]", trim(text));
	r = find_key(reader, trim(text), &entry);
	if (r == 0)
		r = parse_value(reader, trim(equals + 1), &entry);
	return r < 0 ? r : add_entry(reader, &entry);
}

/* So that no name or value plays with a terminal or breaks a report. */
static int check_characters(struct reader *reader, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (((unsigned char)text[i] < ' ' && text[i] != '\t') || text[i] == 0x7f)
			return FAIL(reader, "a control character (byte 0x%02x)", (unsigned)(unsigned char)text[i]);
	return 0;
}

static int parse_line(struct reader *reader, char *text, size_t length)
{
	int r;

	if (length > 0 && text[length - 1] == '\r')
		text[--length] = '\0';
	r = check_characters(reader, text, length);
	if (r < 0)
		return r;
	text = trim(text);
	switch (*text) {
	case '\0':
	case '#':
	case ';':
		return 0;
	case '[':
		return parse_section(reader, text);
	default:
		return parse_entry(reader, text);
	}
}

static int parse_lines(struct reader *reader, char *text, size_t size)
{
	char *end = text + size;

	while (text < end) {
		char *newline = memchr(text, '\n', (size_t)(end - text));
		char *next = newline ? newline + 1 : end;
		int r;

		reader->line++;
		if (newline)
			*newline = '\0';
		r = parse_line(reader, text, (size_t)((newline ? newline : end) - text));
		if (r < 0)
			return r;
		text = next;
	}
	return 0;
}

int test_file_parse(struct test_file *file, const char *path, const char *text, size_t size_bytes,
		    struct cli_error *error)
{
	static const char bom[] = "\xef\xbb\xbf";
	struct reader reader = {.file = file, .error = error};
	size_t skip = size_bytes >= 3 && memcmp(text, bom, 3) == 0 ? 3 : 0;
	int r;

	*file = (struct test_file){.path = path, .text = malloc(size_bytes + 1)};
	if (!file->text)
		return fail_memory(&reader);
	memcpy(file->text, text, size_bytes);
	file->text[size_bytes] = '\0';
	r = parse_lines(&reader, file->text + skip, size_bytes - skip);
	if (r < 0)
		test_file_free(file);
	return r;
}

static int read_and_parse(struct test_file *file, const char *path, int fd, struct cli_error *error)
{
	size_t limit = TEST_FILE_MAX_BYTES + 1;
	char *text = malloc(limit);
	ssize_t size = text ? read_all(fd, text, limit) : -ENOMEM;
	int r;

	if (size < 0) {
		test_file_fail(path, 0, error, "cannot be read: %s", strerror((int)-size));
		r = (int)size;
	} else if ((size_t)size == limit) {
		r = test_file_fail(path, 0, error, "is larger than %d KiB", TEST_FILE_MAX_BYTES >> 10);
	} else {
		r = test_file_parse(file, path, text, (size_t)size, error);
	}
	free(text);
	return r;
}

int test_file_read(struct test_file *file, const char *path, struct cli_error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;

	if (r < 0) {
		snprintf(error->text, sizeof(error->text), "'%.200s' cannot be read: %s", path, strerror(-r));
		return r;
	}
	r = read_and_parse(file, path, fd, error);
	close(fd);
	return r;
}

void test_file_free(struct test_file *file)
{
	free(file->text);
	free(file->sections);
	free(file->entries);
	*file = (struct test_file){0};
}
