/* JSON into a buffer of a fixed size. What does not fit is left out, and `cut` says so. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
	char *text; /* ends in NUL */
	size_t size_bytes, used;
	bool cut;
};

void json_init(struct json *json, char *text, size_t size_bytes);

/* Punctuation and keys, as they are. */
void json_raw(struct json *json, const char *text);
void json_number(struct json *json, uint64_t number);

/*
 * A string with its quotes, or null for NULL; at most `max_bytes` of it, cut between characters. Control characters are
 * escaped; a byte that is not UTF-8 becomes '?'.
 */
void json_string(struct json *json, const char *string, size_t max_bytes);
