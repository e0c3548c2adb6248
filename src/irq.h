/* An interrupt line as a device holds it: a value, three words, copied freely. */
#pragma once

#include <stdbool.h>

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
