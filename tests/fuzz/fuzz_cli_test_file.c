/* A test file: refused with a sentence that names the file, or made into tests that each have a command line. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/test_args.h"
#include "cli/test_plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void check_args(const struct test_case *test)
{
	struct test_paths paths = {"status", "events", "console"};
	struct test_args args;

	if (test_args_build(test, &paths, &args) < 0)
		return;
	if (args.argc < 2 || args.argv[args.argc])
		abort();
	test_args_free(&args);
}

static void check_case(const struct test_case *test)
{
	if (!test->name || test->name[0] == '\0' || test->timeout_ns == 0 || test->expected_status > 255)
		abort();
	if (!test_case_find(test, TEST_KEY_KERNEL))
		abort();
	check_args(test);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct cli_error error = {0};
	struct test_plan plan = {0};
	struct test_file file;
	int r = test_file_parse(&file, "file", (const char *)data, size_bytes, &error);

	if (r < 0) {
		if (strncmp(error.text, "file:", 5) != 0)
			abort();
		return 0;
	}
	r = test_plan_add(&plan, &file, &error);
	if (r == 0)
		r = test_plan_check_names(&plan, &error);
	if (r < 0 && strncmp(error.text, "file:", 5) != 0)
		abort();
	if (plan.count > TEST_CASES_MAX)
		abort();
	for (size_t i = 0; r == 0 && i < plan.count; i++)
		check_case(&plan.cases[i]);
	test_plan_free(&plan);
	test_file_free(&file);
	return 0;
}
