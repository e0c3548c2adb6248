/*
 * Every RAM range of the memory map is RAM, no two addresses of it are the same memory, and no RAM lies in the
 * 32-bit hole. Touches the first and last words of each range and one word every 128 MiB, and puts them back.
 * total-mib=N: how much RAM there must be, up to 1 MiB less for what the firmware keeps. hole=ADDRESS: where the
 * hole begins (3.25 GiB).
 */
#include "guest.h"

enum { SPOTS = 4096, STEP = 128 << 20 };

static uint64_t spot[SPOTS], old[SPOTS];
static unsigned spots;

static uint64_t pattern(uint64_t pa)
{
	return pa * 0x9e3779b97f4a7c15 ^ 0x5a5a5a5a5a5a5a5a;
}

static void add_spot(uint64_t pa)
{
	pa &= ~(uint64_t)7;
	if (spots && spot[spots - 1] == pa)
		return;
	if (spots == SPOTS)
		check(false, 5, "more than %u words to check", spots);
	spot[spots++] = pa;
}

static void add_range(const struct boot_range *r)
{
	uint64_t end = r->addr + r->size;

	for (uint64_t pa = r->addr + 7; pa + 8 <= end; pa += STEP)
		add_spot(pa);
	add_spot(r->addr + 4096 - 8); /* the end of its first page, the start and the end of its last */
	add_spot(end - 4096 + 7);
	add_spot(end - 8);
}

int guest_main(void)
{
	uint64_t total = 0, hole = arg_u64("hole", 0xd0000000), four_gib = 1ull << 32, mib, want;
	struct boot_range r;
	unsigned bad = 0;

	for (unsigned i = 0; boot_memmap(i, &r); i++) {
		print("%016lx %016lx type %u\n", r.addr, r.addr + r.size - 1, r.type);
		if (r.type != RANGE_RAM)
			continue;
		total += r.size;
		check(r.addr >= four_gib || r.addr + r.size <= hole, 1, "it keeps clear of the hole");
		if (r.size >= 8192)
			add_range(&r);
	}
	mib = (total + 0xfffff) >> 20;
	print("total %lu KiB\n", total >> 10);
	want = arg_u64("total-mib", mib);
	check(mib == want || mib + 1 == want, 2, "that is the %lu MiB of the command line", want);

	for (unsigned i = 0; i < spots; i++) {
		uint64_t *p = map_phys(spot[i]);

		old[i] = *(volatile uint64_t *)p;
	}
	for (unsigned i = 0; i < spots; i++)
		*(volatile uint64_t *)spot[i] = pattern(spot[i]);
	for (unsigned i = 0; i < spots; i++)
		bad += *(volatile uint64_t *)spot[i] != pattern(spot[i]);
	for (unsigned i = 0; i < spots; i++)
		*(volatile uint64_t *)spot[i] = old[i];
	check(bad == 0, 3, "%u words keep what was written: %u do not", spots, bad);
	return 0;
}
