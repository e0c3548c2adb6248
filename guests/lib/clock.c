#include "guest.h"

enum { PIT_HZ = 1193182 };

static uint16_t clock_read(void)
{
	uint8_t lo;

	outb(0x43, 0x40); /* latch channel 1 */
	lo = inb(0x41);
	return (uint16_t)(lo | inb(0x41) << 8);
}

static void clock_init(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	outb(0x43, 0x74); /* channel 1, low byte then high, mode 2 */
	outb(0x41, 0);
	outb(0x41, 0); /* 65536 */
}

/* Counts down through 65536, so a caller must come back within 55 ms to lose nothing. */
static bool wait_ticks(const volatile uint32_t *word, uint32_t want, uint64_t ticks)
{
	uint64_t passed = 0;
	uint16_t last;

	clock_init();
	last = clock_read();
	while (!word || *word < want) {
		uint16_t now = clock_read();

		passed += (uint16_t)(last - now);
		last = now;
		if (passed >= ticks)
			return word && *word >= want;
	}
	return true;
}

void clock_delay_us(uint32_t us)
{
	wait_ticks(NULL, 0, (uint64_t)us * PIT_HZ / 1000000 + 1);
}

bool clock_wait(const volatile uint32_t *word, uint32_t want, uint32_t ms)
{
	return wait_ticks(word, want, (uint64_t)ms * PIT_HZ / 1000);
}

void pit_start(uint32_t hz)
{
	uint32_t count = PIT_HZ / hz;

	outb(0x43, 0x34); /* channel 0, low byte then high, mode 2 */
	outb(0x40, count & 0xff);
	outb(0x40, count >> 8 & 0xff);
}

void pit_stop(void)
{
	outb(0x43, 0x30); /* mode 0 with no count: output stays low */
}

uint64_t tsc_khz(void)
{
	static uint64_t khz;
	uint64_t start;

	if (!khz)
		khz = arg_u64("tsc-khz", 0);
	if (!khz) {
		start = rdtsc();
		clock_delay_us(50000);
		khz = (rdtsc() - start) / 50;
	}
	return khz;
}

uint64_t tsc_to_ns(uint64_t ticks)
{
	return ticks * 1000 / (tsc_khz() / 1000);
}
