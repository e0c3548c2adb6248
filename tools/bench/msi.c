/*
 * What one message-signalled interrupt costs its sender, by each of KVM's two ways, and what a change of a route costs
 * (docs/architecture.md: why MSI-X sends through KVM_SIGNAL_MSI). Microseconds; nothing runs in the VM.
 *
 *     cc -O2 -o /tmp/msi tools/bench/msi.c && /tmp/msi
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { SENDS = 100000, ROUTES = 50, GSI = 24, APIC_SPIV = 0xf0, SPIV_ENABLED = 0x1ff, LAPIC = 0xfee00000 };

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int must(int r, const char *what)
{
	if (r >= 0)
		return r;
	perror(what);
	exit(1);
}

static int make_vm(void)
{
	int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	struct kvm_lapic_state lapic;
	uint32_t enabled = SPIV_ENABLED;
	must(ioctl(vcpu, KVM_GET_LAPIC, &lapic), "KVM_GET_LAPIC");
	memcpy(lapic.regs + APIC_SPIV, &enabled, sizeof(enabled));
	must(ioctl(vcpu, KVM_SET_LAPIC, &lapic), "KVM_SET_LAPIC");
	return vm;
}

static void set_route(int vm, uint32_t data)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} table = {.head = {.nr = 1}, .entry = {.gsi = GSI, .type = KVM_IRQ_ROUTING_MSI}};
	table.entry.u.msi.address_lo = LAPIC;
	table.entry.u.msi.data = data;
	must(ioctl(vm, KVM_SET_GSI_ROUTING, &table), "KVM_SET_GSI_ROUTING");
}

int main(void)
{
	int vm = make_vm();
	struct kvm_msi msi = {.address_lo = LAPIC, .data = 0x41};
	double begin = now_us();
	for (int i = 0; i < SENDS; i++)
		must(ioctl(vm, KVM_SIGNAL_MSI, &msi), "KVM_SIGNAL_MSI");
	printf("KVM_SIGNAL_MSI      %8.2f us\n", (now_us() - begin) / SENDS);

	set_route(vm, 0x42);
	struct kvm_irqfd irqfd = {.fd = (uint32_t)must(eventfd(0, EFD_CLOEXEC), "eventfd"), .gsi = GSI};
	must(ioctl(vm, KVM_IRQFD, &irqfd), "KVM_IRQFD");
	uint64_t one = 1;
	begin = now_us();
	for (int i = 0; i < SENDS; i++)
		must((int)write((int)irqfd.fd, &one, sizeof(one)), "write");
	printf("write to an irqfd   %8.2f us\n", (now_us() - begin) / SENDS);

	begin = now_us();
	for (uint32_t i = 0; i < ROUTES; i++)
		set_route(vm, 0x42 + i % 64);
	printf("KVM_SET_GSI_ROUTING %8.2f us\n", (now_us() - begin) / ROUTES);
	return 0;
}
