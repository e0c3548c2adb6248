/* The keys of a test file (vmlet-test(5)), in one table. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum test_key_id {
	TEST_KEY_OPTION_OF_RUN, /* handed on as `option` with the value */
	TEST_KEY_KERNEL,
	TEST_KEY_TIMEOUT,
	TEST_KEY_STATUS,
	TEST_KEY_EXEC,
	TEST_KEY_MODULE,
	TEST_KEY_OPTION,
};

struct test_key {
	const char *name;
	enum test_key_id id;
	bool adds_up;       /* may be given several times; of the others the last counts */
	bool is_words;      /* the value is cut into words, as a shell would */
	const char *option; /* of `vmlet run` and `vmlet exec`; with '=', the value follows at once. NULL: not theirs */
};

/* Ends with a NULL name. */
extern const struct test_key test_keys[];

/* NULL: there is none of this name. */
const struct test_key *test_key_find(const char *name);

/* The key that was meant, or NULL. */
const char *test_key_suggest(const char *name);
