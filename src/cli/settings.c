#include "cli/settings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/suggest.h"
#include "cli/values.h"

int settings_fail(const struct settings_parser *parser, const char *fmt, ...)
{
	struct cli_error *error = parser->error;
	int used = snprintf(error->text, sizeof(error->text), "%s '" TYPED "': ", parser->kind->option, parser->typed);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error->text + used, sizeof(error->text) - (size_t)used, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* --- values ---------------------------------------------------------------------------------------------- */

int settings_apply_packed(void *item, char *value)
{
	(void)value;
	((struct settings_item *)item)->packed = true;
	return 0;
}

int settings_take_id(struct settings_item *item, const char *value)
{
	size_t size = strlen(value);

	if (size == 0 || size > SETTINGS_ID_MAX_BYTES)
		return -EINVAL;
	item->id = value;
	return 0;
}

int settings_take_number(const char *value, uint64_t min, uint64_t max, unsigned *ret_number)
{
	uint64_t number;

	if (value_number(value, min, max, &number) < 0)
		return -EINVAL;
	*ret_number = (unsigned)number;
	return 0;
}

static int parse_count(const char *text, uint64_t *ret_number)
{
	return value_number(text, 1, UINT64_MAX, ret_number);
}

static int parse_bytes(const char *text, uint64_t *ret_bytes)
{
	uint64_t bytes;

	if (value_size(text, 1, &bytes) < 0 || bytes == 0)
		return -EINVAL;
	*ret_bytes = bytes;
	return 0;
}

static int take_limit(char *value, int (*parse)(const char *text, uint64_t *ret_number), uint64_t *ret_limit,
		      uint64_t *ret_burst)
{
	char *colon = strchr(value, ':');
	uint64_t rate, at_once = 0;

	if (colon)
		*colon = '\0';
	if (parse(value, &rate) < 0 || (colon && parse(colon + 1, &at_once) < 0))
		return -EINVAL;
	*ret_limit = rate;
	*ret_burst = at_once;
	return 0;
}

int settings_take_rate(char *value, uint64_t *ret_limit, uint64_t *ret_burst)
{
	return take_limit(value, parse_count, ret_limit, ret_burst);
}

int settings_take_bandwidth(char *value, uint64_t *ret_limit, uint64_t *ret_burst)
{
	return take_limit(value, parse_bytes, ret_limit, ret_burst);
}

char *settings_after(char *field, const char *name)
{
	size_t length = strlen(name);

	return strncmp(field, name, length) == 0 && field[length] == '=' ? field + length + 1 : NULL;
}

/* --- one value ------------------------------------------------------------------------------------------- */

/*
 * Cut the next field off, with its doubled commas made single in place. NULL: there is none. After the last field
 * *rest is NULL; an empty field after a last comma is a field.
 */
static char *take_field(char **rest)
{
	char *field = *rest, *from = field, *to = field;

	if (!field)
		return NULL;
	while (*from != '\0' && (from[0] != ',' || from[1] == ',')) {
		from += *from == ',';
		*to++ = *from++;
	}
	*rest = *from == ',' ? from + 1 : NULL;
	*to = '\0';
	return field;
}

static int fail_unknown_setting(const struct settings_parser *parser, const char *name)
{
	struct suggest suggest;

	if (*name == '\0')
		return settings_fail(parser, "there is a comma without a setting; in a name a comma is written ',,'");
	suggest_init(&suggest, name, strlen(name));
	for (const struct setting *setting = parser->kind->settings; setting->name; setting++)
		suggest_consider(&suggest, setting->name);
	if (suggest.best)
		return settings_fail(parser, "unknown setting '" TYPED "'; did you mean '%s'?", name, suggest.best);
	return settings_fail(parser, "unknown setting '" TYPED "'; 'vmlet help %s' lists the settings", name,
			     parser->kind->topic);
}

static int apply(const struct settings_parser *parser, const struct setting *setting, void *item, char *value)
{
	char typed[81] = "";

	if (value && setting->value == SETTING_NONE)
		return settings_fail(parser, "%s takes no value, not '" TYPED "'", setting->name, value);
	if (!value && setting->value == SETTING_REQUIRED)
		return settings_fail(parser, "%s needs a value: %s", setting->name, setting->accepts);
	if (value)
		snprintf(typed, sizeof(typed), TYPED, value);
	if (setting->apply(item, value) < 0)
		return settings_fail(parser, "%s cannot be '%s'; it is %s", setting->name, typed, setting->accepts);
	return 0;
}

static int parse_setting(struct settings_parser *parser, void *item, char *field)
{
	const struct setting *setting = parser->kind->settings;
	char *value = strchr(field, '=');
	unsigned bit;

	if (value)
		*value++ = '\0';
	while (setting->name && strcmp(setting->name, field) != 0)
		setting++;
	if (!setting->name)
		return fail_unknown_setting(parser, field);
	bit = 1U << (setting - parser->kind->settings);
	if ((parser->given & bit) && !setting->repeats)
		return settings_fail(parser, "%s is given twice", setting->name);
	parser->given |= bit;
	return apply(parser, setting, item, value);
}

static int parse_value(struct settings_parser *parser, void *item, char *text)
{
	char *rest = text, *field = take_field(&rest);
	int r = parser->kind->take_source(parser, item, field);

	if (r > 0)
		r = parse_setting(parser, item, field);
	while (r == 0 && (field = take_field(&rest)))
		r = parse_setting(parser, item, field);
	return r;
}

/* --- all values ------------------------------------------------------------------------------------------ */

static struct settings_item *item_at(const struct settings_kind *kind, void *items, size_t index)
{
	return (struct settings_item *)((char *)items + index * kind->item_bytes);
}

/* What an item is called: the library names those without an id by their places. */
static const char *id_of(const struct settings_kind *kind, void *items, size_t index,
			 char buffer[SETTINGS_ID_MAX_BYTES])
{
	const char *id = item_at(kind, items, index)->id;

	if (id)
		return id;
	snprintf(buffer, SETTINGS_ID_MAX_BYTES, "%s%zu", kind->id_stem, index);
	return buffer;
}

static int check_id(const struct settings_parser *parser, void *items, size_t index)
{
	char buffer[SETTINGS_ID_MAX_BYTES], other[SETTINGS_ID_MAX_BYTES];
	const char *id = id_of(parser->kind, items, index, buffer);

	for (size_t i = 0; i < index; i++)
		if (strcmp(id, id_of(parser->kind, items, i, other)) == 0)
			return settings_fail(parser, "its id '%s' is another %s's already", id, parser->kind->noun);
	return 0;
}

static int parse_one(struct settings_parser *parser, void *items, size_t index)
{
	struct settings_item *item = item_at(parser->kind, items, index);
	int r;

	item->text = strdup(parser->typed);
	if (!item->text)
		return -ENOMEM;
	r = parse_value(parser, item, item->text);
	if (r == 0 && parser->kind->check)
		r = parser->kind->check(parser, items, index);
	if (r == 0 && parser->kind->id_stem)
		r = check_id(parser, items, index);
	return r;
}

int settings_parse(const struct settings_kind *kind, const char *const *values, size_t count, void **ret_items,
		   struct cli_error *error)
{
	void *items = NULL;
	int r = 0;

	if (count > kind->count_max) {
		snprintf(error->text, sizeof(error->text), "%s is given %zu times; a machine has at most %zu %ss",
			 kind->option, count, kind->count_max, kind->noun);
		return -EINVAL;
	}
	if (count > 0) {
		items = calloc(count, kind->item_bytes);
		r = items ? 0 : -ENOMEM;
	}
	for (size_t i = 0; i < count && r == 0; i++) {
		struct settings_parser parser = {.kind = kind, .typed = values[i], .error = error};

		r = parse_one(&parser, items, i);
	}
	if (r == -ENOMEM)
		snprintf(error->text, sizeof(error->text), "%s: out of memory", kind->option);
	if (r < 0)
		settings_free(kind, items, count);
	else
		*ret_items = items;
	return r;
}

void settings_free(const struct settings_kind *kind, void *items, size_t count)
{
	for (size_t i = 0; items && i < count; i++)
		free(item_at(kind, items, i)->text);
	free(items);
}
