/* The keyboard controller: reset, and the questions that drivers ask. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/i8042.h"

enum {
	OUTPUT_FULL = 0x01,
	INPUT_FULL = 0x02,
	COMMAND = 0x08,
	NOT_INHIBITED = 0x10,
	AUX_DATA = 0x20,
	TIMEOUT = 0x40,
};

static unsigned resets;
static bool irq_level;
static struct device *kbc;

static void on_event(void *ctx, enum guest_event event, uint32_t value)
{
	(void)ctx;
	assert_int_equal(event, GUEST_EVENT_RESET);
	assert_int_equal(value, 0);
	resets++;
}

static void on_irq(void *ctx, unsigned line, bool level)
{
	(void)ctx;
	assert_int_equal(line, 1);
	assert_int_not_equal(level, irq_level);
	irq_level = level;
}

static int setup(void **state)
{
	(void)state;
	resets = 0;
	irq_level = false;
	kbc = i8042_new((struct irq_line){on_irq, NULL, 1}, (struct guest_event_sink){on_event, NULL}, NULL);
	return kbc ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	device_free(kbc);
	return 0;
}

static unsigned status(void)
{
	return (unsigned)device_read(kbc, I8042_COMMAND_OFFSET, 1);
}

static unsigned data(void)
{
	return (unsigned)device_read(kbc, I8042_DATA_OFFSET, 1);
}

static void command(unsigned value)
{
	device_write(kbc, I8042_COMMAND_OFFSET, 1, value);
}

static void write_data(unsigned value)
{
	device_write(kbc, I8042_DATA_OFFSET, 1, value);
}

/* The answer to a command, which is there at once. */
static unsigned ask(unsigned value)
{
	command(value);
	assert_true(status() & OUTPUT_FULL);
	return data();
}

static void test_reset(void **state)
{
	(void)state;
	command(0xfe);
	assert_int_equal(resets, 1);
	command(0xff); /* pulses nothing */
	command(0xf1);
	assert_int_equal(resets, 1);
	command(0xf0);
	assert_int_equal(resets, 2);
	command(0xd1);
	write_data(0x03);
	assert_int_equal(resets, 2);
	assert_int_equal(ask(0xd0), 0x03);
	command(0xd1);
	write_data(0xfe);
	assert_int_equal(resets, 3);
	write_data(0xfe); /* a byte for the keyboard */
	assert_int_equal(resets, 3);
}

static void test_controller(void **state)
{
	(void)state;
	assert_int_equal(status() & (OUTPUT_FULL | INPUT_FULL | NOT_INHIBITED), NOT_INHIBITED);
	assert_int_equal(ask(0xaa), 0x55);
	assert_int_equal(ask(0xab), 0x00);
	assert_int_equal(status() & OUTPUT_FULL, 0);
	assert_int_equal(ask(0xa4), 0xf1);
	assert_int_equal(ask(0xc0), 0x80);
	assert_true(status() & COMMAND);

	assert_int_equal(ask(0x20) & 0x40, 0x40); /* translates */
	command(0x60);
	write_data(0x45);
	assert_false(status() & (COMMAND | OUTPUT_FULL));
	assert_int_equal(ask(0x20), 0x65);
	command(0xad);
	assert_int_equal(ask(0x20), 0x75);
	command(0xae);
	assert_int_equal(ask(0x20), 0x65);
	command(0x61);
	write_data(0x12);
	assert_int_equal(ask(0x21), 0x12);
	command(0xd2);
	write_data(0x34);
	assert_int_equal(data(), 0x34);
	command(0x8f); /* unknown */
	assert_int_equal(status() & OUTPUT_FULL, 0);
	assert_int_equal(device_read(kbc, I8042_DATA_OFFSET, 2), 0xffff);
	assert_int_equal(device_read(kbc, 1, 1), 0xff);
}

/* What Linux tries: the loop command must fail fast, the port's test must not say "works" (0, 0xfa, 0xff). */
static void test_no_aux(void **state)
{
	(void)state;
	command(0xd3);
	write_data(0x5a);
	assert_int_equal(status() & (OUTPUT_FULL | AUX_DATA), OUTPUT_FULL);
	assert_int_equal(ask(0xa9), 0x01); /* and not the 0x5a that nobody read */
	assert_int_equal(status() & OUTPUT_FULL, 0);
	command(0xa7);
	command(0xa8);
	assert_true(ask(0x20) & 0x20);
	command(0xd4);
	write_data(0xff);
	assert_true(status() & TIMEOUT);
	assert_int_equal(data(), 0xfe);
}

static void test_no_keyboard(void **state)
{
	(void)state;
	write_data(0xf2);
	assert_int_equal(status() & (OUTPUT_FULL | TIMEOUT), OUTPUT_FULL | TIMEOUT);
	assert_int_equal(data(), 0xfe);
	assert_int_equal(status() & (OUTPUT_FULL | TIMEOUT), 0);
	write_data(0xff);
	assert_int_equal(ask(0xaa), 0x55); /* the newer answer; no time-out */
	assert_int_equal(status() & (OUTPUT_FULL | TIMEOUT), 0);
}

static void test_interrupt(void **state)
{
	(void)state;
	write_data(0xf2);
	assert_false(irq_level);
	command(0x60);
	write_data(0x41);
	assert_true(irq_level);
	data();
	assert_false(irq_level);
	write_data(0xf2);
	assert_true(irq_level);
	command(0x60);
	write_data(0x40);
	assert_false(irq_level);
}

static void test_any_value_is_harmless(void **state)
{
	(void)state;
	for (unsigned cmd = 0; cmd < 256; cmd++) {
		for (unsigned value = 0; value < 256; value += 5) {
			command(cmd);
			assert_false(status() & INPUT_FULL);
			write_data(value);
			assert_false(status() & INPUT_FULL);
			data();
		}
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_reset),       TEST(test_controller), TEST(test_no_aux),
		TEST(test_no_keyboard), TEST(test_interrupt),  TEST(test_any_value_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
