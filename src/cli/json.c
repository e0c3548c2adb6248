#include "cli/json.h"

#include <stdio.h>
#include <string.h>

#include "cli/utf8.h"

void json_init(struct json *json, char *text, size_t size_bytes)
{
	*json = (struct json){.text = text, .size_bytes = size_bytes};
	text[0] = '\0';
}

static void add(struct json *json, const char *data, size_t size)
{
	if (json->cut || size >= json->size_bytes - json->used) {
		json->cut = true;
		return;
	}
	memcpy(json->text + json->used, data, size);
	json->used += size;
	json->text[json->used] = '\0';
}

void json_raw(struct json *json, const char *text)
{
	add(json, text, strlen(text));
}

void json_number(struct json *json, uint64_t number)
{
	char digits[24];
	int size = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);

	add(json, digits, (size_t)size);
}

static void add_character(struct json *json, const char *s, size_t size)
{
	unsigned char c = (unsigned char)*s;
	char escape[8];

	if (size == 0) {
		add(json, "?", 1);
	} else if (c == '"' || c == '\\') {
		escape[0] = '\\';
		escape[1] = (char)c;
		add(json, escape, 2);
	} else if (c < ' ' || c == 0x7f) {
		snprintf(escape, sizeof(escape), "\\u%04x", c);
		add(json, escape, 6);
	} else {
		add(json, s, size);
	}
}

void json_string(struct json *json, const char *string, size_t max_bytes)
{
	size_t at = 0;
	uint32_t character;

	if (!string) {
		json_raw(json, "null");
		return;
	}
	add(json, "\"", 1);
	while (at < max_bytes && string[at] != '\0') {
		size_t size = utf8_decode(string + at, strnlen(string + at, UTF8_SIZE_MAX), &character);

		if (size > max_bytes - at)
			break;
		add_character(json, string + at, size);
		at += size == 0 ? 1 : size;
	}
	add(json, "\"", 1);
}
