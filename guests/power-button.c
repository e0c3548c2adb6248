/*
 * Waits for the ACPI power button: polls its status (default), or halts until the SCI comes (irq). Prints "press" when
 * it listens. Statuses: 1 no PM1 event block, 2 the button was down at the start, 3 nobody pressed for 20 s,
 * 4 the status does not clear, 5 not one SCI.
 */
#include "guest.h"

enum { PWRBTN = 1 << 8, TICK_HZ = 20, TICKS_MAX = 20 * TICK_HZ };

static uint16_t status_port, enable_port, sci;
static volatile uint32_t pressed, ticks;

static void on_sci(struct trap_frame *f)
{
	(void)f;
	pressed += (inw(status_port) & PWRBTN) != 0;
	outw(status_port, PWRBTN); /* a level: it must be low again before the EOI */
	irq_ack(sci, IRQ_VIA_IOAPIC);
}

static void on_tick(struct trap_frame *f)
{
	(void)f;
	ticks++;
	irq_ack(0, IRQ_VIA_IOAPIC);
}

static void wait_polled(void)
{
	for (uint32_t i = 0; !pressed && i < 2000; i++) {
		clock_delay_us(10000);
		pressed = (inw(status_port) & PWRBTN) != 0;
	}
	check(pressed, 3, "the button is pressed");
	outw(status_port, PWRBTN);
}

static void wait_sci(void)
{
	while (!pressed && ticks < TICKS_MAX) {
		irq_on_and_halt();
		irq_off();
	}
	check(pressed, 3, "the button is pressed");
	irq_on();
	clock_delay_us(20000); /* for an SCI that would come again and again */
	irq_off();
	check(pressed == 1, 5, "%u SCI", pressed);
}

int guest_main(void)
{
	uint64_t fadt = acpi_table("FACP");
	bool by_irq = arg_has("irq");

	status_port = fadt ? (uint16_t)peek32(fadt + 56) : 0;
	enable_port = (uint16_t)(status_port + peek8(fadt + 88) / 2); /* the second half of the block */
	sci = fadt ? peek16(fadt + 46) : 0;
	check(status_port != 0, 1, "PM1 status: port 0x%x, enable: 0x%x", status_port, enable_port);
	check(!(inw(status_port) & PWRBTN), 2, "the button is not pressed");
	if (by_irq) {
		irq_attach(sci, IRQ_VIA_IOAPIC, on_sci);
		irq_attach(0, IRQ_VIA_IOAPIC, on_tick);
		pit_start(TICK_HZ);
		outw(enable_port, PWRBTN);
	}
	print("press\n");
	if (by_irq)
		wait_sci();
	else
		wait_polled();
	check(!(inw(status_port) & PWRBTN), 4, "its status is clear again");
	return 0;
}
