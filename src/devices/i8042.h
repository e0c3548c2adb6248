/*
 * A PC's keyboard controller (Intel 8042 as programmed for the IBM PC AT and PS/2), with nothing plugged in:
 * data register at offset 0, status and command at offset 4. Guests have it for its reset line.
 *
 * Every command and every byte for a device is answered in the same access, so the status register never
 * shows a full input buffer and a probing driver waits for nothing: the controller answers its tests, the
 * missing keyboard answers like one that is not there ("resend", with the time-out bit), and there is no
 * auxiliary port.
 */
#pragma once

#include "device.h"
#include "err.h"
#include "guest_event.h"
#include "irq.h"

enum {
	I8042_DATA_OFFSET = 0,    /* port 0x60 */
	I8042_COMMAND_OFFSET = 4, /* port 0x64 */
};

/*
 * `irq1` is high while the output buffer is full and the command byte enables it. GUEST_EVENT_RESET when the
 * guest pulses or clears the reset line. NULL with `err` set. [setup]
 */
struct device *i8042_new(struct irq_line irq1, struct guest_event_sink sink, struct err *err);
