/*
 * The PIT's channel 2 and port 0x61, as kernels calibrate their clocks by them, after a first access of each kind:
 * first=speaker|speaker-write|control|latch|read-back|counter. Statuses: 1 OUT is high too soon, 2 OUT never rises, 3
 * the counter does not count, 4 gate and data do not read back.
 */
#include "guest.h"

enum {
	PORT_CHANNEL2 = 0x42,
	PORT_CONTROL = 0x43,
	PORT_SPEAKER = 0x61,
	SPEAKER_GATE = 1 << 0,
	SPEAKER_DATA = 1 << 1,
	SPEAKER_OUT = 1 << 5,
	CHANNEL2_MODE0 = 0xb0, /* low byte, high byte, interrupt on terminal count */
	CHANNEL2_LATCH = 0x80,
	READ_BACK_ALL = 0xce,
	COUNT_20MS = 23864,
	POLLS_MAX = 200000,
};

static void first_access(void)
{
	if (arg_is("first", "speaker"))
		inb(PORT_SPEAKER);
	else if (arg_is("first", "speaker-write"))
		outb(PORT_SPEAKER, SPEAKER_GATE);
	else if (arg_is("first", "latch"))
		outb(PORT_CONTROL, CHANNEL2_LATCH);
	else if (arg_is("first", "read-back"))
		outb(PORT_CONTROL, READ_BACK_ALL);
	else if (arg_is("first", "counter"))
		inb(PORT_CHANNEL2);
	else
		outb(PORT_CONTROL, CHANNEL2_MODE0);
}

static uint16_t read_counter(void)
{
	outb(PORT_CONTROL, CHANNEL2_LATCH);
	uint8_t low = inb(PORT_CHANNEL2);
	return (uint16_t)(low | inb(PORT_CHANNEL2) << 8);
}

int guest_main(void)
{
	first_access();
	if (!arg_is("first", "speaker-write"))
		outb(PORT_SPEAKER, SPEAKER_GATE);
	if (!arg_is("first", "control"))
		outb(PORT_CONTROL, CHANNEL2_MODE0);
	outb(PORT_CHANNEL2, COUNT_20MS & 0xff);
	outb(PORT_CHANNEL2, COUNT_20MS >> 8);
	check(!(inb(PORT_SPEAKER) & SPEAKER_OUT), 1, "OUT is low while the channel counts");
	uint16_t before = read_counter();
	uint16_t after = read_counter();
	check(after < before, 3, "the counter counts down: %u, %u", before, after);

	unsigned polls = 0;
	while (!(inb(PORT_SPEAKER) & SPEAKER_OUT) && polls < POLLS_MAX)
		polls++;
	check(polls < POLLS_MAX, 2, "OUT is high after 20 ms");

	outb(PORT_SPEAKER, SPEAKER_GATE | SPEAKER_DATA);
	unsigned speaker = inb(PORT_SPEAKER) & (SPEAKER_GATE | SPEAKER_DATA);
	check(speaker == (SPEAKER_GATE | SPEAKER_DATA), 4, "gate and data read back");
	return 0;
}
