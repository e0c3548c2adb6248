/* The command line: the input is cut at its NULs into argv, and must be refused with a sentence or accepted. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/disk_option.h"
#include "cli/options.h"

enum { ARGS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void check_disk(const struct disk_option *disk)
{
	if (disk->path[0] == '\0' || disk->queues > DISK_QUEUES_MAX || (disk->read_only && disk->overlay))
		abort();
	if ((disk->id && strlen(disk->id) == 0) || (disk->serial && strlen(disk->serial) > DISK_SERIAL_MAX_BYTES))
		abort();
	if ((disk->iops_burst != 0 && disk->iops == 0) ||
	    (disk->bandwidth_burst_bytes != 0 && disk->bandwidth_bytes == 0))
		abort();
}

static void check_accepted(const struct options *options)
{
	if (options->command == COMMAND_RUN && (!options->kernel || options->cpus > 254))
		abort();
	for (size_t i = 0; i < options->initrd_count; i++)
		if (options->initrds[i][0] == '\0')
			abort();
	if (options->command != COMMAND_RUN)
		return;
	if (options->disk_count > DISKS_MAX || options->iothreads > 16)
		abort();
	for (size_t i = 0; i < options->disk_count; i++)
		check_disk(&options->disks[i]);
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
