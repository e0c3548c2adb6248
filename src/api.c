/* The public API: configuration into calls, errors and ends copied out. */
#include "vmlet.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/board.h"
#include "chr.h"
#include "config.h"
#include "disks.h"
#include "loader/loader.h"
#include "log.h"
#include "loop.h"
#include "util.h"
#include "vm.h"

/* How long the end waits for a console reader that does not read at all. */
static const uint64_t DRAIN_PATIENCE_NS = 2000000000;

static const uint64_t STOP_REQUESTED = 1ULL << 32;

/* What a guest's restart makes anew; everything else of a struct vmlet outlives it. */
struct machine {
	struct gmem *gmem;
	struct vm vm;
	bool has_vm;
	struct board *board;
};

struct vmlet {
	struct vmlet_config config; /* owned: config.h */

	struct log log;
	struct loop *loop;
	struct chr *serial, *debugcon;
	struct image kernel;
	struct image *initrds;
	unsigned initrd_count; /* open */
	struct disks disks;

	struct machine machine;
	bool started;

	/* vmlet_stop may run in a signal handler: one word, no lock. */
	_Atomic uint64_t stop; /* 0, or STOP_REQUESTED and the first caller's value */

	struct vmlet_result result;
	struct loop_timer drain_timer;
	size_t drain_pending; /* at the last look */
	bool drained;
};

const char *vmlet_version(void)
{
	return VMLET_VERSION;
}

static void copy_error(struct vmlet_error *to, const struct err *from)
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

static struct chr *open_chr(struct vmlet *vm, const struct vmlet_serial *serial, struct err *err)
{
	struct chr_filter filter = {serial->input_filter, serial->input_filter_ctx};
	switch (serial->kind) {
	case VMLET_SERIAL_FD:
		return chr_fd_new(vm->loop, &vm->log, serial->in_fd, serial->out_fd, filter, err);
	case VMLET_SERIAL_FILE:
		return chr_file_new(vm->loop, &vm->log, serial->path, err);
	case VMLET_SERIAL_PTY:
		return chr_pty_new(vm->loop, &vm->log, err);
	case VMLET_SERIAL_UNIX:
		return chr_unix_new(vm->loop, &vm->log, serial->path, err);
	default:
		return chr_null_new(err);
	}
}

static int open_street(struct vmlet *vm, struct err *err)
{
	vm->loop = loop_new(err);
	if (!vm->loop)
		return err->code;
	vm->serial = open_chr(vm, &vm->config.serial, err);
	if (!vm->serial)
		return err->code;
	vm->debugcon = open_chr(vm, &vm->config.debugcon, err);
	return vm->debugcon ? 0 : err->code;
}

static void forward_log(void *ctx, enum log_level level, const char *line)
{
	const struct vmlet_config *config = ctx;
	config->log(config->log_ctx, (enum vmlet_log_level)level, line);
}

static void drain_timeout(struct loop_timer *timer);

static int init(struct vmlet *vm, const struct vmlet_config *config, struct err *err)
{
	vm->kernel.fd = -1;
	vm->drain_timer.fn = drain_timeout;
	int r = config_init(&vm->config, config, err);
	vm->log = (struct log){(enum log_level)vm->config.log_level, vm->config.log ? forward_log : NULL, &vm->config};
	if (r == 0)
		r = open_files(vm, err);
	if (r == 0)
		r = open_street(vm, err);
	if (r == 0)
		r = disks_open(&vm->disks, &vm->config, vm->loop, &vm->log, err);
	return r;
}

struct vmlet *vmlet_new(const struct vmlet_config *config, struct vmlet_error *ret_error)
{
	struct err err = {0};
	struct vmlet *vm = calloc(1, sizeof(*vm));
	if (!vm) {
		err_set(&err, -ENOMEM, "virtual machine: %s", err_name(ENOMEM));
		copy_error(ret_error, &err);
		return NULL;
	}
	if (init(vm, config, &err) < 0) {
		vmlet_free(vm);
		copy_error(ret_error, &err);
		return NULL;
	}
	return vm;
}

/* --- the machine ---------------------------------------------------------------------------------------- */

static void machine_free(struct machine *machine)
{
	if (machine->has_vm)
		vm_stop(&machine->vm);
	board_free(machine->board);
	if (machine->has_vm)
		vm_fini(&machine->vm);
	gmem_free(machine->gmem);
	*machine = (struct machine){0};
}

static int machine_create(struct vmlet *vm, struct err *err)
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
		.serial = vm->serial,
		.debugcon = vm->debugcon,
		.transport = (enum board_transport)vm->config.transport,
		.disks = vm->disks.list,
		.disk_count = vm->disks.count,
	};
	machine->board = board_new(&config, &machine->vm, err);
	if (!machine->board)
		return err->code;
	return vm_start(&machine->vm, err);
}

int vmlet_start(struct vmlet *vm, struct vmlet_error *ret_error)
{
	struct err err = {0};
	int r;
	if (vm->started) { /* and may be running: leave it alone */
		r = err_config(&err, -EALREADY, "this VM was started before; make a new one");
	} else {
		vm->started = true;
		r = machine_create(vm, &err);
		if (r < 0)
			machine_free(&vm->machine);
	}
	if (r < 0)
		copy_error(ret_error, &err);
	return r;
}

/* --- the end -------------------------------------------------------------------------------------------- */

static bool is_running(const struct vmlet *vm)
{
	return vm->machine.board && vm->result.end == VMLET_END_NONE;
}

static void drain_timeout(struct loop_timer *timer)
{
	struct vmlet *vm = container_of(timer, struct vmlet, drain_timer);
	size_t pending = chr_pending(vm->serial) + chr_pending(vm->debugcon);
	if (pending >= vm->drain_pending) {
		vm->drained = true; /* nobody reads */
		return;
	}
	vm->drain_pending = pending;
	loop_timer_arm(vm->loop, timer, loop_now_ns() + DRAIN_PATIENCE_NS);
}

static void finish(struct vmlet *vm, enum vmlet_end end, uint32_t value, const char *text)
{
	vm->result.end = end;
	vm->result.value = value;
	(void)snprintf(vm->result.text, sizeof(vm->result.text), "%s", text);
	vm_stop(&vm->machine.vm);

	vm->drain_pending = chr_pending(vm->serial) + chr_pending(vm->debugcon);
	loop_timer_arm(vm->loop, &vm->drain_timer, loop_now_ns() + DRAIN_PATIENCE_NS);
}

struct end_words {
	enum vmlet_end end;
	const char *text;
};

static struct end_words end_words(const struct vm_end *end)
{
	switch (end->reason) {
	case VM_END_POWEROFF:
		return (struct end_words){VMLET_END_POWEROFF, "the guest powered off"};
	case VM_END_RESET:
		return (struct end_words){VMLET_END_REBOOT, "the guest asked for a reboot"};
	case VM_END_PANIC:
		return (struct end_words){VMLET_END_PANIC, "the guest's kernel panicked"};
	case VM_END_TRIPLE_FAULT:
		return (struct end_words){VMLET_END_TRIPLE_FAULT, "the guest ended in a triple fault"};
	case VM_END_DEBUG_EXIT:
		return (struct end_words){VMLET_END_DEBUG_EXIT, "the guest wrote its status to the debug-exit port"};
	case VM_END_KVM_ERROR:
		return (struct end_words){VMLET_END_KVM_ERROR, end->text};
	default:
		return (struct end_words){VMLET_END_HOST_ERROR, end->text};
	}
}

/* Every piece of state of the old machine is gone: what a reset leaves behind, nobody has to remember. */
static void restart(struct vmlet *vm)
{
	struct err err = {0};
	machine_free(&vm->machine);
	if (machine_create(vm, &err) == 0) {
		loop_wake(vm->loop); /* come round again, to submit what the new devices have queued */
		return;
	}
	vm->result.end = VMLET_END_HOST_ERROR;
	(void)snprintf(vm->result.text, sizeof(vm->result.text), "restart: %.500s", err.text);
	machine_free(&vm->machine);
	vm->drained = true;
}

/* What came first counts: a stop that finds the guest ended changes nothing; one that finds it restarting ends it. */
static void look_for_end(struct vmlet *vm)
{
	uint64_t stop = atomic_load(&vm->stop);
	struct vm_end end = vm_get_end(&vm->machine.vm);
	bool is_reset = end.reason == VM_END_RESET || end.reason == VM_END_TRIPLE_FAULT;
	bool restarts = is_reset && vm->config.on_reboot == VMLET_ON_REBOOT_RESTART;
	if (end.reason != VM_END_NONE && !restarts) {
		struct end_words words = end_words(&end);
		finish(vm, words.end, end.value, words.text);
	} else if (stop) {
		finish(vm, VMLET_END_STOPPED, (uint32_t)stop, "stopped from outside");
	} else if (restarts) {
		restart(vm);
	}
}

/* 1 once the VM has ended and its console is written out. */
static int has_ended(struct vmlet *vm)
{
	if (is_running(vm))
		look_for_end(vm);
	if (vm->result.end == VMLET_END_NONE)
		return 0;
	if (!vm->drained && chr_pending(vm->serial) + chr_pending(vm->debugcon))
		return 0;
	loop_timer_disarm(vm->loop, &vm->drain_timer);
	return 1;
}

/* --- serving -------------------------------------------------------------------------------------------- */

int vmlet_get_fd(const struct vmlet *vm)
{
	return loop_get_fd(vm->loop);
}

int vmlet_dispatch(struct vmlet *vm)
{
	int r = loop_dispatch(vm->loop);
	if (r < 0)
		return r;
	return vm->machine.board || vm->result.end != VMLET_END_NONE ? has_ended(vm) : -EINVAL;
}

int vmlet_run(struct vmlet *vm, struct vmlet_result *ret_result)
{
	if (!vm->machine.board && vm->result.end == VMLET_END_NONE)
		return -EINVAL;
	while (!has_ended(vm)) {
		int r = loop_wait(vm->loop, UINT64_MAX);
		if (r < 0)
			return r;
	}
	if (ret_result)
		vmlet_get_result(vm, ret_result);
	return 0;
}

void vmlet_get_result(const struct vmlet *vm, struct vmlet_result *ret_result)
{
	*ret_result = vm->result;
}

void vmlet_stop(struct vmlet *vm, uint32_t value)
{
	uint64_t none = 0;
	atomic_compare_exchange_strong(&vm->stop, &none, STOP_REQUESTED | value);
	loop_wake(vm->loop);
}

int vmlet_pause(struct vmlet *vm)
{
	if (!is_running(vm))
		return -EINVAL;
	vm_pause(&vm->machine.vm);
	return 0;
}

int vmlet_resume(struct vmlet *vm)
{
	if (!is_running(vm))
		return -EINVAL;
	vm_resume(&vm->machine.vm);
	return 0;
}

int vmlet_press_power_button(struct vmlet *vm)
{
	if (!is_running(vm))
		return -EINVAL;
	board_press_power_button(vm->machine.board);
	return 0;
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
		copy_error(ret_error, &err);
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

const char *vmlet_serial_path(const struct vmlet *vm)
{
	return chr_path(vm->serial);
}

void vmlet_free(struct vmlet *vm)
{
	if (!vm)
		return;
	machine_free(&vm->machine);
	disks_close(&vm->disks);
	chr_free(vm->serial);
	chr_free(vm->debugcon);
	loop_free(vm->loop);
	image_close(&vm->kernel);
	for (unsigned i = 0; i < vm->initrd_count; i++)
		image_close(&vm->initrds[i]);
	free(vm->initrds);
	config_fini(&vm->config);
	free(vm);
}
