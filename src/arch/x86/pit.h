/*
 * KVM's PIT (an Intel 8254 with port 0x61), made when the guest first touches it.
 *
 * Most kernels on KVM never do: their clock is kvmclock and the APIC's timer. But a PIT that exists costs a kernel
 * thread, and four grace periods (about 16 ms) when the VM is closed. So this device holds the ports; the
 * first access creates KVM's PIT and is played into its state, and every later one KVM answers itself.
 */
#pragma once

#include "device.h"
#include "err.h"
#include "vm.h"

enum {
	PIT_SIZE = 4,           /* offsets 0 to 2: channels, 3: control word */
	PIT_SPEAKER_OFFSET = 4, /* port 0x61 */
};

/* NULL with `err` set. [setup] */
struct device *pit_new(struct vm *vm, struct err *err);
