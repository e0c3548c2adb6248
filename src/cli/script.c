#include "cli/script.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/read_all.h"
#include "cli/suggest.h"
#include "cli/values.h"

struct script {
	const char *name;
	unsigned line;
	struct expect *expect;
	struct cli_error *error;
	uint64_t timeout_ns; /* of the expectations that follow */
};

static int fail(struct script *script, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(struct script *script, int code, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(script->error->text, sizeof(script->error->text), "%.150s:%u: %s", script->name, script->line, text);
	return code;
}

static int fail_memory(struct script *script)
{
	return fail(script, -ENOMEM, "out of memory");
}

/* --- escapes --------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* `at` is behind a backslash. Returns how many characters the escape takes, 0: none is such. */
static size_t read_escape(const char *at, char *ret_byte)
{
	static const char names[] = "nrt\\", bytes[] = "\n\r\t\\";
	const char *name = *at != '\0' ? strchr(names, *at) : NULL;

	if (name) {
		*ret_byte = bytes[name - names];
		return 1;
	}
	if (*at != 'x' || hex_digit(at[1]) < 0 || hex_digit(at[2]) < 0)
		return 0;
	*ret_byte = (char)(hex_digit(at[1]) << 4 | hex_digit(at[2]));
	return 3;
}

int script_unescape(char *text, size_t *ret_size_bytes)
{
	char *to = text;

	for (const char *at = text; *at != '\0';) {
		size_t size;

		if (*at != '\\') {
			*to++ = *at++;
			continue;
		}
		size = read_escape(at + 1, to);
		if (size == 0)
			return -EINVAL;
		to++;
		at += 1 + size;
	}
	*ret_size_bytes = (size_t)(to - text);
	return 0;
}

/* --- steps ----------------------------------------------------------------------------------------------- */

static int step_expect(struct script *script, char *value)
{
	char why[128] = "";
	int r = expect_add_pattern(script->expect, EXPECT_DIALOGUE, value, script->timeout_ns, why, sizeof(why));

	return r == -EINVAL ? fail(script, r, "'%.80s' is not a regular expression: %s", value, why) : r;
}

static int step_fail_on(struct script *script, char *value)
{
	char why[128] = "";
	int r = expect_add_fail_on(script->expect, EXPECT_DIALOGUE, value, why, sizeof(why));

	return r == -EINVAL ? fail(script, r, "'%.80s' is not a regular expression: %s", value, why) : r;
}

static int step_send(struct script *script, char *value)
{
	size_t size_bytes;

	if (script_unescape(value, &size_bytes) < 0)
		return fail(script, -EINVAL,
			    "a backslash begins one of \\n, \\r, \\t, \\\\ and \\xHH, and here something else");
	return expect_add_send(script->expect, EXPECT_DIALOGUE, value, size_bytes);
}

static int fail_duration(struct script *script, const char *value)
{
	return fail(script, -EINVAL, "a time is such as 90, 90s, 1.5m, 500ms or 2h, not '%.80s'", value);
}

static int step_timeout(struct script *script, char *value)
{
	if (strcmp(value, "none") == 0) {
		script->timeout_ns = 0;
		return 0;
	}
	return value_duration(value, &script->timeout_ns) < 0 ? fail_duration(script, value) : 0;
}

static int step_sleep(struct script *script, char *value)
{
	uint64_t ns;

	if (value_duration(value, &ns) < 0)
		return fail_duration(script, value);
	return expect_add_sleep(script->expect, EXPECT_DIALOGUE, ns);
}

static const struct {
	const char *word;
	int (*step)(struct script *script, char *value);
} words[] = {
	{"expect", step_expect},   {"send", step_send},   {"fail-on", step_fail_on},
	{"timeout", step_timeout}, {"sleep", step_sleep},
};

static int fail_unknown(struct script *script, const char *word, size_t size)
{
	struct suggest suggest;

	suggest_init(&suggest, word, size);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		suggest_consider(&suggest, words[i].word);
	if (suggest.best)
		return fail(script, -EINVAL, "unknown word '%.*s'; did you mean %s?", (int)(size < 80 ? size : 80),
			    word, suggest.best);
	return fail(script, -EINVAL, "unknown word '%.*s'; there are expect, send, fail-on, timeout and sleep",
		    (int)(size < 80 ? size : 80), word);
}

static int parse_line(struct script *script, char *line)
{
	size_t size;

	line += strspn(line, " \t");
	size = strcspn(line, " \t");
	if (*line == '\0' || *line == '#')
		return 0;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		int r;

		if (strlen(words[i].word) != size || memcmp(words[i].word, line, size) != 0)
			continue;
		if (line[size] == '\0' || line[size + 1] == '\0')
			return fail(script, -EINVAL, "'%s' needs something after it", words[i].word);
		r = words[i].step(script, line + size + 1);
		return r == -ENOMEM ? fail_memory(script) : r;
	}
	return fail_unknown(script, line, size);
}

/* `text` is cut up; it has a NUL at its end. */
static int parse_lines(struct script *script, char *text)
{
	int r = 0;

	for (char *line = text, *next; line && r == 0; line = next) {
		size_t size;

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		size = strlen(line);
		if (size > 0 && line[size - 1] == '\r')
			line[size - 1] = '\0';
		script->line++;
		r = parse_line(script, line);
	}
	return r;
}

int script_parse(const char *name, const char *text, size_t size_bytes, struct expect *expect, struct cli_error *error)
{
	struct script script = {.name = name, .expect = expect, .error = error};
	char *copy;
	int r;

	if (memchr(text, '\0', size_bytes)) {
		script.line = 1;
		return fail(&script, -EINVAL, "a script is text, and this has a NUL in it");
	}
	copy = malloc(size_bytes + 1);
	if (!copy)
		return fail_memory(&script);
	memcpy(copy, text, size_bytes);
	copy[size_bytes] = '\0';
	r = parse_lines(&script, copy);
	free(copy);
	return r;
}

/* --- files and options ------------------------------------------------------------------------------------- */

static ssize_t read_file(const char *path, char *data, size_t max)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read_all(fd, data, max);
	close(fd);
	return n;
}

int script_read(const char *path, struct expect *expect, struct cli_error *error)
{
	char *text = malloc(SCRIPT_MAX_BYTES + 1);
	ssize_t n = text ? read_file(path, text, SCRIPT_MAX_BYTES + 1) : -ENOMEM;
	int r;

	if (n < 0) {
		snprintf(error->text, sizeof(error->text), "script '%.400s': %s", path, strerror((int)-n));
		r = (int)n;
	} else if (n > SCRIPT_MAX_BYTES) {
		snprintf(error->text, sizeof(error->text), "script '%.400s': larger than 1 MiB", path);
		r = -EINVAL;
	} else {
		r = script_parse(path, text, (size_t)n, expect, error);
	}
	free(text);
	return r;
}

static int add_reply(char *pattern, struct expect *expect, struct cli_error *error)
{
	char *text = strstr(pattern, "=>"), why[128] = "";
	size_t size_bytes;
	int r;

	*text = '\0';
	text += 2;
	r = expect_add_pattern(expect, EXPECT_REPLIES, pattern, 0, why, sizeof(why));
	if (r == -EINVAL)
		snprintf(error->text, sizeof(error->text), "--send: '%.80s' is not a regular expression: %s", pattern,
			 why);
	if (r < 0)
		return r;
	if (script_unescape(text, &size_bytes) < 0) {
		snprintf(error->text, sizeof(error->text),
			 "--send: in '%.80s' a backslash begins one of \\n, \\r, \\t, \\\\ and \\xHH, and here "
			 "something "
			 "else",
			 text);
		return -EINVAL;
	}
	return expect_add_send(expect, EXPECT_REPLIES, text, size_bytes);
}

int script_add_reply(const char *value, struct expect *expect, struct cli_error *error)
{
	char *copy = strdup(value);
	int r = copy ? add_reply(copy, expect, error) : -ENOMEM;

	if (r == -ENOMEM)
		snprintf(error->text, sizeof(error->text), "--send: out of memory");
	free(copy);
	return r;
}
