#include "vm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "thread.h"
#include "util.h"

/* --- memory -------------------------------------------------------------------------------------------- */

static int register_memory(struct vm *vm)
{
	for (unsigned i = 0; i < vm->gmem->region_count; i++) {
		const struct gmem_region *region = &vm->gmem->regions[i];
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = region->base,
			.memory_size = region->size_bytes,
			.userspace_addr = (uintptr_t)region->host,
		};
		int r = kvm_ioctl(vm->kvm.vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);
		if (r < 0)
			return err_kvm(&vm->slots_err, r, "KVM_SET_USER_MEMORY_REGION: %llu MiB at %#llx: %s",
				       (unsigned long long)(region->size_bytes >> 20), (unsigned long long)region->base,
				       err_name(r));
	}
	return 0;
}

static void *slots_main(void *arg)
{
	struct vm *vm = arg;
	vm->slots_code = register_memory(vm);
	return NULL;
}

int vm_finish_memory(struct vm *vm, struct err *err)
{
	if (vm->has_slots_thread) {
		pthread_join(vm->slots_thread, NULL);
		vm->has_slots_thread = false;
	}
	if (vm->slots_code < 0 && err)
		*err = vm->slots_err;
	return vm->slots_code;
}

/* --- wires --------------------------------------------------------------------------------------------- */

static void set_irq_line(void *ctx, unsigned line, bool level)
{
	struct vm *vm = ctx;
	struct kvm_irq_level irq = {.irq = line, .level = level};
	int r = kvm_ioctl(vm->kvm.vm_fd, KVM_IRQ_LINE, &irq);
	if (r < 0)
		vm_end(vm, VM_END_HOST_ERROR, 0, "KVM_IRQ_LINE: interrupt line %u: %s", line, err_name(r));
}

struct irq_line vm_irq_line(struct vm *vm, unsigned gsi)
{
	return (struct irq_line){set_irq_line, vm, gsi};
}

/* What no local APIC takes is the guest's own fault: it gave address and data. */
static void send_msi(void *ctx, uint64_t address, uint32_t data)
{
	struct vm *vm = ctx;
	struct kvm_msi msi = {.address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
	(void)kvm_ioctl(vm->kvm.vm_fd, KVM_SIGNAL_MSI, &msi);
}

struct irq_msi vm_irq_msi(struct vm *vm)
{
	return (struct irq_msi){send_msi, vm};
}

static int set_ioeventfd(struct vm *vm, const struct bus_doorbell *doorbell, uint32_t flags)
{
	struct kvm_ioeventfd ioeventfd = {
		.datamatch = doorbell->value,
		.addr = doorbell->addr,
		.len = doorbell->size_bytes,
		.fd = doorbell->eventfd,
		.flags = flags | (doorbell->has_value ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0),
	};
	return kvm_ioctl(vm->kvm.vm_fd, KVM_IOEVENTFD, &ioeventfd);
}

static int add_doorbell(void *ctx, const struct bus_doorbell *doorbell)
{
	return set_ioeventfd(ctx, doorbell, 0);
}

static void remove_doorbell(void *ctx, const struct bus_doorbell *doorbell)
{
	(void)set_ioeventfd(ctx, doorbell, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

static const struct bus_doorbell_ops doorbell_ops = {add_doorbell, remove_doorbell};

static void handle_guest_event(void *ctx, enum guest_event event, uint32_t value)
{
	static const enum vm_end_reason REASONS[] = {
		[GUEST_EVENT_POWEROFF] = VM_END_POWEROFF,
		[GUEST_EVENT_RESET] = VM_END_RESET,
		[GUEST_EVENT_PANIC] = VM_END_PANIC,
		[GUEST_EVENT_DEBUG_EXIT] = VM_END_DEBUG_EXIT,
	};
	vm_end(ctx, REASONS[event], value, "%s", "");
}

struct guest_event_sink vm_guest_event_sink(struct vm *vm)
{
	return (struct guest_event_sink){handle_guest_event, vm};
}

/* --- life ---------------------------------------------------------------------------------------------- */

int vm_init(struct vm *vm, struct gmem *gmem, struct loop *loop, const struct log *log, struct err *err)
{
	*vm = (struct vm){.kvm = {.system_fd = -1, .vm_fd = -1}, .gmem = gmem, .loop = loop, .log = log};
	bus_init(&vm->pio, "port I/O", UINT16_MAX);
	bus_init(&vm->mmio, "MMIO", UINT64_MAX);
	pio_ring_init(&vm->pio_ring, &vm->pio);
	vm->mmio.doorbell_ops = &doorbell_ops;
	vm->mmio.doorbell_ctx = vm;
	pthread_mutex_init(&vm->mutex, NULL);
	pthread_cond_init(&vm->changed, NULL);

	int r = kvm_open(&vm->kvm, err);
	if (r < 0)
		return r;
	/* Each slot waits several milliseconds for an SRCU grace period; that is time for the rest of the set-up. */
	r = thread_start(&vm->slots_thread, slots_main, vm);
	if (r < 0)
		return err_set(err, r, "start a thread: %s", err_name(r));
	vm->has_slots_thread = true;
	return 0;
}

void vm_fini(struct vm *vm)
{
	vm_stop(vm);
	(void)vm_finish_memory(vm, NULL);
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		vcpu_fini(&vm->vcpus[i]);
	free(vm->vcpus);
	kvm_close(&vm->kvm);
	pio_ring_fini(&vm->pio_ring);
	bus_fini(&vm->pio);
	bus_fini(&vm->mmio);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->mutex);
}

int vm_create_vcpus(struct vm *vm, unsigned count, struct err *err)
{
	vm->vcpus = calloc(count, sizeof(*vm->vcpus));
	if (!vm->vcpus)
		return err_set(err, -ENOMEM, "vCPUs: %s", err_name(ENOMEM));
	for (unsigned i = 0; i < count; i++) {
		int r = vcpu_init(&vm->vcpus[i], vm, i, err);
		if (r < 0)
			return r;
		vm->vcpu_count++;
	}
	return 0;
}

/* --- state --------------------------------------------------------------------------------------------- */

static void set_state(struct vm *vm, enum vm_state state)
{
	pthread_mutex_lock(&vm->mutex);
	vm->state = state;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->mutex);
}

static void kick_all(struct vm *vm)
{
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		vcpu_kick(&vm->vcpus[i]);
}

int vm_start(struct vm *vm, struct err *err)
{
	set_state(vm, VM_RUNNING);
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		int r = vcpu_start(&vm->vcpus[i], err);
		if (r < 0) {
			vm_stop(vm);
			return r;
		}
	}
	return 0;
}

/* Run the loop until `count`, which vCPU threads move under the mutex and with a wake, is `target`. */
static void serve_until(struct vm *vm, const unsigned *count, unsigned target)
{
	int r = 0;
	pthread_mutex_lock(&vm->mutex);
	while (*count < target && r == 0) {
		pthread_mutex_unlock(&vm->mutex);
		r = loop_wait(vm->loop, UINT64_MAX);
		pthread_mutex_lock(&vm->mutex);
	}
	pthread_mutex_unlock(&vm->mutex);
}

static unsigned count_threads(const struct vm *vm)
{
	unsigned count = 0;
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		count += vm->vcpus[i].has_thread;
	return count;
}

void vm_stop(struct vm *vm)
{
	set_state(vm, VM_STOPPED);
	kick_all(vm);
	serve_until(vm, &vm->left, count_threads(vm));
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		vcpu_join(&vm->vcpus[i]);
	vm->left = 0;
}

void vm_pause(struct vm *vm)
{
	set_state(vm, VM_PAUSED);
	kick_all(vm);
	serve_until(vm, &vm->parked, vm->vcpu_count);
}

void vm_resume(struct vm *vm)
{
	set_state(vm, VM_RUNNING);
}

/* A vCPU of an ended VM stays parked like one of a paused VM, until the loop stops or restarts it. */
static bool may_run(const struct vm *vm)
{
	return vm->state == VM_RUNNING && vm->end.reason == VM_END_NONE;
}

bool vm_gate(struct vm *vm)
{
	pthread_mutex_lock(&vm->mutex);
	if (!may_run(vm) && vm->state != VM_STOPPED) {
		vm->parked++;
		if (vm->state == VM_PAUSED)
			loop_wake(vm->loop);
		while (!may_run(vm) && vm->state != VM_STOPPED)
			pthread_cond_wait(&vm->changed, &vm->mutex);
		vm->parked--;
	}
	bool run = vm->state != VM_STOPPED;
	pthread_mutex_unlock(&vm->mutex);
	return run;
}

void vm_leave(struct vm *vm)
{
	pthread_mutex_lock(&vm->mutex);
	vm->left++;
	pthread_mutex_unlock(&vm->mutex);
	loop_wake(vm->loop);
}

void vm_end(struct vm *vm, enum vm_end_reason reason, uint32_t value, const char *fmt, ...)
{
	pthread_mutex_lock(&vm->mutex);
	bool first = vm->end.reason == VM_END_NONE;
	if (first) {
		vm->end.reason = reason;
		vm->end.value = value;
		vm->end.monotonic_ns = loop_now_ns();
		va_list args;
		va_start(args, fmt);
		(void)vsnprintf(vm->end.text, sizeof(vm->end.text), fmt, args);
		va_end(args);
	}
	pthread_mutex_unlock(&vm->mutex);
	if (first)
		loop_wake(vm->loop);
}

struct vm_end vm_get_end(struct vm *vm)
{
	pthread_mutex_lock(&vm->mutex);
	struct vm_end end = vm->end;
	pthread_mutex_unlock(&vm->mutex);
	return end;
}
