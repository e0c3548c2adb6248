/* What became of a test: judged from how its child ended and what the status file says. Pure. */
#pragma once

#include <stdint.h>

#include "cli/test_plan.h"

enum test_outcome {
	TEST_WAITING, /* not over yet */
	TEST_PASSED,
	TEST_FAILED,
	TEST_SKIPPED,
};

struct test_result {
	enum test_outcome outcome;
	unsigned attempts;    /* started so far */
	uint64_t duration_ns; /* of the last attempt */
	char reason[512];     /* clean (cli/test_text.h), one line; "": there is nothing to say */
	char *console;        /* allocated, clean: the last lines of a failed test's console, or NULL */
	char *directory;      /* allocated: where the last attempt's files are, or NULL */
};

/* How a child ended. */
struct test_end {
	int wait_status;         /* as of waitpid */
	bool was_killed;         /* by the backstop, long after its timeout */
	const char *status_file; /* its text; NULL: there is none */
	const char *complaint;   /* the last line of its standard error, or "" */
};

/* Set `outcome` and `reason`. */
void test_judge(const struct test_case *test, const struct test_end *end, struct test_result *result);

/* "skipped", with why. */
void test_skip(struct test_result *result, const char *why);

/*
 * The string that the JSON object `json` has for `key` at its top, into `ret_text`; what does not fit is cut. False:
 * it has none, or this is no such object.
 */
bool test_json_string(const char *json, const char *key, char *ret_text, size_t size_bytes);
