#include "cli/console_option.h"

#include <string.h>

#include "cli/values.h"

/* The library's own port (docs/status-port.md). */
#define STATUS_PORT "org.vmlet.status"

static int apply_bw(void *item, char *value)
{
	struct console_option *console = item;

	return settings_take_bandwidth(value, &console->bandwidth_bytes, &console->bandwidth_burst_bytes);
}

static const struct setting settings[] = {
	{"bw", SETTING_REQUIRED, "bw=SIZE[:BURST]", "SIZE bytes a second each way, BURST at once",
	 "a size such as 64K, or two with ':' between", apply_bw, false},
	SETTING_PACKED,
	{NULL, SETTING_NONE, NULL, NULL, NULL, NULL, false},
};

static const struct value_choice choices[] = {
	{"stdio", VMLET_SERIAL_FD},
	{"null", VMLET_SERIAL_NULL},
	{"pty", VMLET_SERIAL_PTY},
	{NULL, 0},
};

static int take_place(const struct settings_parser *parser, struct console_option *console, const char *field)
{
	if (value_place(field, console->name ? choices + 1 : choices, &console->kind, &console->path) == 0)
		return 0;
	if (console->name)
		return settings_fail(
			parser, "a port cannot be at '" TYPED "'; it is at pty, null, file=PATH or unix=PATH", field);
	return settings_fail(parser,
			     "it is stdio, pty, null, file=PATH, unix=PATH, port=NAME:WHERE or status, where WHERE is "
			     "any of the former but stdio");
}

/* NAME:WHERE */
static int take_port(const struct settings_parser *parser, struct console_option *console, char *field)
{
	char *colon = strchr(field, ':');

	if (!colon)
		return settings_fail(parser, "a port is written port=NAME:WHERE, where WHERE is pty, null, file=PATH "
					     "or unix=PATH");
	*colon = '\0';
	if (colon == field || colon - field > CONSOLE_NAME_MAX_BYTES || strchr(field, '/'))
		return settings_fail(parser, "a port's name cannot be '" TYPED "'; it is 1 to 63 bytes without '/'",
				     field);
	if (strcmp(field, STATUS_PORT) == 0)
		return settings_fail(parser, "that port is vmlet's own; --console status asks for it");
	console->name = field;
	return take_place(parser, console, colon + 1);
}

static int take_source(const struct settings_parser *parser, void *item, char *field)
{
	struct console_option *console = item;
	char *port = settings_after(field, "port");

	console->is_status = strcmp(field, "status") == 0;
	if (console->is_status)
		return 0;
	return port ? take_port(parser, console, port) : take_place(parser, console, field);
}

static bool have_one_name(const struct console_option *a, const struct console_option *b)
{
	return a->name && b->name && strcmp(a->name, b->name) == 0;
}

static bool is_stdio(const struct console_option *console)
{
	return !console->is_status && console->kind == VMLET_SERIAL_FD;
}

static int check(const struct settings_parser *parser, const void *items, size_t index)
{
	const struct console_option *consoles = items, *console = &consoles[index];
	size_t before = 0;

	if (console->is_status && console->bandwidth_bytes)
		return settings_fail(parser, "the status port has no bw");
	for (size_t i = 0; i < index; i++) {
		if (have_one_name(console, &consoles[i]))
			return settings_fail(parser, "there is a port '%s' already", console->name);
		if (is_stdio(console) && is_stdio(&consoles[i]))
			return settings_fail(parser, "standard input and output are another console's already");
		before += !consoles[i].is_status;
	}
	if (before == CONSOLES_MAX && !console->is_status)
		return settings_fail(parser, "a machine has at most %d consoles and ports", CONSOLES_MAX);
	return 0;
}

const struct settings_kind console_kind = {
	.option = "--console",
	.topic = "console",
	.item_bytes = sizeof(struct console_option),
	.count_max = SIZE_MAX, /* check counts: not all of them are consoles */
	.noun = "console",
	.settings = settings,
	.take_source = take_source,
	.check = check,
};

size_t console_find_stdio(const struct console_option *consoles, size_t count)
{
	size_t i = 0;

	while (i < count && !is_stdio(&consoles[i]))
		i++;
	return i;
}
