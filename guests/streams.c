/*
 * The stream port (docs/stream-port.md). mode=echo (default): standard input to standard output until it ends.
 * mode=split: the same, every other block to standard error. mode=write kib=N: N KiB of a pattern, width=1 or 4 bytes
 * an access. mode=size: prints the terminal's size to the serial port whenever it changes, until the input ends.
 * mode=once: one block of the input to the output, then a reset; at the end of the input it ends with the number of
 * rows. mode=absent: there is none.
 * mode=limits: what the registers do at their edges. Ends with 2 when nobody reads.
 */
#include "guest.h"

enum {
	PORT = 0x5e0,
	DATA = PORT,
	SELECT = PORT + 1,
	STATUS = PORT + 2,
	ROOM = PORT + 4,
	AVAILABLE = PORT + 8,
	SIZE = PORT + 12,
};
enum { STATUS_ENDED = 1, STATUS_SIZE = 2 };
enum { BLOCK = 4096 };

static const uint32_t NOBODY = 0x80000000;
static uint8_t block[BLOCK] __attribute__((aligned(4096)));

static void put(const uint8_t *data, uint32_t size, bool wide)
{
	while (size) {
		uint32_t room = inl(ROOM);

		if (room == NOBODY)
			guest_exit(2);
		if (room > size)
			room = size;
		if (wide && room >= 4) {
			room &= ~3U;
			rep_outsl(DATA, data, room / 4);
		} else {
			rep_outsb(DATA, data, room);
		}
		data += room;
		size -= room;
	}
}

/* 0: the end. */
static uint32_t get(void)
{
	for (;;) {
		uint32_t size = inl(AVAILABLE);

		if (size > BLOCK)
			size = BLOCK;
		if (size) {
			rep_insb(DATA, block, size);
			return size;
		}
		if (inb(STATUS) & STATUS_ENDED)
			return 0;
		cpu_pause();
	}
}

static int echo(bool split)
{
	uint32_t size;
	bool wide = arg_u64("width", 1) == 4;

	for (unsigned n = 0; (size = get()); n++) {
		if (split)
			outb(SELECT, n % 2 ? 2 : 1);
		put(block, size, wide);
	}
	return 0;
}

/* Byte i of the stream is i + (i >> 8) * 3. */
static int write_pattern(void)
{
	uint64_t kib = arg_u64("kib", 64);
	bool wide = arg_u64("width", 1) == 4;

	for (uint64_t at = 0; at < kib << 10; at += BLOCK) {
		for (uint64_t i = 0; i < BLOCK; i++)
			block[i] = (uint8_t)((at + i) + ((at + i) >> 8) * 3);
		put(block, BLOCK, wide);
	}
	return 0;
}

static int show_sizes(void)
{
	do {
		uint32_t size = inl(SIZE);

		print("size %u x %u\n", size >> 16, size & 0xffff);
		while (!(inb(STATUS) & (STATUS_SIZE | STATUS_ENDED)))
			cpu_pause();
	} while (!(inb(STATUS) & STATUS_ENDED));
	return 0;
}

/* What was read ahead for this guest is lost with it, so it takes all of that. */
static int echo_once(void)
{
	uint32_t size = get();

	if (!size)
		return (int)(inl(SIZE) >> 16);
	put(block, size, false);
	while (inl(AVAILABLE))
		put(block, get(), false);
	(void)inl(ROOM);
	outb(0x64, 0xfe);
	for (;;)
		cpu_pause();
}

static int check_absent(void)
{
	check(inb(STATUS) == 0xff, 1, "no stream port");
	check(inl(ROOM) == 0xffffffff, 1, "nor any of its registers");
	return 0;
}

static int check_limits(void)
{
	check(inb(SELECT) == 1, 1, "standard output is selected");
	outb(SELECT, 3);
	outb(SELECT, 0);
	check(inb(SELECT) == 1, 2, "there is no other than two");
	outb(SELECT, 2);
	check(inb(SELECT) == 2, 3, "standard error");
	check(inw(DATA) == 0xffff, 4, "no access of two bytes");
	outw(DATA, 0x4141);
	outl(ROOM, 0);
	outl(STATUS, 0);
	check(inl(SELECT) == 0xffffffff && inl(ROOM + 1) == 0xffffffff, 5, "each register has its size");
	check(inl(ROOM) == 0x10000, 6, "room for 64 KiB");
	check(inb(ROOM) == 0 && inb(ROOM + 1) == 0 && inb(ROOM + 2) == 1 && inb(ROOM + 3) == 0, 7, "and in pieces");
	outl(DATA, 0x64636261);
	outb(DATA, 'e');
	return 0;
}

int guest_main(void)
{
	if (arg_is("mode", "write"))
		return write_pattern();
	if (arg_is("mode", "size"))
		return show_sizes();
	if (arg_is("mode", "once"))
		return echo_once();
	if (arg_is("mode", "absent"))
		return check_absent();
	if (arg_is("mode", "limits"))
		return check_limits();
	return echo(arg_is("mode", "split"));
}
