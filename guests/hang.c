/* Never ends: how=hlt (default; interrupts off, so nothing can wake it) or how=spin. */
#include "guest.h"

int guest_main(void)
{
	bool spin = arg_is("how", "spin");

	print("hanging: %s\n", spin ? "spin" : "hlt");
	irq_off();
	for (;;) {
		if (spin)
			cpu_pause();
		else
			__asm__ volatile("hlt");
	}
}
