/* Powers off as ACPI says: the DSDT's _S5_ package and the FADT's control register. Status 1: it did not. */
#include "guest.h"

/* The first element of Name (_S5_, Package () {...}); -1 if there is none. */
static int find_s5(uint64_t dsdt)
{
	uint64_t end = dsdt + peek32(dsdt + 4);

	for (uint64_t p = dsdt + 36; p + 8 < end; p++) {
		if (peek32(p) != 0x5f35535f || peek8(p + 4) != 0x12) /* "_S5_", PackageOp */
			continue;
		p += 5;
		p += 1 + (peek8(p) >> 6);                          /* PkgLength */
		p++;                                               /* NumElements */
		return peek8(p) == 0x0a ? peek8(p + 1) : peek8(p); /* BytePrefix; or ZeroOp, OneOp */
	}
	return -1;
}

int guest_main(void)
{
	uint64_t fadt = acpi_table("FACP"), dsdt = acpi_dsdt();
	int type;

	check(fadt && dsdt, 2, "FADT at 0x%lx, DSDT at 0x%lx", fadt, dsdt);
	type = find_s5(dsdt);
	check(type >= 0, 3, "_S5_ says sleep type %d", type);
	if (peek32(fadt + 112) & 1 << 20) { /* hardware-reduced: the sleep control register, 1 byte */
		uint64_t addr = peek64(fadt + 244 + 4);

		print("sleep control register: space %u, address 0x%lx\n", peek8(fadt + 244), addr);
		if (peek8(fadt + 244) == 1)
			outb((uint16_t)addr, (uint8_t)(type << 2 | 0x20));
		else
			mmio_write8(addr, (uint8_t)(type << 2 | 0x20));
	} else {
		uint16_t port = (uint16_t)peek32(fadt + 64);

		print("PM1a control: port 0x%x holds %04x\n", port, inw(port));
		check(port != 0, 4, "the FADT has a PM1a control block");
		outw(port, (uint16_t)((inw(port) & ~0x3c00u) | (unsigned)type << 10 | 1 << 13)); /* SLP_TYP, SLP_EN */
	}
	clock_delay_us(500000);
	check(false, 1, "still running after power off");
	return 1;
}
