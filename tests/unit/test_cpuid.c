/* The CPUID of a guest, from tables as KVM gives them on an Intel-like and an AMD-like host. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "arch/x86/cpuid.h"
#include "util.h"

static struct cpuid cpuid;

static void add(uint32_t leaf, uint32_t subleaf, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	cpuid.entries[cpuid.head.nent++] = (struct kvm_cpuid_entry2){
		.function = leaf, .index = subleaf, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx};
}

static const struct kvm_cpuid_entry2 *get(uint32_t leaf, uint32_t subleaf)
{
	const struct kvm_cpuid_entry2 *found = NULL;
	for (uint32_t i = 0; i < cpuid.head.nent; i++) {
		if (cpuid.entries[i].function == leaf && cpuid.entries[i].index == subleaf) {
			assert_null(found); /* no leaf twice */
			found = &cpuid.entries[i];
		}
	}
	return found;
}

/* The host: 2 threads per core, 16 in the package, APIC id 5. */
static void make_intel(void)
{
	cpuid.head.nent = 0;
	add(0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69);
	add(1, 0, 0x606a6, 0x05100800, 0x76fa3203 & ~(1U << 24), 0x0f8bfbff | 1 << 28);
	add(4, 0, 0x1c004121, 0, 0x3f, 0);   /* L1d: 2 threads, 8 cores */
	add(4, 1, 0x1c004122, 0, 0x3f, 0);   /* L1i */
	add(4, 2, 0x1c004143, 0, 0x3ff, 0);  /* L2 */
	add(4, 3, 0x1c03c163, 0, 0x7fff, 0); /* L3: 16 threads */
	add(4, 4, 0, 0, 0, 0);               /* no more */
	add(6, 0, 0x4, 0, 0x9, 0);           /* ARAT; APERF and EPB */
	add(7, 0, 1, 0xf1bf07ab, 0x40415f4e, 0xac004410);
	add(7, 1, 0x30, 0, 0, 0);
	add(0xa, 0, 0x08300805, 0, 0xf, 0x8604);
	add(0xb, 0, 0, 0, 0, 5);
	add(0xd, 1, 0xf, 0, 0, 0);
	add(0x1f, 0, 0, 0, 0, 5);
	add(0x40000001, 0, 0x01007efb, 0, 0, 0);
	add(0x80000001, 0, 0, 0, 0x121, 0x2c100800);
	add(0x80000008, 0, 0x3039, 0, 0, 0);
}

static void make_amd(void)
{
	cpuid.head.nent = 0;
	add(0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65);
	add(1, 0, 0xa20f12, 0x05100800, 0x76f8320b & ~(1U << 24), 0x178bfbff);
	add(7, 0, 0, 0x219c97a9, 0x0040068c, 0x10);
	add(0x40000001, 0, 0x01007efb, 0, 0, 0);
	add(0x80000001, 0, 0xa20f12, 0, 0x75c237ff, 0x2fd3fbff);
	add(0x80000008, 0, 0x3030, 0x111ef657, 0x400f, 0);
	add(0x8000001d, 0, 0x4121, 0x1c0003f, 0x3f, 0);    /* L1d: 2 threads */
	add(0x8000001d, 3, 0x3c163, 0x3c0003f, 0x7fff, 1); /* L3: 16 threads */
	add(0x8000001d, 4, 0, 0, 0, 0);
	add(0x8000001e, 0, 5, 0x102, 3, 0);
	add(0x80000022, 0, 1, 6, 0, 0);
}

static void adapt(void (*make)(void), unsigned cpus)
{
	make();
	assert_int_equal(cpuid_adapt(&cpuid, cpus, NULL, true, NULL), 0);
}

struct machine {
	unsigned cpus, bits;  /* bits of an APIC id that number the cores */
	unsigned addressable; /* leaf 1: ids in the package, at most 255 */
};

static const struct machine MACHINES[] = {{1, 0, 1},    {2, 1, 2},     {3, 2, 4},     {4, 2, 4},    {64, 6, 64},
					  {65, 7, 128}, {128, 7, 128}, {129, 8, 255}, {254, 8, 255}};

static uint32_t field(uint32_t value, unsigned high, unsigned low)
{
	return value >> low & (uint32_t)((1ULL << (high - low + 1)) - 1);
}

static void both_tell_the_same_package(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(MACHINES); i++) {
		const struct machine *m = &MACHINES[i];
		for (unsigned amd = 0; amd < 2; amd++) {
			adapt(amd ? make_amd : make_intel, m->cpus);
			assert_int_equal(field(get(1, 0)->ebx, 23, 16), m->addressable);
			assert_int_equal(field(get(1, 0)->ebx, 15, 8), 8); /* CLFLUSH stays */
			assert_int_equal(field(get(1, 0)->edx, 28, 28), m->cpus > 1);
		}
	}
}

static void intel_extended_topology(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(MACHINES); i++) {
		const struct machine *m = &MACHINES[i];
		adapt(make_intel, m->cpus);
		cpuid_set_apic_id(&cpuid, m->cpus - 1);
		for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb) {
			const struct kvm_cpuid_entry2 *smt = get(leaf, 0), *core = get(leaf, 1), *end = get(leaf, 2);
			assert_int_equal(smt->eax, 0); /* one thread: nothing to shift */
			assert_int_equal(smt->ebx, 1);
			assert_int_equal(smt->ecx, 1 << 8 | 0);
			assert_int_equal(core->eax, m->bits);
			assert_int_equal(core->ebx, m->cpus);
			assert_int_equal(core->ecx, 2 << 8 | 1);
			assert_int_equal(end->ebx, 0);
			assert_int_equal(field(end->ecx, 15, 8), 0);
			assert_null(get(leaf, 3));
			for (uint32_t level = 0; level < 3; level++) {
				assert_int_equal(get(leaf, level)->edx, m->cpus - 1);
				assert_true(get(leaf, level)->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
			}
			assert_int_equal((m->cpus - 1) >> core->eax, 0); /* all in package 0 */
		}
	}
}

static void intel_caches(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(MACHINES); i++) {
		const struct machine *m = &MACHINES[i];
		adapt(make_intel, m->cpus);
		for (uint32_t cache = 0; cache < 4; cache++) {
			uint32_t eax = get(4, cache)->eax;
			assert_int_equal(field(eax, 25, 14), cache == 3 ? (1U << m->bits) - 1 : 0);
			assert_int_equal(field(eax, 31, 26), min_u64((1U << m->bits) - 1, 63));
		}
		assert_int_equal(field(get(4, 0)->eax, 13, 0), 0x121); /* what the cache is stays */
		assert_int_equal(get(4, 4)->eax, 0);
	}
}

static void amd_cores_and_caches(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(MACHINES); i++) {
		const struct machine *m = &MACHINES[i];
		adapt(make_amd, m->cpus);
		cpuid_set_apic_id(&cpuid, m->cpus - 1);
		assert_int_equal(field(get(0x80000008, 0)->ecx, 7, 0), m->cpus - 1);
		assert_int_equal(field(get(0x80000008, 0)->ecx, 15, 12), m->bits);
		assert_int_equal(get(0x80000008, 0)->ebx, 0x111ef657);
		assert_int_equal(field(get(0x80000001, 0)->ecx, 1, 1), m->cpus > 1); /* CmpLegacy */
		assert_int_equal(field(get(0x8000001d, 0)->eax, 25, 14), 0);
		assert_int_equal(field(get(0x8000001d, 3)->eax, 25, 14), (1U << m->bits) - 1);
		assert_int_equal(get(0x8000001d, 4)->eax, 0);
		assert_int_equal(get(0x8000001e, 0)->eax, m->cpus - 1);
		assert_int_equal(get(0x8000001e, 0)->ebx, m->cpus - 1); /* one thread per core */
		assert_int_equal(get(0x8000001e, 0)->ecx, 0);           /* one node */
		assert_null(get(0xb, 0));                               /* none is made up */
	}
}

/* On Intel these bits are reserved, and cmp_legacy makes Linux skip its own counting. */
static void intel_has_nothing_of_amds(void **state)
{
	(void)state;
	adapt(make_intel, 4);
	assert_int_equal(get(0x80000008, 0)->ecx, 0);
	assert_int_equal(get(0x80000001, 0)->ecx, 0x121);
}

static void every_vcpu_has_its_own_id(void **state)
{
	(void)state;
	for (unsigned index = 0; index < 254; index++) {
		adapt(make_intel, 254);
		cpuid_set_apic_id(&cpuid, index);
		assert_int_equal(field(get(1, 0)->ebx, 31, 24), index);
		cpuid_set_apic_id(&cpuid, 3); /* sets, does not add */
		assert_int_equal(field(get(1, 0)->ebx, 31, 24), 3);
		assert_int_equal(get(0xb, 2)->edx, 3);
	}
}

static void what_a_guest_gets_and_does_not_get(void **state)
{
	(void)state;
	adapt(make_intel, 2);
	assert_int_equal(field(get(1, 0)->ecx, 31, 31), 1); /* hypervisor */
	assert_int_equal(field(get(1, 0)->ecx, 24, 24), 1); /* TSC deadline: KVM has it without saying so */
	assert_int_equal(field(get(1, 0)->ecx, 15, 15), 0); /* PDCM */
	assert_int_equal(get(6, 0)->ecx, 1);
	assert_int_equal(get(6, 0)->eax, 4);
	assert_int_equal(get(0xa, 0)->eax | get(0xa, 0)->ecx | get(0xa, 0)->edx, 0);
	assert_int_equal(cpuid_address_bits(&cpuid), 0x39);

	adapt(make_amd, 2);
	assert_int_equal(get(0x80000022, 0)->eax | get(0x80000022, 0)->ebx, 0);
	assert_int_equal(field(get(0x80000001, 0)->ecx, 24, 23), 0);
	assert_int_equal(field(get(0x80000001, 0)->ecx, 28, 28), 0);
	assert_int_equal(cpuid_address_bits(&cpuid), 0x30);

	make_intel();
	assert_int_equal(cpuid_adapt(&cpuid, 2, NULL, false, NULL), 0);
	assert_int_equal(field(get(1, 0)->ecx, 24, 24), 0);

	cpuid.head.nent = 0; /* a table with nothing in it */
	assert_int_equal(cpuid_adapt(&cpuid, 2, NULL, true, NULL), 0);
	assert_int_equal(cpuid_address_bits(&cpuid), 36);
}

static void features_are_masked(void **state)
{
	(void)state;
	make_intel();
	assert_int_equal(field(get(7, 0)->ebx, 5, 5), 1);
	assert_int_equal(cpuid_adapt(&cpuid, 1, "-avx2,+avx,-tsc_deadline_timer,-avx_vnni,-xop", true, NULL), 0);
	assert_int_equal(field(get(7, 0)->ebx, 5, 5), 0);
	assert_int_equal(field(get(1, 0)->ecx, 28, 28), 1);
	assert_int_equal(field(get(1, 0)->ecx, 24, 24), 0); /* after our own additions */
	assert_int_equal(field(get(7, 1)->eax, 4, 4), 0);
	assert_int_equal(field(get(7, 1)->eax, 5, 5), 1);
}

/* Linux takes the older clock when only the newer is missing. */
static void kvmclock_is_two_bits(void **state)
{
	(void)state;
	make_intel();
	assert_int_equal(cpuid_adapt(&cpuid, 1, "+kvmclock", true, NULL), 0);
	make_intel();
	assert_int_equal(cpuid_adapt(&cpuid, 1, "-kvmclock", true, NULL), 0);
	assert_int_equal(get(0x40000001, 0)->eax, 0x01007efb & ~9U);
}

static void what_the_host_lacks_cannot_be_had(void **state)
{
	(void)state;
	struct err err;
	make_amd();
	assert_int_equal(cpuid_adapt(&cpuid, 1, "-avx2,+avx_vnni", true, &err), -EINVAL);
	assert_string_equal(err.text, "CPU features: KVM on this host does not offer 'avx_vnni'");
	assert_int_equal(err.kind, ERR_CONFIG);
	make_amd();
	assert_int_equal(cpuid_adapt(&cpuid, 1, "+vmx", true, &err), -EINVAL);
}

/* KVM's largest table: our leaves do not overrun it. */
static void a_full_table(void **state)
{
	(void)state;
	make_intel();
	while (cpuid.head.nent < CPUID_ENTRIES_MAX)
		add(0x90000000 + cpuid.head.nent, 0, 0, 0, 0, 0);
	assert_int_equal(cpuid_adapt(&cpuid, 4, NULL, true, NULL), 0);
	assert_int_equal(cpuid.head.nent, CPUID_ENTRIES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_tell_the_same_package),
		cmocka_unit_test(intel_extended_topology),
		cmocka_unit_test(intel_caches),
		cmocka_unit_test(amd_cores_and_caches),
		cmocka_unit_test(intel_has_nothing_of_amds),
		cmocka_unit_test(every_vcpu_has_its_own_id),
		cmocka_unit_test(what_a_guest_gets_and_does_not_get),
		cmocka_unit_test(features_are_masked),
		cmocka_unit_test(kvmclock_is_two_bits),
		cmocka_unit_test(what_the_host_lacks_cannot_be_had),
		cmocka_unit_test(a_full_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
