#include "cli/json.h"

#include <stdio.h>
#include <string.h>

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

/* RFC 3629: how many bytes the character at `s` has, 0 when it is none. NUL is not looked beyond. */
static size_t character_size(const unsigned char *s)
{
	static const struct {
		unsigned char from, to, second_from, second_to;
		size_t size;
	} forms[] = {
		{0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (*s < forms[i].from || *s > forms[i].to)
			continue;
		if (forms[i].size > 1 && (s[1] < forms[i].second_from || s[1] > forms[i].second_to))
			return 0;
		for (size_t n = 2; n < forms[i].size; n++)
			if ((s[n] & 0xc0) != 0x80)
				return 0;
		return forms[i].size;
	}
	return 0;
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

	if (!string) {
		json_raw(json, "null");
		return;
	}
	add(json, "\"", 1);
	while (string[at] != '\0' && at < max_bytes) {
		size_t size = character_size((const unsigned char *)string + at);

		if (size > max_bytes - at)
			break;
		add_character(json, string + at, size);
		at += size == 0 ? 1 : size;
	}
	add(json, "\"", 1);
}
