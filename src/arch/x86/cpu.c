#include "arch/cpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86/bootregs.h"
#include "arch/x86/cpu_features.h"
#include "arch/x86/cpuid.h"
#include "arch/x86/irqchip.h"
#include "arch/x86/msr.h"
#include "util.h"

struct cpu_model {
	struct cpuid cpuid;
};

static int accept_feature(void *ctx, const struct cpu_feature *feature, int on, struct err *err)
{
	(void)ctx;
	(void)feature;
	(void)on;
	(void)err;
	return 0;
}

int cpu_features_check(const char *features, struct err *err)
{
	return cpu_features_walk(features, (struct cpu_feature_visitor){accept_feature, NULL}, err);
}

struct cpu_model *cpu_model_new(const struct kvm *kvm, unsigned cpu_count, const char *features, struct err *err)
{
	struct cpu_model *model = malloc(sizeof(*model));
	if (!model) {
		err_set(err, -ENOMEM, "vCPUs: %s", err_name(ENOMEM));
		return NULL;
	}
	if (cpuid_init(&model->cpuid, kvm, cpu_count, features, err) < 0) {
		free(model);
		return NULL;
	}
	return model;
}

void cpu_model_free(struct cpu_model *model)
{
	free(model);
}

unsigned cpu_model_address_bits(const struct cpu_model *model)
{
	return cpuid_address_bits(&model->cpuid);
}

int cpu_init(const struct cpu_model *model, int vcpu_fd, unsigned index, const struct log *log, struct err *err)
{
	int r = cpuid_set(&model->cpuid, vcpu_fd, index, err);
	if (r == 0)
		r = msr_init(vcpu_fd, log, err);
	if (r == 0)
		r = irqchip_init_lapic(vcpu_fd, err);
	return r;
}

int cpu_set_boot_state(int vcpu_fd, struct gmem *gmem, const struct load_result *boot, struct err *err)
{
	return bootregs_set(vcpu_fd, gmem, boot, err);
}
