#include "guest.h"

enum { PIC1 = 0x20, PIC2 = 0xa0 };
enum { VECTOR_PIC = 0x20, VECTOR_IOAPIC = 0x40 };
enum {
	IOAPIC_SELECT = 0x00,
	IOAPIC_WINDOW = 0x10,
	IOAPIC_REDIRECTION = 0x10,
	IOAPIC_MASKED = 1 << 16,
	IOAPIC_LEVEL = 1 << 15
};

static void pic_init(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	outb(PIC1, 0x11); /* ICW1: edge, cascade, ICW4 follows */
	outb(PIC2, 0x11);
	outb(PIC1 + 1, VECTOR_PIC);
	outb(PIC2 + 1, VECTOR_PIC + 8);
	outb(PIC1 + 1, 4); /* slave on line 2 */
	outb(PIC2 + 1, 2);
	outb(PIC1 + 1, 1); /* 8086 mode, EOI by command */
	outb(PIC2 + 1, 1);
	outb(PIC1 + 1, 0xff & ~4);
	outb(PIC2 + 1, 0xff);
}

void irq_quiet(void)
{
	pic_init();
}

static void pic_mask(unsigned irq, bool masked)
{
	uint16_t port = irq < 8 ? PIC1 + 1 : PIC2 + 1;
	uint8_t bit = (uint8_t)(1 << (irq & 7)), mask = inb(port);

	outb(port, masked ? mask | bit : mask & (uint8_t)~bit);
}

/* The IOAPIC with this GSI: the one with the highest base that is not above it. */
static uint64_t ioapic_of(unsigned gsi, unsigned *ret_first)
{
	uint64_t addr = 0xfec00000;

	*ret_first = 0;
	for (uint64_t e = 0; (e = madt_next(e, MADT_IOAPIC));)
		if (peek32(e + 8) <= gsi && peek32(e + 8) >= *ret_first) {
			*ret_first = peek32(e + 8);
			addr = peek32(e + 4);
		}
	return addr;
}

/* One half of a redirection entry: 0 the low, 1 the high. */
static void ioapic_redirect(unsigned gsi, unsigned half, uint32_t v)
{
	unsigned first;
	uint64_t base = ioapic_of(gsi, &first);

	mmio_write32(base + IOAPIC_SELECT, IOAPIC_REDIRECTION + 2 * (gsi - first) + half);
	mmio_write32(base + IOAPIC_WINDOW, v);
}

unsigned irq_to_gsi(unsigned irq, uint16_t *ret_flags)
{
	*ret_flags = 0;
	for (uint64_t e = 0; (e = madt_next(e, MADT_OVERRIDE));)
		if (peek8(e + 3) == irq) {
			*ret_flags = peek16(e + 8);
			return peek32(e + 4);
		}
	return irq;
}

void irq_attach(unsigned irq, enum irq_via via, trap_fn *fn)
{
	uint16_t flags;
	unsigned gsi = irq_to_gsi(irq, &flags);
	uint32_t low = (VECTOR_IOAPIC + irq) | ((flags & 3) == 3) << 13 | ((flags >> 2 & 3) == 3) << 15;

	pic_init(); /* in both cases, so that its lines are masked */
	lapic_enable(false);
	if (via == IRQ_VIA_PIC) {
		lapic_write(LAPIC_LVT_LINT0, 0x700); /* ExtINT */
		trap_set((uint8_t)(VECTOR_PIC + irq), fn);
		pic_mask(irq, false);
	} else {
		trap_set((uint8_t)(VECTOR_IOAPIC + irq), fn);
		ioapic_redirect(gsi, 1, lapic_id() << 24);
		ioapic_redirect(gsi, 0, low);
	}
}

void irq_detach(unsigned irq, enum irq_via via)
{
	uint16_t flags;

	if (via == IRQ_VIA_PIC)
		pic_mask(irq, true);
	else
		ioapic_redirect(irq_to_gsi(irq, &flags), 0, IOAPIC_MASKED);
}

void irq_ack(unsigned irq, enum irq_via via)
{
	if (via == IRQ_VIA_IOAPIC) {
		lapic_eoi();
		return;
	}
	if (irq >= 8)
		outb(PIC2, 0x20);
	outb(PIC1, 0x20);
}

void irq_attach_level(unsigned gsi, uint8_t vector)
{
	ioapic_redirect(gsi, 1, lapic_id() << 24);
	ioapic_redirect(gsi, 0, vector | (uint32_t)IOAPIC_LEVEL);
}

void irq_detach_level(unsigned gsi)
{
	ioapic_redirect(gsi, 0, IOAPIC_MASKED);
}
