/*
 * The serial port under any order of register accesses, input, and stalls of the back end.
 *
 * Two bytes are one step. A small model follows the bytes that travel and knows nothing of interrupts: it says
 * which bytes must come out at both ends. The interrupt line is held against what IIR reports, and against
 * the promise that no event which a guest waits for is lost.
 */
#include <assert.h>
#include <stdlib.h>

#include "devices/uart16550.h"
#include "devices/uart16550_regs.h"
#include "util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

struct queue {
	unsigned count;
	uint8_t bytes[16];
};

static void queue_push(struct queue *q, uint8_t byte)
{
	assert(q->count < sizeof(q->bytes));
	q->bytes[q->count++] = byte;
}

static uint8_t queue_pop(struct queue *q)
{
	uint8_t byte = q->bytes[0];

	assert(q->count > 0);
	memmove(q->bytes, q->bytes + 1, --q->count);
	return byte;
}

/* The fake back end, the line, and the model in one. */
struct chr {
	struct device *uart;
	struct chr_client client;
	size_t room;
	bool input_refused; /* the back end waits for chr_accept_input */
	bool irq_level;
	unsigned irq_rises;

	struct queue rx, tx;
	uint8_t ier, lcr, mcr, next_input;
	unsigned trigger, polls;
	bool fifo, receives_break;
};

void chr_set_client(struct chr *chr, const struct chr_client *client)
{
	chr->client = client ? *client : (struct chr_client){0};
}

size_t chr_write(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	size_t taken = min_u64(size_bytes, chr->room);

	assert(size_bytes > 0 && size_bytes <= chr->tx.count);
	for (size_t i = 0; i < taken; i++)
		assert(queue_pop(&chr->tx) == data[i]);
	chr->room -= taken;
	return taken;
}

void chr_accept_input(struct chr *chr)
{
	assert(chr->input_refused);
	chr->input_refused = false;
}

static void irq_fake_set(void *ctx, unsigned line, bool level)
{
	struct chr *chr = ctx;

	assert(line == 4 && level != chr->irq_level);
	chr->irq_level = level;
	chr->irq_rises += level;
}

/* --- model --- */

static bool looping(const struct chr *m)
{
	return m->mcr & MCR_LOOP;
}

/* RTS; without DTR also the receive interrupt, or eight looks at LSR in vain. */
static bool listening(const struct chr *m)
{
	bool open = m->mcr & MCR_DTR, wants = m->mcr & MCR_RTS;

	return !looping(m) && (wants || (!open && ((m->ier & IER_ERBFI) || m->polls >= 8)));
}

static unsigned capacity(const struct chr *m)
{
	return m->fifo ? 16 : 1;
}

static void model_loop_byte(struct chr *m, uint8_t byte)
{
	if (m->rx.count == capacity(m) && m->fifo)
		return;
	if (m->rx.count == capacity(m))
		m->rx.count = 0;
	queue_push(&m->rx, byte);
}

static void model_break(struct chr *m)
{
	bool now = looping(m) && (m->lcr & LCR_SET_BREAK);

	if (now && !m->receives_break)
		model_loop_byte(m, 0);
	m->receives_break = now;
}

static void model_fcr(struct chr *m, uint8_t value)
{
	bool enable = value & FCR_FIFO_ENABLE, toggled = enable != m->fifo;

	m->fifo = enable;
	m->trigger = enable ? (const unsigned[]){1, 4, 8, 14}[value >> FCR_TRIGGER_SHIFT] : 1;
	if (toggled || (enable && (value & FCR_RCVR_RESET)))
		m->rx.count = m->polls = 0;
	if (toggled || (enable && (value & FCR_XMIT_RESET)))
		m->tx.count = 0;
}

static void model_thr(struct chr *m, uint8_t value)
{
	if (m->polls < 8)
		m->polls = 0;
	if (!looping(m) && m->tx.count < capacity(m))
		queue_push(&m->tx, value);
	else if (looping(m) && !(m->lcr & LCR_SET_BREAK))
		model_loop_byte(m, value);
}

static void model_write(struct chr *m, unsigned reg, uint8_t value)
{
	bool dlab = m->lcr & LCR_DLAB;

	if (reg == RBR_THR && !dlab)
		model_thr(m, value);
	else if (reg == IER && !dlab)
		m->ier = value & IER_MASK;
	else if (reg == IIR_FCR)
		model_fcr(m, value);
	else if (reg == LCR)
		m->lcr = value;
	else if (reg == MCR)
		m->mcr = value & MCR_MASK;
	model_break(m);
}

/* --- steps --- */

/* The line is up if this source is pending and enabled. */
static void assert_interrupts(const struct chr *m, uint8_t source)
{
	assert(m->irq_level || !(m->ier & source));
}

/* The source came anew, and an edge-triggered guest saw it; unless another source held the line up. */
static void assert_edge(const struct chr *m, uint8_t source, unsigned rises_before)
{
	assert(m->irq_rises > rises_before || m->ier != source);
}

static void step_read(struct chr *m, unsigned reg)
{
	bool dlab = m->lcr & LCR_DLAB;
	unsigned rises = m->irq_rises;
	uint8_t value = (uint8_t)device_read(m->uart, reg, 1);

	if (reg == LSR && m->rx.count == 0)
		m->polls++;

	if (reg == RBR_THR && !dlab && m->rx.count > 0) {
		assert(value == queue_pop(&m->rx));
		if (m->rx.count > 0 && m->rx.count < m->trigger)
			assert_edge(m, IER_ERBFI, rises);
	} else if (reg == IER && !dlab)
		assert(value == m->ier);
	else if (reg == LCR)
		assert(value == m->lcr);
	else if (reg == MCR)
		assert(value == m->mcr);
	else if (reg == LSR)
		assert(!!(value & LSR_DR) == (m->rx.count > 0) && !!(value & LSR_THRE) == (m->tx.count == 0) &&
		       !(value & LSR_THRE) == !(value & LSR_TEMT) && (m->fifo || !(value & LSR_FIFO_ERROR)));
}

static void step_write(struct chr *m, unsigned reg, uint8_t value)
{
	bool dlab = m->lcr & LCR_DLAB;
	bool enables = reg == IER && !dlab && (value & ~m->ier & IER_ETBEI);
	bool sends = reg == RBR_THR && !dlab;
	bool waited = m->tx.count > 0;
	unsigned rises = m->irq_rises;

	model_write(m, reg, value);
	device_write(m->uart, reg, 1, value);
	if (m->tx.count > 0)
		return;
	if (enables || sends || waited)
		assert_interrupts(m, IER_ETBEI);
	if (sends)
		assert_edge(m, IER_ETBEI, rises);
}

static void step_receive(struct chr *m, unsigned offered)
{
	size_t room = listening(m) ? capacity(m) - m->rx.count : 0;
	uint8_t data[32];
	size_t taken;

	for (unsigned i = 0; i < offered; i++)
		data[i] = m->next_input++;
	m->input_refused = offered > room;
	taken = m->client.receive(m->client.ctx, data, offered);
	assert(taken == min_u64(room, offered));
	for (size_t i = 0; i < taken; i++)
		queue_push(&m->rx, data[i]);
}

static void step_writable(struct chr *m, size_t room)
{
	bool waited = m->tx.count > 0;

	m->room = room;
	m->client.writable(m->client.ctx);
	assert(m->tx.count == 0 || m->room == 0);
	if (waited && m->tx.count == 0)
		assert_interrupts(m, IER_ETBEI);
}

/* What IIR reports is what the line says; THRE goes away with being reported, the others stay. */
static void check_line(struct chr *m)
{
	for (unsigned i = 0; i < 2; i++) {
		bool level = m->irq_level;
		unsigned iir = (unsigned)device_read(m->uart, IIR_FCR, 1), id = iir & ~IIR_FIFOS_ENABLED;

		assert((iir & IIR_FIFOS_ENABLED) == (m->fifo ? IIR_FIFOS_ENABLED : 0));
		assert(level == (id != IIR_NONE));
		assert(id != IIR_THR_EMPTY || (i == 0 && (m->ier & IER_ETBEI) && m->tx.count == 0));
		assert(id != IIR_CHARACTER_TIMEOUT || m->fifo);
		if (id != IIR_THR_EMPTY)
			return;
	}
}

static void check_always(const struct chr *m)
{
	if (m->rx.count > 0)
		assert_interrupts(m, IER_ERBFI);
	/* A guest that has read all there was gets more. */
	assert(!m->input_refused || m->rx.count > 0 || !listening(m));
}

static void step(struct chr *m, uint8_t op, uint8_t arg)
{
	unsigned reg = op & 7;

	switch (op >> 3 & 7) {
	case 0:
	case 1:
		step_read(m, reg);
		break;
	case 2:
	case 3:
		step_write(m, reg, arg);
		break;
	case 4:
		step_receive(m, arg % 32);
		break;
	case 5:
		m->room = arg; /* the back end fills up, or there is room that it has not told of */
		break;
	case 6:
		step_writable(m, arg);
		break;
	default:
		check_line(m);
		break;
	}
	check_always(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct chr m = {.room = 64, .trigger = 1};

	m.uart = uart16550_new((struct irq_line){irq_fake_set, &m, 4}, &m, NULL);
	if (!m.uart)
		abort();
	for (size_t i = 0; i + 1 < size_bytes; i += 2)
		step(&m, data[i], data[i + 1]);
	check_line(&m);
	device_free(m.uart);
	assert(!m.client.receive && !m.client.writable);
	return 0;
}
