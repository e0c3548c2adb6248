#include "cli/test_check.h"

#include <errno.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "cli/test_args.h"
#include "cli/test_words.h"
#include "cli/values.h"

#define TYPED "%.80s"

static int fail(const struct test_case *test, unsigned line, struct cli_error *error, const char *text)
{
	return test_file_fail(test->file->path, line, error, "%s", text);
}

/* Ends that a test may want by name: reasons of the status file (docs/status-file.md). */
static const char *const reasons[] = {"poweroff", "expected", "reboot",  "panic",    "triple-fault",
				      "timeout",  "expect",   "fail-on", "no-status"};

static int check_status(struct test_case *test, const struct test_value *value, struct cli_error *error)
{
	uint64_t number;

	if (value_number(value->value, 0, 255, &number) == 0) {
		test->expected_status = (unsigned)number;
		return 0;
	}
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		if (strcmp(value->value, reasons[i]) == 0) {
			test->expected_reason = reasons[i];
			return 0;
		}
	}
	return test_file_fail(test->file->path, value->line, error,
			      "status cannot be '" TYPED
			      "'; it is a number from 0 to 255, or poweroff, expected, reboot, "
			      "panic, triple-fault, timeout, expect, fail-on or no-status",
			      value->value);
}

static int check_timeout(struct test_case *test, const struct test_value *value, struct cli_error *error)
{
	if (value_duration(value->value, &test->timeout_ns) == 0)
		return 0;
	return test_file_fail(test->file->path, value->line, error,
			      "timeout cannot be '" TYPED "'; it is a duration such as 500ms, 90s or 5m", value->value);
}

static int parse_option(const struct test_value *value, struct cli_error *error)
{
	struct test_args args;
	struct options options;
	int r = test_args_init(&args, 6, 1);

	if (r < 0)
		return r;
	for (const char *const *word = (const char *const[]){"vmlet", "run", "--kernel", "kernel", NULL}; *word; word++)
		args.argv[args.argc++] = *word;
	r = test_args_add_option(&args, value);
	if (r == 0)
		r = options_parse(&options, args.argc, args.argv, error);
	if (r == 0)
		options_free(&options);
	test_args_free(&args);
	return r;
}

/* Each alone, so that the sentence names its line. */
static int check_option(const struct test_case *test, const struct test_value *value, struct cli_error *error)
{
	struct cli_error why = {"out of memory"};
	int r = parse_option(value, &why);

	if (r < 0)
		fail(test, value->line, error, why.text);
	return r;
}

static int check_regex(const struct test_case *test, const struct test_value *value, struct cli_error *error)
{
	const char *arrow = strcmp(value->key->name, "send") == 0 ? strstr(value->value, "=>") : NULL;
	size_t length = arrow ? (size_t)(arrow - value->value) : strlen(value->value);
	char *pattern = strndup(value->value, length);
	char why[128];
	regex_t regex;
	int r;

	if (!pattern) {
		fail(test, value->line, error, "out of memory");
		return -ENOMEM;
	}
	r = regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB);
	free(pattern);
	if (r == 0) {
		regfree(&regex);
		return 0;
	}
	regerror(r, &regex, why, sizeof(why));
	return test_file_fail(test->file->path, value->line, error, "%s cannot be '" TYPED "': %s", value->key->name,
			      value->value, why);
}

/* "--" would make words of the kernel's command line of all that follows. */
static int check_words(const struct test_case *test, const struct test_value *value, struct cli_error *error)
{
	const char *word = value->value;

	for (size_t i = 0; i < value->word_count; i++) {
		if (strcmp(word, "--") == 0)
			return fail(test, value->line, error, "option cannot have '--'; see the key cmdline");
		if (i + 1 < value->word_count)
			word = test_words_next(word);
	}
	return 0;
}

static bool has_regex(const struct test_key *key)
{
	return strcmp(key->name, "expect") == 0 || strcmp(key->name, "fail-on") == 0 || strcmp(key->name, "send") == 0;
}

static int check_value(struct test_case *test, const struct test_value *value, struct cli_error *error)
{
	int r = 0;

	switch (value->key->id) {
	case TEST_KEY_TIMEOUT:
		return check_timeout(test, value, error);
	case TEST_KEY_STATUS:
		return check_status(test, value, error);
	case TEST_KEY_OPTION:
		return check_words(test, value, error);
	case TEST_KEY_MODULE:
		if (!test_case_find(test, TEST_KEY_EXEC))
			return fail(test, value->line, error, "module needs exec in the same test");
		return 0;
	case TEST_KEY_KERNEL:
	case TEST_KEY_OPTION_OF_RUN:
		r = check_option(test, value, error);
		if (r == 0 && has_regex(value->key))
			r = check_regex(test, value, error);
		return r;
	case TEST_KEY_EXEC:
	default:
		return 0;
	}
}

/* What only the whole can show: two disks of one name, an option without its value, a timeout among the options. */
static int check_all(struct test_case *test, struct cli_error *error)
{
	static const struct test_paths paths = {"status", "events", "console"};
	const struct test_value *exec = test_case_find(test, TEST_KEY_EXEC);
	struct cli_error why = {0};
	struct options options;
	struct test_args args;
	int r = test_args_build(test, &paths, &args);

	if (r < 0) {
		fail(test, test->line, error, "out of memory");
		return r;
	}
	r = options_parse(&options, args.argc, args.argv, &why);
	test_args_free(&args);
	if (r < 0) {
		fail(test, exec ? exec->line : test->line, error, why.text);
		return r;
	}
	if (options.command == COMMAND_HELP)
		r = fail(test, test->line, error, "option cannot ask for help");
	else if (options.contract.status_path != paths.status) /* it was taken for a word of exec's command */
		r = fail(test, test->line, error, "option has a word that is neither an option nor its value");
	test->timeout_ns = options.contract.timeout_ns;
	options_free(&options);
	return r;
}

int test_check(struct test_case *test, struct cli_error *error)
{
	value_duration(TEST_TIMEOUT_DEFAULT, &test->timeout_ns);
	if (!test_case_find(test, TEST_KEY_KERNEL))
		return test_file_fail(test->file->path, test->line, error, "the test '" TYPED "' has no kernel",
				      test->name);
	for (size_t i = 0; i < test->value_count; i++) {
		int r = check_value(test, &test->values[i], error);

		if (r < 0)
			return r;
	}
	return check_all(test, error);
}
