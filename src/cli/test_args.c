#include "cli/test_args.h"

#include <errno.h>
#include <stdlib.h>

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

static void add_value(struct test_args *args, const struct test_value *value)
{
	if (value->key->option)
		add_option(args, value->key->option, value->value);
	else if (value->key->id == TEST_KEY_TIMEOUT)
		add_option(args, "--timeout", value->value);
	else if (value->key->id == TEST_KEY_OPTION)
		add_words(args, value);
}

int test_args_build(const struct test_case *test, const struct test_paths *paths, struct test_args *ret_args)
{
	const struct test_value *exec = test_case_find(test, TEST_KEY_EXEC);
	struct test_args args = {.argv = calloc(most_args(test), sizeof(const char *))};

	if (!args.argv)
		return -ENOMEM;
	add(&args, "vmlet");
	add(&args, exec ? "exec" : "run");
	if (!exec)
		add_option(&args, "--serial", "null"); /* the console is in its log */
	if (!test_case_find(test, TEST_KEY_TIMEOUT))
		add_option(&args, "--timeout", TEST_TIMEOUT_DEFAULT);
	for (size_t i = 0; i < test->value_count; i++)
		add_value(&args, &test->values[i]);
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
	free(args->argv);
	*args = (struct test_args){0};
}
