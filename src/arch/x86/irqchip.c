#include "arch/x86/irqchip.h"

#include <string.h>

#include "arch/x86/layout.h"

/* Intel SDM volume 3, 11.5.1 "Local Vector Table". */
enum {
	APIC_LVT_LINT0 = 0x350,
	APIC_LVT_LINT1 = 0x360,
	APIC_DELIVERY_NMI = 4 << 8,
	APIC_DELIVERY_EXTINT = 7 << 8,
};

int irqchip_create(const struct kvm *kvm, struct err *err)
{
	uint64_t identity_map = LAYOUT_IDENTITY_MAP;
	int r = kvm_ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
	if (r < 0)
		return err_kvm(err, r, "KVM_SET_IDENTITY_MAP_ADDR: %s", err_name(r));
	r = kvm_ioctl_value(kvm->vm_fd, KVM_SET_TSS_ADDR, LAYOUT_TSS);
	if (r < 0)
		return err_kvm(err, r, "KVM_SET_TSS_ADDR: %s", err_name(r));
	r = kvm_ioctl_value(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0);
	if (r < 0)
		return err_kvm(err, r, "KVM_CREATE_IRQCHIP: %s", err_name(r));
	return 0;
}

static void set_delivery(struct kvm_lapic_state *lapic, unsigned reg, uint32_t delivery)
{
	memcpy(&lapic->regs[reg], &delivery, sizeof(delivery));
}

int irqchip_init_lapic(int vcpu_fd, struct err *err)
{
	struct kvm_lapic_state lapic;
	int r = kvm_ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic);
	if (r < 0)
		return err_kvm(err, r, "KVM_GET_LAPIC: %s", err_name(r));
	set_delivery(&lapic, APIC_LVT_LINT0, APIC_DELIVERY_EXTINT);
	set_delivery(&lapic, APIC_LVT_LINT1, APIC_DELIVERY_NMI);
	r = kvm_ioctl(vcpu_fd, KVM_SET_LAPIC, &lapic);
	if (r < 0)
		return err_kvm(err, r, "KVM_SET_LAPIC: %s", err_name(r));
	return 0;
}
