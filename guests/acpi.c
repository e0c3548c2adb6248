/* Walks RSDP, XSDT (or RSDT), FADT, DSDT, FACS, MADT and MCFG: signatures, checksums, lengths. */
#include "guest.h"

static bool inside_map(uint64_t pa, uint64_t len)
{
	struct boot_range r;

	for (unsigned i = 0; boot_memmap(i, &r); i++)
		if (pa >= r.addr && pa - r.addr < r.size && len <= r.size - (pa - r.addr))
			return true;
	return pa >= 0xa0000 && pa + len <= 0x100000; /* a map need not list the BIOS area */
}

static void check_table(uint64_t t)
{
	uint32_t len = peek32(t + 4);
	char name[5] = {0}, oem[7] = {0};

	memcpy(name, (const void *)t, 4);
	memcpy(oem, (const void *)(t + 10), 6);
	check(len >= 36 && len < 1 << 20, 3, "%s at 0x%lx: %u bytes, revision %u, OEM '%s'", name, t, len, peek8(t + 8),
	      oem);
	check(acpi_sum_ok(t, len), 4, "%s: checksum", name);
	check(inside_map(t, len), 5, "%s: lies inside the memory map", name);
}

static void check_fadt(uint64_t fadt)
{
	bool x_facs = peek32(fadt + 4) >= 140 && peek64(fadt + 132);
	uint64_t facs = x_facs ? peek64(fadt + 132) : peek32(fadt + 36);
	uint32_t flags = peek32(fadt + 112);

	print("FADT: flags %x, PM1a event 0x%x control 0x%x, PM timer 0x%x, SCI %u, boot arch %x\n", flags,
	      peek32(fadt + 56), peek32(fadt + 64), peek32(fadt + 76), peek16(fadt + 46), peek16(fadt + 109));
	if (facs)
		check(peek32(facs) == 0x53434146 && peek32(facs + 4) >= 64 && !(facs & 63), 6, "FACS at 0x%lx", facs);
	else
		check(flags & 1 << 20, 6, "no FACS, so it is hardware-reduced ACPI");
	if (!(flags & 1 << 20))
		check(peek32(fadt + 56) && peek32(fadt + 64), 7, "PM1a blocks are there");
	check(acpi_dsdt() != 0, 8, "there is a DSDT");
	check_table(acpi_dsdt());
	check(peek32(acpi_dsdt()) == 0x54445344, 8, "the DSDT says that it is one");
}

static void check_madt(uint64_t madt)
{
	uint64_t p = madt + 44, end = madt + peek32(madt + 4);
	unsigned cpus = 0;
	uint32_t id;

	for (; p + 2 <= end && peek8(p + 1) >= 2; p += peek8(p + 1))
		print("MADT: type %u, length %u, bytes %08x\n", peek8(p), peek8(p + 1), peek32(p + 2));
	check(p == end, 9, "the MADT's entries end where it ends");
	while (madt_cpu(cpus, &id))
		cpus++;
	check(cpus > 0, 10, "the MADT lists %u CPUs", cpus);
	check(cpus == arg_u64("cpus", cpus), 10, "that is what the command line says");
	check(madt_next(0, MADT_IOAPIC) != 0, 11, "the MADT lists an IOAPIC");
}

/* One segment and its buses. ECAM's first register is the id of the function in slot 0, which is the host bridge. */
static void check_mcfg(uint64_t mcfg)
{
	uint64_t ecam = peek64(mcfg + 44);

	check(peek32(mcfg + 4) == 60, 14, "the MCFG has one entry");
	check(ecam && !(ecam & 0xfffff) && peek16(mcfg + 52) == 0 && peek8(mcfg + 54) == 0, 14,
	      "MCFG: ECAM at 0x%lx, segment %u, buses %u to %u", ecam, peek16(mcfg + 52), peek8(mcfg + 54),
	      peek8(mcfg + 55));
	check(peek32(ecam) != 0xffffffff && peek16(ecam + 10) == 0x0600, 15, "slot 0 is a host bridge: 0x%08x",
	      peek32(ecam));
}

int guest_main(void)
{
	uint64_t rsdp = acpi_rsdp(), t;

	print("RSDP: 0x%lx, the loader says 0x%lx\n", rsdp, boot_rsdp());
	check(rsdp && !memcmp((const void *)rsdp, "RSD PTR ", 8), 1, "RSDP, revision %u", peek8(rsdp + 15));
	check(acpi_sum_ok(rsdp, 20), 2, "RSDP: checksum");
	if (peek8(rsdp + 15) >= 2)
		check(acpi_sum_ok(rsdp, peek32(rsdp + 20)), 2, "RSDP: extended checksum, %u bytes", peek32(rsdp + 20));
	check_table(acpi_root());
	for (unsigned i = 0; (t = acpi_table_at(i)); i++)
		check_table(t);
	check(acpi_table("FACP") != 0, 12, "there is a FADT");
	check(acpi_table("APIC") != 0, 13, "there is a MADT");
	check_fadt(acpi_table("FACP"));
	check_madt(acpi_table("APIC"));
	if (acpi_table("MCFG"))
		check_mcfg(acpi_table("MCFG"));
	return 0;
}
