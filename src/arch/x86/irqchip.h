/* The in-kernel interrupt controllers: PIC, IOAPIC, local APICs. */
#pragma once

#include "err.h"
#include "kvm.h"

/* Create PIC and IOAPIC in KVM; before the first vCPU. [setup] */
int irqchip_create(const struct kvm *kvm, struct err *err);

/* Wire a vCPU's local APIC as firmware does: LINT0 takes the PIC, LINT1 the NMI. [setup] */
int irqchip_init_lapic(int vcpu_fd, struct err *err);
