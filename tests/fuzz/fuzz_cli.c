/* The command line: the input is cut at its NULs into argv, and must be refused with a sentence or accepted. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"

enum { ARGS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void check_accepted(const struct options *options)
{
	if (options->command == COMMAND_RUN && (!options->kernel || options->cpus > 254))
		abort();
	for (size_t i = 0; i < options->initrd_count; i++)
		if (options->initrds[i][0] == '\0')
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	char *text = malloc(size_bytes + 1);
	const char *argv[ARGS_MAX + 1] = {"vmlet"};
	struct cli_error error = {0};
	struct options options;
	int argc = 1;

	if (!text)
		return 0;
	memcpy(text, data, size_bytes);
	text[size_bytes] = '\0';
	for (size_t at = 0; at < size_bytes && argc < ARGS_MAX; at += strlen(text + at) + 1)
		argv[argc++] = text + at;
	if (options_parse(&options, argc, argv, &error) == 0) {
		check_accepted(&options);
		options_free(&options);
	} else if (error.text[0] == '\0') {
		abort();
	}
	free(text);
	return 0;
}
