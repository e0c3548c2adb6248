/* The serial port against a fake back end (chr.c is not linked) and a fake interrupt line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "devices/uart16550.h"
#include "devices/uart16550_regs.h"
#include "util.h"

/* --- fakes --- */

struct chr {
	struct chr_client client;
	uint8_t out[512];
	size_t out_size, room;
	unsigned accepts;
};

static struct chr chr;

void chr_set_client(struct chr *c, const struct chr_client *client)
{
	c->client = client ? *client : (struct chr_client){0};
}

size_t chr_write(struct chr *c, const uint8_t *data, size_t size_bytes)
{
	size_t taken = min_u64(size_bytes, c->room);

	assert_true(c->out_size + taken <= sizeof(c->out));
	memcpy(c->out + c->out_size, data, taken);
	c->out_size += taken;
	c->room -= taken;
	return taken;
}

void chr_accept_input(struct chr *c)
{
	c->accepts++;
}

static struct {
	bool level;
	unsigned rises;
} irq;

static void irq_fake_set(void *ctx, unsigned line, bool level)
{
	assert_ptr_equal(ctx, &irq);
	assert_int_equal(line, 4);
	assert_int_not_equal(level, irq.level); /* on changes only */
	irq.level = level;
	irq.rises += level;
}

static struct device *uart;

static int setup_fresh(void **state)
{
	struct irq_line line = {irq_fake_set, &irq, 4};

	(void)state;
	memset(&irq, 0, sizeof(irq));
	memset(&chr, 0, sizeof(chr));
	chr.room = SIZE_MAX;
	uart = uart16550_new(line, &chr, NULL);
	return uart ? 0 : -1;
}

/* A guest that listens. */
static int setup(void **state)
{
	int r = setup_fresh(state);
	if (r == 0)
		device_write(uart, MCR, 1, MCR_RTS);
	return r;
}

static int teardown(void **state)
{
	(void)state;
	device_free(uart);
	return chr.client.receive || chr.client.writable; /* disconnected */
}

/* --- shorthands --- */

static uint8_t rd(unsigned reg)
{
	return (uint8_t)device_read(uart, reg, 1);
}

static void wr(unsigned reg, unsigned value)
{
	device_write(uart, reg, 1, value);
}

static uint8_t id(void)
{
	return rd(IIR_FCR) & 0x0f;
}

static size_t receive(const char *text, size_t size_bytes)
{
	return chr.client.receive(chr.client.ctx, (const uint8_t *)text, size_bytes);
}

static void writable(size_t room)
{
	chr.room = room;
	chr.client.writable(chr.client.ctx);
}

static void fifo_on(unsigned trigger)
{
	wr(IIR_FCR, FCR_FIFO_ENABLE | trigger << FCR_TRIGGER_SHIFT);
}

static void interrupts_on(unsigned ier)
{
	wr(MCR, MCR_OUT2 | MCR_DTR | MCR_RTS);
	rd(MSR);
	wr(IER, ier);
}

static void send(const char *text)
{
	for (; *text; text++)
		wr(RBR_THR, (uint8_t)*text);
}

static void assert_sent(const char *text)
{
	assert_int_equal(chr.out_size, strlen(text));
	assert_memory_equal(chr.out, text, chr.out_size);
}

#define STRING_20 "0123456789abcdefghij"

/* --- tests --- */

static void test_reset_values(void **state)
{
	(void)state;
	assert_int_equal(rd(RBR_THR), 0);
	assert_int_equal(rd(IER), 0);
	assert_int_equal(rd(IIR_FCR), IIR_NONE);
	assert_int_equal(rd(LCR), 0);
	assert_int_equal(rd(MCR), 0);
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
	assert_int_equal(rd(MSR), MSR_CTS | MSR_DSR | MSR_DCD);
	assert_int_equal(rd(SCR), 0);
	assert_int_equal(device_read(uart, 0, 2), 0xffff);
	assert_int_equal(irq.rises, 0);
}

static void test_plain_registers(void **state)
{
	(void)state;
	wr(SCR, 0xa5);
	assert_int_equal(rd(SCR), 0xa5);
	wr(IER, 0xf0);
	assert_int_equal(rd(IER), 0);
	wr(MCR, 0xe0);
	assert_int_equal(rd(MCR), 0);
	wr(LSR, 0xff);
	wr(MSR, 0xff);
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
	assert_int_equal(rd(MSR) & 0x0f, 0);

	wr(LCR, LCR_DLAB | 3);
	wr(RBR_THR, 0x34);
	wr(IER, 0x12);
	assert_int_equal(rd(RBR_THR), 0x34);
	assert_int_equal(rd(IER), 0x12);
	wr(LCR, 3);
	assert_int_equal(rd(LCR), 3);
	assert_int_equal(rd(IER), 0);
	assert_sent("");
}

static void test_sends_at_once(void **state)
{
	(void)state;
	send("hello");
	assert_sent("hello");
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
}

static void test_thre_interrupt(void **state)
{
	(void)state;
	interrupts_on(IER_ETBEI); /* enabled with THR empty: pending */
	assert_true(irq.level);
	assert_int_equal(id(), IIR_THR_EMPTY);
	assert_false(irq.level); /* cleared by that read */
	assert_int_equal(id(), IIR_NONE);

	wr(IER, IER_ETBEI); /* not an enabling */
	assert_int_equal(id(), IIR_NONE);
	wr(IER, 0);
	wr(IER, IER_ETBEI);
	assert_int_equal(id(), IIR_THR_EMPTY);

	wr(RBR_THR, 'x'); /* gone at once: empty again */
	assert_true(irq.level);
	assert_int_equal(id(), IIR_THR_EMPTY);

	chr.room = 0;
	wr(RBR_THR, 'y'); /* waits: nothing is pending */
	assert_false(irq.level);
	assert_int_equal(id(), IIR_NONE);
	wr(IER, 0);
	wr(IER, IER_ETBEI); /* enabled with THR full */
	assert_int_equal(id(), IIR_NONE);
	writable(1);
	assert_true(irq.level);
	assert_int_equal(id(), IIR_THR_EMPTY);
	assert_sent("xy");
}

static void test_thre_not_cleared_by_other_source(void **state)
{
	(void)state;
	interrupts_on(IER_ETBEI | IER_ERBFI);
	receive("a", 1);
	assert_int_equal(id(), IIR_DATA_AVAILABLE);
	assert_int_equal(id(), IIR_DATA_AVAILABLE);
	assert_int_equal(rd(RBR_THR), 'a');
	assert_int_equal(id(), IIR_THR_EMPTY);
	assert_int_equal(id(), IIR_NONE);
}

/* Each write of THR gives an edge, also to a driver that never reads IIR. */
static void test_thre_edge_without_iir(void **state)
{
	(void)state;
	interrupts_on(IER_ETBEI);
	for (unsigned i = 1; i < 10; i++) {
		assert_int_equal(irq.rises, i);
		wr(RBR_THR, 'x');
	}
}

static void test_tx_backpressure(void **state)
{
	(void)state;
	fifo_on(0);
	interrupts_on(IER_ETBEI);
	id();
	chr.room = 0;
	send(STRING_20); /* four too many: lost */
	assert_int_equal(rd(LSR), 0);
	assert_false(irq.level);
	writable(10);
	assert_int_equal(rd(LSR), 0);
	assert_false(irq.level);
	send("AB"); /* behind those that wait */
	writable(SIZE_MAX);
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
	assert_true(irq.level);
	assert_int_equal(id(), IIR_THR_EMPTY);
	assert_sent("0123456789abcdefAB");
	writable(SIZE_MAX); /* with nothing to do */
	assert_int_equal(id(), IIR_NONE);
}

static void test_tx_backpressure_without_fifo(void **state)
{
	(void)state;
	chr.room = 0;
	send("abc");
	assert_int_equal(rd(LSR), 0);
	writable(SIZE_MAX);
	assert_sent("a");
}

/* A polled guest loses nothing over a back end that stalls all the time. */
static void test_tx_polled_loses_nothing(void **state)
{
	char text[300];

	(void)state;
	fifo_on(0);
	for (unsigned i = 0; i < sizeof(text); i++) {
		text[i] = (char)i;
		if (i % 7 == 0)
			chr.room = 0;
		while (!(rd(LSR) & LSR_THRE))
			writable(1 + i % 3);
		wr(RBR_THR, (uint8_t)text[i]);
	}
	writable(SIZE_MAX);
	assert_int_equal(chr.out_size, sizeof(text));
	assert_memory_equal(chr.out, text, sizeof(text));
}

static void test_rx_without_fifo(void **state)
{
	(void)state;
	interrupts_on(IER_ERBFI);
	assert_int_equal(receive("ab", 2), 1);
	assert_true(irq.level);
	assert_int_equal(rd(IIR_FCR), IIR_DATA_AVAILABLE);
	assert_int_equal(receive("b", 1), 0);
	assert_int_equal(rd(LSR), LSR_DR | LSR_THRE | LSR_TEMT);
	assert_int_equal(chr.accepts, 0);
	assert_int_equal(rd(RBR_THR), 'a');
	assert_int_equal(chr.accepts, 1);
	assert_false(irq.level);
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
	assert_int_equal(receive("b", 1), 1);
	assert_int_equal(irq.rises, 2);
	assert_int_equal(rd(RBR_THR), 'b');
	assert_int_equal(chr.accepts, 1); /* it refused nothing since */
}

static void test_rx_trigger_levels(void **state)
{
	static const unsigned levels[] = {1, 4, 8, 14};

	(void)state;
	interrupts_on(IER_ERBFI);
	for (unsigned i = 0; i < ARRAY_SIZE(levels); i++) {
		fifo_on(i);
		for (unsigned n = 1; n <= 16; n++) {
			assert_int_equal(receive("x", 1), 1);
			assert_true(irq.level);
			assert_int_equal(rd(IIR_FCR) & IIR_FIFOS_ENABLED, IIR_FIFOS_ENABLED);
			assert_int_equal(id(), n >= levels[i] ? IIR_DATA_AVAILABLE : IIR_CHARACTER_TIMEOUT);
		}
		for (unsigned n = 15; n > 0; n--) {
			rd(RBR_THR);
			assert_int_equal(id(), n >= levels[i] ? IIR_DATA_AVAILABLE : IIR_CHARACTER_TIMEOUT);
		}
		rd(RBR_THR);
		assert_false(irq.level);
		assert_int_equal(id(), IIR_NONE);
	}
}

static void test_rx_order_and_accept(void **state)
{
	(void)state;
	fifo_on(3);
	assert_int_equal(receive(STRING_20, 20), 16);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(chr.accepts, i >= 8); /* once, with half the FIFO free */
		assert_int_equal(rd(RBR_THR), STRING_20[i]);
	}
	assert_int_equal(receive(&STRING_20[16], 4), 4);
	assert_int_equal(rd(RBR_THR), 'g');
	assert_int_equal(chr.accepts, 1);
}

/* A driver of an edge-triggered line that reads one character per interrupt gets them all. */
static void test_rx_one_character_per_edge(void **state)
{
	(void)state;
	fifo_on(3);
	interrupts_on(IER_ERBFI);
	receive(STRING_20, 13);
	unsigned served = 0;

	while (served < irq.rises) {
		assert_int_equal(rd(RBR_THR), STRING_20[served]);
		served++;
	}
	assert_int_equal(served, 13);
	assert_false(irq.level);
}

static void test_rx_trigger_change(void **state)
{
	(void)state;
	interrupts_on(IER_ERBFI);
	fifo_on(0);
	receive("ab", 2);
	assert_int_equal(id(), IIR_DATA_AVAILABLE);
	fifo_on(1);
	assert_int_equal(id(), IIR_CHARACTER_TIMEOUT);
	fifo_on(0);
	assert_int_equal(id(), IIR_DATA_AVAILABLE);
	assert_true(irq.level);
}

static void test_loopback_data(void **state)
{
	(void)state;
	fifo_on(0);
	wr(MCR, MCR_LOOP | MCR_OUT2);
	wr(IER, IER_ERBFI);
	send("loop");
	assert_sent("");
	assert_true(irq.level);
	for (const char *c = "loop"; *c; c++)
		assert_int_equal(rd(RBR_THR), *c);
	assert_false(rd(LSR) & LSR_DR);

	assert_int_equal(receive("in", 2), 0); /* the line is cut */
	assert_int_equal(chr.accepts, 0);
	wr(MCR, MCR_OUT2);
	assert_int_equal(chr.accepts, 1);
	assert_int_equal(receive("in", 2), 2);
	send("out");
	assert_sent("out");
}

static void test_loopback_keeps_waiting_output(void **state)
{
	(void)state;
	fifo_on(0);
	chr.room = 0;
	send("abc");
	wr(MCR, MCR_LOOP | MCR_OUT2);
	wr(IER, IER_ETBEI);
	send("x");
	assert_int_equal(rd(LSR), LSR_DR);
	assert_int_equal(id(), IIR_NONE);
	writable(SIZE_MAX);
	assert_sent("abc");
	assert_int_equal(rd(LSR), LSR_DR | LSR_THRE | LSR_TEMT);
	assert_int_equal(id(), IIR_THR_EMPTY);
}

static void test_loopback_modem_lines(void **state)
{
	static const struct {
		uint8_t out, in;
	} wires[] = {{MCR_DTR, MSR_DSR}, {MCR_RTS, MSR_CTS}, {MCR_OUT1, MSR_RI}, {MCR_OUT2, MSR_DCD}};

	(void)state;
	wr(MCR, MCR_LOOP);
	rd(MSR);
	for (unsigned i = 0; i < ARRAY_SIZE(wires); i++) {
		unsigned delta = wires[i].in >> 4;

		wr(MCR, MCR_LOOP | wires[i].out);
		assert_int_equal(rd(MSR), wires[i].in | (wires[i].in == MSR_RI ? 0 : delta));
		assert_int_equal(rd(MSR), wires[i].in);
		wr(MCR, MCR_LOOP);
		assert_int_equal(rd(MSR), delta); /* for RI the trailing edge */
	}
	wr(MCR, 0);
	assert_int_equal(rd(MSR), MSR_CTS | MSR_DSR | MSR_DCD | MSR_DCTS | MSR_DDSR | MSR_DDCD);
}

static void test_modem_interrupt(void **state)
{
	(void)state;
	interrupts_on(IER_EDSSI);
	assert_false(irq.level);
	wr(MCR, MCR_LOOP | MCR_OUT2);
	assert_true(irq.level);
	assert_int_equal(id(), IIR_MODEM_STATUS);
	assert_int_equal(id(), IIR_MODEM_STATUS); /* not cleared by IIR */
	rd(MSR);
	assert_false(irq.level);
}

static void test_overrun(void **state)
{
	(void)state;
	wr(MCR, MCR_LOOP | MCR_OUT2);
	wr(IER, IER_ELSI);
	send("ab"); /* no FIFO: the new character stays */
	assert_true(irq.level);
	assert_int_equal(id(), IIR_LINE_STATUS);
	assert_int_equal(rd(LSR), LSR_DR | LSR_OE | LSR_THRE | LSR_TEMT);
	assert_false(irq.level);
	assert_int_equal(rd(RBR_THR), 'b');

	fifo_on(0);
	send(STRING_20); /* FIFO: the old ones stay */
	assert_int_equal(rd(LSR), LSR_DR | LSR_OE | LSR_THRE | LSR_TEMT);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(rd(RBR_THR), STRING_20[i]);
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
}

static void test_break(void **state)
{
	(void)state;
	wr(LCR, LCR_SET_BREAK | 3); /* on the wire: nothing to see */
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
	wr(LCR, 3);

	fifo_on(0);
	wr(MCR, MCR_LOOP | MCR_OUT2);
	wr(IER, IER_ELSI);
	send("a");
	wr(LCR, LCR_SET_BREAK | 3);
	wr(LCR, LCR_SET_BREAK | 3); /* the same break */
	send("drowned");
	assert_int_equal(rd(LSR), LSR_DR | LSR_THRE | LSR_TEMT | LSR_FIFO_ERROR); /* behind 'a' */
	assert_false(irq.level);
	assert_int_equal(rd(RBR_THR), 'a');
	assert_true(irq.level);
	assert_int_equal(id(), IIR_LINE_STATUS);
	assert_int_equal(rd(LSR), LSR_DR | LSR_BI | LSR_THRE | LSR_TEMT | LSR_FIFO_ERROR);
	assert_int_equal(rd(LSR), LSR_DR | LSR_THRE | LSR_TEMT);
	assert_int_equal(rd(RBR_THR), 0);
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);

	wr(MCR, 0);
	wr(MCR, MCR_LOOP); /* SBRK is still on: a new break for the receiver */
	assert_int_equal(rd(LSR) & (LSR_DR | LSR_BI), LSR_DR | LSR_BI);
}

static void test_priorities(void **state)
{
	(void)state;
	wr(MCR, MCR_LOOP | MCR_OUT2);
	send("ab"); /* overrun, data, modem deltas, THRE: everything is pending */
	wr(IER, IER_MASK);
	assert_true(irq.level);
	assert_int_equal(id(), IIR_LINE_STATUS);
	rd(LSR);
	assert_int_equal(id(), IIR_DATA_AVAILABLE);
	rd(RBR_THR);
	assert_int_equal(id(), IIR_THR_EMPTY);
	assert_int_equal(id(), IIR_MODEM_STATUS);
	rd(MSR);
	assert_int_equal(id(), IIR_NONE);
	assert_false(irq.level);
	assert_int_equal(irq.rises, 1);
}

static void test_fcr_clears(void **state)
{
	(void)state;
	fifo_on(0);
	interrupts_on(IER_ETBEI | IER_ERBFI);
	id();
	receive(STRING_20, 20);
	chr.room = 0;
	send("abc");
	assert_int_equal(chr.accepts, 0);
	wr(IIR_FCR, FCR_FIFO_ENABLE | FCR_RCVR_RESET);
	assert_int_equal(chr.accepts, 1);
	assert_int_equal(rd(LSR), 0);
	assert_false(irq.level);
	wr(IIR_FCR, FCR_FIFO_ENABLE | FCR_XMIT_RESET);
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
	assert_int_equal(id(), IIR_THR_EMPTY);
	assert_true(receive("x", 1) == 1);

	wr(IIR_FCR, 0); /* a change of mode clears both */
	assert_int_equal(rd(LSR), LSR_THRE | LSR_TEMT);
	receive("x", 1);
	wr(IIR_FCR, FCR_RCVR_RESET); /* nothing without the enable bit */
	assert_true(rd(LSR) & LSR_DR);
	writable(SIZE_MAX);
	assert_sent("");
}

/* Kernels written on virtual machines use interrupts without it. */
static void test_out2_is_no_gate(void **state)
{
	(void)state;
	wr(MCR, 0);
	wr(IER, IER_ERBFI);
	receive("a", 1);
	assert_true(irq.level);
}

/* What was typed before the guest's driver started is not lost to the driver's cleaning up. */
static void test_input_waits_until_the_guest_listens(void **state)
{
	(void)state;
	assert_int_equal(receive("typed early", 11), 0);
	fifo_on(0);
	wr(IIR_FCR, FCR_FIFO_ENABLE | FCR_RCVR_RESET);
	rd(LSR);
	rd(RBR_THR);
	assert_int_equal(chr.accepts, 0);
	wr(MCR, MCR_DTR | MCR_RTS);
	assert_int_equal(chr.accepts, 1);
	assert_int_equal(receive("typed early", 11), 11);
}

static void test_input_comes_with_the_receive_interrupt(void **state)
{
	(void)state;
	assert_int_equal(receive("x", 1), 0);
	wr(IER, IER_ERBFI);
	assert_int_equal(chr.accepts, 1);
	assert_int_equal(receive("x", 1), 1);
}

static void test_rts_is_flow_control(void **state)
{
	(void)state;
	wr(MCR, MCR_DTR | MCR_RTS);
	wr(IER, IER_ERBFI);
	assert_int_equal(receive("1", 1), 1);
	rd(RBR_THR);
	wr(MCR, MCR_DTR); /* Linux, with crtscts, when its buffers are full */
	assert_int_equal(receive("2", 1), 0);
	wr(MCR, MCR_DTR | MCR_RTS);
	assert_int_equal(chr.accepts, 1);
	assert_int_equal(receive("2", 1), 1);
}

static void test_input_comes_to_a_guest_that_polls(void **state)
{
	(void)state;
	assert_int_equal(receive("x", 1), 0);
	for (int i = 0; i < 100; i++) { /* this one looks only whether it may send */
		rd(LSR);
		send("o");
	}
	assert_int_equal(chr.accepts, 0);
	for (int i = 0; i < 100; i++)
		rd(LSR);
	assert_int_equal(chr.accepts, 1);
	assert_int_equal(receive("x", 1), 1);
}

/* The questions that Linux's 8250 driver asks before it believes in a 16550A. */
static void test_linux_probe(void **state)
{
	unsigned count = 0;

	(void)state;
	wr(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
	assert_int_equal(rd(MSR) & 0xf0, MSR_DCD | MSR_CTS);
	wr(IIR_FCR, FCR_FIFO_ENABLE);
	assert_int_equal(rd(IIR_FCR) >> 6, 3);
	for (unsigned i = 0; i < 256; i++)
		wr(RBR_THR, i);
	for (; rd(LSR) & LSR_DR; count++)
		rd(RBR_THR);
	assert_int_equal(count, 16);
	wr(MCR, 0);
	wr(IIR_FCR, 0);

	/* Its test for chips that do not raise THRE again. */
	for (unsigned i = 0; i < 2; i++) {
		wr(IER, IER_ETBEI);
		assert_false(rd(IIR_FCR) & IIR_NONE);
		wr(IER, 0);
	}
}

int main(void)
{
#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
#define FRESH(name) cmocka_unit_test_setup_teardown(name, setup_fresh, teardown)
	const struct CMUnitTest tests[] = {
		FRESH(test_reset_values),
		TEST(test_plain_registers),
		TEST(test_sends_at_once),
		TEST(test_thre_interrupt),
		TEST(test_thre_not_cleared_by_other_source),
		TEST(test_thre_edge_without_iir),
		TEST(test_tx_backpressure),
		TEST(test_tx_backpressure_without_fifo),
		TEST(test_tx_polled_loses_nothing),
		TEST(test_rx_without_fifo),
		TEST(test_rx_trigger_levels),
		TEST(test_rx_order_and_accept),
		TEST(test_rx_one_character_per_edge),
		TEST(test_rx_trigger_change),
		TEST(test_loopback_data),
		TEST(test_loopback_keeps_waiting_output),
		TEST(test_loopback_modem_lines),
		TEST(test_modem_interrupt),
		TEST(test_overrun),
		TEST(test_break),
		TEST(test_priorities),
		TEST(test_fcr_clears),
		TEST(test_out2_is_no_gate),
		FRESH(test_input_waits_until_the_guest_listens),
		FRESH(test_input_comes_with_the_receive_interrupt),
		FRESH(test_rts_is_flow_control),
		FRESH(test_input_comes_to_a_guest_that_polls),
		TEST(test_linux_probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
