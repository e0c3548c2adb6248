#include "devices/calendar.h"

#include <stdbool.h>

/* Days from 0001-01-01, a Monday, to the first of January of `year`. */
static int64_t days_before_year(int64_t year)
{
	int64_t y = year - 1;

	return 365 * y + y / 4 - y / 100 + y / 400;
}

static int month_length(int64_t year, int month)
{
	static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : lengths[month - 1];
}

struct date date_from_days(int64_t days_since_1970)
{
	int64_t since_0001 = days_since_1970 + days_before_year(1970);
	int64_t days = since_0001 > 0 ? since_0001 : 0;
	struct date d = {.month = 1, .weekday = (int)((days + 1) % 7) + 1};

	d.year = days * 400 / 146097 + 1; /* there are 146097 days in 400 years: right, or one off */
	if (days_before_year(d.year) > days)
		d.year--;
	else if (days_before_year(d.year + 1) <= days)
		d.year++;
	days -= days_before_year(d.year);
	for (; days >= month_length(d.year, d.month); d.month++)
		days -= month_length(d.year, d.month);
	d.day = (int)days + 1;
	return d;
}

int64_t days_from_date(const struct date *date)
{
	int64_t days = days_before_year(date->year) - days_before_year(1970) + date->day - 1;

	for (int month = 1; month < date->month; month++)
		days += month_length(date->year, month);
	return days;
}
