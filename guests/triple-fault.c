/* Shuts the CPU down: an exception with no interrupt table. Must end the VM or reset it, never return. */
#include "guest.h"

int guest_main(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) no_idt = {0, 0};

	print("triple fault\n");
	__asm__ volatile("lidt %0; ud2" : : "m"(no_idt) : "memory");
	return 1;
}
