#include "devices/uart16550.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "devices/uart16550_regs.h"
#include "util.h"

enum { FIFO_SIZE = 16, DIVISOR_9600 = 12, LISTENING_POLLS = 8 };

struct received {
	uint8_t data;
	uint8_t errors; /* of LSR_CHAR_ERRORS, until the character is next to be read */
};

struct uart16550 {
	struct device dev;
	struct irq_line irq;
	struct chr *chr;

	uint8_t dll, dlm, ier, fcr, lcr, mcr, scr;
	uint8_t line_errors;  /* LSR_OE and LSR_CHAR_ERRORS not yet read */
	uint8_t modem_lines;  /* upper half of MSR */
	uint8_t modem_deltas; /* lower half of MSR, not yet read */

	bool thre_pending;    /* implies tx_count == 0 */
	bool timeout_pending; /* characters wait, fewer than the trigger level */
	bool receives_break;
	bool input_refused; /* the back end waits for chr_accept_input */
	unsigned polls;     /* of LSR, in vain; stays at LISTENING_POLLS */
	bool irq_level;

	unsigned rx_head, rx_count;
	struct received rx[FIFO_SIZE];
	unsigned tx_head, tx_count;
	uint8_t tx[FIFO_SIZE];
};

static struct uart16550 *to_uart(struct device *dev)
{
	return container_of(dev, struct uart16550, dev);
}

static bool fifo_enabled(const struct uart16550 *u)
{
	return u->fcr & FCR_FIFO_ENABLE;
}

static bool loopback(const struct uart16550 *u)
{
	return u->mcr & MCR_LOOP;
}

static unsigned fifo_size(const struct uart16550 *u)
{
	return fifo_enabled(u) ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct uart16550 *u)
{
	static const uint8_t levels[] = {1, 4, 8, 14};

	return fifo_enabled(u) ? levels[(u->fcr & FCR_TRIGGER) >> FCR_TRIGGER_SHIFT] : 1;
}

/* --- interrupts --- */

static uint8_t interrupt_id(const struct uart16550 *u)
{
	if ((u->ier & IER_ELSI) && u->line_errors)
		return IIR_LINE_STATUS;
	if ((u->ier & IER_ERBFI) && u->rx_count >= rx_trigger(u))
		return IIR_DATA_AVAILABLE;
	if ((u->ier & IER_ERBFI) && u->timeout_pending)
		return IIR_CHARACTER_TIMEOUT;
	if ((u->ier & IER_ETBEI) && u->thre_pending)
		return IIR_THR_EMPTY;
	if ((u->ier & IER_EDSSI) && u->modem_deltas)
		return IIR_MODEM_STATUS;
	return IIR_NONE;
}

/*
 * On a PC, OUT2 opens a gate between the chip's interrupt pin and the interrupt controller. Virtual machines
 * have no such gate, and kernels that were written on them (xv6) leave OUT2 alone; a PC's drivers set it.
 */
static void irq_update(struct uart16550 *u)
{
	bool level = interrupt_id(u) != IIR_NONE;

	if (level == u->irq_level)
		return;
	u->irq_level = level;
	irq_set(u->irq, level);
}

/* --- receiver --- */

/* PC16550D section 8.4: a character's errors show when it is at the top of the FIFO. */
static void rx_reveal_errors(struct uart16550 *u)
{
	struct received *top = &u->rx[u->rx_head];

	u->line_errors |= top->errors;
	top->errors = 0;
}

static void rx_update_timeout(struct uart16550 *u)
{
	u->timeout_pending = u->rx_count > 0 && u->rx_count < rx_trigger(u);
}

/* On overrun a full FIFO stays as it is; a full receiver buffer (FIFOs off) is overwritten. */
static void rx_push(struct uart16550 *u, uint8_t data, uint8_t errors)
{
	if (u->rx_count == fifo_size(u)) {
		u->line_errors |= LSR_OE;
		if (fifo_enabled(u))
			return;
		u->rx_count = 0;
	}
	u->rx[(u->rx_head + u->rx_count) % FIFO_SIZE] = (struct received){data, errors};
	if (u->rx_count++ == 0)
		rx_reveal_errors(u);
	rx_update_timeout(u);
}

/*
 * Input is held back until the guest shows that it listens: by RTS, by its interrupt, or by asking LSR again and
 * again. Drivers clear the FIFO and read a byte away when they start, and what a person or a script has typed
 * before that would be lost. DTR without RTS is flow control: the guest has the port open and wants no more for now.
 */
static bool listening(const struct uart16550 *u)
{
	if (loopback(u))
		return false;
	if (u->mcr & (MCR_RTS | MCR_DTR))
		return u->mcr & MCR_RTS;
	return (u->ier & IER_ERBFI) || u->polls == LISTENING_POLLS;
}

/*
 * Asked for only after a refusal, and only when half the FIFO is free, so that a long paste does not wake the
 * loop for every byte. A guest never waits for this: while bytes are left, it has them to read.
 */
static void rx_accept_input(struct uart16550 *u)
{
	if (!u->input_refused || !listening(u) || u->rx_count > fifo_size(u) / 2)
		return;
	u->input_refused = false;
	chr_accept_input(u->chr);
}

/*
 * A read restarts the character timeout (section 8.11), so the interrupt goes away and, when characters are
 * left, comes back. With no time in between that is a pulse; an edge-triggered driver that reads one
 * character per interrupt needs it to see the next one.
 */
static uint8_t rbr_read(struct uart16550 *u)
{
	uint8_t data;

	if (u->rx_count == 0)
		return 0;
	data = u->rx[u->rx_head].data;
	u->rx_head = (u->rx_head + 1) % FIFO_SIZE;
	if (--u->rx_count > 0)
		rx_reveal_errors(u);
	u->timeout_pending = false;
	irq_update(u);
	rx_update_timeout(u);
	rx_accept_input(u);
	return data;
}

/* [loop] */
static size_t uart16550_receive(void *ctx, const uint8_t *data, size_t size_bytes)
{
	struct uart16550 *u = ctx;
	size_t taken = 0;

	device_lock(&u->dev);
	while (listening(u) && taken < size_bytes && u->rx_count < fifo_size(u))
		rx_push(u, data[taken++], 0);
	u->input_refused = taken < size_bytes;
	irq_update(u);
	device_unlock(&u->dev);
	return taken;
}

/* --- transmitter --- */

/* Called with bytes in the FIFO; those that the back end refuses stay until it calls `writable`. */
static void tx_drain(struct uart16550 *u)
{
	while (u->tx_count > 0) {
		unsigned run = (unsigned)min_u64(u->tx_count, FIFO_SIZE - u->tx_head);
		unsigned taken = (unsigned)chr_write(u->chr, &u->tx[u->tx_head], run);

		assert(taken <= run);
		u->tx_head = (u->tx_head + taken) % FIFO_SIZE;
		u->tx_count -= taken;
		if (taken < run)
			return;
	}
	u->thre_pending = true;
}

/* A byte too many is lost, as it would be in the chip. */
static void tx_send(struct uart16550 *u, uint8_t data)
{
	bool idle = u->tx_count == 0;

	if (u->tx_count == fifo_size(u))
		return;
	u->tx[(u->tx_head + u->tx_count++) % FIFO_SIZE] = data;
	if (idle)
		tx_drain(u);
}

/* Bytes that waited for the host when loopback began keep waiting for the host. A break drowns the byte. */
static void tx_loop_back(struct uart16550 *u, uint8_t data)
{
	if (!(u->lcr & LCR_SET_BREAK))
		rx_push(u, data, 0);
	u->thre_pending = u->tx_count == 0;
}

/*
 * The first irq_update is what clears THRE's interrupt, even if the byte leaves at once and raises it again:
 * the driver of an edge-triggered line that answers with a byte and no look at IIR waits for that edge.
 */
static void thr_write(struct uart16550 *u, uint8_t data)
{
	u->thre_pending = false;
	irq_update(u);
	if (u->polls < LISTENING_POLLS)
		u->polls = 0; /* it asked for room to send */
	if (loopback(u))
		tx_loop_back(u, data);
	else
		tx_send(u, data);
}

static void tx_clear(struct uart16550 *u)
{
	if (u->tx_count > 0)
		u->thre_pending = true;
	u->tx_count = 0;
}

/* [loop] */
static void uart16550_writable(void *ctx)
{
	struct uart16550 *u = ctx;

	device_lock(&u->dev);
	if (u->tx_count > 0)
		tx_drain(u);
	irq_update(u);
	device_unlock(&u->dev);
}

/* --- lines that loopback mode ties together (section 8.8, bit 4) --- */

static uint8_t modem_lines(const struct uart16550 *u)
{
	unsigned lines = 0;

	if (!loopback(u))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	lines |= u->mcr & MCR_RTS ? MSR_CTS : 0;
	lines |= u->mcr & MCR_DTR ? MSR_DSR : 0;
	lines |= u->mcr & MCR_OUT1 ? MSR_RI : 0;
	lines |= u->mcr & MCR_OUT2 ? MSR_DCD : 0;
	return (uint8_t)lines;
}

static void modem_update(struct uart16550 *u)
{
	uint8_t lines = modem_lines(u);
	unsigned changed = lines ^ u->modem_lines;

	if (lines & MSR_RI)
		changed &= ~MSR_RI; /* only its trailing edge counts */
	u->modem_deltas |= (uint8_t)(changed >> 4);
	u->modem_lines = lines;
}

/* A break received, however long, is one zero character. */
static void break_update(struct uart16550 *u)
{
	bool receives_break = loopback(u) && (u->lcr & LCR_SET_BREAK);

	if (receives_break && !u->receives_break)
		rx_push(u, 0, LSR_BI);
	u->receives_break = receives_break;
}

/* --- registers --- */

static uint8_t iir_read(struct uart16550 *u)
{
	uint8_t id = interrupt_id(u);

	if (id == IIR_THR_EMPTY)
		u->thre_pending = false;
	return fifo_enabled(u) ? id | IIR_FIFOS_ENABLED : id;
}

static bool rx_has_errors(const struct uart16550 *u)
{
	unsigned errors = u->line_errors;

	for (unsigned i = 0; i < u->rx_count; i++)
		errors |= u->rx[(u->rx_head + i) % FIFO_SIZE].errors;
	return errors & LSR_CHAR_ERRORS;
}

static uint8_t lsr_read(struct uart16550 *u)
{
	unsigned lsr = u->line_errors;

	if (u->rx_count == 0 && u->polls < LISTENING_POLLS)
		u->polls++;
	rx_accept_input(u);
	lsr |= u->rx_count > 0 ? LSR_DR : 0;
	lsr |= u->tx_count == 0 ? LSR_THRE | LSR_TEMT : 0;
	lsr |= fifo_enabled(u) && rx_has_errors(u) ? LSR_FIFO_ERROR : 0;
	u->line_errors = 0;
	return (uint8_t)lsr;
}

static uint8_t msr_read(struct uart16550 *u)
{
	uint8_t msr = u->modem_lines | u->modem_deltas;

	u->modem_deltas = 0;
	return msr;
}

static void ier_write(struct uart16550 *u, uint8_t value)
{
	if ((value & ~u->ier & IER_ETBEI) && u->tx_count == 0)
		u->thre_pending = true;
	u->ier = value & IER_MASK;
	rx_accept_input(u);
}

/* Section 8.5: the other bits count only together with bit 0, and a change of bit 0 clears both FIFOs. */
static void fcr_write(struct uart16550 *u, uint8_t value)
{
	bool toggled = (value ^ u->fcr) & FCR_FIFO_ENABLE;
	bool enable = value & FCR_FIFO_ENABLE;

	u->fcr = enable ? value & (FCR_FIFO_ENABLE | FCR_TRIGGER) : 0;
	if (toggled || (enable && (value & FCR_RCVR_RESET)))
		u->rx_count = u->polls = 0;
	if (toggled || (enable && (value & FCR_XMIT_RESET)))
		tx_clear(u);
	rx_update_timeout(u);
	rx_accept_input(u);
}

static void lcr_write(struct uart16550 *u, uint8_t value)
{
	u->lcr = value;
	break_update(u);
}

static void mcr_write(struct uart16550 *u, uint8_t value)
{
	u->mcr = value & MCR_MASK;
	modem_update(u);
	break_update(u);
	rx_accept_input(u);
}

static uint8_t register_read(struct uart16550 *u, uint64_t offset)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (offset) {
	case RBR_THR:
		return dlab ? u->dll : rbr_read(u);
	case IER:
		return dlab ? u->dlm : u->ier;
	case IIR_FCR:
		return iir_read(u);
	case LCR:
		return u->lcr;
	case MCR:
		return u->mcr;
	case LSR:
		return lsr_read(u);
	case MSR:
		return msr_read(u);
	case SCR:
		return u->scr;
	default:
		return 0xff;
	}
}

/* LSR and MSR are for factory tests when written (section 8.4): ignored. */
static void register_write(struct uart16550 *u, uint64_t offset, uint8_t value)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (offset) {
	case RBR_THR:
		if (dlab)
			u->dll = value;
		else
			thr_write(u, value);
		break;
	case IER:
		if (dlab)
			u->dlm = value;
		else
			ier_write(u, value);
		break;
	case IIR_FCR:
		fcr_write(u, value);
		break;
	case LCR:
		lcr_write(u, value);
		break;
	case MCR:
		mcr_write(u, value);
		break;
	case SCR:
		u->scr = value;
		break;
	default:
		break;
	}
}

static uint64_t uart16550_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct uart16550 *u = to_uart(dev);
	uint8_t value = register_read(u, offset);

	(void)size_bytes;
	irq_update(u);
	return value;
}

static void uart16550_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct uart16550 *u = to_uart(dev);

	(void)size_bytes;
	register_write(u, offset, (uint8_t)value);
	irq_update(u);
}

static void uart16550_destroy(struct device *dev)
{
	struct uart16550 *u = to_uart(dev);

	chr_set_client(u->chr, NULL);
	device_fini(dev);
	free(u);
}

static const struct device_ops uart16550_ops = {
	.name = "uart16550",
	.access_sizes = 1,
	.read = uart16550_read,
	.write = uart16550_write,
	.destroy = uart16550_destroy,
};

struct device *uart16550_new(struct irq_line irq, struct chr *chr, struct err *err)
{
	struct uart16550 *u = calloc(1, sizeof(*u));
	struct chr_client client;

	if (!u) {
		err_set(err, -ENOMEM, "serial port: out of memory");
		return NULL;
	}
	device_init(&u->dev, &uart16550_ops);
	u->irq = irq;
	u->chr = chr;
	u->dll = DIVISOR_9600;
	u->modem_lines = modem_lines(u);
	client = (struct chr_client){.receive = uart16550_receive, .writable = uart16550_writable, .ctx = u};
	chr_set_client(chr, &client);
	return &u->dev;
}
