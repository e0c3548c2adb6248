#include "virtio/console_status.h"

#include <stdbool.h>

enum { VALUE_MAX = 255 };

static bool is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r';
}

static bool is_digit(uint8_t byte)
{
	return byte >= '0' && byte <= '9';
}

static void add_digit(struct console_status *status, uint8_t byte)
{
	unsigned value = status->value * 10 + (byte - '0');
	status->state = value <= VALUE_MAX ? CONSOLE_STATUS_IN : CONSOLE_STATUS_WRONG;
	if (value <= VALUE_MAX)
		status->value = value;
}

static enum console_status_line end_line(struct console_status *status)
{
	bool has_value = status->state == CONSOLE_STATUS_IN || status->state == CONSOLE_STATUS_AFTER;
	status->state = CONSOLE_STATUS_BEFORE;
	return has_value ? CONSOLE_STATUS_IS_VALUE : CONSOLE_STATUS_IS_WRONG;
}

enum console_status_line console_status_next(struct console_status *status, uint8_t byte)
{
	if (byte == '\n')
		return end_line(status);
	switch (status->state) {
	case CONSOLE_STATUS_BEFORE:
		status->value = 0;
		if (is_digit(byte))
			add_digit(status, byte);
		else if (!is_blank(byte))
			status->state = CONSOLE_STATUS_WRONG;
		break;
	case CONSOLE_STATUS_IN:
		if (is_digit(byte))
			add_digit(status, byte);
		else
			status->state = is_blank(byte) ? CONSOLE_STATUS_AFTER : CONSOLE_STATUS_WRONG;
		break;
	case CONSOLE_STATUS_AFTER:
		if (!is_blank(byte))
			status->state = CONSOLE_STATUS_WRONG;
		break;
	case CONSOLE_STATUS_WRONG:
		break;
	}
	return CONSOLE_STATUS_NO_LINE;
}
