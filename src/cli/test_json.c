/* As much of JSON as it takes to read our own status file. */
#include <string.h>

#include "cli/test_result.h"

static const char *skip_spaces(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

/* `at` is behind the opening quote; returns the closing one, or NULL. */
static const char *string_end(const char *at)
{
	for (; *at != '\0' && *at != '"'; at++) {
		if (*at == '\\' && *++at == '\0')
			return NULL;
	}
	return *at == '"' ? at : NULL;
}

/* \uXXXX is only what we write for control characters, so it becomes '?', as do \n and the like. */
static void copy_string(const char *at, const char *end, char *to, size_t size_bytes)
{
	while (at < end && size_bytes > 1) {
		char c = *at++;

		if (c == '\\' && at < end) {
			c = *at++;
			if (c == 'u')
				at += strnlen(at, (size_t)(end - at) < 4 ? (size_t)(end - at) : 4);
			if (c != '"' && c != '\\' && c != '/')
				c = '?';
		}
		*to++ = c;
		size_bytes--;
	}
	*to = '\0';
}

bool test_json_string(const char *json, const char *key, char *ret_text, size_t size_bytes)
{
	unsigned depth = 0;

	for (const char *at = json; *at; at++) {
		const char *end, *value;

		if (*at == '{' || *at == '[')
			depth++;
		if (*at == '}' || *at == ']')
			depth--;
		if (*at != '"')
			continue;
		end = string_end(at + 1);
		if (!end)
			return false;
		value = skip_spaces(end + 1);
		if (depth == 1 && *value == ':' && (size_t)(end - at - 1) == strlen(key) &&
		    memcmp(at + 1, key, strlen(key)) == 0) {
			value = skip_spaces(value + 1);
			end = *value == '"' ? string_end(value + 1) : NULL;
			if (!end)
				return false;
			copy_string(value + 1, end, ret_text, size_bytes);
			return true;
		}
		at = end;
	}
	return false;
}
