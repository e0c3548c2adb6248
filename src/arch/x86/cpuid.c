#include "arch/x86/cpuid.h"

#include <errno.h>

#include "arch/x86/cpu_features.h"
#include "util.h"

/* Intel SDM volume 2 and AMD APM volume 3, CPUID leaves. */
enum {
	LEAF_VENDOR = 0x0,
	LEAF_FEATURES = 0x1,
	LEAF_CACHES = 0x4, /* Intel: deterministic cache parameters */
	LEAF_POWER = 0x6,
	LEAF_PERFMON = 0xa,
	LEAF_TOPOLOGY = 0xb,
	LEAF_TOPOLOGY_V2 = 0x1f,

	FEATURES_EBX_CLFLUSH_MASK = 0xffff,
	FEATURES_ECX_PDCM = 1 << 15,
	FEATURES_ECX_TSC_DEADLINE = 1 << 24,
	FEATURES_EDX_HTT = 1 << 28,
	POWER_ECX_EPB = 1 << 3,

	CACHE_TYPE_MASK = 0x1f, /* EAX */
	CACHE_LEVEL_SHIFT = 5,
	CACHE_SHARING_SHIFT = 14, /* EAX 25:14: threads that share it, less one */
	CACHE_CORES_SHIFT = 26,   /* EAX 31:26: cores in the package, less one */

	TOPOLOGY_TYPE_SMT = 1,
	TOPOLOGY_TYPE_CORE = 2,
	TOPOLOGY_TYPE_SHIFT = 8, /* ECX */

	EXT_ECX_CMP_LEGACY = 1 << 1,
	EXT_ECX_PERFCTR_CORE = 1 << 23,
	EXT_ECX_PERFCTR_NB = 1 << 24,
	EXT_ECX_PERFCTR_LLC = 1 << 28,
};
#define VENDOR_EBX_AMD          0x68747541U /* "Auth"enticAMD */
#define VENDOR_EBX_HYGON        0x6f677948U /* "Hygo"nGenuine */
#define FEATURES_ECX_HYPERVISOR (1U << 31)
#define LEAF_EXT_FEATURES       0x80000001U
#define LEAF_EXT_SIZES          0x80000008U
#define LEAF_EXT_CACHES         0x8000001dU /* AMD's leaf 4 */
#define LEAF_EXT_TOPOLOGY       0x8000001eU
#define LEAF_EXT_PERFMON        0x80000022U

/* Bits of an APIC id that number the cores: ceil(log2(count)). */
static unsigned core_bits(unsigned cpu_count)
{
	unsigned bits = 0;
	while ((1U << bits) < cpu_count)
		bits++;
	return bits;
}

static struct kvm_cpuid_entry2 *find(struct cpuid *cpuid, uint32_t leaf, uint32_t subleaf)
{
	for (uint32_t i = 0; i < cpuid->head.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
		if (entry->function == leaf && entry->index == subleaf)
			return entry;
	}
	return NULL;
}

static void remove_leaf(struct cpuid *cpuid, uint32_t leaf)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < cpuid->head.nent; i++) {
		if (cpuid->entries[i].function != leaf)
			cpuid->entries[kept++] = cpuid->entries[i];
	}
	cpuid->head.nent = kept;
}

static void append(struct cpuid *cpuid, struct kvm_cpuid_entry2 entry)
{
	if (cpuid->head.nent < CPUID_ENTRIES_MAX)
		cpuid->entries[cpuid->head.nent++] = entry;
}

/* --- topology: one package, `cpu_count` cores, one thread each ------------------------------------------- */

static void set_extended_topology(struct cpuid *cpuid, uint32_t leaf, unsigned cpu_count)
{
	remove_leaf(cpuid, leaf);
	append(cpuid, (struct kvm_cpuid_entry2){
			      .function = leaf,
			      .index = 0,
			      .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			      .eax = 0,
			      .ebx = 1,
			      .ecx = TOPOLOGY_TYPE_SMT << TOPOLOGY_TYPE_SHIFT,
		      });
	append(cpuid, (struct kvm_cpuid_entry2){
			      .function = leaf,
			      .index = 1,
			      .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			      .eax = core_bits(cpu_count),
			      .ebx = cpu_count,
			      .ecx = TOPOLOGY_TYPE_CORE << TOPOLOGY_TYPE_SHIFT | 1,
		      });
	append(cpuid, (struct kvm_cpuid_entry2){
			      .function = leaf,
			      .index = 2,
			      .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			      .ecx = 2,
		      });
}

/* Levels 1 and 2 belong to a core, what is above to the package. */
static void set_cache_sharing(struct kvm_cpuid_entry2 *entry, unsigned cpu_count)
{
	if (!(entry->eax & CACHE_TYPE_MASK))
		return;
	unsigned level = entry->eax >> CACHE_LEVEL_SHIFT & 7;
	uint32_t sharing = level >= 3 ? (1U << core_bits(cpu_count)) - 1 : 0;
	uint32_t cores = (uint32_t)min_u64((1U << core_bits(cpu_count)) - 1, 63);
	entry->eax &= (1U << CACHE_SHARING_SHIFT) - 1;
	entry->eax |= sharing << CACHE_SHARING_SHIFT;
	if (entry->function == LEAF_CACHES)
		entry->eax |= cores << CACHE_CORES_SHIFT;
}

static void set_features(struct kvm_cpuid_entry2 *entry, bool has_tsc_deadline, unsigned cpu_count)
{
	entry->ebx &= FEATURES_EBX_CLFLUSH_MASK;
	entry->ebx |= (uint32_t)min_u64(1U << core_bits(cpu_count), 255) << 16;
	entry->ecx |= FEATURES_ECX_HYPERVISOR;
	entry->ecx &= ~(uint32_t)FEATURES_ECX_PDCM;
	if (has_tsc_deadline)
		entry->ecx |= FEATURES_ECX_TSC_DEADLINE;
	entry->edx &= ~(uint32_t)FEATURES_EDX_HTT;
	if (cpu_count > 1)
		entry->edx |= FEATURES_EDX_HTT;
}

/* AMD's ways to tell the number of cores; the bits are reserved elsewhere. */
static void set_amd_cores(struct kvm_cpuid_entry2 *entry, unsigned cpu_count)
{
	if (entry->function == LEAF_EXT_SIZES) { /* ECX 15:12: APIC id bits, 7:0: cores less one */
		entry->ecx = core_bits(cpu_count) << 12 | (cpu_count - 1);
	} else if (entry->function == LEAF_EXT_FEATURES) {
		entry->ecx &= ~(uint32_t)EXT_ECX_CMP_LEGACY;
		if (cpu_count > 1)
			entry->ecx |= EXT_ECX_CMP_LEGACY;
	}
}

/* No performance counters: their MSRs differ from host to host, and a guest that is moved would lose them. */
static void adapt_entry(struct kvm_cpuid_entry2 *entry, bool has_tsc_deadline, unsigned cpu_count)
{
	switch (entry->function) {
	case LEAF_FEATURES:
		set_features(entry, has_tsc_deadline, cpu_count);
		break;
	case LEAF_CACHES:
	case LEAF_EXT_CACHES:
		set_cache_sharing(entry, cpu_count);
		break;
	case LEAF_POWER:
		entry->ecx &= ~(uint32_t)POWER_ECX_EPB;
		break;
	case LEAF_PERFMON:
	case LEAF_EXT_PERFMON:
		entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
		break;
	case LEAF_EXT_FEATURES:
		entry->ecx &= ~(uint32_t)(EXT_ECX_PERFCTR_CORE | EXT_ECX_PERFCTR_NB | EXT_ECX_PERFCTR_LLC);
		break;
	default:
		break;
	}
}

/* --- the user's mask ----------------------------------------------------------------------------------- */

static uint32_t *feature_register(struct kvm_cpuid_entry2 *entry, enum cpuid_register reg)
{
	switch (reg) {
	case CPUID_EAX:
		return &entry->eax;
	case CPUID_EBX:
		return &entry->ebx;
	case CPUID_ECX:
		return &entry->ecx;
	default:
		return &entry->edx;
	}
}

static int apply_feature(void *ctx, const struct cpu_feature *feature, int on, struct err *err)
{
	struct kvm_cpuid_entry2 *entry = find(ctx, feature->leaf, feature->subleaf);
	uint32_t bit = 1U << feature->bit;
	bool supported = entry && *feature_register(entry, feature->reg) & bit;
	if (on && !supported)
		return err_config(err, -EINVAL, "CPU features: KVM on this host does not offer '%s'", feature->name);
	if (!on && supported)
		*feature_register(entry, feature->reg) &= ~bit;
	return 0;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static bool is_amd(struct cpuid *cpuid)
{
	const struct kvm_cpuid_entry2 *vendor = find(cpuid, LEAF_VENDOR, 0);
	return vendor && (vendor->ebx == VENDOR_EBX_AMD || vendor->ebx == VENDOR_EBX_HYGON);
}

int cpuid_adapt(struct cpuid *cpuid, unsigned cpu_count, const char *features, bool has_tsc_deadline, struct err *err)
{
	bool amd = is_amd(cpuid);
	for (uint32_t i = 0; i < cpuid->head.nent; i++) {
		adapt_entry(&cpuid->entries[i], has_tsc_deadline, cpu_count);
		if (amd)
			set_amd_cores(&cpuid->entries[i], cpu_count);
	}
	if (find(cpuid, LEAF_TOPOLOGY, 0))
		set_extended_topology(cpuid, LEAF_TOPOLOGY, cpu_count);
	if (find(cpuid, LEAF_TOPOLOGY_V2, 0))
		set_extended_topology(cpuid, LEAF_TOPOLOGY_V2, cpu_count);
	return cpu_features_walk(features, (struct cpu_feature_visitor){apply_feature, cpuid}, err);
}

int cpuid_init(struct cpuid *cpuid, const struct kvm *kvm, unsigned cpu_count, const char *features, struct err *err)
{
	cpuid->head = (struct kvm_cpuid2){.nent = CPUID_ENTRIES_MAX};
	int r = kvm_ioctl(kvm->system_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
	if (r < 0)
		return err_kvm(err, r, "KVM_GET_SUPPORTED_CPUID: %s", err_name(r));

	int deadline = kvm_ioctl_value(kvm->system_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER);
	return cpuid_adapt(cpuid, cpu_count, features, deadline > 0, err);
}

unsigned cpuid_address_bits(const struct cpuid *cpuid)
{
	for (uint32_t i = 0; i < cpuid->head.nent; i++) {
		if (cpuid->entries[i].function == LEAF_EXT_SIZES)
			return cpuid->entries[i].eax & 0xff;
	}
	return 36; /* Intel SDM volume 3, 4.1.4: what a CPU without the leaf has */
}

/* The few fields that carry the vCPU's own APIC id. */
static void set_entry_apic_id(struct kvm_cpuid_entry2 *entry, unsigned apic_id)
{
	switch (entry->function) {
	case LEAF_FEATURES:
		entry->ebx = (entry->ebx & 0xffffff) | apic_id << 24;
		break;
	case LEAF_TOPOLOGY:
	case LEAF_TOPOLOGY_V2:
		entry->edx = apic_id;
		break;
	case LEAF_EXT_TOPOLOGY: /* EAX: extended APIC id, EBX 7:0: core id, 15:8: threads less one; one node */
		entry->eax = apic_id;
		entry->ebx = apic_id & 0xff;
		entry->ecx = 0;
		break;
	default:
		break;
	}
}

void cpuid_set_apic_id(struct cpuid *cpuid, unsigned index)
{
	for (uint32_t i = 0; i < cpuid->head.nent; i++)
		set_entry_apic_id(&cpuid->entries[i], index);
}

int cpuid_set(const struct cpuid *cpuid, int vcpu_fd, unsigned index, struct err *err)
{
	struct cpuid own = *cpuid;
	cpuid_set_apic_id(&own, index);
	int r = kvm_ioctl(vcpu_fd, KVM_SET_CPUID2, &own);
	return r < 0 ? err_kvm(err, r, "KVM_SET_CPUID2 of vCPU %u: %s", index, err_name(r)) : 0;
}
