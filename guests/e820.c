/* Prints the memory map and how the guest was entered; ranges must be non-empty and apart. sorted: and ascending. */
#include "guest.h"

static bool overlaps_earlier(unsigned n, const struct boot_range *r)
{
	struct boot_range s;

	for (unsigned i = 0; i < n && boot_memmap(i, &s); i++)
		if (r->addr < s.addr + s.size && s.addr < r->addr + r->size)
			return true;
	return false;
}

int guest_main(void)
{
	struct boot_range r;
	uint64_t last = 0, ram = 0;
	unsigned n;

	print("entry: %s\n", boot_protocol == BOOT_PVH ? "pvh" : "linux64");
	boot_check();
	for (n = 0; boot_memmap(n, &r); n++) {
		print("%016lx %016lx %u\n", r.addr, r.addr + r.size - 1, r.type);
		check(r.size != 0 && r.addr + r.size > r.addr, 2, "it is not empty and does not wrap");
		check(!overlaps_earlier(n, &r), 3, "it overlaps none of those before");
		check(r.addr >= last || !arg_has("sorted"), 4, "it begins %s the one before",
		      r.addr >= last ? "after" : "below");
		last = r.addr;
		ram += r.type == RANGE_RAM ? r.size : 0;
	}
	check(n > 0, 1, "%u ranges, %lu KiB of RAM", n, ram >> 10);
	return 0;
}
