/*
 * A console's bytes as the text that a reader would see: carriage returns, NULs, and the escape sequences of ECMA-48
 * (colours, cursor movements, titles) are left out. Pure; the state goes on from one call to the next, so that it does
 * not matter where the stream is cut. A control character ends a sequence that was never finished.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum console_text_state {
	CONSOLE_TEXT_PLAIN,
	CONSOLE_TEXT_ESC,        /* after ESC */
	CONSOLE_TEXT_CSI,        /* after ESC [: up to a byte from @ to ~ */
	CONSOLE_TEXT_STRING,     /* after ESC ] P X ^ _: up to BEL or ESC \ */
	CONSOLE_TEXT_STRING_ESC, /* after ESC in one */
};

struct console_text {
	enum console_text_state state;
};

/* The byte, 1 to 255, when it is text ('\n' is), or 0 when it is not. */
uint8_t console_text_next(struct console_text *text, uint8_t byte);
