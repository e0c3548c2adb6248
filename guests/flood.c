/*
 * Writes kib=N KiB (64) to the serial port as fast as it takes them. Line n (from 0) is 32 bytes: n as eight
 * hexadecimal digits, " abcdefghijklmnopqrstuv", newline. burst=1: one byte at a time instead of the FIFO's 16.
 */
#include "guest.h"

enum { FCR = PORT_COM1 + 2, LSR = PORT_COM1 + 5, LSR_THRE = 0x20, LSR_TEMT = 0x40 };

static void send(const char *p, unsigned len, unsigned burst)
{
	for (; len; p += burst, len -= burst) {
		while (!(inb(LSR) & LSR_THRE))
			cpu_pause();
		rep_outsb(PORT_COM1, p, burst);
	}
}

int guest_main(void)
{
	uint32_t lines = (uint32_t)(arg_u64("kib", 64) * 32);
	unsigned burst = arg_u64("burst", 16) == 1 ? 1 : 16;
	char line[] = "00000000 abcdefghijklmnopqrstuv\n";

	outb(FCR, 0x07); /* enable and clear the FIFOs */
	for (uint32_t n = 0; n < lines; n++) {
		for (int i = 0; i < 8; i++)
			line[i] = "0123456789abcdef"[n >> (28 - 4 * i) & 15];
		send(line, 32, burst);
	}
	while (!(inb(LSR) & LSR_TEMT))
		cpu_pause();
	return 0;
}
