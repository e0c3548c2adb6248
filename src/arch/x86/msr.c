#include "arch/x86/msr.h"

#include <errno.h>

#include "kvm.h"
#include "util.h"

/* Intel SDM volume 4, AMD APM volume 2 appendix A. */
enum {
	MSR_IA32_MISC_ENABLE = 0x1a0,
	MISC_ENABLE_FAST_STRING = 1 << 0,
	MSR_IA32_MTRR_DEF_TYPE = 0x2ff,
	MTRR_DEF_TYPE_WRITE_BACK = 6,
	MTRR_DEF_TYPE_ENABLE = 1 << 11,
};

static const struct kvm_msr_entry BOOT_MSRS[] = {
	{.index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING},
	/* Without firmware's MTRRs a kernel would take all of RAM for uncached. */
	{.index = MSR_IA32_MTRR_DEF_TYPE, .data = MTRR_DEF_TYPE_ENABLE | MTRR_DEF_TYPE_WRITE_BACK},
};

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[ARRAY_SIZE(BOOT_MSRS)];
};

static int set_one(int vcpu_fd, struct kvm_msr_entry entry)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} list = {.head = {.nmsrs = 1}, .entry = entry};
	return kvm_ioctl(vcpu_fd, KVM_SET_MSRS, &list);
}

int msr_init(int vcpu_fd, const struct log *log, struct err *err)
{
	struct msr_list list = {.head = {.nmsrs = ARRAY_SIZE(BOOT_MSRS)}};
	memcpy(list.entries, BOOT_MSRS, sizeof(BOOT_MSRS));
	int set = kvm_ioctl(vcpu_fd, KVM_SET_MSRS, &list);
	if (set == (int)ARRAY_SIZE(BOOT_MSRS))
		return 0;
	if (set < 0 && set != -EINVAL)
		return err_kvm(err, set, "KVM_SET_MSRS: %s", err_name(set));

	/* The batch stops at the first refusal; go on one by one. */
	for (size_t i = 0; i < ARRAY_SIZE(BOOT_MSRS); i++) {
		if (set_one(vcpu_fd, BOOT_MSRS[i]) != 1)
			log_debug(log, "KVM refuses MSR %#x = %#llx", BOOT_MSRS[i].index,
				  (unsigned long long)BOOT_MSRS[i].data);
	}
	return 0;
}
