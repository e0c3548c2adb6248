/* The CPUID that a guest sees: what KVM supports here, with our topology and the user's mask. */
#pragma once

#include <stdbool.h>

#include "err.h"
#include "kvm.h"

enum { CPUID_ENTRIES_MAX = 256 };

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

/* Read KVM's supported CPUID and adapt it. [setup] */
int cpuid_init(struct cpuid *cpuid, const struct kvm *kvm, unsigned cpu_count, const char *features, struct err *err);

/*
 * The two steps without KVM. Make a supported CPUID that of one package of `cpu_count` single-threaded cores with
 * the user's features; make that the CPUID of vCPU `index`, whose APIC id is `index`. [setup]
 */
int cpuid_adapt(struct cpuid *cpuid, unsigned cpu_count, const char *features, bool has_tsc_deadline, struct err *err);
void cpuid_set_apic_id(struct cpuid *cpuid, unsigned index);

/* Bits of a guest-physical address. */
unsigned cpuid_address_bits(const struct cpuid *cpuid);

/* Set it on vCPU `index`. [setup] */
int cpuid_set(const struct cpuid *cpuid, int vcpu_fd, unsigned index, struct err *err);
