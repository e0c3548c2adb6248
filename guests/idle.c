/* Halts for ever with interrupts on and nothing that raises one: for measuring an idle VM. */
#include "guest.h"

int guest_main(void)
{
	irq_quiet();
	print("idle\n");
	for (;;)
		irq_on_and_halt();
}
