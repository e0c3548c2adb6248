#include "guest.h"

enum { MSR_APIC_BASE = 0x1b, APIC_BASE_X2 = 1 << 10, APIC_BASE_ENABLE = 1 << 11, MSR_X2APIC = 0x800 };
enum { ICR_BUSY = 1 << 12 };

static const uint64_t LAPIC_BASE = 0xfee00000;

static bool use_x2apic;

static void spurious(struct trap_frame *f)
{
	(void)f; /* no EOI for this one */
}

void lapic_enable(bool x2apic)
{
	uint64_t base = rdmsr(MSR_APIC_BASE);

	if (x2apic || (base & APIC_BASE_X2)) { /* once in x2APIC mode there is no way straight back */
		use_x2apic = true;
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE);
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE | APIC_BASE_X2);
	}
	trap_set(0xff, spurious);
	lapic_write(LAPIC_TPR, 0);
	lapic_write(LAPIC_SVR, 0x1ff);
}

uint32_t lapic_read(unsigned reg)
{
	return use_x2apic ? (uint32_t)rdmsr(MSR_X2APIC + reg / 16) : mmio_read32(LAPIC_BASE + reg);
}

void lapic_write(unsigned reg, uint32_t v)
{
	if (use_x2apic)
		wrmsr(MSR_X2APIC + reg / 16, v);
	else
		mmio_write32(LAPIC_BASE + reg, v);
}

uint32_t lapic_id(void)
{
	uint32_t id = lapic_read(LAPIC_ID);

	return use_x2apic ? id : id >> 24;
}

void lapic_send(uint32_t apic_id, uint32_t icr)
{
	if (use_x2apic) {
		wrmsr(MSR_X2APIC + LAPIC_ICR / 16, (uint64_t)apic_id << 32 | icr);
		return;
	}
	lapic_write(LAPIC_ICR_HIGH, apic_id << 24);
	lapic_write(LAPIC_ICR, icr);
	while (lapic_read(LAPIC_ICR) & ICR_BUSY)
		cpu_pause();
}

void lapic_eoi(void)
{
	lapic_write(LAPIC_EOI, 0);
}
