/* Which values a configuration may have. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "arch/board.h"
#include "arch/cpu.h"
#include "config_impl.h"
#include "disks.h"
#include "gmem.h"
#include "nets.h"
#include "util.h"

enum {
	MEMORY_MIN_MIB = 2,
	IOTHREADS_MAX = 16,
	SERIAL_MAX = 20, /* VIRTIO_BLK_ID_BYTES */
	MTU_MIN = 68,    /* RFC 791; virtio 1.3, 5.1.4.1 */
	SOCKET_MTU_MAX = NETIF_STREAM_FRAME_MAX_BYTES - NETIF_FRAME_MIN_BYTES,
	MAC_GROUP = 1 << 0, /* in the first byte: an address of many */
};
static const uint32_t VSOCK_CID_ANY = UINT32_MAX;

_Static_assert((int)BOARD_TRANSPORT_MMIO == VMLET_TRANSPORT_MMIO, "the two enums agree");

static int check_serial(const struct vmlet_serial *serial, const char *name, struct err *err)
{
	if ((unsigned)serial->kind > VMLET_SERIAL_UNIX)
		return err_config(err, -EINVAL, "%s: kind %d is not one that this library knows", name, serial->kind);
	bool needs_path = serial->kind == VMLET_SERIAL_FILE || serial->kind == VMLET_SERIAL_UNIX;
	if (needs_path && (!serial->path || !*serial->path))
		return err_config(err, -EINVAL, "%s: no path is given", name);
	return 0;
}

static int check_machine(const struct vmlet_config *config, struct err *err)
{
	if (!config->kernel)
		return err_config(err, -EINVAL, "no kernel is given");
	if (config->cpus < 1 || config->cpus > board_max_cpus())
		return err_config(err, -EINVAL, "%u vCPUs: a machine has 1 to %u", config->cpus, board_max_cpus());
	if (config->memory_bytes < MIB(MEMORY_MIN_MIB))
		return err_config(err, -EINVAL, "%llu bytes of memory: a machine has at least %d MiB",
				  (unsigned long long)config->memory_bytes, MEMORY_MIN_MIB);
	if (config->memory_bytes % GMEM_PAGE_SIZE)
		return err_config(err, -EINVAL, "%llu bytes of memory: not a multiple of 4 KiB",
				  (unsigned long long)config->memory_bytes);
	if ((unsigned)config->boot_protocol > VMLET_BOOT_PVH)
		return err_config(err, -EINVAL, "boot protocol %d is not one that this library knows",
				  config->boot_protocol);
	if ((unsigned)config->on_reboot > VMLET_ON_REBOOT_RESTART)
		return err_config(err, -EINVAL, "on_reboot %d is not one that this library knows", config->on_reboot);
	if ((unsigned)config->transport > VMLET_TRANSPORT_MMIO)
		return err_config(err, -EINVAL, "transport %d is not one that this library knows", config->transport);
	if (config->iothreads > IOTHREADS_MAX)
		return err_config(err, -EINVAL, "%u I/O threads: at most %d", config->iothreads, IOTHREADS_MAX);
	return cpu_features_check(config->cpu_features, err);
}

static int check_disk(const struct vmlet_disk *disk, const char *name, struct err *err)
{
	if ((unsigned)disk->kind > VMLET_DISK_NBD || (unsigned)disk->cache > VMLET_DISK_CACHE_UNSAFE)
		return err_config(err, -EINVAL, "disk '%s': a kind or cache mode that this library does not know",
				  name);
	if (!disk->path || !*disk->path)
		return err_config(err, -EINVAL, "disk '%s': no path is given", name);
	if (disk->queues < 1 || disk->queues > VIRTIO_BLK_QUEUES_MAX)
		return err_config(err, -EINVAL, "disk '%s': %u queues: a disk has 1 to %d", name, disk->queues,
				  VIRTIO_BLK_QUEUES_MAX);
	if (disk->serial && strlen(disk->serial) > SERIAL_MAX)
		return err_config(err, -EINVAL, "disk '%s': serial number '%s': it has at most %d bytes", name,
				  disk->serial, SERIAL_MAX);
	if (disk->overlay && disk->read_only)
		return err_config(err, -EINVAL, "disk '%s': an overlay is for writes, and the disk is read-only", name);
	if (disk->overlay_path && !disk->overlay)
		return err_config(err, -EINVAL, "disk '%s': a path for the overlay, and no overlay is asked for", name);
	if (disk->kind == VMLET_DISK_NBD && disk->direct)
		return err_config(err, -EINVAL, "disk '%s': direct I/O is a matter of the NBD server", name);
	return 0;
}

static int check_disks(const struct vmlet_config *config, struct err *err)
{
	char name[DEVICE_NAME_MAX];
	unsigned max = board_max_virtio_devices((enum board_transport)config->transport);
	if (config->disk_count > max)
		return err_config(err, -EINVAL, "%zu disks: a machine has room for %u devices", config->disk_count,
				  max);
	for (unsigned i = 0; i < config->disk_count; i++) {
		const struct vmlet_disk *disk = config->disks[i];
		if (disk->id && (!*disk->id || strlen(disk->id) >= DEVICE_NAME_MAX))
			return err_config(err, -EINVAL, "disk %u: an id has 1 to %d bytes", i, DEVICE_NAME_MAX - 1);
		int r = check_disk(disk, disks_name(config, i, name), err);
		if (r < 0)
			return r;
		if (disks_find(config, name) != (int)i)
			return err_config(err, -EINVAL, "disk '%s': there are two of that id", name);
	}
	return 0;
}

static int check_streams(const struct vmlet_streams *streams, struct err *err)
{
	const int fds[] = {streams->in_fd, streams->out_fd, streams->err_fd};
	for (unsigned i = 0; streams->enabled && i < ARRAY_SIZE(fds); i++) {
		if (fds[i] < -1)
			return err_config(err, -EINVAL, "streams: %d is not a descriptor, nor -1 for none", fds[i]);
	}
	return 0;
}

static int check_rate(uint64_t rate, uint64_t burst, const char *device, struct err *err)
{
	if (burst && !rate)
		return err_config(err, -EINVAL, "%s: a burst, and no rate that it belongs to", device);
	return 0;
}

static int check_net_rates(const struct vmlet_net *net, const char *name, struct err *err)
{
	char device[DEVICE_NAME_MAX + 8];
	(void)snprintf(device, sizeof(device), "net '%s'", name);
	int r = check_rate(net->packets_per_s, net->packets_burst, device, err);
	return r < 0 ? r : check_rate(net->bandwidth_bytes, net->bandwidth_burst_bytes, device, err);
}

static int check_net_backend(const struct vmlet_net *net, const char *name, struct err *err)
{
	bool has_path = net->path && *net->path;
	if ((unsigned)net->kind > VMLET_NET_FD)
		return err_config(err, -EINVAL, "net '%s': kind %d is not one that this library knows", name,
				  net->kind);
	if (net->kind == VMLET_NET_FD && net->fd < 0)
		return err_config(err, -EINVAL, "net '%s': no descriptor is given", name);
	if (net->kind != VMLET_NET_FD && net->kind != VMLET_NET_TAP && !has_path)
		return err_config(err, -EINVAL, "net '%s': no path is given", name);
	if (net->publish_count && net->kind != VMLET_NET_PASST)
		return err_config(err, -EINVAL, "net '%s': ports are published by passt only", name);
	if (net->queues < 1 || net->queues > NETIF_QUEUES_MAX)
		return err_config(err, -EINVAL, "net '%s': %u queues: a network card has 1 to %d", name, net->queues,
				  NETIF_QUEUES_MAX);
	if (net->queues > 1 && net->kind != VMLET_NET_TAP)
		return err_config(err, -EINVAL, "net '%s': %u queues: only a tap has more than one", name, net->queues);
	return 0;
}

static int check_net(const struct vmlet_net *net, const char *name, struct err *err)
{
	int r = check_net_backend(net, name, err);
	if (r < 0)
		return r;
	if (net->mac[0] & MAC_GROUP)
		return err_config(err, -EINVAL, "net '%s': a MAC address that begins with %02x is one of a group", name,
				  net->mac[0]);
	if (net->mtu && net->mtu < MTU_MIN)
		return err_config(err, -EINVAL, "net '%s': an MTU of %u: at least %d", name, net->mtu, MTU_MIN);
	if (net->mtu > SOCKET_MTU_MAX && net->kind != VMLET_NET_TAP && net->kind != VMLET_NET_FD)
		return err_config(err, -EINVAL, "net '%s': an MTU of %u: over a socket at most %d", name, net->mtu,
				  SOCKET_MTU_MAX);
	return check_net_rates(net, name, err);
}

static int check_nets(const struct vmlet_config *config, struct err *err)
{
	char name[DEVICE_NAME_MAX];
	unsigned max = board_max_virtio_devices((enum board_transport)config->transport);
	if (config->net_count > max)
		return err_config(err, -EINVAL, "%zu network cards: a machine has room for %u devices",
				  config->net_count, max);
	for (unsigned i = 0; i < config->net_count; i++) {
		const struct vmlet_net *net = config->nets[i];
		if (net->id && (!*net->id || strlen(net->id) >= DEVICE_NAME_MAX))
			return err_config(err, -EINVAL, "net %u: an id has 1 to %d bytes", i, DEVICE_NAME_MAX - 1);
		int r = check_net(net, nets_name(config, i, name), err);
		if (r < 0)
			return r;
		if (nets_find(config, name) != (int)i)
			return err_config(err, -EINVAL, "net '%s': there are two of that id", name);
	}
	return 0;
}

static bool is_name_taken(const struct vmlet_config *config, size_t index)
{
	const char *name = config->consoles[index]->name;
	for (size_t i = 0; i < index; i++) {
		if (config->consoles[i]->name && strcmp(config->consoles[i]->name, name) == 0)
			return true;
	}
	return strcmp(name, VIRTIO_CONSOLE_STATUS_PORT) == 0;
}

static int check_port_name(const struct vmlet_config *config, size_t index, struct err *err)
{
	const char *name = config->consoles[index]->name;
	if (!name)
		return 0;
	if (!*name || strlen(name) >= VIRTIO_CONSOLE_NAME_MAX)
		return err_config(err, -EINVAL, "console %zu: a port's name has 1 to %d bytes", index,
				  VIRTIO_CONSOLE_NAME_MAX - 1);
	if (is_name_taken(config, index))
		return err_config(err, -EINVAL, "console %zu: there is a port '%s' already", index, name);
	return 0;
}

static int check_console(const struct vmlet_config *config, size_t index, struct err *err)
{
	const struct vmlet_console *console = config->consoles[index];
	int r = check_serial(&console->backend, "console", err);
	if (r == 0)
		r = check_port_name(config, index, err);
	return r < 0 ? r : check_rate(console->bandwidth_bytes, console->bandwidth_burst_bytes, "console", err);
}

static int check_consoles(const struct vmlet_config *config, struct err *err)
{
	if (config->console_count > VIRTIO_CONSOLE_PORTS_MAX)
		return err_config(err, -EINVAL, "%zu consoles and ports: a machine has at most %d",
				  config->console_count, VIRTIO_CONSOLE_PORTS_MAX);
	for (size_t i = 0; i < config->console_count; i++) {
		int r = check_console(config, i, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_balloon(const struct vmlet_config *config, struct err *err)
{
	const struct vmlet_balloon *balloon = &config->balloon;
	if (!balloon->enabled)
		return 0;
	if (balloon->target_bytes > config->memory_bytes || balloon->target_bytes % GMEM_PAGE_SIZE)
		return err_config(err, -EINVAL,
				  "balloon: %llu bytes: whole pages of 4 KiB, and no more than the memory",
				  (unsigned long long)balloon->target_bytes);
	return 0;
}

static int check_vsock(const struct vmlet_vsock *vsock, struct err *err)
{
	if (!vsock->path)
		return 0;
	if (!*vsock->path)
		return err_config(err, -EINVAL, "vsock: no path is given");
	if (vsock->cid < VIRTIO_VSOCK_CID_MIN || vsock->cid == VSOCK_CID_ANY)
		return err_config(err, -EINVAL, "vsock: context identifier %u: a guest's is %d to %u", vsock->cid,
				  VIRTIO_VSOCK_CID_MIN, VSOCK_CID_ANY - 1);
	int r = check_rate(vsock->packets_per_s, vsock->packets_burst, "vsock", err);
	return r < 0 ? r : check_rate(vsock->bandwidth_bytes, vsock->bandwidth_burst_bytes, "vsock", err);
}

static int check_room(const struct vmlet_config *config, struct err *err)
{
	unsigned max = board_max_virtio_devices((enum board_transport)config->transport);
	size_t count = config->disk_count + config->net_count + (config->console_count || config->status_port) +
		       config->balloon.enabled + config->rng.enabled + (config->vsock.path != NULL);
	if (count > max)
		return err_config(err, -EINVAL, "%zu devices: a machine has room for %u", count, max);
	return 0;
}

static int check_devices(const struct vmlet_config *config, struct err *err)
{
	int r = check_disks(config, err);
	if (r == 0)
		r = check_nets(config, err);
	if (r == 0)
		r = check_consoles(config, err);
	if (r == 0)
		r = check_balloon(config, err);
	if (r == 0)
		r = check_vsock(&config->vsock, err);
	return r < 0 ? r : check_room(config, err);
}

int config_check(const struct vmlet_config *config, struct err *err)
{
	int r = check_machine(config, err);
	if (r == 0)
		r = check_devices(config, err);
	if (r == 0)
		r = check_serial(&config->serial, "serial port", err);
	if (r == 0)
		r = check_serial(&config->debugcon, "debug console", err);
	if (r == 0)
		r = check_streams(&config->streams, err);
	return r;
}
