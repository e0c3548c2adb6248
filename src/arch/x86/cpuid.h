/* The CPUID that a guest sees: what KVM supports here, with our topology and the user's mask. */
#pragma once

#include "err.h"
#include "kvm.h"

enum { CPUID_ENTRIES_MAX = 256 };

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

/* Read KVM's supported CPUID and make it that of one package of `cpu_count` single-threaded cores. [setup] */
int cpuid_init(struct cpuid *cpuid, const struct kvm *kvm, unsigned cpu_count, const char *features, struct err *err);

/* Bits of a guest-physical address. */
unsigned cpuid_address_bits(const struct cpuid *cpuid);

/* Set it on vCPU `index`, whose APIC id is `index`. [setup] */
int cpuid_set(const struct cpuid *cpuid, int vcpu_fd, unsigned index, struct err *err);
