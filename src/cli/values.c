#include "cli/values.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* strtoull would take signs, spaces and other bases. Returns the first character after the digits, or NULL. */
static const char *read_digits(const char *text, uint64_t *ret_number)
{
	uint64_t n = 0;

	if (*text < '0' || *text > '9')
		return NULL;
	for (; *text >= '0' && *text <= '9'; text++) {
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return NULL;
	}
	*ret_number = n;
	return text;
}

int value_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
	uint64_t n;
	const char *end = read_digits(text, &n);

	if (!end || *end != '\0' || n < min || n > max)
		return -EINVAL;
	*ret_number = n;
	return 0;
}

/* 0: not a suffix. */
static uint64_t suffix_bytes(char c)
{
	switch (c) {
	case 'k':
	case 'K':
		return (uint64_t)1 << 10;
	case 'm':
	case 'M':
		return (uint64_t)1 << 20;
	case 'g':
	case 'G':
		return (uint64_t)1 << 30;
	case 't':
	case 'T':
		return (uint64_t)1 << 40;
	default:
		return 0;
	}
}

int value_size(const char *text, uint64_t unit_bytes, uint64_t *ret_bytes)
{
	uint64_t n, unit = unit_bytes;
	const char *end = read_digits(text, &n);

	if (!end)
		return -EINVAL;
	if (*end != '\0') {
		unit = suffix_bytes(*end);
		if (unit == 0 || end[1] != '\0')
			return -EINVAL;
	}
	if (__builtin_mul_overflow(n, unit, &n))
		return -EINVAL;
	*ret_bytes = n;
	return 0;
}

int value_choice(const char *text, const struct value_choice *choices, int *ret_value)
{
	for (; choices->name; choices++) {
		if (strcmp(text, choices->name) == 0) {
			*ret_value = choices->value;
			return 0;
		}
	}
	return -EINVAL;
}

static bool is_feature_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
	       c == '-';
}

int value_features(const char *text)
{
	do {
		if (*text != '+' && *text != '-')
			return -EINVAL;
		text++;
		if (!is_feature_char(*text))
			return -EINVAL;
		while (is_feature_char(*text))
			text++;
	} while (*text++ == ',');
	return text[-1] == '\0' ? 0 : -EINVAL;
}

int value_join(char **list, char separator, const char *text)
{
	size_t old = *list ? strlen(*list) : 0;
	size_t size = strlen(text);
	size_t between = old > 0 && size > 0;
	char *joined = realloc(*list, old + between + size + 1);

	if (!joined)
		return -ENOMEM;
	if (between)
		joined[old] = separator;
	memcpy(joined + old + between, text, size + 1);
	*list = joined;
	return 0;
}
