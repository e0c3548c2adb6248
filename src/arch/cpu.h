/* What a CPU architecture gives to the machine floor. One directory under src/arch/ implements it. */
#pragma once

#include "err.h"
#include "kvm.h"
#include "loader/loader.h"
#include "log.h"

/* A "+name,-name" list, checked for form and known names only: needs no KVM. 0, or -EINVAL with a sentence. [setup] */
int cpu_features_check(const char *features, struct err *err);

/* What every vCPU of a VM has in common: its CPUID. NULL with `err` set. [setup] */
struct cpu_model *cpu_model_new(const struct kvm *kvm, unsigned cpu_count, const char *features, struct err *err);
void cpu_model_free(struct cpu_model *model);

/* How wide a guest-physical address is, in bits. */
unsigned cpu_model_address_bits(const struct cpu_model *model);

/* Give vCPU `index` its CPUID, MSRs and local APIC as after firmware. [setup] */
int cpu_init(const struct cpu_model *model, int vcpu_fd, unsigned index, const struct log *log, struct err *err);

/* Put the boot vCPU at the kernel's entry, as its boot protocol wants it. [setup] */
int cpu_set_boot_state(int vcpu_fd, struct gmem *gmem, const struct load_result *boot, struct err *err);

/* Log registers and the instruction bytes as error lines. [vcpu] */
void cpu_dump(int vcpu_fd, unsigned index, const struct gmem *gmem, const struct log *log);

/* Words for KVM_EXIT_INTERNAL_ERROR: what it is, and what the user can do about it. [vcpu] */
const char *cpu_internal_error_name(unsigned suberror);
const char *cpu_internal_error_hint(int vcpu_fd, const struct gmem *gmem);
