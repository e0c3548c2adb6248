/* For tests of options that describe devices: values that are taken, and values that are refused with a sentence. */
#pragma once

#include "cli/device_option.h"
#include "cli/settings.h"

/* Fails when the value is refused. To be freed with settings_free. */
static inline void *settings_take(const struct settings_kind *kind, const char *value)
{
	struct cli_error error = {0};
	void *items = NULL;

	if (settings_parse(kind, &value, 1, &items, &error) < 0)
		fail_msg("'%s' is refused: %s", value, error.text);
	return items;
}

/* The values up to a NULL together; the error is that of the last. */
static inline int settings_try(const struct settings_kind *kind, const char *const *values, struct cli_error *error)
{
	void *items = NULL;
	size_t count = 0;
	int r;

	while (values[count])
		count++;
	*error = (struct cli_error){0};
	r = settings_parse(kind, values, count, &items, error);
	settings_free(kind, items, r == 0 ? count : 0);
	return r;
}

/* Refused, with one sentence that names the option and has each of the words up to a NULL in it. */
static inline void settings_refuse(const struct settings_kind *kind, const char *value, const char *const *words)
{
	struct cli_error error;

	if (settings_try(kind, (const char *const[]){value, NULL}, &error) != -EINVAL)
		fail_msg("'%s' is not refused", value);
	assert_null(strchr(error.text, '\n'));
	assert_memory_equal(error.text, kind->option, strlen(kind->option));
	for (; *words; words++)
		if (!strstr(error.text, *words))
			fail_msg("no \"%s\" in \"%s\"", *words, error.text);
}

/* The whole of the command line: `run` and these arguments. */
static inline int settings_command_line(struct options *options, struct cli_error *error, const char *const *args)
{
	const char *argv[32] = {"vmlet"};
	int argc = 1;

	while (args[argc - 1]) {
		argv[argc] = args[argc - 1];
		argc++;
	}
	*error = (struct cli_error){0};
	return options_parse(options, argc, argv, error);
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
