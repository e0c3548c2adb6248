#include "cli/test_collect.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/test_text.h"

enum { STATUS_MAX_BYTES = 16 << 10, TAIL_MAX_BYTES = 4 << 10, CONSOLE_LINES = 12, COMPLAINT_MAX_BYTES = 320 };

/* The last `most` bytes of a file, with a NUL; allocated. NULL: it cannot be read. */
static char *read_tail(const char *path, size_t most, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	char *text = size < 0 ? NULL : malloc(most + 1);
	ssize_t got = -1;

	if (text)
		got = pread(fd, text, most, size > (off_t)most ? size - (off_t)most : 0);
	if (fd >= 0)
		close(fd);
	if (got < 0) {
		free(text);
		return NULL;
	}
	text[got] = '\0';
	*ret_size = (size_t)got;
	return text;
}

/* The last lines, clean; allocated, or NULL. */
static char *read_last_lines(const char *path, size_t lines)
{
	size_t size;
	char *text = read_tail(path, TAIL_MAX_BYTES, &size);
	char *clean = text ? malloc(size + 1) : NULL;
	char *last = NULL;

	if (clean) {
		test_text_clean(text, size, clean);
		last = strdup(test_text_last_lines(clean, lines));
	}
	free(clean);
	free(text);
	return last;
}

static void read_complaint(const char *path, char *ret_text, size_t size_bytes)
{
	static const char prefix[] = "vmlet: ";
	char *line = read_last_lines(path, 1);
	const char *text = line ? line : "";

	if (strncmp(text, prefix, strlen(prefix)) == 0)
		text += strlen(prefix);
	snprintf(ret_text, size_bytes, "%.*s", (int)strcspn(text, "\n"), text);
	free(line);
}

static void forget(struct test_result *result)
{
	free(result->console);
	free(result->directory);
	result->console = result->directory = NULL;
}

void test_collect(const struct test_case *test, int wait_status, bool was_killed, const struct test_attempt *attempt,
		  struct test_result *result)
{
	char complaint[COMPLAINT_MAX_BYTES];
	size_t size;
	char *status = read_tail(attempt->status, STATUS_MAX_BYTES, &size);
	struct test_end end = {wait_status, was_killed, status, complaint};

	forget(result);
	read_complaint(attempt->err, complaint, sizeof(complaint));
	test_judge(test, &end, result);
	free(status);
	if (result->outcome != TEST_FAILED)
		return;
	result->console = read_last_lines(attempt->console, CONSOLE_LINES);
	result->directory = strdup(attempt->directory);
}

void test_collect_failure(struct test_result *result, int code)
{
	forget(result);
	result->outcome = TEST_FAILED;
	result->duration_ns = 0;
	snprintf(result->reason, sizeof(result->reason), "it cannot be started: %s", strerror(-code));
}
