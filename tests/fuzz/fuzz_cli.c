/* The command line: the input is cut at its NULs into argv, and must be refused with a sentence or accepted. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/console_option.h"
#include "cli/device_option.h"
#include "cli/disk_option.h"
#include "cli/net_option.h"
#include "cli/options.h"

enum { ARGS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void check_disk(const struct disk_option *disk)
{
	if (disk->path[0] == '\0' || disk->queues > DISK_QUEUES_MAX || (disk->read_only && disk->overlay))
		abort();
	if ((disk->base.id && strlen(disk->base.id) == 0) ||
	    (disk->serial && strlen(disk->serial) > DISK_SERIAL_MAX_BYTES))
		abort();
	if ((disk->iops_burst != 0 && disk->iops == 0) ||
	    (disk->bandwidth_burst_bytes != 0 && disk->bandwidth_bytes == 0))
		abort();
}

static void check_net(const struct net_option *net)
{
	if (net->queues > NET_QUEUES_MAX || net->publish_count > NET_PUBLISH_MAX || (net->mac[0] & 1) != 0)
		abort();
	if (net->mtu != 0 && (net->mtu < NET_MTU_MIN || net->mtu > NET_MTU_MAX))
		abort();
	if (net->kind == VMLET_NET_FD && !net->is_none && net->fd < 3)
		abort();
	if (net->kind == VMLET_NET_TAP && net->path && strlen(net->path) > NET_IFNAME_MAX_BYTES)
		abort();
}

static void check_console(const struct console_option *console)
{
	if (console->name && (console->name[0] == '\0' || strlen(console->name) > CONSOLE_NAME_MAX_BYTES))
		abort();
	if (console->name && console->kind == VMLET_SERIAL_FD)
		abort();
}

static void check_devices(const struct options *options)
{
	const struct device_values *devices = options->devices;
	const struct disk_option *disks = devices[DEVICE_DISK].items;
	const struct net_option *nets = devices[DEVICE_NET].items;
	const struct console_option *consoles = devices[DEVICE_CONSOLE].items;
	const struct vsock_option *vsock = devices[DEVICE_VSOCK].items;

	if (devices[DEVICE_DISK].values.count > DISKS_MAX || devices[DEVICE_NET].values.count > NETS_MAX)
		abort();
	for (size_t i = 0; i < devices[DEVICE_DISK].values.count; i++)
		check_disk(&disks[i]);
	for (size_t i = 0; i < devices[DEVICE_NET].values.count; i++)
		check_net(&nets[i]);
	for (size_t i = 0; i < devices[DEVICE_CONSOLE].values.count; i++)
		check_console(&consoles[i]);
	if (vsock && (vsock->path[0] == '\0' || vsock->cid == 1 || vsock->cid == 2 || vsock->cid == UINT32_MAX))
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
	if (options->iothreads > 16)
		abort();
	check_devices(options);
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
