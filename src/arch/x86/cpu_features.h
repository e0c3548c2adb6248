/* Names of CPUID feature bits, as /proc/cpuinfo spells them, and the user's "+name,-name" list over them. */
#pragma once

#include <stdint.h>

#include "err.h"

enum cpuid_register {
	CPUID_EAX,
	CPUID_EBX,
	CPUID_ECX,
	CPUID_EDX,
};

struct cpu_feature {
	const char *name;
	uint32_t leaf, subleaf;
	enum cpuid_register reg;
	unsigned bit;
};

/* One item of the list; `fn` returns 0 to go on, or -errno, which becomes the result. */
struct cpu_feature_visitor {
	int (*fn)(void *ctx, const struct cpu_feature *feature, int on, struct err *err);
	void *ctx;
};

/* Walk a list (NULL: empty). -EINVAL with a sentence for a bad form or an unknown name. */
int cpu_features_walk(const char *list, struct cpu_feature_visitor visitor, struct err *err);
