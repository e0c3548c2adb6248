#include "cli/console_text.h"

#include <stdbool.h>

enum { ESC = 0x1b, BEL = 0x07 };

static uint8_t plain(struct console_text *text, uint8_t byte)
{
	text->state = byte == ESC ? CONSOLE_TEXT_ESC : CONSOLE_TEXT_PLAIN;
	return byte == ESC || byte == '\r' ? 0 : byte;
}

static void after_esc(struct console_text *text, uint8_t byte)
{
	if (byte == '[')
		text->state = CONSOLE_TEXT_CSI;
	else if (byte == ']' || byte == 'P' || byte == 'X' || byte == '^' || byte == '_')
		text->state = CONSOLE_TEXT_STRING;
	else if (byte > 0x2f) /* up to there are intermediate bytes, as in ESC ( B */
		text->state = CONSOLE_TEXT_PLAIN;
}

/* BEL and ESC end a string as they should; anything else of the kind means that it has no end. */
static bool breaks(const struct console_text *text, uint8_t byte)
{
	if (text->state == CONSOLE_TEXT_STRING && (byte == BEL || byte == ESC))
		return false;
	return byte < ' ';
}

uint8_t console_text_next(struct console_text *text, uint8_t byte)
{
	if (text->state == CONSOLE_TEXT_PLAIN || breaks(text, byte))
		return plain(text, byte);
	switch (text->state) {
	case CONSOLE_TEXT_ESC:
		after_esc(text, byte);
		break;
	case CONSOLE_TEXT_CSI:
		if (byte >= '@')
			text->state = CONSOLE_TEXT_PLAIN;
		break;
	case CONSOLE_TEXT_STRING:
		if (byte == BEL)
			text->state = CONSOLE_TEXT_PLAIN;
		else if (byte == ESC)
			text->state = CONSOLE_TEXT_STRING_ESC;
		break;
	case CONSOLE_TEXT_STRING_ESC:
	default:
		text->state = byte == '\\' ? CONSOLE_TEXT_PLAIN : CONSOLE_TEXT_STRING;
		break;
	}
	return 0;
}
