/* PIT through the PIC, PIT through the IOAPIC, local APIC timer one-shot, periodic and by TSC deadline. */
#include "guest.h"

enum { VECTOR_LAPIC = 0x60, TICKS = 5, LVT_PERIODIC = 1 << 17, LVT_DEADLINE = 2 << 17, LVT_MASKED = 1 << 16 };
enum { MSR_TSC_DEADLINE = 0x6e0 };

static enum irq_via via;
static volatile uint32_t ticks;

static void on_pit(struct trap_frame *f)
{
	(void)f;
	ticks++;
	irq_ack(0, via);
}

static void on_lapic(struct trap_frame *f)
{
	(void)f;
	ticks++;
	lapic_eoi();
}

static void check_pit(enum irq_via v, uint8_t status)
{
	uint16_t flags;

	via = v;
	ticks = 0;
	irq_attach(0, v, on_pit);
	pit_start(200);
	irq_on();
	clock_wait(&ticks, TICKS, 2000);
	irq_off();
	check(ticks >= TICKS, status, "PIT through the %s (pin %u): %u ticks", v == IRQ_VIA_PIC ? "PIC" : "IOAPIC",
	      v == IRQ_VIA_PIC ? 0 : irq_to_gsi(0, &flags), ticks);
	for (uint32_t from = ticks; ticks == from;) { /* and it ends a halt */
		irq_on_and_halt();
		irq_off();
	}
	check(true, status, "and a tick ends a halt");
	irq_detach(0, v);
	pit_stop();
	irq_on(); /* take what is still pending */
	clock_delay_us(10000);
	irq_off();
	ticks = 0;
	irq_on();
	clock_delay_us(30000);
	irq_off();
	check(ticks == 0, status, "no tick after it is masked: %u", ticks);
}

static void check_lapic(void)
{
	uint32_t shots;

	trap_set(VECTOR_LAPIC, on_lapic);
	lapic_write(LAPIC_TIMER_DIVIDE, 0xb); /* by 1 */
	lapic_write(LAPIC_LVT_TIMER, VECTOR_LAPIC);
	ticks = 0;
	irq_on();
	lapic_write(LAPIC_TIMER_INITIAL, 1000000);
	clock_wait(&ticks, 1, 2000);
	clock_delay_us(30000);
	irq_off();
	check(ticks == 1 && lapic_read(LAPIC_TIMER_CURRENT) == 0, 3, "one-shot APIC timer: %u ticks, count %u", ticks,
	      lapic_read(LAPIC_TIMER_CURRENT));
	lapic_write(LAPIC_LVT_TIMER, VECTOR_LAPIC | LVT_PERIODIC);
	ticks = 0;
	lapic_write(LAPIC_TIMER_INITIAL, 5000000);
	irq_on();
	clock_wait(&ticks, TICKS, 2000);
	irq_off();
	shots = ticks;
	lapic_write(LAPIC_TIMER_INITIAL, 0);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
	check(shots >= TICKS, 4, "periodic APIC timer: %u ticks", shots);
}

static void check_deadline(void)
{
	uint64_t now;

	if (!(cpuid(1, 0).c & 1u << 24)) {
		print("skip: no TSC deadline timer\n");
		return;
	}
	lapic_write(LAPIC_LVT_TIMER, VECTOR_LAPIC | LVT_DEADLINE);
	ticks = 0;
	irq_on();
	now = rdtsc();
	wrmsr(MSR_TSC_DEADLINE, now + 1000000);
	clock_wait(&ticks, 1, 2000);
	irq_off();
	/* KVM may deliver the interrupt on one CPU before it disarms the timer on another. */
	for (unsigned i = 0; i < 1000 && rdmsr(MSR_TSC_DEADLINE); i++)
		clock_delay_us(100);
	check(ticks == 1 && rdmsr(MSR_TSC_DEADLINE) == 0, 5, "TSC deadline: %u tick", ticks);
}

int guest_main(void)
{
	check_pit(IRQ_VIA_PIC, 1);
	check_pit(IRQ_VIA_IOAPIC, 2);
	check_lapic();
	check_deadline();
	return 0;
}
