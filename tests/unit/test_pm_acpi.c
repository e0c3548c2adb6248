/* ACPI fixed hardware; the monotonic clock is the test's (loop.c is not linked). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/pm_acpi.h"
#include "loop.h"

enum {
	STS = PM_ACPI_PM1_EVT_OFFSET,
	EN = PM_ACPI_PM1_EVT_OFFSET + 2,
	CNT = PM_ACPI_PM1_CNT_OFFSET,
	PWRBTN = 1 << 8,
	WAK_STS = 1 << 15,
	SCI_EN = 1,
	SLP_EN = 1 << 13,
	SLP_TYP_SHIFT = 10,
};

static uint64_t now_ns;
static unsigned events[4];
static bool sci_level;
static struct device *pm;

uint64_t loop_now_ns(void)
{
	return now_ns;
}

static void on_event(void *ctx, enum guest_event event, uint32_t value)
{
	(void)ctx;
	assert_int_equal(value, 0);
	events[event]++;
}

static void on_sci(void *ctx, unsigned line, bool level)
{
	(void)ctx;
	assert_int_equal(line, 9);
	assert_int_not_equal(level, sci_level);
	sci_level = level;
}

static int setup(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		events[i] = 0;
	sci_level = false;
	now_ns = 123456789;
	pm = pm_acpi_new((struct irq_line){on_sci, NULL, 9}, (struct guest_event_sink){on_event, NULL}, NULL);
	return pm ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	device_free(pm);
	return 0;
}

static unsigned rd(uint64_t offset, unsigned size)
{
	return (unsigned)device_read(pm, offset, size);
}

static void wr(uint64_t offset, unsigned size, unsigned value)
{
	device_write(pm, offset, size, value);
}

static void test_power_button(void **state)
{
	(void)state;
	pm_acpi_press_power_button(pm);
	assert_int_equal(rd(STS, 2), PWRBTN);
	assert_false(sci_level);
	wr(EN, 2, PWRBTN);
	assert_true(sci_level);
	pm_acpi_press_power_button(pm); /* held: no change */
	wr(STS, 2, 0xffff & ~PWRBTN);
	assert_true(sci_level);
	wr(STS, 2, PWRBTN);
	assert_false(sci_level);
	assert_int_equal(rd(STS, 2), 0);
	pm_acpi_press_power_button(pm);
	assert_true(sci_level);
	wr(EN, 2, 0);
	assert_false(sci_level);
}

static void test_event_block_sizes(void **state)
{
	(void)state;
	pm_acpi_press_power_button(pm);
	wr(EN + 1, 1, 0x01);
	assert_true(sci_level);
	assert_int_equal(rd(STS, 4), (unsigned)PWRBTN << 16 | PWRBTN);
	assert_int_equal(rd(STS, 1), 0);
	assert_int_equal(rd(STS + 1, 1), 1);
	assert_int_equal(rd(EN + 1, 1), 1);
	wr(STS + 1, 1, 1); /* clears; the neighbours stay */
	assert_int_equal(rd(STS, 4), (unsigned)PWRBTN << 16);
	pm_acpi_press_power_button(pm);
	wr(STS, 4, (unsigned)PWRBTN); /* clears and disables in one write */
	assert_int_equal(rd(STS, 4), 0);
	assert_false(sci_level);
	wr(EN, 2, 0xffff); /* what cannot be enabled reads 0: TMR_EN among it */
	assert_int_equal(rd(EN, 2), 0x4720);
}

static void test_power_off(void **state)
{
	(void)state;
	assert_int_equal(rd(CNT, 2), SCI_EN);
	wr(CNT, 2, PM_ACPI_SLP_TYP_S5 << SLP_TYP_SHIFT | SCI_EN);
	assert_int_equal(events[GUEST_EVENT_POWEROFF], 0);
	assert_int_equal(rd(CNT, 2), PM_ACPI_SLP_TYP_S5 << SLP_TYP_SHIFT | SCI_EN);
	wr(CNT, 2, PM_ACPI_SLP_TYP_S5 << SLP_TYP_SHIFT | SLP_EN);
	assert_int_equal(events[GUEST_EVENT_POWEROFF], 1);
	assert_int_equal(rd(CNT, 2) & SLP_EN, 0);
	wr(CNT + 1, 1, (PM_ACPI_SLP_TYP_S5 << SLP_TYP_SHIFT | SLP_EN) >> 8);
	assert_int_equal(events[GUEST_EVENT_POWEROFF], 2);
	wr(CNT, 4, PM_ACPI_SLP_TYP_S5 << SLP_TYP_SHIFT | SLP_EN);
	assert_int_equal(events[GUEST_EVENT_POWEROFF], 3);
	wr(CNT, 1, 0xff);
	assert_int_equal(events[GUEST_EVENT_POWEROFF], 3);
	assert_int_equal(rd(CNT, 1), 3);
	assert_int_equal(rd(STS, 2), 0);
}

static void test_other_sleep_states_wake(void **state)
{
	(void)state;
	for (unsigned type = 0; type < 8; type++) {
		if (type == PM_ACPI_SLP_TYP_S5)
			continue;
		wr(CNT, 2, type << SLP_TYP_SHIFT | SLP_EN);
		assert_int_equal(rd(STS, 2), WAK_STS);
		wr(STS, 2, WAK_STS);
		assert_int_equal(rd(STS, 2), 0);
	}
	assert_int_equal(events[GUEST_EVENT_POWEROFF], 0);
	assert_false(sci_level);
}

static void test_timer(void **state)
{
	(void)state;
	assert_int_equal(rd(PM_ACPI_PM_TMR_OFFSET, 4), 0);
	now_ns += 1000000000;
	assert_int_equal(rd(PM_ACPI_PM_TMR_OFFSET, 4), 3579545);
	now_ns += 500000000;
	assert_int_equal(rd(PM_ACPI_PM_TMR_OFFSET, 4), 3579545 + 1789772);
	wr(PM_ACPI_PM_TMR_OFFSET, 4, 0);
	assert_int_equal(rd(PM_ACPI_PM_TMR_OFFSET, 4), 3579545 + 1789772);
	assert_int_equal(rd(PM_ACPI_PM_TMR_OFFSET, 2), (3579545 + 1789772) & 0xffff);
	now_ns += 86400u * 365 * UINT64_C(1000000000); /* wraps, and does not overflow within */
	assert_int_equal(rd(PM_ACPI_PM_TMR_OFFSET, 4),
			 (uint32_t)(86400u * 365 * UINT64_C(3579545) + 3579545 + 1789772));
}

static void test_reset_and_holes(void **state)
{
	(void)state;
	wr(PM_ACPI_RESET_OFFSET, 1, 0);
	wr(PM_ACPI_RESET_OFFSET, 1, 0xff);
	assert_int_equal(events[GUEST_EVENT_RESET], 0);
	wr(PM_ACPI_RESET_OFFSET, 1, PM_ACPI_RESET_VALUE);
	assert_int_equal(events[GUEST_EVENT_RESET], 1);
	assert_int_equal(rd(PM_ACPI_RESET_OFFSET, 1), 0);
	for (unsigned offset = 6; offset < PM_ACPI_SIZE; offset++) {
		if (offset != PM_ACPI_RESET_OFFSET)
			wr(offset, 1, PM_ACPI_RESET_VALUE);
	}
	assert_int_equal(events[GUEST_EVENT_RESET], 1);
	assert_int_equal(rd(6, 2), 0);
	assert_int_equal(rd(14, 4), 0);
	assert_true(device_read(pm, 0, 8) == UINT64_MAX);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_power_button), TEST(test_event_block_sizes),
		TEST(test_power_off),    TEST(test_other_sleep_states_wake),
		TEST(test_timer),        TEST(test_reset_and_holes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
