/*
 * The values of options: text to number, size, choice or list. All are pure; 0, -EINVAL when the text is not such
 * a value, -ENOMEM. Nothing is changed on failure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <vmlet.h>

/* Decimal digits only, no sign; min and max are inclusive. */
int value_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number);

/* Decimal digits and K, M, G or T (powers of 1024, either case); without one the unit is `unit_bytes`. */
int value_size(const char *text, uint64_t unit_bytes, uint64_t *ret_bytes);

/* "90", "90s", "1.5m", "500ms", "2h": more than 0, at most 1000 days, and of a fraction nine digits. */
int value_duration(const char *text, uint64_t *ret_ns);

struct value_choice {
	const char *name;
	int value;
};

/* One of a table that ends with a NULL name. */
int value_choice(const char *text, const struct value_choice *choices, int *ret_value);

/* A place for characters: file=PATH, unix=PATH, or one of `choices`, which are of enum vmlet_serial_kind. */
int value_place(const char *text, const struct value_choice *choices, enum vmlet_serial_kind *ret_kind,
		const char **ret_path);

/* "+name,-name,...": each of letters, digits, '.', '_' and '-'. */
int value_features(const char *text);

/* Append `text` to the allocated string *list (NULL: empty), with `separator` between when neither is empty. */
int value_join(char **list, char separator, const char *text);
