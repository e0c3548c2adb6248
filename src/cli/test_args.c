#include "cli/test_args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/test_words.h"

enum { FIXED_ARGS = 16 };

static size_t most_args(const struct test_case *test)
{
	size_t most = FIXED_ARGS;

	for (size_t i = 0; i < test->value_count; i++)
		most += 2 + test->values[i].word_count;
	return most;
}

static void add(struct test_args *args, const char *arg)
{
	args->argv[args->argc++] = arg;
}

static void add_option(struct test_args *args, const char *option, const char *value)
{
	add(args, option);
	add(args, value);
}

/* Of an option whose value follows "=". Allocated. */
static char *join(const char *option, const char *value)
{
	size_t size = strlen(option) + strlen(value) + 1;
	char *joined = malloc(size);

	if (joined)
		snprintf(joined, size, "%s%s", option, value);
	return joined;
}

int test_args_add_option(struct test_args *args, const struct test_value *value)
{
	const char *option = value->key->option;

	if (option[strlen(option) - 1] != '=') {
		add_option(args, option, value->value);
		return 0;
	}
	args->joined[args->joined_count] = join(option, value->value);
	if (!args->joined[args->joined_count])
		return -ENOMEM;
	add(args, args->joined[args->joined_count++]);
	return 0;
}

static void add_words(struct test_args *args, const struct test_value *value)
{
	const char *word = value->value;

	for (size_t i = 0; i < value->word_count; i++) {
		add(args, word);
		if (i + 1 < value->word_count)
			word = test_words_next(word);
	}
}

static void add_paths(struct test_args *args, const struct test_paths *paths)
{
	add_option(args, "--status-file", paths->status);
	add_option(args, "--events", paths->events);
	add_option(args, "--console-log", paths->console);
}

static int add_value(struct test_args *args, const struct test_value *value)
{
	if (value->key->option)
		return test_args_add_option(args, value);
	if (value->key->id == TEST_KEY_TIMEOUT)
		add_option(args, "--timeout", value->value);
	else if (value->key->id == TEST_KEY_OPTION)
		add_words(args, value);
	return 0;
}

int test_args_init(struct test_args *args, size_t arg_count, size_t value_count)
{
	*args = (struct test_args){
		.argv = calloc(arg_count + 1, sizeof(const char *)),
		.joined = calloc(value_count + 1, sizeof(char *)),
	};
	if (args->argv && args->joined)
		return 0;
	test_args_free(args);
	return -ENOMEM;
}

int test_args_build(const struct test_case *test, const struct test_paths *paths, struct test_args *ret_args)
{
	const struct test_value *exec = test_case_find(test, TEST_KEY_EXEC);
	struct test_args args;
	int r = test_args_init(&args, most_args(test), test->value_count);

	if (r < 0)
		return r;
	add(&args, "vmlet");
	add(&args, exec ? "exec" : "run");
	if (!exec)
		add_option(&args, "--serial", "null"); /* the console is in its log */
	if (!test_case_find(test, TEST_KEY_TIMEOUT))
		add_option(&args, "--timeout", TEST_TIMEOUT_DEFAULT);
	for (size_t i = 0; i < test->value_count && r == 0; i++)
		r = add_value(&args, &test->values[i]);
	if (r < 0) {
		test_args_free(&args);
		return r;
	}
	/* Behind what the file says, so that no option of it leads them elsewhere. */
	if (paths)
		add_paths(&args, paths);
	if (exec) {
		add(&args, "--");
		add_words(&args, exec);
	}
	*ret_args = args;
	return 0;
}

void test_args_free(struct test_args *args)
{
	for (size_t i = 0; i < args->joined_count; i++)
		free(args->joined[i]);
	free(args->joined);
	free(args->argv);
	*args = (struct test_args){0};
}
