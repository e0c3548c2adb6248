#include "vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/cpu.h"
#include "fd.h"
#include "thread.h"
#include "vm.h"

enum {
	KERNEL_SIGSET_SIZE = 8, /* sizeof(sigset_t) in the kernel */

	/*
	 * Not a real-time signal: of those the kernel keeps a count per user, and refuses to send one more than
	 * RLIMIT_SIGPENDING; the kick would be lost. Of the others the one that programs use least.
	 */
	KICK_SIGNAL = SIGURG,

	FIRST_LIBC_SIGNAL = 32, /* up to SIGRTMIN: the C library's own */
};

/* --- exits --------------------------------------------------------------------------------------------- */

/* KVM_EXIT_IO: `count` accesses of `size` bytes, their data in the run page. */
static void handle_pio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		uint64_t value = 0;
		if (run->io.direction == KVM_EXIT_IO_IN) {
			value = bus_read(&vcpu->vm->pio, run->io.port, run->io.size);
			memcpy(data, &value, run->io.size);
		} else {
			memcpy(&value, data, run->io.size);
			bus_write(&vcpu->vm->pio, run->io.port, run->io.size, value);
		}
	}
}

/* An access of 3, 5, 6 or 7 bytes is the part of a wider one that fell into MMIO: nobody's register. */
static void handle_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint32_t size = run->mmio.len;
	bool whole = size == 1 || size == 2 || size == 4 || size == 8;
	uint64_t value = UINT64_MAX;
	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, sizeof(value));
		if (whole)
			bus_write(&vcpu->vm->mmio, run->mmio.phys_addr, size, value);
		return;
	}
	if (whole)
		value = bus_read(&vcpu->vm->mmio, run->mmio.phys_addr, size);
	memcpy(run->mmio.data, &value, sizeof(value));
}

static void handle_system_event(struct vcpu *vcpu)
{
	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		vm_end(vcpu->vm, VM_END_POWEROFF, 0, "%s", "");
		break;
	case KVM_SYSTEM_EVENT_RESET:
		vm_end(vcpu->vm, VM_END_RESET, 0, "%s", "");
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		vm_end(vcpu->vm, VM_END_PANIC, 0, "%s", "");
		break;
	default:
		vm_end(vcpu->vm, VM_END_KVM_ERROR, 0, "KVM reported an unknown system event %u",
		       vcpu->run->system_event.type);
	}
}

static void dump(const struct vcpu *vcpu)
{
	cpu_dump(vcpu->fd, vcpu->index, vcpu->vm->gmem, vcpu->vm->log);
}

static void handle_internal_error(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	const char *what = cpu_internal_error_name(run->internal.suberror);
	dump(vcpu);
	vm_end(vcpu->vm, VM_END_KVM_ERROR, 0, "KVM could not go on with vCPU %u: %s (KVM_EXIT_INTERNAL_ERROR %u); %s",
	       vcpu->index, what, run->internal.suberror, cpu_internal_error_hint(vcpu->fd, vcpu->vm->gmem));
}

static void handle_fail_entry(struct vcpu *vcpu)
{
	dump(vcpu);
	vm_end(vcpu->vm, VM_END_KVM_ERROR, 0,
	       "the CPU refused to enter vCPU %u (KVM_EXIT_FAIL_ENTRY, hardware reason %#llx); the kernel's log may "
	       "say more",
	       vcpu->index, (unsigned long long)vcpu->run->fail_entry.hardware_entry_failure_reason);
}

static void handle_exit(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	switch (vcpu->run->exit_reason) {
	case KVM_EXIT_IO:
		handle_pio(vcpu);
		break;
	case KVM_EXIT_MMIO:
		handle_mmio(vcpu);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_HLT:
		break;
	case KVM_EXIT_SHUTDOWN:
		if (!vm->triple_fault_is_routine)
			dump(vcpu);
		vm_end(vm, VM_END_TRIPLE_FAULT, 0, "%s", "");
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		handle_system_event(vcpu);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		handle_internal_error(vcpu);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		handle_fail_entry(vcpu);
		break;
	default:
		dump(vcpu);
		vm_end(vm, VM_END_KVM_ERROR, 0, "vCPU %u left the guest for a reason that vmlet does not know: %u",
		       vcpu->index, vcpu->run->exit_reason);
	}
}

/* --- the thread ------------------------------------------------------------------------------------------ */

/* Take the kick that ended KVM_RUN, or it would end the next one too. */
static void consume_kick(void)
{
	sigset_t kick;
	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	struct timespec now = {0};
	while (sigtimedwait(&kick, NULL, &now) > 0)
		;
}

static void run_once(struct vcpu *vcpu)
{
	int r = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	pio_ring_take(&vcpu->vm->pio_ring, vcpu->run); /* came before what ended KVM_RUN */
	if (r == 0) {
		handle_exit(vcpu);
	} else if (r == -EINTR || r == -EAGAIN) {
		consume_kick();
	} else {
		dump(vcpu);
		vm_end(vcpu->vm, VM_END_KVM_ERROR, 0, "KVM_RUN of vCPU %u: %s%s", vcpu->index, err_name(r),
		       r == -EFAULT
			       ? " (guest memory that the host cannot provide: was a kernel or initrd file cut short?)"
			       : "");
	}
}

static void *vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	char name[16];
	(void)snprintf(name, sizeof(name), "vmlet-cpu%u", vcpu->index);
	pthread_setname_np(pthread_self(), name);

	while (vm_gate(vcpu->vm))
		run_once(vcpu);
	vm_leave(vcpu->vm);
	return NULL;
}

/* While the guest runs, everything stays blocked but the kick. */
static int set_signal_mask(struct vcpu *vcpu, struct err *err)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t set[KERNEL_SIGSET_SIZE];
	} mask = {.head = {.len = KERNEL_SIGSET_SIZE}};
	uint64_t blocked = ~(1ULL << (KICK_SIGNAL - 1));
	/* With these the C library makes every thread change its user (setuid): a guest must not keep it waiting. */
	for (int signal_number = FIRST_LIBC_SIGNAL; signal_number < SIGRTMIN; signal_number++)
		blocked &= ~(1ULL << (signal_number - 1));
	memcpy(mask.head.sigset, &blocked, sizeof(blocked));
	int r = kvm_ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask);
	return r < 0 ? err_kvm(err, r, "KVM_SET_SIGNAL_MASK: %s", err_name(r)) : 0;
}

int vcpu_init(struct vcpu *vcpu, struct vm *vm, unsigned index, struct err *err)
{
	*vcpu = (struct vcpu){.vm = vm, .index = index, .fd = -1};
	int r = kvm_ioctl_value(vm->kvm.vm_fd, KVM_CREATE_VCPU, index);
	if (r < 0)
		return err_kvm(err, r, "KVM_CREATE_VCPU %u: %s", index, err_name(r));
	vcpu->fd = r;

	void *run = mmap(NULL, vm->kvm.run_size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED) {
		r = err_set(err, -errno, "map the state of vCPU %u: %s", index, err_name(errno));
		vcpu_fini(vcpu);
		return r;
	}
	vcpu->run = run;
	r = set_signal_mask(vcpu, err);
	if (r < 0)
		vcpu_fini(vcpu);
	return r;
}

void vcpu_fini(struct vcpu *vcpu)
{
	if (vcpu->run)
		munmap(vcpu->run, vcpu->vm->kvm.run_size_bytes);
	vcpu->run = NULL;
	fd_close(&vcpu->fd);
}

int vcpu_start(struct vcpu *vcpu, struct err *err)
{
	int r = thread_start(&vcpu->thread, vcpu_main, vcpu);
	if (r < 0)
		return err_set(err, r, "start the thread of vCPU %u: %s", vcpu->index, err_name(r));
	vcpu->has_thread = true;
	return 0;
}

void vcpu_kick(struct vcpu *vcpu)
{
	if (vcpu->has_thread)
		pthread_kill(vcpu->thread, KICK_SIGNAL);
}

void vcpu_join(struct vcpu *vcpu)
{
	if (!vcpu->has_thread)
		return;
	pthread_join(vcpu->thread, NULL);
	vcpu->has_thread = false;
}
