/*
 * Prints what CPUID says. signature=TEXT: the hypervisor's; present=a,b and absent=a,b: features by name.
 * Statuses: 1 APIC ids differ, 2 signature, 3 a feature is missing, 4 a feature is there, 5 name not known.
 */
#include "guest.h"

enum reg { A, B, C, D };
static const struct feature {
	const char *name;
	uint32_t leaf, sub;
	enum reg reg;
	unsigned bit;
} features[] = {
	{"apic", 1, 0, D, 9},
	{"sse2", 1, 0, D, 26},
	{"ht", 1, 0, D, 28},
	{"sse3", 1, 0, C, 0},
	{"vmx", 1, 0, C, 5},
	{"ssse3", 1, 0, C, 9},
	{"cx16", 1, 0, C, 13},
	{"pcid", 1, 0, C, 17},
	{"sse4.2", 1, 0, C, 20},
	{"x2apic", 1, 0, C, 21},
	{"popcnt", 1, 0, C, 23},
	{"tsc-deadline", 1, 0, C, 24},
	{"aes", 1, 0, C, 25},
	{"xsave", 1, 0, C, 26},
	{"osxsave", 1, 0, C, 27},
	{"avx", 1, 0, C, 28},
	{"rdrand", 1, 0, C, 30},
	{"hypervisor", 1, 0, C, 31},
	{"fsgsbase", 7, 0, B, 0},
	{"bmi1", 7, 0, B, 3},
	{"avx2", 7, 0, B, 5},
	{"smep", 7, 0, B, 7},
	{"bmi2", 7, 0, B, 8},
	{"erms", 7, 0, B, 9},
	{"invpcid", 7, 0, B, 10},
	{"avx512f", 7, 0, B, 16},
	{"smap", 7, 0, B, 20},
	{"umip", 7, 0, C, 2},
	{"la57", 7, 0, C, 16},
	{"arch-capabilities", 7, 0, D, 29},
	{"xsaveopt", 0xd, 1, A, 0},
	{"syscall", 0x80000001, 0, D, 11},
	{"nx", 0x80000001, 0, D, 20},
	{"pdpe1gb", 0x80000001, 0, D, 26},
	{"rdtscp", 0x80000001, 0, D, 27},
	{"lm", 0x80000001, 0, D, 29},
	{"svm", 0x80000001, 0, C, 2},
	{"topoext", 0x80000001, 0, C, 22},
	{"invtsc", 0x80000007, 0, D, 8},
};
enum { FEATURES = sizeof(features) / sizeof(features[0]) };

static bool has(const struct feature *f)
{
	struct cpuid c;

	if (cpuid(f->leaf & 0x80000000, 0).a < f->leaf)
		return false;
	c = cpuid(f->leaf, f->sub);
	return (f->reg == A ? c.a : f->reg == B ? c.b : f->reg == C ? c.c : c.d) >> f->bit & 1;
}

static void check_list(const char *arg, bool want, uint8_t status)
{
	char list[128], *p = list;

	for (arg_str(arg, list, sizeof(list)); *p;) {
		char *name = p;
		int i;

		while (*p && *p != ',')
			p++;
		if (*p)
			*p++ = 0;
		for (i = 0; i < FEATURES && !str_equal(features[i].name, name); i++)
			;
		check(i < FEATURES, 5, "%s is a feature's name", name);
		check(has(&features[i]) == want, status, "%s is %s", name, want ? "there" : "not there");
	}
}

static void print_regs(const char *what, char *text, uint32_t x, uint32_t y, uint32_t z)
{
	memcpy(text, &x, 4);
	memcpy(text + 4, &y, 4);
	memcpy(text + 8, &z, 4);
	print("%s '%s'\n", what, text);
}

int guest_main(void)
{
	struct cpuid v = cpuid(0, 0), one = cpuid(1, 0), h = cpuid(0x40000000, 0);
	char text[13] = {0};

	print("max leaf 0x%x, extended 0x%x, version %08x\n", v.a, cpuid(0x80000000, 0).a, one.a);
	print_regs("vendor", text, v.b, v.d, v.c);
	print_regs("hypervisor", text, h.b, h.c, h.d);
	print("hypervisor max leaf 0x%x, features 0x%x\n", h.a, cpuid(0x40000001, 0).a);
	print("leaf 1: APIC id %u, logical CPUs %u\n", one.b >> 24, one.b >> 16 & 0xff);
	check(lapic_id() == one.b >> 24, 1, "the local APIC says %u", lapic_id());
	for (uint32_t sub = 0; v.a >= 0xb && sub < 3; sub++) {
		struct cpuid t = cpuid(0xb, sub);
		print("leaf 0xb.%u: type %u, shift %u, CPUs %u, x2APIC id %u\n", sub, t.c >> 8 & 0xff, t.a, t.b, t.d);
	}
	print("features:");
	for (int i = 0; i < FEATURES; i++)
		if (has(&features[i]))
			print(" %s", features[i].name);
	print("\n");
	if (arg_has("signature"))
		check(arg_is("signature", text), 2, "the hypervisor's signature");
	check_list("present", true, 3);
	check_list("absent", false, 4);
	return 0;
}
