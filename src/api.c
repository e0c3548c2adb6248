/* The public API: configuration into calls, errors and ends copied out. */
#include "vmlet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api_impl.h"
#include "config.h"

const char *vmlet_version(void)
{
	return VMLET_VERSION;
}

void api_copy_error(struct vmlet_error *to, const struct err *from)
{
	if (!to)
		return;
	to->code = from->code;
	to->kind = (enum vmlet_error_kind)from->kind;
	memcpy(to->text, from->text, sizeof(to->text));
}

_Static_assert((int)ERR_HOST == VMLET_ERROR_HOST && (int)ERR_CONFIG == VMLET_ERROR_CONFIG &&
		       (int)ERR_KVM == VMLET_ERROR_KVM,
	       "the two enums agree");
_Static_assert((int)LOG_LEVEL_DEBUG == VMLET_LOG_DEBUG, "the two enums agree");
_Static_assert((int)BOOT_PVH == VMLET_BOOT_PVH && (int)BOOT_LINUX64 == VMLET_BOOT_LINUX64, "the two enums agree");

static void virtio_broke(void *ctx, const char *text)
{
	events_post(ctx, VMLET_EVENT_DEVICE_BROKEN, text);
}

/* --- setting up ------------------------------------------------------------------------------------------ */

static int open_initrds(struct vmlet *vm, struct err *err)
{
	vm->initrds = calloc(vm->config.initrd_count + 1, sizeof(*vm->initrds));
	if (!vm->initrds)
		return err_set(err, -ENOMEM, "configuration: %s", err_name(ENOMEM));
	for (size_t i = 0; i < vm->config.initrd_count; i++) {
		int r = image_open(&vm->initrds[i], "initrd", vm->config.initrds[i], err);
		if (r < 0)
			return r;
		vm->initrd_count++;
	}
	return 0;
}

static int open_files(struct vmlet *vm, struct err *err)
{
	int r = image_open(&vm->kernel, "kernel", vm->config.kernel, err);
	if (r < 0)
		return r;
	enum kernel_kind kind;
	r = kernel_probe(&vm->kernel, (enum boot_protocol)vm->config.boot_protocol, &kind, err);
	if (r < 0)
		return r;
	return open_initrds(vm, err);
}

static void forward_log(void *ctx, enum log_level level, const char *line)
{
	const struct vmlet_config *config = ctx;
	config->log(config->log_ctx, (enum vmlet_log_level)level, line);
}

static int open_street(struct vmlet *vm, struct err *err)
{
	vm->loop = loop_new(err);
	if (!vm->loop)
		return err->code;
	events_set_loop(&vm->events, vm->loop);
	return street_open(&vm->street, &vm->config, vm->loop, &vm->log, api_tell_console, vm, err);
}

static int init(struct vmlet *vm, const struct vmlet_config *config, struct err *err)
{
	vm->kernel.fd = -1;
	vm->drain_timer.fn = api_drain_timeout;
	vm->timeout_timer.fn = api_time_is_over;
	int r = config_init(&vm->config, config, err);
	events_init(&vm->events, &vm->config);
	vm->log = (struct log){(enum log_level)vm->config.log_level, vm->config.log ? forward_log : NULL, &vm->config};
	if (r == 0)
		r = open_files(vm, err);
	if (r == 0)
		r = open_street(vm, err);
	if (r == 0)
		r = disks_open(&vm->disks, &vm->config, vm->loop, &vm->log, err);
	if (r == 0)
		r = nets_open(&vm->nets, &vm->config, vm->loop, &vm->log, err);
	if (r == 0 && vm->config.vsock.path) {
		vm->vsock_host = vsock_host_new(vm->loop, &vm->log, vm->config.vsock.path, err);
		r = vm->vsock_host ? 0 : err->code;
	}
	return r;
}

struct vmlet *vmlet_new(const struct vmlet_config *config, struct vmlet_error *ret_error)
{
	struct err err = {0};
	struct vmlet *vm = calloc(1, sizeof(*vm));
	if (!vm) {
		err_set(&err, -ENOMEM, "virtual machine: %s", err_name(ENOMEM));
		api_copy_error(ret_error, &err);
		return NULL;
	}
	if (init(vm, config, &err) < 0) {
		vmlet_free(vm);
		api_copy_error(ret_error, &err);
		return NULL;
	}
	api_tell(vm, VMLET_EVENT_CREATED, &vm->stats.created_ns, loop_now_ns(), "");
	return vm;
}

/* --- the machine ---------------------------------------------------------------------------------------- */

void api_machine_free(struct machine *machine)
{
	if (machine->has_vm)
		vm_stop(&machine->vm);
	board_free(machine->board);
	if (machine->has_vm)
		vm_fini(&machine->vm);
	gmem_free(machine->gmem);
	*machine = (struct machine){0};
}

static struct virtio_vsock_init vsock_init(const struct vmlet_vsock *vsock)
{
	return (struct virtio_vsock_init){
		.guest_cid = vsock->cid,
		.packed = vsock->packed,
		.limit =
			{
				.ops_per_s = vsock->packets_per_s,
				.bytes_per_s = vsock->bandwidth_bytes,
				.ops_burst = vsock->packets_burst,
				.bytes_burst = vsock->bandwidth_burst_bytes,
			},
	};
}

int api_machine_create(struct vmlet *vm, struct err *err)
{
	struct machine *machine = &vm->machine;
	struct gmem_region regions[GMEM_REGIONS_MAX];
	unsigned region_count;
	int r = board_memory_layout(vm->config.memory_bytes, regions, &region_count, err);
	if (r < 0)
		return r;
	machine->gmem = gmem_new(regions, region_count, err);
	if (!machine->gmem)
		return err->code;
	machine->has_vm = true;
	r = vm_init(&machine->vm, machine->gmem, vm->loop, &vm->log, err);
	if (r < 0)
		return r;

	machine->vm.triple_fault_is_routine = vm->config.on_reboot == VMLET_ON_REBOOT_RESTART;

	struct board_config config = {
		.kernel = &vm->kernel,
		.initrds = vm->initrds,
		.initrd_count = vm->initrd_count,
		.cmdline = vm->config.cmdline ? vm->config.cmdline : "",
		.protocol = (enum boot_protocol)vm->config.boot_protocol,
		.cpu_features = vm->config.cpu_features,
		.cpu_count = vm->config.cpus,
		.serial = vm->street.serial,
		.debugcon = vm->street.debugcon,
		.streams =
			{
				.in = vm->street.in,
				.out = vm->street.out,
				.err = vm->street.err,
				.rows = vm->config.streams.rows,
				.columns = vm->config.streams.columns,
			},
		.transport = (enum board_transport)vm->config.transport,
		.disks = vm->disks.list,
		.disk_count = vm->disks.count,
		.nets = vm->nets.list,
		.net_count = vm->nets.count,
		.consoles = vm->street.consoles,
		.console_count = vm->street.console_count,
		.has_console = vm->config.console_count || vm->config.status_port,
		.consoles_packed = vm->config.consoles_packed,
		.has_rng = vm->config.rng.enabled,
		.rng = {.limit = {.bytes_per_s = vm->config.rng.bandwidth_bytes}, .packed = vm->config.rng.packed},
		.has_balloon = vm->config.balloon.enabled,
		.balloon =
			{
				.target_bytes = vm->config.balloon.target_bytes,
				.deflate_on_oom = vm->config.balloon.deflate_on_oom,
				.reporting = vm->config.balloon.reporting,
				.packed = vm->config.balloon.packed,
			},
		.vsock_host = vm->vsock_host,
		.vsock = vsock_init(&vm->config.vsock),
		.virtio_sink = {virtio_broke, &vm->events},
	};
	machine->board = board_new(&config, &machine->vm, err);
	if (!machine->board)
		return err->code;
	api_tell(vm, VMLET_EVENT_KERNEL_LOADED, &vm->stats.loaded_ns, board_loaded_ns(machine->board), "");
	uint64_t before_ns = loop_now_ns(); /* nothing of the guest's comes earlier than this */
	r = vm_start(&machine->vm, err);
	if (r == 0)
		api_tell(vm, VMLET_EVENT_RUNNING, &vm->stats.running_ns, before_ns, "");
	return r;
}

static void arm_timeout(struct vmlet *vm, uint64_t start_ns)
{
	if (vm->config.timeout_ns && vm->config.timeout_ns < UINT64_MAX - start_ns)
		loop_timer_arm(vm->loop, &vm->timeout_timer, start_ns + vm->config.timeout_ns);
}

int vmlet_start(struct vmlet *vm, struct vmlet_error *ret_error)
{
	struct err err = {0};
	uint64_t start_ns = loop_now_ns();
	int r;
	if (vm->started) { /* and may be running: leave it alone */
		r = err_config(&err, -EALREADY, "this VM was started before; make a new one");
	} else {
		vm->started = true;
		r = api_machine_create(vm, &err);
		if (r < 0)
			api_machine_free(&vm->machine);
		else
			arm_timeout(vm, start_ns);
	}
	if (r < 0)
		api_copy_error(ret_error, &err);
	return r;
}

/* --- while it runs ------------------------------------------------------------------------------------ */

void vmlet_get_stats(const struct vmlet *vm, struct vmlet_stats *ret_stats)
{
	*ret_stats = vm->stats;
	ret_stats->console_ns = street_first_output_ns(&vm->street);
	ret_stats->console_bytes = street_output_bytes(&vm->street);
}

/* --- life's end ------------------------------------------------------------------------------------------ */

void vmlet_free(struct vmlet *vm)
{
	if (!vm)
		return;
	api_machine_free(&vm->machine);
	if (vm->loop) {
		loop_timer_disarm(vm->loop, &vm->timeout_timer);
		loop_timer_disarm(vm->loop, &vm->drain_timer);
	}
	vsock_host_free(vm->vsock_host);
	nets_close(&vm->nets);
	disks_close(&vm->disks);
	street_close(&vm->street);
	events_fini(&vm->events);
	loop_free(vm->loop);
	image_close(&vm->kernel);
	for (unsigned i = 0; i < vm->initrd_count; i++)
		image_close(&vm->initrds[i]);
	free(vm->initrds);
	config_fini(&vm->config);
	free(vm);
}
