/* An instruction that a software-only KVM cannot emulate in ring 0, and that real hardware runs: cmpxchg16b. */
#include "guest.h"

int guest_main(void)
{
	static uint64_t m[2] __attribute__((aligned(16))) = {1, 2};
	uint64_t a = 1, d = 2;
	uint8_t equal;

	print("cmpxchg16b, and CPUID says that it is %s\n", cpuid(1, 0).c & 1 << 13 ? "there" : "not there");
	__asm__ volatile("lock cmpxchg16b %2; sete %3"
			 : "+a"(a), "+d"(d), "+m"(m), "=q"(equal)
			 : "b"(3ull), "c"(4ull)
			 : "cc");
	check(equal && m[0] == 3 && m[1] == 4, 1, "it worked");
	return 0;
}
