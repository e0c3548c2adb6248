/* The public API of devices: what an owner can ask of them, and do to them, while the VM runs. */
#include "vmlet.h"

#include <errno.h>
#include <string.h>

#include "api_impl.h"

/* --- consoles -------------------------------------------------------------------------------------------- */

int vmlet_type(struct vmlet *vm, int console, const void *data, size_t size_bytes)
{
	struct chr *chr = street_console(&vm->street, console);
	return chr && api_is_running(vm) ? (int)chr_type(chr, data, size_bytes) : -EINVAL;
}

/* What is kept in the street is for a restarted guest. */
static bool resize_consoles(struct vmlet *vm, uint16_t rows, uint16_t columns)
{
	bool found = false;
	for (unsigned i = 0; i < vm->street.console_count; i++) {
		struct virtio_console_port *port = &vm->street.consoles[i];
		if (port->name || !port->rows)
			continue;
		port->rows = rows;
		port->columns = columns;
		found = true;
		if (vm->machine.board)
			virtio_console_set_size(board_get_console(vm->machine.board), i, rows, columns);
	}
	return found;
}

int vmlet_set_window_size(struct vmlet *vm, uint16_t rows, uint16_t columns)
{
	bool found = resize_consoles(vm, rows, columns);
	if (!vm->config.streams.enabled)
		return found ? 0 : -EINVAL;
	vm->config.streams.rows = rows;
	vm->config.streams.columns = columns;
	if (vm->machine.board)
		board_set_window_size(vm->machine.board, rows, columns);
	return 0;
}

const char *vmlet_serial_path(const struct vmlet *vm)
{
	return chr_path(vm->street.serial);
}

const char *vmlet_console_path(const struct vmlet *vm, unsigned console)
{
	const struct chr *chr = console < vm->street.console_count ? street_console(&vm->street, (int)console) : NULL;
	return chr ? chr_path(chr) : NULL;
}

/* --- disks ---------------------------------------------------------------------------------------------- */

static int find_disk(struct vmlet *vm, const char *id, struct err *err)
{
	if (!vm->machine.board)
		return err_config(err, -EINVAL, "disk '%s': the VM is not running", id);
	int index = disks_find(&vm->config, id);
	return index < 0 ? err_config(err, index, "disk '%s': this VM has no disk of that id", id) : index;
}

int vmlet_resize_disk(struct vmlet *vm, const char *id, struct vmlet_error *ret_error)
{
	struct err err = {0};
	int r = find_disk(vm, id, &err);
	if (r >= 0)
		r = disks_resize(&vm->disks, (unsigned)r, board_get_disk(vm->machine.board, (unsigned)r), &err);
	if (r < 0)
		api_copy_error(ret_error, &err);
	return r;
}

int vmlet_get_disk_counters(struct vmlet *vm, const char *id, struct vmlet_disk_counters *ret_counters)
{
	int index = find_disk(vm, id, NULL);
	if (index < 0)
		return index;
	struct virtio_counters sum = virtio_get_counters(board_get_disk(vm->machine.board, (unsigned)index));
	*ret_counters = (struct vmlet_disk_counters){sum.chains, sum.doorbells, sum.interrupts, sum.interrupts_spared};
	return 0;
}

/* --- network cards ------------------------------------------------------------------------------------------ */

static int find_net(const struct vmlet *vm, const char *id)
{
	return vm->machine.board ? nets_find(&vm->config, id) : -EINVAL;
}

int vmlet_set_link(struct vmlet *vm, const char *id, bool up)
{
	int index = find_net(vm, id);
	if (index < 0)
		return index;
	nets_set_link(&vm->nets, (unsigned)index, board_get_net(vm->machine.board, (unsigned)index), up);
	return 0;
}

int vmlet_get_net_counters(struct vmlet *vm, const char *id, struct vmlet_net_counters *ret_counters)
{
	int index = find_net(vm, id);
	if (index < 0)
		return index;
	const struct netif_counters *packets = &vm->nets.list[index].netif->counters;
	struct virtio_counters rings = virtio_get_counters(board_get_net(vm->machine.board, (unsigned)index));
	*ret_counters = (struct vmlet_net_counters){
		.sent = packets->sent,
		.sent_bytes = packets->sent_bytes,
		.received = packets->received,
		.received_bytes = packets->received_bytes,
		.dropped = packets->dropped,
		.doorbells = rings.doorbells,
		.interrupts = rings.interrupts,
		.interrupts_spared = rings.interrupts_spared,
	};
	return 0;
}

const char *vmlet_net_interface(const struct vmlet *vm, const char *id)
{
	int index = nets_find(&vm->config, id);
	return index < 0 ? NULL : nets_interface(&vm->nets, (unsigned)index);
}

/* --- memory ---------------------------------------------------------------------------------------------------- */

static struct virtio_device *get_balloon(const struct vmlet *vm)
{
	return vm->machine.board ? board_get_balloon(vm->machine.board) : NULL;
}

int vmlet_set_balloon(struct vmlet *vm, uint64_t target_bytes)
{
	struct virtio_device *balloon = get_balloon(vm);
	if (!balloon || target_bytes > vm->config.memory_bytes || target_bytes % GMEM_PAGE_SIZE)
		return -EINVAL;
	vm->config.balloon.target_bytes = target_bytes; /* for a restarted guest */
	virtio_balloon_set_target(balloon, target_bytes);
	return 0;
}

int vmlet_get_balloon(struct vmlet *vm, struct vmlet_balloon_info *ret_info)
{
	struct virtio_device *balloon = get_balloon(vm);
	if (!balloon)
		return -EINVAL;
	struct virtio_balloon_info info;
	virtio_balloon_get_info(balloon, &info);
	virtio_balloon_request_stats(balloon);
	*ret_info = (struct vmlet_balloon_info){
		.target_bytes = info.target_bytes,
		.actual_bytes = info.actual_bytes,
		.discarded_bytes = info.discarded_bytes,
		.reported_bytes = info.reported_bytes,
		.swap_in = info.stats.swap_in,
		.swap_out = info.stats.swap_out,
		.major_faults = info.stats.major_faults,
		.minor_faults = info.stats.minor_faults,
		.free_bytes = info.stats.free_bytes,
		.total_bytes = info.stats.total_bytes,
		.available_bytes = info.stats.available_bytes,
		.disk_cache_bytes = info.stats.disk_cache_bytes,
		.stats_ns = info.stats.updated_ns,
	};
	return 0;
}
