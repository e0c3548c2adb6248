/* The RTC's date, by its own format flags. epoch=N: must be within slack=N (60) seconds of that Unix time. */
#include "guest.h"

static uint8_t cmos_read(uint8_t index)
{
	outb(0x70, index);
	return inb(0x71);
}

static unsigned decode(uint8_t v, bool binary)
{
	return binary ? v : (v >> 4) * 10u + (v & 15u);
}

static int64_t days_since_1970(int64_t y, unsigned m, unsigned d)
{
	int64_t era_year = m <= 2 ? y - 1 : y; /* the year begins in March */

	return 365 * era_year + era_year / 4 - era_year / 100 + era_year / 400 +
	       (153 * (m + (m > 2 ? 0u : 12u) - 3) + 2) / 5 + d - 1 - 719468;
}

int guest_main(void)
{
	static const uint8_t index[] = {0, 2, 4, 7, 8, 9, 0x32, 6};
	uint8_t raw[8], again[8], status_b;
	unsigned sec, min, hour, day, month, year, century;
	int64_t unix_time, off;
	bool binary;

	check(cmos_read(0x0b) != 0xff, 1, "there is an RTC");
	for (int tries = 0;; tries++) { /* until two readings agree, and no update is in progress */
		for (int i = 0; i < 8; i++)
			raw[i] = cmos_read(index[i]);
		while (cmos_read(0x0a) & 0x80 && tries < 100000)
			tries++;
		for (int i = 0; i < 8; i++)
			again[i] = cmos_read(index[i]);
		if (!memcmp(raw, again, 8))
			break;
		check(tries < 100000, 1, "the RTC holds still");
	}
	status_b = cmos_read(0x0b);
	binary = status_b & 4;
	sec = decode(raw[0], binary);
	min = decode(raw[1], binary);
	hour = decode(raw[2] & 0x7f, binary);
	if (!(status_b & 2)) /* 12-hour clock, afternoon in bit 7 */
		hour = hour % 12 + (raw[2] & 0x80 ? 12 : 0);
	day = decode(raw[3], binary);
	month = decode(raw[4], binary);
	century = decode(raw[6], binary);
	year = decode(raw[5], binary) + (century >= 19 && century <= 21 ? century : 20) * 100;
	print("%04u-%02u-%02u %02u:%02u:%02u (%s, %d hours, century register %02x, weekday %u)\n", year, month, day,
	      hour, min, sec, binary ? "binary" : "BCD", status_b & 2 ? 24 : 12, raw[6], raw[7]);
	check(sec < 60 && min < 60 && hour < 24, 2, "the time is one");
	check(day >= 1 && day <= 31 && month >= 1 && month <= 12 && year >= 1970 && year < 2100, 3, "the date is one");
	check(!(cmos_read(0x0b) & 0x80) && (cmos_read(0x0d) & 0x80), 4, "the clock runs (B) and is valid (D)");
	unix_time = days_since_1970(year, month, day) * 86400 + hour * 3600 + min * 60 + sec;
	off = unix_time - (int64_t)arg_u64("epoch", (uint64_t)unix_time);
	if (off < 0)
		off = -off;
	check(off <= (int64_t)arg_u64("slack", 60), 5, "Unix time %ld, %ld s off", unix_time, off);
	return 0;
}
