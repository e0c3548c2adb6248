#include "cli/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/console_option.h"
#include "cli/device_option.h"
#include "cli/suggest.h"
#include "cli/values.h"

struct parser {
	struct options *options;
	struct cli_error *error;
	const char *const *argv;
	int argc;
	int at;                              /* the next argument */
	const struct option_spec *valueless; /* the option before it, when it may have a value and has none */
};

static int fail(struct parser *parser, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(struct parser *parser, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(parser->error->text, sizeof(parser->error->text), fmt, ap);
	va_end(ap);
	return code;
}

/* `run` does not have what is about a command only. */
static bool is_for(const struct parser *parser, const struct option_spec *spec)
{
	return parser->options->command == COMMAND_EXEC || !spec->topic || strcmp(spec->topic, "exec") != 0;
}

static const struct option_spec *find_long(const struct parser *parser, const char *name, size_t length)
{
	for (const struct option_spec *spec = options_table; spec->name; spec++)
		if (is_for(parser, spec) && strlen(spec->name) == length && memcmp(spec->name, name, length) == 0)
			return spec;
	return NULL;
}

static const struct option_spec *find_short(const struct parser *parser, char letter)
{
	for (const struct option_spec *spec = options_table; spec->name; spec++)
		if (is_for(parser, spec) && spec->letter != 0 && spec->letter == letter)
			return spec;
	return NULL;
}

static bool is_long_option(const struct parser *parser, const char *arg)
{
	return strncmp(arg, "--", 2) == 0 && find_long(parser, arg + 2, strcspn(arg + 2, "="));
}

static const char *command_name(const struct parser *parser)
{
	return parser->options->command == COMMAND_EXEC ? "exec" : "run";
}

static int fail_unknown_long(struct parser *parser, const char *name, size_t length)
{
	struct suggest suggest;

	suggest_init(&suggest, name, length);
	for (const struct option_spec *spec = options_table; spec->name; spec++)
		if (is_for(parser, spec))
			suggest_consider(&suggest, spec->name);
	if (suggest.best)
		return fail(parser, -EINVAL, "unknown option '--%.*s'; did you mean --%s?",
			    (int)(length < 80 ? length : 80), name, suggest.best);
	return fail(parser, -EINVAL, "unknown option '--%.*s'; 'vmlet help %s' lists the options",
		    (int)(length < 80 ? length : 80), name, command_name(parser));
}

static int apply(struct parser *parser, const struct option_spec *spec, const char *value)
{
	int r = spec->apply(parser->options, value);

	if (r == -ENOMEM)
		return fail(parser, r, "--%s: out of memory", spec->name);
	if (r < 0)
		return fail(parser, r, "--%s cannot be '" TYPED "'; it is %s", spec->name, value, spec->accepts);
	return 0;
}

/* `attached` is the value in the same argument, or NULL. */
static int apply_with_value(struct parser *parser, const struct option_spec *spec, const char *attached)
{
	const char *value = attached;

	if (!spec->metavar) {
		if (attached)
			return fail(parser, -EINVAL, "--%s takes no value, not '" TYPED "'", spec->name, attached);
		return apply(parser, spec, NULL);
	}
	if (!value && spec->may_lack_value) {
		parser->valueless = spec;
		return apply(parser, spec, "on");
	}
	if (!value) {
		if (parser->at >= parser->argc)
			return fail(parser, -EINVAL, "--%s needs a value: %s", spec->name, spec->accepts);
		value = parser->argv[parser->at];
		/* A value that is an option was most likely forgotten; --name=value takes it all the same. */
		if (is_long_option(parser, value))
			return fail(parser, -EINVAL, "--%s needs a value, not the option '" TYPED "': %s", spec->name,
				    value, spec->accepts);
		parser->at++;
	}
	return apply(parser, spec, value);
}

static int parse_long(struct parser *parser, const char *arg)
{
	const char *name = arg + 2;
	size_t length = strcspn(name, "=");
	const struct option_spec *spec = find_long(parser, name, length);

	if (!spec)
		return fail_unknown_long(parser, name, length);
	return apply_with_value(parser, spec, name[length] == '=' ? name + length + 1 : NULL);
}

static int parse_short(struct parser *parser, const char *arg)
{
	const struct option_spec *spec = find_short(parser, arg[1]);

	/* A long option with one dash deserves to hear about the other. */
	if (find_long(parser, arg + 1, strcspn(arg + 1, "=")))
		return fail(parser, -EINVAL, "unknown option '" TYPED "'; did you mean -" TYPED "?", arg, arg);
	if (!spec)
		return fail(parser, -EINVAL, "unknown option '" TYPED "'; 'vmlet help %s' lists the options", arg,
			    command_name(parser));
	return apply_with_value(parser, spec, arg[2] != '\0' ? arg + 2 : NULL);
}

/* Words after "--" are the kernel's. */
static int parse_kernel_words(struct parser *parser)
{
	for (; parser->at < parser->argc; parser->at++)
		if (value_join(&parser->options->cmdline, ' ', parser->argv[parser->at]) < 0)
			return fail(parser, -ENOMEM, "kernel command line: out of memory");
	return 0;
}

static int parse_option(struct parser *parser)
{
	const char *arg = parser->argv[parser->at++];

	parser->valueless = NULL;
	return strncmp(arg, "--", 2) == 0 ? parse_long(parser, arg) : parse_short(parser, arg);
}

static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1] != '\0' && strcmp(arg, "--") != 0;
}

static int parse_options(struct parser *parser)
{
	while (parser->at < parser->argc && is_option(parser->argv[parser->at])) {
		int r = parse_option(parser);

		if (r < 0 || parser->options->command == COMMAND_HELP)
			return r;
	}
	return 0;
}

/* There is one standard input. Where a console has it, the serial port has none. */
static int give_stdio(struct parser *parser)
{
	struct options *options = parser->options;
	const struct device_values *consoles = &options->devices[DEVICE_CONSOLE];

	if (console_find_stdio(consoles->items, consoles->values.count) == consoles->values.count)
		return 0;
	if (options->command == COMMAND_EXEC)
		return fail(parser, -EINVAL, "--console stdio cannot be with exec: standard input is the command's");
	if (options->serial_is_given && options->serial == VMLET_SERIAL_FD)
		return fail(parser, -EINVAL,
			    "--console stdio and --serial stdio contradict each other: there is one standard input");
	if (!options->serial_is_given)
		options->serial = VMLET_SERIAL_NULL;
	return 0;
}

static int finish_run(struct parser *parser)
{
	struct options *options = parser->options;

	if (!options->kernel)
		return fail(parser, -EINVAL, "%s needs a kernel: give --kernel FILE", command_name(parser));
	for (int i = 0; i < DEVICE_KINDS; i++) {
		struct device_values *device = &options->devices[i];
		int r = settings_parse(device_kinds[i], device->values.items, device->values.count, &device->items,
				       parser->error);

		if (r < 0)
			return r;
	}
	return give_stdio(parser);
}

static int parse_run(struct parser *parser)
{
	int r = parse_options(parser);

	if (r < 0 || parser->options->command == COMMAND_HELP)
		return r;
	if (parser->at < parser->argc) {
		const char *arg = parser->argv[parser->at++];

		if (strcmp(arg, "--") != 0 && parser->valueless)
			return fail(parser, -EINVAL, "a value of --%s follows '=': --%s=" TYPED,
				    parser->valueless->name, parser->valueless->name, arg);
		if (strcmp(arg, "--") != 0)
			return fail(parser, -EINVAL,
				    "unexpected argument '" TYPED "'; a kernel is given with --kernel, words for its "
				    "command line after '--'",
				    arg);
		r = parse_kernel_words(parser);
	}
	return r < 0 ? r : finish_run(parser);
}

/* The command is what follows the options, after "--" or at once. */
static int parse_exec(struct parser *parser)
{
	struct options *options = parser->options;
	int r;

	options->command = COMMAND_EXEC;
	options->serial = VMLET_SERIAL_NULL;
	r = parse_options(parser);
	if (r < 0 || options->command == COMMAND_HELP)
		return r;
	if (parser->at < parser->argc && strcmp(parser->argv[parser->at], "--") == 0)
		parser->at++;
	if (parser->at == parser->argc || parser->argv[parser->at][0] == '\0')
		return fail(parser, -EINVAL, "exec needs a command: vmlet exec --kernel FILE -- COMMAND");
	if (options->on_reboot == VMLET_ON_REBOOT_RESTART)
		return fail(parser, -EINVAL, "--on-reboot cannot be 'restart' with exec: a command runs once");
	options->exec.command = parser->argv + parser->at;
	return finish_run(parser);
}

static int parse_no_more(struct parser *parser, const char *command)
{
	if (parser->at < parser->argc)
		return fail(parser, -EINVAL, "unexpected argument '" TYPED "' after '%s'", parser->argv[parser->at],
			    command);
	return 0;
}

/* cli/test_options.h knows the rest. */
static int parse_test(struct parser *parser)
{
	parser->options->command = COMMAND_TEST;
	parser->options->test_args = parser->argv + parser->at;
	parser->options->test_arg_count = (size_t)(parser->argc - parser->at);
	return 0;
}

static int parse_version(struct parser *parser)
{
	parser->options->command = COMMAND_VERSION;
	return parse_no_more(parser, "version");
}

static int parse_help(struct parser *parser)
{
	parser->options->command = COMMAND_HELP;
	if (parser->at < parser->argc)
		parser->options->help_topic = parser->argv[parser->at++];
	return parse_no_more(parser, "help");
}

static const struct {
	const char *name;
	int (*parse)(struct parser *parser);
} commands[] = {
	{"run", parse_run},   {"exec", parse_exec},         {"test", parse_test},   {"version", parse_version},
	{"help", parse_help}, {"--version", parse_version}, {"--help", parse_help}, {"-h", parse_help},
};

static int fail_unknown_command(struct parser *parser, const char *word)
{
	struct suggest suggest;

	if (is_long_option(parser, word) || (word[0] == '-' && find_short(parser, word[1])))
		return fail(parser, -EINVAL, "'" TYPED "' comes after a command: vmlet run " TYPED " ...", word, word);
	suggest_init(&suggest, word, strlen(word));
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		suggest_consider(&suggest, commands[i].name);
	if (suggest.best)
		return fail(parser, -EINVAL, "unknown command '" TYPED "'; did you mean %s?", word, suggest.best);
	return fail(parser, -EINVAL, "unknown command '" TYPED "'; there are run, exec, test, version and help", word);
}

static int parse_command(struct parser *parser)
{
	const char *word;

	if (parser->at >= parser->argc)
		return fail(parser, -EINVAL,
			    "no command; start a VM with 'vmlet run --kernel FILE', or see 'vmlet help'");
	word = parser->argv[parser->at++];
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(word, commands[i].name) == 0)
			return commands[i].parse(parser);
	return fail_unknown_command(parser, word);
}

int options_parse(struct options *options, int argc, const char *const *argv, struct cli_error *error)
{
	struct parser parser = {.options = options, .error = error, .argv = argv, .argc = argc, .at = 1};
	int r;

	*options = (struct options){
		.command = COMMAND_RUN,
		.serial = VMLET_SERIAL_FD,
		.log_level = VMLET_LOG_WARN,
	};
	r = parse_command(&parser);
	if (r < 0)
		options_free(options);
	return r;
}

void options_free(struct options *options)
{
	free(options->initrds);
	for (int i = 0; i < DEVICE_KINDS; i++) {
		settings_free(device_kinds[i], options->devices[i].items, options->devices[i].values.count);
		free(options->devices[i].values.items);
	}
	free(options->cmdline);
	free(options->cpu_features);
	free(options->contract.expects.items);
	free(options->contract.fail_ons.items);
	free(options->contract.sends.items);
	free(options->exec.modules.items);
	free(options->exec.variables.items);
	*options = (struct options){0};
}
