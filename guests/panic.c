/* Tells the host that the guest has panicked. Status 0: the monitor lets a panicked guest go on. */
#include "guest.h"

int guest_main(void)
{
	uint8_t events = inb(PORT_PVPANIC);

	check(events != 0xff && (events & 1), 1, "pvpanic offers events %02x", events);
	print("panic\n");
	outb(PORT_PVPANIC, 1);
	print("still running after the panic\n");
	return 0;
}
