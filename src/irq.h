/* Interrupts as a device holds them: small values, copied freely. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct irq_line {
	void (*set)(void *ctx, unsigned line, bool level); /* NULL: not connected */
	void *ctx;
	unsigned line; /* GSI */
};

/* Drive the line. A device calls it on changes only; cost: one system call with the in-kernel irqchip. [any] */
static inline void irq_set(struct irq_line irq, bool level)
{
	if (irq.set)
		irq.set(irq.ctx, irq.line, level);
}

/* The way to the local APICs for message-signalled interrupts: address and data as a PCI device writes them. */
struct irq_msi {
	void (*send)(void *ctx, uint64_t address, uint32_t data); /* NULL: not connected */
	void *ctx;
};

/* Deliver one message. One that no local APIC takes is lost, as on a PC. [any] */
static inline void irq_msi_send(struct irq_msi msi, uint64_t address, uint32_t data)
{
	if (msi.send)
		msi.send(msi.ctx, address, data);
}
