/*
 * The real-time clock and its 128 bytes of CMOS memory (Motorola MC146818), as on a PC: the index register
 * at offset 0, the data register at offset 1.
 *
 * The clock is the host's real time plus an offset that changes when the guest sets the time. Nothing runs in
 * the background: time and flags are worked out when the guest looks, and one loop timer is armed only while
 * an enabled interrupt is still to come. Its line is level: raised by register C's IRQF, lowered by reading C.
 */
#pragma once

#include <stdint.h>

#include "device.h"
#include "err.h"
#include "irq.h"
#include "loop.h"

enum { RTC_CMOS_SIZE = 2, RTC_CMOS_CENTURY = 0x32 /* for the FADT */ };

struct rtc_cmos_config {
	uint64_t low_memory_end_bytes; /* end of the RAM below 4 GiB */
	uint64_t high_memory_bytes;    /* RAM above 4 GiB */
	int64_t offset_us;             /* the guest's clock at start minus the host's */

	/* Nanoseconds since 1970, UTC; NULL: CLOCK_REALTIME. For tests. [any] */
	int64_t (*realtime_ns)(void *ctx);
	void *realtime_ctx;
};

/* `loop` is borrowed, `config` is copied. NULL with `err` set. [setup] */
struct device *rtc_cmos_new(struct irq_line irq8, struct loop *loop, const struct rtc_cmos_config *config,
			    struct err *err);
