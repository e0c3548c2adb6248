/*
 * The edges of the two buses: unclaimed addresses, refused sizes, straddling accesses, string I/O, RTC and CMOS.
 * mmio-fill=BYTE: what unclaimed memory reads as (0xff; QEMU gives 0). straddle=0: leave the straddling ones out.
 */
#include "guest.h"

enum { FREE_PORT = 0x5000 };

static const uint64_t FREE_MMIO = 0xd0000000;

static void check_ports(void)
{
	outb(FREE_PORT, 0x12);
	outw(FREE_PORT, 0x1234);
	outl(FREE_PORT, 0x12345678);
	check(inb(FREE_PORT) == 0xff, 1, "inb of an unclaimed port");
	check(inw(FREE_PORT) == 0xffff, 1, "inw of an unclaimed port");
	check(inl(FREE_PORT) == 0xffffffff, 1, "inl of an unclaimed port");
	check(inb(0xffff) == 0xff, 1, "inb of the last port");
	outb(PORT_DEBUG_CON2, '\n');
	check(inb(PORT_DEBUG_CON) == 0xe9, 2, "the debug console answers 0xe9");
}

static void check_straddling(void)
{
	if (!arg_u64("straddle", 1))
		return;
	check(inw(0x3ff) == 0xffff, 3, "inw over the end of the serial port");
	check(inl(0x3fe) == 0xffffffff, 3, "inl over the end of the serial port");
	check(inw(0x3f7) == 0xffff, 3, "inw over the start of the serial port");
	check(inl(0x70) == 0xffffffff, 3, "inl over the end of the RTC");
	check(inw(0xf3) == 0xffff, 3, "inw over the start of debug-exit");
	check(inl(0xffff - 1) == 0xffffffff, 3, "inl over the end of the port space");
	outw(0xf3, 0); /* refused, or the guest would end here */
	check(true, 3, "outw over the start of debug-exit is ignored");
}

static void check_string_io(void)
{
	static uint8_t buf[8192] __attribute__((aligned(4096)));
	static const char text[] = "string I/O\n";
	uint64_t n;

	memset(buf + 4096 - 32, 0, 64);
	rep_insb(FREE_PORT, buf + 4096 - 32, 64); /* over a page boundary */
	for (n = 0; n < 64 && buf[4096 - 32 + n] == 0xff; n++)
		;
	check(n == 64 && buf[4096 + 32] == 0, 4, "rep insb of 64 bytes: %lu are ones", n);
	rep_outsb(FREE_PORT, buf, sizeof(buf));
	check(true, 5, "rep outsb of %zu bytes to an unclaimed port", sizeof(buf));
	rep_outsb(PORT_DEBUG_CON, text, sizeof(text) - 1);
	rep_insb(PORT_DEBUG_CON, buf, 3);
	check(buf[0] == 0xe9 && buf[2] == 0xe9, 5, "rep outsb to and rep insb from the debug console");
}

static void check_mmio(void)
{
	uint64_t want = 0x0101010101010101 * (arg_u64("mmio-fill", 0xff) & 0xff);
	uint64_t at = FREE_MMIO;

	mmio_write8(at, 0x12);
	mmio_write16(at, 0x1234);
	mmio_write32(at, 0x12345678);
	mmio_write64(at, 0x123456789abcdef0);
	check(mmio_read8(at) == (uint8_t)want, 6, "1-byte read of unclaimed memory: %x", mmio_read8(at));
	check(mmio_read16(at) == (uint16_t)want, 6, "2-byte read: %x", mmio_read16(at));
	check(mmio_read32(at) == (uint32_t)want, 6, "4-byte read: %x", mmio_read32(at));
	check(mmio_read64(at) == want, 6, "8-byte read: %lx", mmio_read64(at));
	check(mmio_read32(at + 1) == (uint32_t)want, 6, "unaligned 4-byte read");
	check(mmio_read64(at + 4096 - 4) == want, 6, "8-byte read over a page boundary");
}

static uint8_t cmos_read(uint8_t index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void check_cmos(void)
{
	uint8_t keep = cmos_read(0x7e);

	check((cmos_read(0x0d) & 0x80) == 0x80, 7, "CMOS register D says that the RAM is valid: %02x", cmos_read(0x0d));
	check(cmos_read(0x0a) != 0xff, 7, "CMOS register A: %02x", cmos_read(0x0a));
	outb(0x70, 0x7e);
	outb(0x71, 0x5a);
	check(cmos_read(0x7e) == 0x5a, 8, "CMOS RAM keeps a byte");
	outb(0x70, 0x7e);
	outb(0x71, keep);
	check((cmos_read(0x80 | 0x0d) & 0x80) == 0x80, 8, "the index's NMI bit is not part of it");
}

int guest_main(void)
{
	check_ports();
	check_mmio();
	check_cmos();
	check_string_io();
	check_straddling();
	return 0;
}
