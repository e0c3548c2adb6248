/*
 * SMP: starts every CPU of the MADT, each counts itself in and answers a fixed IPI.
 * cpus=N: how many there must be. x2apic: use the APICs in x2APIC mode. Statuses 1 to 9.
 */
#include "guest.h"

enum { VECTOR_IPI = 0x61 };

static bool x2apic;
static volatile uint32_t ready, answers;
static uint32_t arrived_id[SMP_MAX], cpuid1_id[SMP_MAX], cpuidb_id[SMP_MAX]; /* by order of arrival */
static volatile uint32_t answered[SMP_MAX];

static void on_ipi(struct trap_frame *f)
{
	(void)f;
	__atomic_fetch_add(&answered[lapic_id() % SMP_MAX], 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&answers, 1, __ATOMIC_SEQ_CST);
	lapic_eoi();
}

static void note_ids(uint32_t slot)
{
	arrived_id[slot] = lapic_id();
	cpuid1_id[slot] = cpuid(1, 0).b >> 24;
	cpuidb_id[slot] = cpuid(0, 0).a >= 0xb && cpuid(0xb, 0).b ? cpuid(0xb, 0).d : arrived_id[slot];
}

static void ap_main(uint32_t arrival)
{
	lapic_enable(x2apic);
	note_ids(arrival + 1);
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		irq_on_and_halt();
}

static void check_ids(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		check(cpuid1_id[i] == (arrived_id[i] & 0xff), 4, "CPU %u: APIC id %u, CPUID leaf 1 says %u", i,
		      arrived_id[i], cpuid1_id[i]);
		check(cpuidb_id[i] == arrived_id[i], 5, "CPU %u: CPUID leaf 0xb says %u", i, cpuidb_id[i]);
		for (uint32_t j = 0; j < i; j++)
			if (arrived_id[i] == arrived_id[j])
				check(false, 6, "CPUs %u and %u have the same APIC id", i, j);
	}
	check(true, 6, "all APIC ids differ");
}

int guest_main(void)
{
	uint32_t cpus, id, self;

	x2apic = arg_has("x2apic");
	if (x2apic)
		check(cpuid(1, 0).c & 1 << 21, 9, "CPUID has x2APIC");
	irq_quiet();
	lapic_enable(x2apic);
	trap_set(VECTOR_IPI, on_ipi);
	note_ids(0);
	self = lapic_id();
	for (cpus = 0; madt_cpu(cpus, &id); cpus++)
		;
	print("cpus %u\n", cpus);
	check(cpus >= 1 && cpus <= SMP_MAX, 1, "the MADT lists %u CPUs; this one has APIC id %u", cpus, self);
	check(cpus == arg_u64("cpus", cpus), 2, "that is what the command line says");

	for (uint32_t i = 0; madt_cpu(i, &id); i++)
		if (id != self)
			smp_start(id, ap_main);
	clock_wait(&ready, cpus - 1, 5000);
	clock_delay_us(10000); /* for one that would arrive twice */
	check(ready == cpus - 1, 3, "%u of %u others have arrived", ready, cpus - 1);
	check_ids(cpus);

	for (uint32_t i = 0; madt_cpu(i, &id); i++)
		if (id != self)
			lapic_send(id, ICR_FIXED | ICR_ASSERT | VECTOR_IPI);
	clock_wait(&answers, cpus - 1, 5000);
	check(answers == cpus - 1, 7, "%u of %u others answer an IPI", answers, cpus - 1);
	for (uint32_t i = 0; madt_cpu(i, &id); i++)
		if (answered[id % SMP_MAX] != (id != self))
			check(false, 8, "APIC id %u answered %u times", id, answered[id % SMP_MAX]);
	irq_on();
	lapic_send(self, ICR_FIXED | ICR_ASSERT | VECTOR_IPI);
	clock_wait(&answers, cpus, 1000);
	irq_off();
	check(answers == cpus, 7, "and so does this one");
	return 0;
}
