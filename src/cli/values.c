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

static const uint64_t NS_PER_S = 1000000000, DURATION_MAX_NS = 86400000000000000; /* 1000 days */

/* 0: not a unit. */
static uint64_t unit_ns(const char *unit)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {{"", NS_PER_S}, {"s", NS_PER_S}, {"ms", 1000000}, {"m", 60 * NS_PER_S}, {"h", 3600 * NS_PER_S}};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(unit, units[i].name) == 0)
			return units[i].ns;
	return 0;
}

/* ".5" as billionths of a unit; *text is moved behind it. False: not a fraction. */
static bool read_fraction(const char **text, uint64_t *ret_billionths)
{
	uint64_t billionths = 0, place = NS_PER_S / 10;
	const char *at = *text;

	if (*at == '.') {
		at++;
		if (*at < '0' || *at > '9')
			return false;
		for (; *at >= '0' && *at <= '9' && place > 0; at++, place /= 10)
			billionths += (uint64_t)(*at - '0') * place;
	}
	*text = at;
	*ret_billionths = billionths;
	return true;
}

int value_duration(const char *text, uint64_t *ret_ns)
{
	uint64_t n, billionths, unit;
	const char *at = read_digits(text, &n);

	if (!at || !read_fraction(&at, &billionths))
		return -EINVAL;
	unit = unit_ns(at);
	/* The order spares the product an overflow: a unit is at most 3600 s. */
	if (unit == 0 || n > DURATION_MAX_NS / unit)
		return -EINVAL;
	n = n * unit + unit / 1000 * billionths / (NS_PER_S / 1000);
	if (n == 0 || n > DURATION_MAX_NS)
		return -EINVAL;
	*ret_ns = n;
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

int value_place(const char *text, const struct value_choice *choices, enum vmlet_serial_kind *ret_kind,
		const char **ret_path)
{
	int choice;

	if (strncmp(text, "file=", 5) == 0 && text[5] != '\0') {
		*ret_kind = VMLET_SERIAL_FILE;
		*ret_path = text + 5;
	} else if (strncmp(text, "unix=", 5) == 0 && text[5] != '\0') {
		*ret_kind = VMLET_SERIAL_UNIX;
		*ret_path = text + 5;
	} else if (value_choice(text, choices, &choice) == 0) {
		*ret_kind = (enum vmlet_serial_kind)choice;
		*ret_path = NULL;
	} else {
		return -EINVAL;
	}
	return 0;
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
