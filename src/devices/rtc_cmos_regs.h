/* Registers and bits of the MC146818, for its decoder and its tests only; the names are the data sheet's. */
#pragma once

#include "devices/rtc_cmos.h"

enum { INDEX = 0, DATA = 1, INDEX_MASK = 0x7f /* bit 7 masks NMI on a PC */ };

/* MC146818 data sheet, "Address map" and "Time, calendar and alarm locations". */
enum {
	SECONDS = 0x00,
	SECONDS_ALARM = 0x01,
	MINUTES = 0x02,
	MINUTES_ALARM = 0x03,
	HOURS = 0x04,
	HOURS_ALARM = 0x05,
	DAY_OF_WEEK = 0x06, /* 1: Sunday */
	DATE_OF_MONTH = 0x07,
	MONTH = 0x08,
	YEAR = 0x09, /* 0 to 99 */
	REGISTER_A = 0x0a,
	REGISTER_B = 0x0b,
	REGISTER_C = 0x0c,
	REGISTER_D = 0x0d,
	CENTURY = RTC_CMOS_CENTURY, /* not the chip's, but every PC's (ACPI 6.5 section 5.2.9, FADT.CENTURY) */

	HOURS_PM = 0x80,
	ALARM_ANY = 0xc0, /* this value and those above match always */
};

/* "Register A" to "Register D". */
enum {
	A_RS = 0x0f,       /* periodic rate */
	A_DV_RESET = 0x60, /* divider bits 11x hold it in reset */
	A_DV_32KHZ = 0x20,
	A_UIP = 0x80,
	A_RS_1024HZ = 6,

	B_24H = 0x02,
	B_DM = 0x04, /* binary, not BCD */
	B_UIE = 0x10,
	B_AIE = 0x20,
	B_PIE = 0x40,
	B_SET = 0x80,

	C_UF = B_UIE, /* flags stand where their enables stand */
	C_AF = B_AIE,
	C_PF = B_PIE,
	C_IRQF = 0x80,

	D_VRT = 0x80,
};

/* What PC firmware leaves in the memory for loaders and old kernels; sizes are little-endian. */
enum {
	CMOS_BASE_KIB = 0x15,
	CMOS_EXT_KIB = 0x17,       /* above 1 MiB */
	CMOS_EXT_KIB_AGAIN = 0x30, /* the same as found by the power-on test */
	CMOS_ABOVE_16M_64KIB = 0x34,
	CMOS_ABOVE_4G_64KIB = 0x5b, /* three bytes */
	CMOS_SIZE = 128,
	BASE_KIB = 640,
};
