/*
 * A virtual machine: KVM's VM, its memory, its buses, its vCPUs, and the one place that decides that it ends.
 * It knows no device; the board (arch/board.h) puts those on its buses.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "bus.h"
#include "err.h"
#include "gmem.h"
#include "guest_event.h"
#include "irq.h"
#include "kvm.h"
#include "log.h"
#include "loop.h"
#include "pio_ring.h"
#include "vcpu.h"

enum vm_state {
	VM_STOPPED, /* threads leave; also before the first start */
	VM_RUNNING,
	VM_PAUSED,
};

enum vm_end_reason {
	VM_END_NONE,
	VM_END_POWEROFF,
	VM_END_RESET,
	VM_END_PANIC,
	VM_END_TRIPLE_FAULT,
	VM_END_DEBUG_EXIT,
	VM_END_KVM_ERROR,
	VM_END_HOST_ERROR,
};

struct vm_end {
	enum vm_end_reason reason;
	uint32_t value; /* DEBUG_EXIT */
	uint64_t monotonic_ns;
	char text[512]; /* KVM_ERROR, HOST_ERROR: a sentence; else empty */
};

struct vm {
	struct kvm kvm;
	struct gmem *gmem; /* borrowed */
	const struct log *log;
	struct loop *loop; /* woken when the VM ends */
	struct bus pio, mmio;
	struct pio_ring pio_ring;

	pthread_t slots_thread; /* registers RAM with KVM while the rest of the set-up goes on */
	bool has_slots_thread;
	int slots_code;
	struct err slots_err;

	bool triple_fault_is_routine; /* it restarts the machine: nobody wants its registers, time after time */

	struct vcpu *vcpus;
	unsigned vcpu_count;

	pthread_mutex_t mutex; /* guards state, parked, end */
	pthread_cond_t changed;
	enum vm_state state;
	unsigned parked; /* vCPU threads that wait in vm_gate */
	unsigned left;   /* vCPU threads that have left it for good */
	struct vm_end end;
};

/* Create the VM and begin to register `gmem`. 0, or -errno; after a failure vm_fini is still due. [setup] */
int vm_init(struct vm *vm, struct gmem *gmem, struct loop *loop, const struct log *log, struct err *err);
void vm_fini(struct vm *vm); /* stops the vCPUs if they run */

/* Wait until KVM knows the RAM; before the first KVM_RUN. */
int vm_finish_memory(struct vm *vm, struct err *err);

int vm_create_vcpus(struct vm *vm, unsigned count, struct err *err);

/*
 * Start the threads; stop and join them; hold them; let them go on. While they wait for the threads, vm_stop and
 * vm_pause run the loop: a vCPU may itself be waiting for it, to end what a device has in flight. [loop]
 */
int vm_start(struct vm *vm, struct err *err);
void vm_stop(struct vm *vm);
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

/* The guest's end: the first one counts, the loop is woken. Each vCPU notices before its next instruction. [vcpu] */
void vm_end(struct vm *vm, enum vm_end_reason reason, uint32_t value, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

struct vm_end vm_get_end(struct vm *vm); /* reason VM_END_NONE while it runs. [any] */

/* For a vCPU thread between two KVM_RUN: waits while paused; false: leave. [vcpu] */
bool vm_gate(struct vm *vm);

/* The thread leaves. [vcpu] */
void vm_leave(struct vm *vm);

/* The wires that devices get. */
struct irq_line vm_irq_line(struct vm *vm, unsigned gsi);
struct irq_msi vm_irq_msi(struct vm *vm);
struct guest_event_sink vm_guest_event_sink(struct vm *vm);
