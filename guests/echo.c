/* Echoes the serial line byte for byte until Ctrl-D; polled, or by interrupts (irq, irq=pic, irq=ioapic). */
#include "guest.h"

enum { THR = PORT_COM1, IER = PORT_COM1 + 1, IIR = PORT_COM1 + 2, MCR = PORT_COM1 + 4, LSR = PORT_COM1 + 5 };
enum { IER_RX = 1, IER_THRE = 2, LSR_DR = 1, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { CTRL_D = 4, FIFO_BYTES = 16, QUEUE = 1 << 16 };

static enum irq_via via;
static uint8_t queue[QUEUE]; /* received and not yet sent */
static volatile uint32_t head, tail;
static volatile bool ended;

static void drain(void)
{
	while (!(inb(LSR) & LSR_TEMT))
		cpu_pause();
}

static int echo_polled(void)
{
	print("echo: polled\n");
	for (;;) {
		uint8_t c;

		while (!(inb(LSR) & LSR_DR))
			cpu_pause();
		c = inb(THR);
		if (c == CTRL_D)
			break;
		while (!(inb(LSR) & LSR_THRE))
			cpu_pause();
		outb(THR, c);
	}
	drain();
	return 0;
}

/* Input is read only while there is room for a FIFO's worth, so nothing is ever dropped here. */
static void set_ier(void)
{
	uint8_t ier = head != tail ? IER_THRE : 0;

	if (head - tail <= QUEUE - FIFO_BYTES)
		ier |= IER_RX;
	outb(IER, ier);
}

static void on_serial(struct trap_frame *f)
{
	uint8_t iir;

	(void)f;
	while (!((iir = inb(IIR)) & 1)) {
		if ((iir & 0x0e) == 0x02) { /* transmitter empty: a FIFO's worth of bytes */
			for (int i = 0; i < FIFO_BYTES && tail != head; i++)
				outb(THR, queue[tail++ % QUEUE]);
		} else if ((iir & 0x0e) == 0x06) {
			inb(LSR);
		} else {
			while ((inb(LSR) & LSR_DR) && head - tail < QUEUE) {
				uint8_t c = inb(THR);

				if (c == CTRL_D)
					ended = true;
				else if (!ended)
					queue[head++ % QUEUE] = c;
			}
		}
		set_ier();
	}
	irq_ack(4, via);
}

static int echo_irq(void)
{
	via = arg_is("irq", "ioapic") ? IRQ_VIA_IOAPIC : IRQ_VIA_PIC;
	outb(IIR, 0x07); /* FCR: enable and clear both FIFOs, receive trigger 1. Input must wait for the next line */
	outb(MCR, 0x0b); /* DTR, RTS, OUT2 */
	print("echo: by interrupts through the %s\n", via == IRQ_VIA_PIC ? "PIC" : "IOAPIC");
	drain();
	irq_attach(4, via, on_serial);
	set_ier();
	while (!ended || head != tail) {
		irq_on_and_halt();
		irq_off();
	}
	drain();
	return 0;
}

int guest_main(void)
{
	return arg_has("irq") ? echo_irq() : echo_polled();
}
