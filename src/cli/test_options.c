#include "cli/test_options.h"

#include <errno.h>
#include <regex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/suggest.h"
#include "cli/values.h"

#define TYPED "%.80s"

enum { LABEL_COLUMN = 22 };

struct test_option {
	const char *name;
	char letter;
	const char *metavar; /* NULL: takes no value */
	const char *help;
	const char *accepts;
	int (*apply)(struct test_options *options, const char *value);
};

static int apply_path(const char **path, const char *value)
{
	if (*value == '\0')
		return -EINVAL;
	*path = value;
	return 0;
}

static int apply_number(unsigned *number, const char *value, unsigned min, unsigned max)
{
	uint64_t n;

	if (value_number(value, min, max, &n) < 0)
		return -EINVAL;
	*number = (unsigned)n;
	return 0;
}

static int apply_jobs(struct test_options *options, const char *value)
{
	return apply_number(&options->jobs, value, 1, TEST_JOBS_MAX);
}

static int apply_retry(struct test_options *options, const char *value)
{
	return apply_number(&options->retries, value, 0, TEST_RETRIES_MAX);
}

static int apply_filter(struct test_options *options, const char *value)
{
	regex_t regex;

	if (regcomp(&regex, value, REG_EXTENDED | REG_NOSUB) != 0)
		return -EINVAL;
	regfree(&regex);
	options->filter = value;
	return 0;
}

static int apply_fail_fast(struct test_options *options, const char *value)
{
	(void)value;
	options->fail_fast = true;
	return 0;
}

static int apply_list(struct test_options *options, const char *value)
{
	(void)value;
	options->list = true;
	return 0;
}

static int apply_tap(struct test_options *options, const char *value)
{
	return apply_path(&options->tap_path, value);
}

static int apply_junit(struct test_options *options, const char *value)
{
	return apply_path(&options->junit_path, value);
}

static int apply_markdown(struct test_options *options, const char *value)
{
	return apply_path(&options->markdown_path, value);
}

static int apply_output(struct test_options *options, const char *value)
{
	return apply_path(&options->output_path, value);
}

static int apply_help(struct test_options *options, const char *value)
{
	(void)value;
	options->help = true;
	return 0;
}

static const struct test_option table[] = {
	{"jobs", 'j', "N", "tests at a time, 1 to 256; default: one a CPU", "a number from 1 to 256", apply_jobs},
	{"filter", 0, "REGEX", "only the tests whose names match", "an extended regular expression", apply_filter},
	{"retry", 0, "N", "run a test that failed up to N times again", "a number from 0 to 100", apply_retry},
	{"fail-fast", 0, NULL, "start no more tests after the first that failed", NULL, apply_fail_fast},
	{"list", 0, NULL, "print the names of the tests and run none", NULL, apply_list},
	{"tap", 0, "FILE", "TAP version 14 there; default: standard output", "a file", apply_tap},
	{"junit", 0, "FILE", "JUnit XML there, as GitLab and GitHub read it", "a file", apply_junit},
	{"markdown", 0, "FILE", "a table in Markdown there", "a file", apply_markdown},
	{"output", 0, "DIR", "each test's console, events and status, kept there", "a directory", apply_output},
	{"help", 'h', NULL, "show this", NULL, apply_help},
	{NULL, 0, NULL, NULL, NULL, NULL},
};

struct parser {
	struct test_options *options;
	struct cli_error *error;
	const char *const *args;
	size_t count, at;
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

static const struct test_option *find_long(const char *name, size_t length)
{
	for (const struct test_option *option = table; option->name; option++)
		if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
			return option;
	return NULL;
}

static const struct test_option *find_short(char letter)
{
	for (const struct test_option *option = table; option->name; option++)
		if (option->letter != '\0' && option->letter == letter)
			return option;
	return NULL;
}

static int fail_unknown(struct parser *parser, const char *arg)
{
	struct suggest suggest;

	suggest_init(&suggest, arg + strspn(arg, "-"), strcspn(arg + strspn(arg, "-"), "="));
	for (const struct test_option *option = table; option->name; option++)
		suggest_consider(&suggest, option->name);
	if (suggest.best)
		return fail(parser, -EINVAL, "unknown option '" TYPED "' of test; did you mean --%s?", arg,
			    suggest.best);
	return fail(parser, -EINVAL, "unknown option '" TYPED "' of test; 'vmlet help test' lists the options", arg);
}

/* `attached` is the value in the same argument, or NULL. */
static int apply(struct parser *parser, const struct test_option *option, const char *attached)
{
	const char *value = attached;

	if (!option->metavar && attached)
		return fail(parser, -EINVAL, "--%s takes no value, not '" TYPED "'", option->name, attached);
	if (option->metavar && !value) {
		if (parser->at >= parser->count)
			return fail(parser, -EINVAL, "--%s needs a value: %s", option->name, option->accepts);
		value = parser->args[parser->at++];
	}
	if (option->apply(parser->options, value) < 0)
		return fail(parser, -EINVAL, "--%s cannot be '" TYPED "'; it is %s", option->name, value,
			    option->accepts);
	return 0;
}

static int parse_option(struct parser *parser, const char *arg)
{
	const struct test_option *option;

	if (arg[1] == '-') {
		size_t length = strcspn(arg + 2, "=");

		option = find_long(arg + 2, length);
		return option ? apply(parser, option, arg[2 + length] == '=' ? arg + 3 + length : NULL)
			      : fail_unknown(parser, arg);
	}
	option = find_short(arg[1]);
	return option ? apply(parser, option, arg[2] != '\0' ? arg + 2 : NULL) : fail_unknown(parser, arg);
}

static int parse_all(struct parser *parser)
{
	bool only_files = false;

	while (parser->at < parser->count) {
		const char *arg = parser->args[parser->at++];
		int r = 0;

		if (!only_files && strcmp(arg, "--") == 0)
			only_files = true;
		else if (!only_files && arg[0] == '-' && arg[1] != '\0')
			r = parse_option(parser, arg);
		else
			parser->options->files[parser->options->file_count++] = arg;
		if (r < 0 || parser->options->help)
			return r;
	}
	if (parser->options->file_count == 0)
		return fail(parser, -EINVAL, "test needs a file that describes tests; see 'vmlet help test'");
	return 0;
}

int test_options_parse(struct test_options *options, size_t count, const char *const *args, struct cli_error *error)
{
	struct parser parser = {.options = options, .error = error, .args = args, .count = count};
	int r;

	*options = (struct test_options){.files = calloc(count + 1, sizeof(const char *))};
	if (!options->files)
		return fail(&parser, -ENOMEM, "out of memory");
	r = parse_all(&parser);
	if (r < 0)
		test_options_free(options);
	return r;
}

void test_options_free(struct test_options *options)
{
	free(options->files);
	*options = (struct test_options){0};
}

static void print_option(FILE *out, const struct test_option *option)
{
	char label[64];
	const char *metavar = option->metavar ? option->metavar : "";

	if (option->letter != '\0')
		snprintf(label, sizeof(label), "-%c, --%s %s", option->letter, option->name, metavar);
	else
		snprintf(label, sizeof(label), "    --%s %s", option->name, metavar);
	fprintf(out, "  %-*s %s\n", LABEL_COLUMN, label, option->help);
}

void test_options_print_help(FILE *out)
{
	fputs("  vmlet test boot.ini\n"
	      "  vmlet test -j8 --retry=1 --junit=report.xml --output=out tests/*.ini\n"
	      "\n"
	      "vmlet test [options] FILE... runs the boot tests that the files describe, each in\n"
	      "a process of its own:\n"
	      "\n"
	      "  [defaults]\n"
	      "  kernel = vmlinuz\n"
	      "  cmdline = console=ttyS0 panic=-1\n"
	      "\n"
	      "  [boots]\n"
	      "  initrd = test.cpio\n"
	      "  matrix.cpus = 1 2 4\n"
	      "  expect = tests: [0-9]+ passed, 0 failed\n"
	      "  fail-on = Oops|BUG:\n"
	      "  timeout = 2m\n"
	      "\n"
	      "Keys: kernel initrd cmdline cpus memory disk net console rng balloon vsock expect\n"
	      "fail-on send script timeout status exec module option, and matrix.KEY; see\n"
	      "vmlet-test(5).\n"
	      "\n",
	      out);
	for (const struct test_option *option = table; option->name; option++)
		print_option(out, option);
	fputs("\nStatus: 0 all passed, 1 some failed, 2 a mistake in a file or the command line\n"
	      "(nothing was run), 3 the host failed, 128+N interrupted by signal N.\n",
	      out);
}
