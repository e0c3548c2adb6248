/*
 * The 16550's registers as a driver's probe sees them. strict: also what few emulations do and no driver needs
 * (modem status deltas and breaks in loopback mode).
 */
#include "guest.h"

enum {
	THR = PORT_COM1,
	IER = PORT_COM1 + 1,
	IIR = PORT_COM1 + 2,
	FCR = PORT_COM1 + 2,
	LCR = PORT_COM1 + 3,
	MCR = PORT_COM1 + 4,
	LSR = PORT_COM1 + 5,
	MSR = PORT_COM1 + 6,
	SCR = PORT_COM1 + 7,
};

static volatile uint32_t irqs;
static uint32_t last_iir;

static void on_serial(struct trap_frame *f)
{
	(void)f;
	last_iir = inb(IIR) & 0x0fu; /* reading it clears THRE */
	irqs++;
	irq_ack(4, IRQ_VIA_PIC);
}

static void drain(void)
{
	while (!(inb(LSR) & 0x40))
		cpu_pause();
}

static void check_registers(void)
{
	uint8_t a, b;

	outb(SCR, 0x5a);
	a = inb(SCR);
	outb(SCR, 0xa5);
	b = inb(SCR);
	check(a == 0x5a && b == 0xa5, 1, "scratch register: %02x %02x", a, b);
	drain();
	outb(LCR, 0x83); /* DLAB: the first two registers are the divisor */
	outb(THR, 0x0c);
	outb(IER, 0x00);
	a = inb(THR);
	b = inb(IER);
	outb(THR, 0x01);
	outb(LCR, 0x03); /* 8n1 */
	check(a == 0x0c && b == 0x00, 2, "divisor latch: %02x %02x", a, b);
	check(inb(LCR) == 0x03, 3, "LCR reads back: %02x", inb(LCR));
	outb(IER, 0xff);
	a = inb(IER);
	outb(IER, 0);
	check(a == 0x0f, 4, "IER keeps its low four bits: %02x", a);
	check((inb(LSR) & 0x60) == 0x60, 5, "LSR shows an empty transmitter: %02x", inb(LSR));
}

static void check_fifo(void)
{
	uint8_t on, off;

	drain();
	outb(FCR, 0x00);
	off = inb(IIR);
	outb(FCR, 0x07);
	on = inb(IIR);
	check((off & 0xc0) == 0 && (on & 0xc0) == 0xc0, 6, "FIFO bits of IIR: off %02x, on %02x", off, on);
	check((on & 0x0f) == 0x01, 7, "IIR says that nothing is pending: %02x", on);
}

/* Everything between MCR.LOOP on and off must not print: results are gathered first. */
static void check_loopback(void)
{
	static const uint8_t mcr[] = {0x10, 0x11, 0x12, 0x14, 0x18, 0x1f};
	static const uint8_t msr[] = {0x00, 0x20, 0x10, 0x40, 0x80, 0xf0}; /* DTR-DSR RTS-CTS OUT1-RI OUT2-DCD */
	uint8_t got_msr[6], got[16], lsr_full, lsr_empty, iir, delta, lsr_break;
	bool strict = arg_has("strict");

	drain();
	outb(MCR, 0x10);
	for (int i = 0; i < 6; i++) {
		outb(MCR, mcr[i]);
		got_msr[i] = inb(MSR) & 0xf0;
	}
	outb(MCR, 0x10);
	inb(MSR);
	outb(MCR, 0x12);
	delta = inb(MSR) & 0x0f;
	outb(IER, 1);
	for (uint8_t i = 0; i < 16; i++)
		outb(THR, (uint8_t)(0xf0 + i));
	clock_delay_us(5000); /* a UART that keeps the line's rate needs 16 characters' time */
	iir = inb(IIR) & 0x0f;
	lsr_full = inb(LSR);
	for (int i = 0; i < 16; i++)
		got[i] = inb(THR);
	lsr_empty = inb(LSR);
	outb(IER, 0);
	outb(LCR, 0x43); /* set break: in loopback the receiver sees it */
	clock_delay_us(1000);
	outb(LCR, 0x03);
	lsr_break = inb(LSR);
	outb(FCR, 0x07);
	outb(MCR, 0x08);

	for (int i = 0; i < 6; i++)
		check(got_msr[i] == msr[i], 8, "loopback: MCR %02x gives MSR %02x", mcr[i], got_msr[i]);
	check(delta == 0x01 || !strict, 9, "loopback: MSR deltas after a change of RTS: %02x", delta);
	check(iir == 0x04 || iir == 0x0c, 10, "loopback: IIR says data: %02x", iir);
	check(lsr_full & 1, 11, "loopback: LSR says data: %02x", lsr_full);
	for (int i = 0; i < 16; i++)
		if (got[i] != 0xf0 + i)
			check(false, 12, "loopback: byte %d is %02x", i, got[i]);
	check(!(lsr_empty & 1), 13, "loopback: 16 bytes came back in order and no more: LSR %02x", lsr_empty);
	check((lsr_break & 0x10) || !strict, 14, "loopback: LSR after a break: %02x", lsr_break);
}

static void check_irq(void)
{
	drain();
	irq_attach(4, IRQ_VIA_PIC, on_serial);
	irq_on();
	outb(IER, 2); /* the transmitter is empty already: enabling raises it at once */
	clock_wait(&irqs, 1, 1000);
	outb(IER, 0);
	irq_off();
	check(irqs >= 1 && last_iir == 0x02, 15, "THRE interrupt after IER is set: %u of them, IIR %02x", irqs,
	      last_iir);
	irqs = 0;
	irq_on();
	outb(IER, 2);
	clock_wait(&irqs, 1, 1000);
	outb(THR, '\n');
	clock_wait(&irqs, 2, 1000);
	outb(IER, 0);
	irq_off();
	check(irqs == 2, 16, "THRE interrupt after a byte has gone: %u of 2", irqs);
}

int guest_main(void)
{
	check_registers();
	check_fifo();
	check_loopback();
	check_irq();
	return 0;
}
