#include "cli/device_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/device_option.h"
#include "cli/program_files.h"
#include "cli/report.h"

/* --- disks ------------------------------------------------------------------------------------------------ */

static void fill_disk(const struct disk_option *option, struct vmlet_disk *disk)
{
	vmlet_disk_init(disk);
	disk->kind = option->kind;
	disk->path = option->path;
	if (option->base.id)
		disk->id = option->base.id;
	disk->serial = option->serial;
	disk->read_only = option->read_only;
	disk->direct = option->direct;
	disk->overlay = option->overlay;
	disk->overlay_path = option->overlay_path;
	disk->cache = option->cache;
	if (option->queues != 0)
		disk->queues = option->queues;
	disk->packed = option->base.packed;
	disk->iops = option->iops;
	disk->iops_burst = option->iops_burst;
	disk->bandwidth_bytes = option->bandwidth_bytes;
	disk->bandwidth_burst_bytes = option->bandwidth_burst_bytes;
}

static void fill_disks(struct device_config *devices, const struct device_values *values, struct vmlet_config *config)
{
	const struct disk_option *options = values->items;

	for (size_t i = 0; i < values->values.count; i++) {
		fill_disk(&options[i], &devices->disks[i]);
		devices->disk_pointers[i] = &devices->disks[i];
	}
	config->disks = devices->disk_pointers;
	config->disk_count = values->values.count;
}

/* --- network cards ---------------------------------------------------------------------------------------- */

static int find_passt(struct device_config *devices, struct cli_error *error)
{
	const char *path = getenv("PATH");

	if ((path && program_find_along(path, "passt", devices->passt)) ||
	    program_find_along("/usr/bin:/usr/local/bin", "passt", devices->passt))
		return 0;
	snprintf(error->text, sizeof(error->text),
		 "--net passt: there is no program passt along PATH; install it (apt install passt), or see "
		 "'vmlet help net' for others");
	return -ENOENT;
}

/* All of ours are closed on exec, so what is not was handed to us. From here on it is ours. */
static int take_fd(const struct net_option *option, struct vmlet_net *net, struct cli_error *error)
{
	int fd = (int)option->fd, flags = fcntl(fd, F_GETFD);

	if (flags < 0 || (flags & FD_CLOEXEC) != 0) {
		snprintf(error->text, sizeof(error->text), "--net '" TYPED "': descriptor %d is not open",
			 option->base.text, fd);
		return -EBADF;
	}
	fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
	net->fd = fd;
	return 0;
}

static int fill_net(struct device_config *devices, const struct net_option *option, struct vmlet_net *net,
		    struct cli_error *error)
{
	vmlet_net_init(net);
	net->kind = option->kind;
	net->path = option->path;
	if (option->base.id)
		net->id = option->base.id;
	memcpy(net->mac, option->mac, sizeof(net->mac));
	net->mtu = (uint16_t)option->mtu;
	if (option->queues != 0)
		net->queues = option->queues;
	net->publish = option->publish;
	net->publish_count = option->publish_count;
	net->link_down = option->link_down;
	net->packed = option->base.packed;
	net->packets_per_s = option->packets_per_s;
	net->packets_burst = option->packets_burst;
	net->bandwidth_bytes = option->bandwidth_bytes;
	net->bandwidth_burst_bytes = option->bandwidth_burst_bytes;
	if (option->kind == VMLET_NET_FD)
		return take_fd(option, net, error);
	if (option->kind != VMLET_NET_PASST)
		return 0;
	net->path = devices->passt;
	return find_passt(devices, error);
}

static int fill_nets(struct device_config *devices, const struct device_values *values, struct vmlet_config *config,
		     struct cli_error *error)
{
	const struct net_option *options = values->items;

	config->nets = devices->net_pointers;
	if (!options || options->is_none)
		return 0;
	for (size_t i = 0; i < values->values.count; i++) {
		int r = fill_net(devices, &options[i], &devices->nets[i], error);

		if (r < 0)
			return r;
		devices->net_pointers[i] = &devices->nets[i];
	}
	config->net_count = values->values.count;
	return 0;
}

/* --- consoles --------------------------------------------------------------------------------------------- */

static void fill_console(struct device_config *devices, const struct console_option *option,
			 struct vmlet_config *config)
{
	struct vmlet_console *console = &devices->consoles[config->console_count];

	vmlet_console_init(console);
	console->name = option->name;
	console->backend.kind = option->kind;
	console->backend.path = option->path;
	console->bandwidth_bytes = option->bandwidth_bytes;
	console->bandwidth_burst_bytes = option->bandwidth_burst_bytes;
	if (option->kind == VMLET_SERIAL_FD)
		devices->stdio_console = (int)config->console_count;
	devices->console_pointers[config->console_count++] = console;
}

static void fill_consoles(struct device_config *devices, const struct device_values *values,
			  struct vmlet_config *config)
{
	const struct console_option *options = values->items;

	devices->stdio_console = VMLET_SERIAL_PORT;
	config->consoles = devices->console_pointers;
	for (size_t i = 0; i < values->values.count; i++) {
		config->consoles_packed |= options[i].base.packed;
		if (options[i].is_status)
			config->status_port = true;
		else
			fill_console(devices, &options[i], config);
	}
}

/* A tap without a name has got one, which its user has to know to give it an address. */
static void report_nets(const struct vmlet_config *config, const struct vmlet *vm)
{
	for (unsigned i = 0; i < config->net_count; i++) {
		const struct vmlet_net *net = config->nets[i];
		char id[16];

		if (net->kind != VMLET_NET_TAP || net->path)
			continue;
		snprintf(id, sizeof(id), "net%u", i);
		report("network card %s is %s", net->id ? net->id : id,
		       vmlet_net_interface(vm, net->id ? net->id : id));
	}
}

static void report_consoles(const struct device_config *devices, const struct vmlet_config *config,
			    const struct vmlet *vm)
{
	unsigned hvc = 0;

	for (unsigned i = 0; i < config->console_count; i++) {
		const struct vmlet_console *console = &devices->consoles[i];
		bool is_pty = console->backend.kind == VMLET_SERIAL_PTY;

		if (is_pty && console->name)
			report("port %s is %s", console->name, vmlet_console_path(vm, i));
		else if (is_pty)
			report("console hvc%u is %s", hvc, vmlet_console_path(vm, i));
		hvc += !console->name;
	}
}

void device_config_report(const struct device_config *devices, const struct vmlet_config *config,
			  const struct vmlet *vm)
{
	report_nets(config, vm);
	report_consoles(devices, config, vm);
}

/* --- all -------------------------------------------------------------------------------------------------- */

static void fill_single(const struct options *options, struct vmlet_config *config)
{
	const struct balloon_option *balloon = options->devices[DEVICE_BALLOON].items;
	const struct vsock_option *vsock = options->devices[DEVICE_VSOCK].items;
	const struct rng_option *rng = options->devices[DEVICE_RNG].items;

	if (balloon)
		config->balloon = (struct vmlet_balloon){
			.enabled = true,
			.target_bytes = balloon->target_bytes,
			.deflate_on_oom = balloon->deflate_on_oom,
			.reporting = balloon->reporting,
			.packed = balloon->base.packed,
		};
	if (vsock)
		config->vsock = (struct vmlet_vsock){
			.path = vsock->path,
			.cid = vsock->cid,
			.packed = vsock->base.packed,
			.packets_per_s = vsock->packets_per_s,
			.packets_burst = vsock->packets_burst,
			.bandwidth_bytes = vsock->bandwidth_bytes,
			.bandwidth_burst_bytes = vsock->bandwidth_burst_bytes,
		};
	if (rng)
		config->rng = (struct vmlet_rng){
			.enabled = true, .bandwidth_bytes = rng->bandwidth_bytes, .packed = rng->base.packed};
}

int device_config_fill(struct device_config *devices, const struct options *options, struct vmlet_config *config,
		       struct cli_error *error)
{
	config->transport = options->transport;
	config->iothreads = options->iothreads;
	fill_disks(devices, &options->devices[DEVICE_DISK], config);
	fill_consoles(devices, &options->devices[DEVICE_CONSOLE], config);
	fill_single(options, config);
	return fill_nets(devices, &options->devices[DEVICE_NET], config, error);
}
