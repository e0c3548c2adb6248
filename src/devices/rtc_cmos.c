#include "devices/rtc_cmos.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "devices/calendar.h"
#include "devices/rtc_cmos_regs.h"
#include "util.h"

enum {
	SECOND_US = 1000000,
	DAY_S = 86400,
	UIP_US = 244,                  /* UIP is set this long before an update; the update takes no time */
	TIMER_MAX_US = 60 * SECOND_US, /* look again, in case the host's clock was set */
	YEAR_MAX = 9999,
};

struct rtc_cmos {
	struct device dev;
	struct irq_line irq;
	struct loop *loop;
	struct loop_timer timer;
	struct rtc_cmos_config config;
	int64_t offset_us;
	int64_t seen_us; /* clock up to which register C's flags are worked out */
	bool irq_level;
	uint8_t index;
	uint8_t ram[CMOS_SIZE]; /* time registers are true only while the clock is stopped */
};

static struct rtc_cmos *to_rtc(struct device *dev)
{
	return container_of(dev, struct rtc_cmos, dev);
}

static int64_t floor_div(int64_t n, int64_t by)
{
	return n / by - (n % by < 0);
}

static int64_t floor_mod(int64_t n, int64_t by)
{
	return n - floor_div(n, by) * by;
}

/* --- register formats --- */

static uint8_t encode(const struct rtc_cmos *r, int64_t n)
{
	return (uint8_t)(r->ram[REGISTER_B] & B_DM ? n : (n / 10) << 4 | n % 10);
}

static int decode(const struct rtc_cmos *r, uint8_t v)
{
	return r->ram[REGISTER_B] & B_DM ? v : (v >> 4) * 10 + (v & 0xf);
}

static uint8_t encode_hour(const struct rtc_cmos *r, int64_t hour)
{
	if (r->ram[REGISTER_B] & B_24H)
		return encode(r, hour);
	return encode(r, (hour + 11) % 12 + 1) | (hour >= 12 ? HOURS_PM : 0);
}

static int decode_hour(const struct rtc_cmos *r, uint8_t v)
{
	if (r->ram[REGISTER_B] & B_24H)
		return decode(r, v);
	return decode(r, v & ~HOURS_PM) % 12 + (v & HOURS_PM ? 12 : 0);
}

static int clamp(int n, int low, int high)
{
	return n < low ? low : n > high ? high : n;
}

static void ram_from_seconds(struct rtc_cmos *r, int64_t seconds)
{
	struct date d = date_from_days(floor_div(seconds, DAY_S));
	int64_t of_day = floor_mod(seconds, DAY_S);

	r->ram[SECONDS] = encode(r, of_day % 60);
	r->ram[MINUTES] = encode(r, of_day / 60 % 60);
	r->ram[HOURS] = encode_hour(r, of_day / 3600);
	r->ram[DAY_OF_WEEK] = encode(r, d.weekday);
	r->ram[DATE_OF_MONTH] = encode(r, d.day);
	r->ram[MONTH] = encode(r, d.month);
	r->ram[YEAR] = encode(r, d.year % 100);
	r->ram[CENTURY] = encode(r, d.year / 100);
}

/* What a guest may have stored is anything: each value is brought into its range. */
static int64_t seconds_from_ram(const struct rtc_cmos *r)
{
	struct date d = {
		.year = clamp(decode(r, r->ram[CENTURY]) * 100 + decode(r, r->ram[YEAR]), 1, YEAR_MAX),
		.month = clamp(decode(r, r->ram[MONTH]), 1, 12),
		.day = clamp(decode(r, r->ram[DATE_OF_MONTH]), 1, 31),
	};

	return days_from_date(&d) * DAY_S + clamp(decode_hour(r, r->ram[HOURS]), 0, 23) * 3600 +
	       clamp(decode(r, r->ram[MINUTES]), 0, 59) * 60 + clamp(decode(r, r->ram[SECONDS]), 0, 59);
}

/* --- the clock --- */

static int64_t host_realtime_ns(void *ctx)
{
	struct timespec ts;

	(void)ctx;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Microseconds since 1970 on the guest's clock: its seconds tick with the divider, also while SET is on. */
static int64_t clock_us(const struct rtc_cmos *r)
{
	return floor_div(r->config.realtime_ns(r->config.realtime_ctx), 1000) + r->offset_us;
}

static int64_t to_seconds(int64_t us)
{
	return floor_div(us, SECOND_US);
}

static bool divider_in_reset(const struct rtc_cmos *r)
{
	return (r->ram[REGISTER_A] & A_DV_RESET) == A_DV_RESET;
}

static bool stopped(const struct rtc_cmos *r)
{
	return (r->ram[REGISTER_B] & B_SET) || divider_in_reset(r);
}

/* Move the clock so that it shows `us` now; what it skips sets no flag. */
static void clock_set(struct rtc_cmos *r, int64_t us)
{
	r->offset_us += us - clock_us(r);
	r->seen_us = us;
}

/* The clock takes over what the guest stored; the part of a second stays, as the divider was not touched. */
static void clock_set_from_ram(struct rtc_cmos *r)
{
	clock_set(r, seconds_from_ram(r) * SECOND_US + floor_mod(clock_us(r), SECOND_US));
}

/* "Divider control": the first update comes half a second after the divider is released. */
static void divider_released(struct rtc_cmos *r)
{
	clock_set(r, to_seconds(clock_us(r)) * SECOND_US + SECOND_US / 2);
}

/* Time registers as the guest sees them now. */
static void ram_refresh(struct rtc_cmos *r)
{
	if (!stopped(r))
		ram_from_seconds(r, to_seconds(clock_us(r)));
}

/* --- alarm --- */

enum { ALARM_FIELD_ANY = -1, ALARM_FIELD_NEVER = -2 };

static int alarm_field(uint8_t v, int decoded, int end)
{
	if (v >= ALARM_ANY)
		return ALARM_FIELD_ANY;
	return decoded < end ? decoded : ALARM_FIELD_NEVER;
}

/* The first second after `after` that the alarm matches, or INT64_MAX. At most a few hundred steps. */
static int64_t next_alarm(const struct rtc_cmos *r, int64_t after)
{
	const uint8_t *ram = r->ram;
	int second = alarm_field(ram[SECONDS_ALARM], decode(r, ram[SECONDS_ALARM]), 60);
	int minute = alarm_field(ram[MINUTES_ALARM], decode(r, ram[MINUTES_ALARM]), 60);
	int hour = alarm_field(ram[HOURS_ALARM], decode_hour(r, ram[HOURS_ALARM]), 24);

	if (second == ALARM_FIELD_NEVER || minute == ALARM_FIELD_NEVER || hour == ALARM_FIELD_NEVER)
		return INT64_MAX;
	for (int64_t t = after + 1; t <= after + DAY_S;) {
		int64_t of_day = floor_mod(t, DAY_S);

		if (hour >= 0 && of_day / 3600 != hour)
			t += 3600 - of_day % 3600;
		else if (minute >= 0 && of_day / 60 % 60 != minute)
			t += 60 - of_day % 60;
		else if (second >= 0 && of_day % 60 != second)
			t += of_day % 60 < second ? second - of_day % 60 : 60 - of_day % 60;
		else
			return t;
	}
	return INT64_MAX;
}

/* --- periodic tick: "Table 5", rates for a 32.768 kHz time base; each divides the second --- */

static int64_t periodic_hz(const struct rtc_cmos *r)
{
	unsigned rs = r->ram[REGISTER_A] & A_RS;

	if (rs == 0 || divider_in_reset(r))
		return 0;
	return 32768 >> (rs <= 2 ? rs + 6 : rs - 1);
}

/* Ticks of this second that are over at `us`. */
static int64_t ticks_in_second(int64_t hz, int64_t us)
{
	return floor_mod(us, SECOND_US) * hz / SECOND_US;
}

static bool ticked(int64_t hz, int64_t from_us, int64_t to_us)
{
	return to_seconds(from_us) != to_seconds(to_us) || ticks_in_second(hz, from_us) != ticks_in_second(hz, to_us);
}

static int64_t next_tick_us(int64_t hz, int64_t us)
{
	return to_seconds(us) * SECOND_US + ((ticks_in_second(hz, us) + 1) * SECOND_US + hz - 1) / hz;
}

/* --- flags, interrupt, timer --- */

/* Flags are set whether or not their interrupts are enabled. A host clock that stepped back sets none. */
static void flags_update(struct rtc_cmos *r)
{
	int64_t now = clock_us(r), seen = r->seen_us, hz = periodic_hz(r);
	uint8_t *flags = &r->ram[REGISTER_C];

	r->seen_us = now;
	if (now <= seen)
		return;
	if (hz && ticked(hz, seen, now))
		*flags |= C_PF;
	if (stopped(r) || to_seconds(now) == to_seconds(seen))
		return;
	*flags |= C_UF;
	if (next_alarm(r, to_seconds(seen)) <= to_seconds(now))
		*flags |= C_AF;
}

static bool irq_pending(const struct rtc_cmos *r)
{
	return r->ram[REGISTER_C] & r->ram[REGISTER_B] & (C_PF | C_AF | C_UF);
}

static void irq_update(struct rtc_cmos *r)
{
	bool level = irq_pending(r);

	if (level == r->irq_level)
		return;
	r->irq_level = level;
	irq_set(r->irq, level);
}

/* When an enabled interrupt comes that is not there already, or INT64_MAX. */
static int64_t next_interrupt_us(const struct rtc_cmos *r, int64_t now)
{
	unsigned awaited = r->ram[REGISTER_B] & ~r->ram[REGISTER_C];
	int64_t hz = periodic_hz(r), next = INT64_MAX;

	if ((awaited & B_PIE) && hz)
		next = next_tick_us(hz, now);
	if (stopped(r))
		return next;
	if (awaited & B_AIE) {
		int64_t alarm = next_alarm(r, to_seconds(now));

		if (alarm != INT64_MAX && alarm * SECOND_US < next)
			next = alarm * SECOND_US;
	}
	if ((awaited & B_UIE) && (to_seconds(now) + 1) * SECOND_US < next)
		next = (to_seconds(now) + 1) * SECOND_US;
	return next;
}

static void timer_update(struct rtc_cmos *r)
{
	int64_t next = next_interrupt_us(r, r->seen_us);

	if (next == INT64_MAX)
		loop_timer_disarm(r->loop, &r->timer);
	else
		loop_timer_arm(r->loop, &r->timer,
			       loop_now_ns() + min_u64((uint64_t)(next - r->seen_us), TIMER_MAX_US) * 1000);
}

/* [loop] */
static void timer_expired(struct loop_timer *timer)
{
	struct rtc_cmos *r = container_of(timer, struct rtc_cmos, timer);

	device_lock(&r->dev);
	flags_update(r);
	irq_update(r);
	timer_update(r);
	device_unlock(&r->dev);
}

/* --- registers --- */

static bool is_time(unsigned index)
{
	switch (index) {
	case SECONDS:
	case MINUTES:
	case HOURS:
	case DAY_OF_WEEK:
	case DATE_OF_MONTH:
	case MONTH:
	case YEAR:
	case CENTURY:
		return true;
	default:
		return false;
	}
}

static bool update_in_progress(const struct rtc_cmos *r)
{
	return !stopped(r) && floor_mod(clock_us(r), SECOND_US) >= SECOND_US - UIP_US;
}

static uint8_t register_c_read(struct rtc_cmos *r)
{
	flags_update(r);
	uint8_t value = r->ram[REGISTER_C] | (irq_pending(r) ? C_IRQF : 0);

	r->ram[REGISTER_C] = 0;
	irq_update(r);
	timer_update(r);
	return value;
}

static uint8_t register_read(struct rtc_cmos *r, unsigned index)
{
	switch (index) {
	case REGISTER_A:
		return r->ram[REGISTER_A] | (update_in_progress(r) ? A_UIP : 0);
	case REGISTER_C:
		return register_c_read(r);
	case REGISTER_D:
		return D_VRT;
	default:
		if (is_time(index))
			ram_refresh(r);
		return r->ram[index];
	}
}

static void control_write(struct rtc_cmos *r, unsigned index, uint8_t value)
{
	bool was_stopped = stopped(r), was_in_reset = divider_in_reset(r);

	ram_refresh(r); /* if this stops the clock, it stops here */
	r->ram[index] = value;
	if (was_in_reset && !divider_in_reset(r))
		divider_released(r);
	if (was_stopped && !stopped(r))
		clock_set_from_ram(r);
}

/* Setting the time without SET is bad manners, but each register then changes by itself. */
static void time_write(struct rtc_cmos *r, unsigned index, uint8_t value)
{
	ram_refresh(r);
	r->ram[index] = value;
	if (!stopped(r))
		clock_set_from_ram(r);
}

static void register_write(struct rtc_cmos *r, unsigned index, uint8_t value)
{
	flags_update(r); /* by the rules that held until now */
	switch (index) {
	case REGISTER_A:
		control_write(r, index, value & ~A_UIP);
		break;
	case REGISTER_B: /* "SET clears UIE" */
		control_write(r, index, value & B_SET ? value & ~B_UIE : value);
		break;
	case REGISTER_C:
	case REGISTER_D:
		return;
	default:
		if (is_time(index))
			time_write(r, index, value);
		else
			r->ram[index] = value;
		break;
	}
	irq_update(r);
	timer_update(r);
}

/* The index register cannot be read on a PC. */
static uint64_t rtc_cmos_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct rtc_cmos *r = to_rtc(dev);

	(void)size_bytes;
	return offset == DATA ? register_read(r, r->index) : 0xff;
}

static void rtc_cmos_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct rtc_cmos *r = to_rtc(dev);

	(void)size_bytes;
	if (offset == INDEX)
		r->index = value & INDEX_MASK;
	else if (offset == DATA)
		register_write(r, r->index, (uint8_t)value);
}

static void rtc_cmos_destroy(struct device *dev)
{
	struct rtc_cmos *r = to_rtc(dev);

	loop_timer_disarm(r->loop, &r->timer);
	device_fini(dev);
	free(r);
}

static const struct device_ops rtc_cmos_ops = {
	.name = "rtc_cmos",
	.access_sizes = 1,
	.read = rtc_cmos_read,
	.write = rtc_cmos_write,
	.destroy = rtc_cmos_destroy,
};

/* Units of memory between `from` and `to`, as many as the field can say. */
static uint64_t memory_units(uint64_t from, uint64_t to, uint64_t unit, uint64_t max)
{
	return to > from ? min_u64((to - from) / unit, max) : 0;
}

static void memory_sizes_init(uint8_t *ram, const struct rtc_cmos_config *config)
{
	uint64_t end = config->low_memory_end_bytes;
	uint16_t ext_kib = (uint16_t)memory_units(MIB(1), end, KIB(1), UINT16_MAX);
	uint64_t high = memory_units(0, config->high_memory_bytes, KIB(64), 0xffffff);

	le16_store(&ram[CMOS_BASE_KIB], BASE_KIB);
	le16_store(&ram[CMOS_EXT_KIB], ext_kib);
	le16_store(&ram[CMOS_EXT_KIB_AGAIN], ext_kib);
	le16_store(&ram[CMOS_ABOVE_16M_64KIB], (uint16_t)memory_units(MIB(16), end, KIB(64), UINT16_MAX));
	le16_store(&ram[CMOS_ABOVE_4G_64KIB], (uint16_t)high);
	ram[CMOS_ABOVE_4G_64KIB + 2] = (uint8_t)(high >> 16);
}

struct device *rtc_cmos_new(struct irq_line irq8, struct loop *loop, const struct rtc_cmos_config *config,
			    struct err *err)
{
	struct rtc_cmos *r = calloc(1, sizeof(*r));

	if (!r) {
		err_set(err, -ENOMEM, "real-time clock: out of memory");
		return NULL;
	}
	device_init(&r->dev, &rtc_cmos_ops);
	r->irq = irq8;
	r->loop = loop;
	r->config = *config;
	if (!config->realtime_ns)
		r->config.realtime_ns = host_realtime_ns;
	r->timer.fn = timer_expired;
	r->ram[REGISTER_A] = A_DV_32KHZ | A_RS_1024HZ;
	r->ram[REGISTER_B] = B_24H;
	memory_sizes_init(r->ram, config);
	r->offset_us = config->offset_us;
	r->seen_us = clock_us(r);
	return &r->dev;
}
