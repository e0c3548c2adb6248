/* The size of the terminal that is standard input, for a guest that has it as its own. */
#pragma once

#include <stdint.h>

/* Of a terminal that does not know its size, 24 by 80. */
void window_get_size(uint16_t *ret_rows, uint16_t *ret_columns);

/*
 * A descriptor that is readable when the size has changed: only the thread that serves a VM may tell it, so the signal
 * becomes readable. SIGWINCH stays blocked. -1: there is none. [main thread]
 */
int window_open(void);

/* Take what can be read from it. */
void window_take(int fd);
