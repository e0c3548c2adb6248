/* The real-time clock against a clock that the test moves; loop.c is not linked, its timer calls are here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "devices/calendar.h"
#include "devices/rtc_cmos.h"
#include "devices/rtc_cmos_regs.h"
#include "util.h"

/* --- fakes --- */

static int64_t now_ns; /* real time; the monotonic clock is the same minus BOOT_NS */
static const int64_t BOOT_NS = 1000000000000;
static struct loop_timer *armed;
static uint64_t armed_ns;

uint64_t loop_now_ns(void)
{
	return (uint64_t)(now_ns - BOOT_NS);
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
	assert_null(loop);
	armed = timer;
	armed_ns = deadline_ns;
}

void loop_timer_disarm(struct loop *loop, struct loop_timer *timer)
{
	assert_null(loop);
	(void)timer;
	armed = NULL;
}

static int64_t realtime(void *ctx)
{
	assert_ptr_equal(ctx, &now_ns);
	return now_ns;
}

static struct {
	bool level;
	unsigned rises;
} irq;

static void irq_fake_set(void *ctx, unsigned line, bool level)
{
	(void)ctx;
	assert_int_equal(line, 8);
	assert_int_not_equal(level, irq.level);
	irq.level = level;
	irq.rises += level;
}

static struct device *rtc;

/* 2024-02-28 23:59:58 UTC, a Wednesday */
enum { START_S = 1709164798 };
#define MS     INT64_C(1000000)
#define SECOND INT64_C(1000000000)

static struct device *rtc_new(uint64_t low_end, uint64_t high)
{
	struct rtc_cmos_config config = {
		.low_memory_end_bytes = low_end,
		.high_memory_bytes = high,
		.realtime_ns = realtime,
		.realtime_ctx = &now_ns,
	};

	return rtc_cmos_new((struct irq_line){irq_fake_set, NULL, 8}, NULL, &config, NULL);
}

static int setup(void **state)
{
	(void)state;
	now_ns = START_S * SECOND;
	memset(&irq, 0, sizeof(irq));
	rtc = rtc_new(MIB(256), 0);
	return rtc ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	device_free(rtc);
	return armed != NULL;
}

static uint8_t rd(unsigned index)
{
	device_write(rtc, INDEX, 1, index);
	return (uint8_t)device_read(rtc, DATA, 1);
}

static void wr(unsigned index, unsigned value)
{
	device_write(rtc, INDEX, 1, index);
	device_write(rtc, DATA, 1, value);
}

/* Let time pass; timers run when due. Returns how often. */
static unsigned pass(int64_t ns)
{
	int64_t end = now_ns + ns;
	unsigned fired = 0;

	while (armed && (int64_t)armed_ns + BOOT_NS <= end) {
		struct loop_timer *timer = armed;

		if (now_ns < (int64_t)armed_ns + BOOT_NS)
			now_ns = (int64_t)armed_ns + BOOT_NS;
		armed = NULL;
		timer->fn(timer);
		fired++;
	}
	now_ns = end;
	return fired;
}

static void assert_time(unsigned century, unsigned year, unsigned month, unsigned day, unsigned weekday, unsigned hour,
			unsigned minute, unsigned second)
{
	assert_int_equal(rd(CENTURY), century);
	assert_int_equal(rd(YEAR), year);
	assert_int_equal(rd(MONTH), month);
	assert_int_equal(rd(DATE_OF_MONTH), day);
	assert_int_equal(rd(DAY_OF_WEEK), weekday);
	assert_int_equal(rd(HOURS), hour);
	assert_int_equal(rd(MINUTES), minute);
	assert_int_equal(rd(SECONDS), second);
}

static void set_time(unsigned century, unsigned year, unsigned month, unsigned day, unsigned hour, unsigned minute,
		     unsigned second)
{
	wr(CENTURY, century);
	wr(YEAR, year);
	wr(MONTH, month);
	wr(DATE_OF_MONTH, day);
	wr(HOURS, hour);
	wr(MINUTES, minute);
	wr(SECONDS, second);
}

/* --- tests --- */

static void test_calendar_like_libc(void **state)
{
	(void)state;
	for (int64_t days = -719162; days < 2932896; days += 13) { /* years 1 to 9999 */
		time_t t = days * 86400;
		struct tm tm;
		struct date d = date_from_days(days);

		assert_non_null(gmtime_r(&t, &tm));
		assert_int_equal(d.year, tm.tm_year + 1900);
		assert_int_equal(d.month, tm.tm_mon + 1);
		assert_int_equal(d.day, tm.tm_mday);
		assert_int_equal(d.weekday, tm.tm_wday + 1);
		assert_int_equal(days_from_date(&d), days);
	}
	assert_int_equal(date_from_days(-800000).year, 1);
	assert_int_equal(date_from_days(-800000).day, 1);
}

static void test_bcd_and_leap_day(void **state)
{
	(void)state;
	assert_time(0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x58);
	pass(2 * SECOND);
	assert_time(0x20, 0x24, 0x02, 0x29, 5, 0x00, 0x00, 0x00);
	pass(86400 * SECOND);
	assert_time(0x20, 0x24, 0x03, 0x01, 6, 0x00, 0x00, 0x00);
}

static void test_binary(void **state)
{
	(void)state;
	wr(REGISTER_B, B_24H | B_DM);
	assert_time(20, 24, 2, 28, 4, 23, 59, 58);
}

static void test_12_hours(void **state)
{
	static const uint8_t hours[] = {0x12, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x10, 0x11,
					0x92, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x90, 0x91};

	(void)state;
	wr(REGISTER_B, 0);
	for (unsigned h = 0; h < 24; h++) {
		now_ns = (START_S + 2 + 3600 * h) * SECOND;
		assert_int_equal(rd(HOURS), hours[h]);
	}
	wr(HOURS, 0x81); /* 1 pm */
	wr(REGISTER_B, B_24H);
	assert_int_equal(rd(HOURS), 0x13);
}

static void test_index_register(void **state)
{
	(void)state;
	device_write(rtc, INDEX, 1, 0x80 | REGISTER_D);
	assert_int_equal(device_read(rtc, INDEX, 1), 0xff);
	assert_int_equal(device_read(rtc, DATA, 1), D_VRT);
	assert_int_equal(device_read(rtc, INDEX, 2), 0xffff);
	wr(REGISTER_D, 0);
	assert_int_equal(rd(REGISTER_D), D_VRT);
	wr(0x40, 0x5a);
	assert_int_equal(rd(0x40), 0x5a);
	assert_int_equal(rd(0xc0), 0x5a); /* bit 7 masks NMI, it is no address */
}

static void test_memory_sizes(void **state)
{
	(void)state;
	assert_int_equal(rd(0x15) | rd(0x16) << 8, 640);
	assert_int_equal(rd(0x17) | rd(0x18) << 8, 0xffff);
	assert_int_equal(rd(0x30) | rd(0x31) << 8, 0xffff);
	assert_int_equal(rd(0x34) | rd(0x35) << 8, 240 * 16);
	assert_int_equal(rd(0x5b) | rd(0x5c) << 8 | rd(0x5d) << 16, 0);

	device_free(rtc);
	rtc = rtc_new(MIB(8), GIB(72));
	assert_int_equal(rd(0x30) | rd(0x31) << 8, 7 * 1024);
	assert_int_equal(rd(0x34) | rd(0x35) << 8, 0);
	assert_int_equal(rd(0x5b) | rd(0x5c) << 8 | rd(0x5d) << 16, 72 * 1024 * 16);
	device_free(rtc);
	rtc = rtc_new(0, 0);
	assert_int_equal(rd(0x17) | rd(0x18) << 8, 0);
}

static void test_set_stops_the_clock(void **state)
{
	(void)state;
	pass(300 * MS);
	wr(REGISTER_B, B_24H | B_SET);
	pass(5 * SECOND);
	assert_time(0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x58);
	set_time(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
	assert_int_equal(rd(MONTH), 0x12);
	wr(REGISTER_B, B_24H);
	assert_time(0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59);
	pass(699 * MS);
	assert_int_equal(rd(SECONDS), 0x59);
	pass(2 * MS); /* SET does not touch the divider */
	assert_time(0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00);
}

/* In the order of Linux, which clears SET first and releases the divider second, and the other way round. */
static void test_divider_reset_gives_half_a_second(void **state)
{
	(void)state;
	for (unsigned set_first = 0; set_first < 2; set_first++) {
		pass(123 * MS);
		wr(REGISTER_B, B_24H | B_SET);
		wr(REGISTER_A, 0x76);
		set_time(0x20, 0x30, 0x01, 0x02, 0x03, 0x04, 0x05);
		pass(10 * SECOND);
		wr(set_first ? REGISTER_B : REGISTER_A, set_first ? B_24H : 0x26);
		assert_int_equal(rd(SECONDS), 0x05);
		wr(set_first ? REGISTER_A : REGISTER_B, set_first ? 0x26 : B_24H);
		pass(499 * MS);
		assert_time(0x20, 0x30, 0x01, 0x02, 4, 0x03, 0x04, 0x05);
		pass(2 * MS);
		assert_int_equal(rd(SECONDS), 0x06);
	}
}

static void test_set_without_set_bit(void **state)
{
	(void)state;
	wr(HOURS, 0x10);
	pass(2 * SECOND);
	assert_time(0x20, 0x24, 0x02, 0x28, 4, 0x11, 0x00, 0x00);
}

static void test_any_value_is_harmless(void **state)
{
	(void)state;
	srand(1);
	for (unsigned i = 0; i < 200000; i++) {
		unsigned index = (unsigned)rand() % 16 == 15 ? CENTURY : (unsigned)rand() % 14;

		wr(index, (unsigned)rand() & 0xff);
		rd((unsigned)rand() & 0x7f);
		pass(rand() % 1000 * MS);
		if (rand() % 100 == 0)
			now_ns -= rand() % 100 * SECOND;
	}
	wr(REGISTER_B, B_SET);
	wr(REGISTER_B, 0);
}

static void test_impossible_dates_are_clamped(void **state)
{
	(void)state;
	wr(REGISTER_B, B_24H | B_SET);
	set_time(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
	wr(REGISTER_B, B_24H);
	assert_time(0x99, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59);
	wr(REGISTER_B, B_24H | B_SET);
	set_time(0x20, 0x23, 0x02, 0x30, 0x00, 0x00, 0x00);
	wr(REGISTER_B, B_24H);
	assert_time(0x20, 0x23, 0x03, 0x02, 5, 0x00, 0x00, 0x00);
}

static void test_uip(void **state)
{
	unsigned seen = 0;

	(void)state;
	assert_int_equal(rd(REGISTER_A), 0x26);
	for (unsigned i = 0; i < 10000; i++) { /* poll every 100 us: each second it is seen */
		seen += !!(rd(REGISTER_A) & A_UIP);
		pass(100000);
	}
	assert_in_range(seen, 1, 3);
	pass(999 * MS + 900000);
	assert_true(rd(REGISTER_A) & A_UIP);
	assert_int_equal(rd(SECONDS), 0x59);
	pass(100000);
	assert_false(rd(REGISTER_A) & A_UIP);
	assert_int_equal(rd(SECONDS), 0x00);
	pass(999 * MS + 900000);
	wr(REGISTER_B, B_24H | B_SET);
	assert_false(rd(REGISTER_A) & A_UIP);
	wr(REGISTER_A, 0xa6); /* UIP is read-only */
	assert_int_equal(rd(REGISTER_A), 0x26);
}

static void test_flags_without_interrupts(void **state)
{
	(void)state;
	assert_int_equal(rd(REGISTER_C), 0);
	pass(1 * MS);
	assert_int_equal(rd(REGISTER_C), C_PF);
	assert_int_equal(rd(REGISTER_C), 0);
	pass(SECOND);
	assert_int_equal(rd(REGISTER_C), C_PF | C_UF);
	pass(86400 * SECOND);
	assert_int_equal(rd(REGISTER_C), C_PF | C_UF | C_AF); /* the alarm at 00:00:00 */
	assert_int_equal(irq.rises, 0);
	wr(REGISTER_C, 0xff);
	assert_int_equal(rd(REGISTER_C), 0);
}

static void test_update_interrupt(void **state)
{
	(void)state;
	pass(250 * MS);
	rd(REGISTER_C);
	wr(REGISTER_B, B_24H | B_UIE);
	assert_int_equal(pass(749 * MS), 0);
	assert_int_equal(pass(2 * MS), 1);
	assert_true(irq.level);
	assert_null(armed); /* nothing to wait for until it is read */
	assert_int_equal(rd(REGISTER_C), C_IRQF | C_UF | C_PF);
	assert_false(irq.level);
	assert_non_null(armed);
	pass(SECOND);
	assert_int_equal(irq.rises, 2);
	wr(REGISTER_B, B_24H);
	assert_false(irq.level);
	assert_null(armed);
	wr(REGISTER_B, B_24H | B_UIE); /* the flag is still there */
	assert_true(irq.level);
	wr(REGISTER_B, B_24H | B_UIE | B_SET);
	assert_int_equal(rd(REGISTER_B), B_24H | B_SET);
	assert_false(irq.level);
}

static void test_alarm_interrupt(void **state)
{
	(void)state;
	wr(SECONDS_ALARM, 0x10);
	wr(MINUTES_ALARM, 0x30);
	wr(HOURS_ALARM, 0x01);
	wr(REGISTER_B, B_24H | B_AIE);
	pass((2 + 3600 + 1800 + 9) * SECOND);
	assert_false(irq.level);
	pass(SECOND + MS);
	assert_true(irq.level);
	assert_int_equal(rd(REGISTER_C) & (C_IRQF | C_AF), C_IRQF | C_AF);
	assert_true(pass(86399 * SECOND) <= 86400 / 60 + 1); /* a look a minute */
	assert_int_equal(irq.rises, 1);
	pass(SECOND);
	assert_int_equal(irq.rises, 2);
	rd(REGISTER_C);

	wr(MINUTES_ALARM, 0xff); /* any minute, any hour */
	wr(HOURS_ALARM, 0xc0);
	for (unsigned i = 3; i < 6; i++) {
		pass(60 * SECOND);
		assert_int_equal(irq.rises, i);
		rd(REGISTER_C);
	}
	wr(SECONDS_ALARM, 0x60); /* never */
	assert_null(armed);
	pass(86400 * SECOND);
	assert_int_equal(rd(REGISTER_C) & C_AF, 0);
	wr(REGISTER_B, B_24H);
}

/* Every time of day is found, and found when it comes. */
static void test_alarm_each_field(void **state)
{
	(void)state;
	wr(REGISTER_B, B_24H | B_DM | B_AIE);
	srand(2);
	for (unsigned i = 0; i < 300; i++) {
		int second = rand() % 60, minute = rand() % 60, hour = rand() % 24;

		wr(SECONDS_ALARM, (unsigned)second);
		wr(MINUTES_ALARM, (unsigned)minute);
		wr(HOURS_ALARM, (unsigned)hour);
		rd(REGISTER_C);
		unsigned rises = irq.rises;

		for (unsigned m = 0; m <= 24 * 60 && irq.rises == rises; m++)
			pass(60 * SECOND);
		assert_int_equal(irq.rises, rises + 1);
		assert_in_range(((now_ns / SECOND) - (hour * 3600 + minute * 60 + second)) % 86400, 0, 60);
	}
	wr(REGISTER_B, B_24H);
}

static void test_alarm_12_hours(void **state)
{
	(void)state;
	wr(REGISTER_B, B_AIE);
	wr(HOURS_ALARM, 0x81); /* 1 pm */
	pass((2 + 13 * 3600 - 1) * SECOND);
	assert_false(irq.level);
	pass(SECOND);
	assert_true(irq.level);
	wr(REGISTER_B, 0);
}

static void test_periodic_interrupt(void **state)
{
	static const unsigned hz[] = {0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2};

	(void)state;
	for (unsigned rs = 0; rs < 16; rs++) {
		unsigned count = 0;

		wr(REGISTER_A, 0x20 | rs);
		rd(REGISTER_C);
		wr(REGISTER_B, B_24H | B_PIE);
		for (int64_t end = now_ns + SECOND; now_ns < end;) {
			pass(50000);
			if (!irq.level)
				continue;
			assert_true(rd(REGISTER_C) & C_PF);
			count++;
		}
		assert_in_range(count, hz[rs] - (hz[rs] > 0), hz[rs]);
		wr(REGISTER_B, B_24H);
	}
	wr(REGISTER_A, 0x26);
	wr(REGISTER_B, B_24H | B_PIE);
	assert_int_equal(pass(SECOND), 1); /* unread, it does not tick on */
	wr(REGISTER_A, 0x76);
	rd(REGISTER_C);
	assert_null(armed); /* held in reset */
}

static void test_host_clock_steps(void **state)
{
	(void)state;
	wr(REGISTER_B, B_24H | B_UIE | B_PIE);
	rd(REGISTER_C);
	now_ns -= 3600 * SECOND;
	assert_int_equal(rd(REGISTER_C), 0);
	assert_int_equal(rd(HOURS), 0x22);
	pass(SECOND + 100 * MS);
	assert_true(irq.level);
	assert_int_equal(rd(REGISTER_C), C_IRQF | C_UF | C_PF);
	now_ns += 7200 * SECOND;
	assert_int_equal(rd(REGISTER_C), C_IRQF | C_UF | C_PF | C_AF);
	wr(REGISTER_B, B_24H);
}

static void test_real_clock(void **state)
{
	struct rtc_cmos_config config = {0};
	time_t t = time(NULL);
	struct tm tm;

	(void)state;
	device_free(rtc);
	rtc = rtc_cmos_new((struct irq_line){0}, NULL, &config, NULL);
	wr(REGISTER_B, B_24H | B_DM);
	assert_non_null(gmtime_r(&t, &tm));
	assert_in_range((60 + rd(SECONDS) - tm.tm_sec) % 60, 0, 5);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calendar_like_libc),
		TEST(test_bcd_and_leap_day),
		TEST(test_binary),
		TEST(test_12_hours),
		TEST(test_index_register),
		TEST(test_memory_sizes),
		TEST(test_set_stops_the_clock),
		TEST(test_divider_reset_gives_half_a_second),
		TEST(test_set_without_set_bit),
		TEST(test_any_value_is_harmless),
		TEST(test_impossible_dates_are_clamped),
		TEST(test_uip),
		TEST(test_flags_without_interrupts),
		TEST(test_update_interrupt),
		TEST(test_alarm_interrupt),
		TEST(test_alarm_each_field),
		TEST(test_alarm_12_hours),
		TEST(test_periodic_interrupt),
		TEST(test_host_clock_steps),
		TEST(test_real_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
