/* The Gregorian calendar, without the C library's: no time zone, no environment, no lock. */
#pragma once

#include <stdint.h>

struct date {
	int64_t year;
	int month, day, weekday; /* from 1; Sunday is 1 */
};

/* Days before 0001-01-01 are taken for that day. */
struct date date_from_days(int64_t days_since_1970);

/* Month 1 to 12; `day` may lie past the month's end: the 31st of April is the first of May. */
int64_t days_from_date(const struct date *date);
