/*
 * What a guest writes to the status port: lines of a decimal number from 0 to 255, with blanks around it as one likes.
 * Pure.
 */
#pragma once

#include <stdint.h>

enum console_status_state {
	CONSOLE_STATUS_BEFORE, /* the number */
	CONSOLE_STATUS_IN,
	CONSOLE_STATUS_AFTER,
	CONSOLE_STATUS_WRONG, /* up to the end of the line */
};

/* All zero is the beginning of a line. */
struct console_status {
	enum console_status_state state;
	unsigned value; /* so far; at most 255 */
};

enum console_status_line {
	CONSOLE_STATUS_NO_LINE, /* it has not ended */
	CONSOLE_STATUS_IS_VALUE,
	CONSOLE_STATUS_IS_WRONG,
};

/* The next byte; `value` is the line's when it says IS_VALUE. */
enum console_status_line console_status_next(struct console_status *status, uint8_t byte);
