#include "arch/x86/cpu_features.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "util.h"

/* Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; KVM's own leaf: Linux Documentation/virt/kvm/x86/cpuid.rst.
 */
static const struct cpu_feature FEATURES[] = {
	{"pni", 0x1, 0, CPUID_ECX, 0},
	{"sse3", 0x1, 0, CPUID_ECX, 0},
	{"pclmulqdq", 0x1, 0, CPUID_ECX, 1},
	{"vmx", 0x1, 0, CPUID_ECX, 5},
	{"ssse3", 0x1, 0, CPUID_ECX, 9},
	{"fma", 0x1, 0, CPUID_ECX, 12},
	{"cx16", 0x1, 0, CPUID_ECX, 13},
	{"pcid", 0x1, 0, CPUID_ECX, 17},
	{"sse4_1", 0x1, 0, CPUID_ECX, 19},
	{"sse4_2", 0x1, 0, CPUID_ECX, 20},
	{"x2apic", 0x1, 0, CPUID_ECX, 21},
	{"movbe", 0x1, 0, CPUID_ECX, 22},
	{"popcnt", 0x1, 0, CPUID_ECX, 23},
	{"tsc_deadline_timer", 0x1, 0, CPUID_ECX, 24},
	{"aes", 0x1, 0, CPUID_ECX, 25},
	{"xsave", 0x1, 0, CPUID_ECX, 26},
	{"avx", 0x1, 0, CPUID_ECX, 28},
	{"f16c", 0x1, 0, CPUID_ECX, 29},
	{"rdrand", 0x1, 0, CPUID_ECX, 30},
	{"hypervisor", 0x1, 0, CPUID_ECX, 31},
	{"tsc", 0x1, 0, CPUID_EDX, 4},
	{"mce", 0x1, 0, CPUID_EDX, 7},
	{"cx8", 0x1, 0, CPUID_EDX, 8},
	{"sep", 0x1, 0, CPUID_EDX, 11},
	{"mtrr", 0x1, 0, CPUID_EDX, 12},
	{"pge", 0x1, 0, CPUID_EDX, 13},
	{"mca", 0x1, 0, CPUID_EDX, 14},
	{"pat", 0x1, 0, CPUID_EDX, 16},
	{"pse36", 0x1, 0, CPUID_EDX, 17},
	{"clflush", 0x1, 0, CPUID_EDX, 19},
	{"mmx", 0x1, 0, CPUID_EDX, 23},
	{"fxsr", 0x1, 0, CPUID_EDX, 24},
	{"sse", 0x1, 0, CPUID_EDX, 25},
	{"sse2", 0x1, 0, CPUID_EDX, 26},
	{"arat", 0x6, 0, CPUID_EAX, 2},
	{"fsgsbase", 0x7, 0, CPUID_EBX, 0},
	{"tsc_adjust", 0x7, 0, CPUID_EBX, 1},
	{"sgx", 0x7, 0, CPUID_EBX, 2},
	{"bmi1", 0x7, 0, CPUID_EBX, 3},
	{"hle", 0x7, 0, CPUID_EBX, 4},
	{"avx2", 0x7, 0, CPUID_EBX, 5},
	{"smep", 0x7, 0, CPUID_EBX, 7},
	{"bmi2", 0x7, 0, CPUID_EBX, 8},
	{"erms", 0x7, 0, CPUID_EBX, 9},
	{"invpcid", 0x7, 0, CPUID_EBX, 10},
	{"rtm", 0x7, 0, CPUID_EBX, 11},
	{"avx512f", 0x7, 0, CPUID_EBX, 16},
	{"avx512dq", 0x7, 0, CPUID_EBX, 17},
	{"rdseed", 0x7, 0, CPUID_EBX, 18},
	{"adx", 0x7, 0, CPUID_EBX, 19},
	{"smap", 0x7, 0, CPUID_EBX, 20},
	{"clflushopt", 0x7, 0, CPUID_EBX, 23},
	{"clwb", 0x7, 0, CPUID_EBX, 24},
	{"avx512cd", 0x7, 0, CPUID_EBX, 28},
	{"sha_ni", 0x7, 0, CPUID_EBX, 29},
	{"avx512bw", 0x7, 0, CPUID_EBX, 30},
	{"avx512vl", 0x7, 0, CPUID_EBX, 31},
	{"umip", 0x7, 0, CPUID_ECX, 2},
	{"pku", 0x7, 0, CPUID_ECX, 3},
	{"waitpkg", 0x7, 0, CPUID_ECX, 5},
	{"gfni", 0x7, 0, CPUID_ECX, 8},
	{"vaes", 0x7, 0, CPUID_ECX, 9},
	{"vpclmulqdq", 0x7, 0, CPUID_ECX, 10},
	{"la57", 0x7, 0, CPUID_ECX, 16},
	{"rdpid", 0x7, 0, CPUID_ECX, 22},
	{"fsrm", 0x7, 0, CPUID_EDX, 4},
	{"md_clear", 0x7, 0, CPUID_EDX, 10},
	{"serialize", 0x7, 0, CPUID_EDX, 14},
	{"spec_ctrl", 0x7, 0, CPUID_EDX, 26},
	{"intel_stibp", 0x7, 0, CPUID_EDX, 27},
	{"flush_l1d", 0x7, 0, CPUID_EDX, 28},
	{"arch_capabilities", 0x7, 0, CPUID_EDX, 29},
	{"ssbd", 0x7, 0, CPUID_EDX, 31},
	{"avx_vnni", 0x7, 1, CPUID_EAX, 4},
	{"xsaveopt", 0xd, 1, CPUID_EAX, 0},
	{"xsavec", 0xd, 1, CPUID_EAX, 1},
	{"xgetbv1", 0xd, 1, CPUID_EAX, 2},
	{"xsaves", 0xd, 1, CPUID_EAX, 3},
	{"kvmclock", 0x40000001, 0, CPUID_EAX, 0}, /* the same by its older MSRs: Linux falls back to them */
	{"kvmclock", 0x40000001, 0, CPUID_EAX, 3},
	{"kvm_asyncpf", 0x40000001, 0, CPUID_EAX, 4},
	{"kvm_steal_time", 0x40000001, 0, CPUID_EAX, 5},
	{"kvm_pv_eoi", 0x40000001, 0, CPUID_EAX, 6},
	{"kvm_pv_unhalt", 0x40000001, 0, CPUID_EAX, 7},
	{"kvm_pv_tlb_flush", 0x40000001, 0, CPUID_EAX, 9},
	{"kvm_pv_send_ipi", 0x40000001, 0, CPUID_EAX, 11},
	{"lahf_lm", 0x80000001, 0, CPUID_ECX, 0},
	{"svm", 0x80000001, 0, CPUID_ECX, 2},
	{"abm", 0x80000001, 0, CPUID_ECX, 5},
	{"sse4a", 0x80000001, 0, CPUID_ECX, 6},
	{"misalignsse", 0x80000001, 0, CPUID_ECX, 7},
	{"3dnowprefetch", 0x80000001, 0, CPUID_ECX, 8},
	{"xop", 0x80000001, 0, CPUID_ECX, 11},
	{"fma4", 0x80000001, 0, CPUID_ECX, 16},
	{"topoext", 0x80000001, 0, CPUID_ECX, 22},
	{"syscall", 0x80000001, 0, CPUID_EDX, 11},
	{"nx", 0x80000001, 0, CPUID_EDX, 20},
	{"pdpe1gb", 0x80000001, 0, CPUID_EDX, 26},
	{"rdtscp", 0x80000001, 0, CPUID_EDX, 27},
	{"lm", 0x80000001, 0, CPUID_EDX, 29},
	{"constant_tsc", 0x80000007, 0, CPUID_EDX, 8},
	{"nonstop_tsc", 0x80000007, 0, CPUID_EDX, 8},
	{"clzero", 0x80000008, 0, CPUID_EBX, 0},
	{"xsaveerptr", 0x80000008, 0, CPUID_EBX, 2},
	{"wbnoinvd", 0x80000008, 0, CPUID_EBX, 9},
	{"ibpb", 0x80000008, 0, CPUID_EBX, 12},
	{"ibrs", 0x80000008, 0, CPUID_EBX, 14},
	{"stibp", 0x80000008, 0, CPUID_EBX, 15},
	{"virt_ssbd", 0x80000008, 0, CPUID_EBX, 25},
};

static bool is_named(const struct cpu_feature *feature, const char *name, size_t length)
{
	return strlen(feature->name) == length && !memcmp(feature->name, name, length);
}

/* A name may stand for several bits. */
static int visit(const char *item, size_t length, struct cpu_feature_visitor visitor, struct err *err)
{
	bool found = false;
	for (size_t i = 0; i < ARRAY_SIZE(FEATURES); i++) {
		if (!is_named(&FEATURES[i], item + 1, length - 1))
			continue;
		found = true;
		int r = visitor.fn(visitor.ctx, &FEATURES[i], item[0] == '+', err);
		if (r < 0)
			return r;
	}
	return found ? 0
		     : err_config(err, -EINVAL,
				  "CPU features: vmlet does not know '%.*s'; names are those of flags in /proc/cpuinfo",
				  (int)min_u64(length - 1, 64), item + 1);
}

static int walk_item(const char *item, size_t length, struct cpu_feature_visitor visitor, struct err *err)
{
	if (length < 2 || (item[0] != '+' && item[0] != '-'))
		return err_config(err, -EINVAL, "CPU features: '%.*s' is not +NAME or -NAME", (int)min_u64(length, 64),
				  item);
	return visit(item, length, visitor, err);
}

int cpu_features_walk(const char *list, struct cpu_feature_visitor visitor, struct err *err)
{
	if (!list || !*list)
		return 0;
	for (;;) {
		size_t length = strcspn(list, ",");
		int r = walk_item(list, length, visitor, err);
		if (r < 0 || !list[length])
			return r;
		list += length + 1; /* after a comma there is an item */
	}
}
