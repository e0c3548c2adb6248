#include <stdarg.h>

#include "guest.h"

void serial_putc(char c)
{
	while (!(inb(PORT_COM1 + 5) & 0x20)) /* LSR.THRE */
		cpu_pause();
	outb(PORT_COM1, (uint8_t)c);
}

static void put_padded(const char *s, size_t len, unsigned width, char pad)
{
	for (size_t i = len; i < width; i++)
		serial_putc(pad);
	while (len--)
		serial_putc(*s++);
}

static void put_number(uint64_t v, unsigned base, bool negative, unsigned width, char pad)
{
	char buf[24], *p = buf + sizeof(buf);

	do
		*--p = "0123456789abcdef"[v % base];
	while (v /= base);
	if (negative)
		*--p = '-';
	put_padded(p, (size_t)(buf + sizeof(buf) - p), width, pad);
}

/* %c %s %d %u %x %p %%, with a width, 0 padding, l ll z. */
static void print_va(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		unsigned width = 0;
		bool wide = false;
		char pad = ' ';

		if (*fmt != '%') {
			serial_putc(*fmt);
			continue;
		}
		if (*++fmt == '0')
			pad = '0';
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			width = width * 10 + (unsigned)(*fmt - '0');
		for (; *fmt == 'l' || *fmt == 'z'; fmt++)
			wide = true;
		if (*fmt == 'd') {
			int64_t v = wide ? va_arg(ap, int64_t) : va_arg(ap, int32_t);
			put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10, v < 0, width, pad);
		} else if (*fmt == 'u' || *fmt == 'x') {
			uint64_t v = wide ? va_arg(ap, uint64_t) : va_arg(ap, uint32_t);
			put_number(v, *fmt == 'u' ? 10 : 16, false, width, pad);
		} else if (*fmt == 'p') {
			put_number((uintptr_t)va_arg(ap, void *), 16, false, 16, '0');
		} else if (*fmt == 's') {
			const char *s = va_arg(ap, const char *);
			size_t len = 0;
			while (s[len])
				len++;
			put_padded(s, len, width, ' ');
		} else {
			serial_putc(*fmt == 'c' ? (char)va_arg(ap, int) : *fmt);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_va(fmt, ap);
	va_end(ap);
}

void hold(const char *say)
{
	if (!arg_has("hold"))
		return;
	print("%s\n", say);
	while (!(inb(PORT_COM1 + 5) & 1))
		clock_delay_us(1000);
	inb(PORT_COM1);
}

_Noreturn void guest_exit(uint8_t status)
{
	outb(PORT_DEBUG_EXIT, status);
	for (;;) { /* no such device: nothing is left to do (in ring 3 this faults, and the report says so) */
		irq_off();
		__asm__ volatile("hlt");
	}
}

void check(bool ok, uint8_t status, const char *fmt, ...)
{
	va_list ap;

	if (ok)
		print("ok: ");
	else
		print("FAIL %u: ", status);
	va_start(ap, fmt);
	print_va(fmt, ap);
	va_end(ap);
	serial_putc('\n');
	if (!ok)
		guest_exit(status);
}
