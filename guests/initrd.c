/*
 * The initrd (PVH: the first module) arrived whole: prints its length and the sum of its bytes modulo 2^32.
 * len=N sum=N: what they must be; none: there must be no initrd. Runs in ring 3, where a software-only KVM
 * does not emulate every instruction.
 */
#include "guest.h"

static void check_initrd(void)
{
	struct boot_range r = {0, 0, 0}, m;
	uint32_t sum = 0;
	bool there = boot_module(&r), in_ram = false;

	if (arg_has("none")) {
		check(!there, 1, "no initrd");
		guest_exit(0);
	}
	check(there, 2, "initrd at 0x%lx, %lu bytes", r.addr, r.size);
	check(r.size == arg_u64("len", r.size), 3, "its length is that of the command line");
	check(r.addr + r.size <= 1ull << 32, 4, "it lies below 4 GiB");
	for (unsigned i = 0; boot_memmap(i, &m); i++)
		in_ram |= m.type == RANGE_RAM && r.addr >= m.addr && r.addr + r.size <= m.addr + m.size;
	check(in_ram, 5, "it lies in RAM");
	for (uint64_t i = 0; i < r.size; i++)
		sum += peek8(r.addr + i);
	print("sum %u\n", sum);
	check(sum == arg_u64("sum", sum), 6, "its sum is that of the command line");
	guest_exit(0);
}

int guest_main(void)
{
	user_start(check_initrd, false);
}
