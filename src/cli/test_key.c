#include "cli/test_key.h"

#include <string.h>

#include "cli/suggest.h"

const struct test_key test_keys[] = {
	{"kernel", TEST_KEY_KERNEL, false, false, "--kernel"},
	{"initrd", TEST_KEY_OPTION_OF_RUN, true, false, "--initrd"},
	{"cmdline", TEST_KEY_OPTION_OF_RUN, true, false, "--cmdline"},
	{"cpus", TEST_KEY_OPTION_OF_RUN, false, false, "--cpus"},
	{"memory", TEST_KEY_OPTION_OF_RUN, false, false, "--memory"},
	{"disk", TEST_KEY_OPTION_OF_RUN, true, false, "--disk"},
	{"net", TEST_KEY_OPTION_OF_RUN, true, false, "--net"},
	{"console", TEST_KEY_OPTION_OF_RUN, true, false, "--console"},
	{"rng", TEST_KEY_OPTION_OF_RUN, false, false, "--rng="},
	{"balloon", TEST_KEY_OPTION_OF_RUN, false, false, "--balloon"},
	{"vsock", TEST_KEY_OPTION_OF_RUN, false, false, "--vsock"},
	{"expect", TEST_KEY_OPTION_OF_RUN, true, false, "--expect"},
	{"fail-on", TEST_KEY_OPTION_OF_RUN, true, false, "--fail-on"},
	{"send", TEST_KEY_OPTION_OF_RUN, true, false, "--send"},
	{"script", TEST_KEY_OPTION_OF_RUN, false, false, "--script"},
	{"timeout", TEST_KEY_TIMEOUT, false, false, NULL},
	{"status", TEST_KEY_STATUS, false, false, NULL},
	{"exec", TEST_KEY_EXEC, false, true, NULL},
	{"module", TEST_KEY_MODULE, true, false, "--module"},
	{"option", TEST_KEY_OPTION, true, true, NULL},
	{NULL, 0, false, false, NULL},
};

const struct test_key *test_key_find(const char *name)
{
	for (const struct test_key *key = test_keys; key->name; key++)
		if (strcmp(key->name, name) == 0)
			return key;
	return NULL;
}

const char *test_key_suggest(const char *name)
{
	struct suggest suggest;

	suggest_init(&suggest, name, strlen(name));
	for (const struct test_key *key = test_keys; key->name; key++)
		suggest_consider(&suggest, key->name);
	return suggest.best;
}
