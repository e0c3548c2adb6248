/* Resets the machine: how=i8042 (default), acpi (the FADT's register), cf9, triple. Status 1: it did not. */
#include "guest.h"

static void reset_acpi(void)
{
	uint64_t fadt = acpi_table("FACP"), addr;

	check(fadt && peek32(fadt + 4) >= 129 && (peek32(fadt + 112) & 1 << 10), 2, "the FADT has a reset register");
	addr = peek64(fadt + 120);
	print("reset register: space %u, address 0x%lx, value %x\n", peek8(fadt + 116), addr, peek8(fadt + 128));
	if (peek8(fadt + 116) == 1)
		outb((uint16_t)addr, peek8(fadt + 128));
	else
		mmio_write8(addr, peek8(fadt + 128));
}

int guest_main(void)
{
	static const uint16_t no_idt[5];
	char how[16];

	if (!arg_str("how", how, sizeof(how)))
		memcpy(how, "i8042", 6);
	print("reset by %s\n", how);
	if (str_equal(how, "i8042")) {
		outb(0x64, 0xfe);
	} else if (str_equal(how, "acpi")) {
		reset_acpi();
	} else if (str_equal(how, "cf9")) {
		outb(0xcf9, 0x02);
		outb(0xcf9, 0x06);
	} else if (str_equal(how, "triple")) {
		__asm__ volatile("lidt %0; ud2" : : "m"(no_idt) : "memory");
	} else {
		check(false, 3, "how=%s is not known", how);
	}
	clock_delay_us(500000);
	check(false, 1, "still running after the reset");
	return 1;
}
