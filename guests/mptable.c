/*
 * Finds the table of the MultiProcessor Specification 1.4 as a kernel does, and walks it: checksums, lengths, entries
 * in order, and what the processors, the IOAPIC and the interrupts say.
 */
#include "guest.h"

enum entry { CPU, BUS, IOAPIC, IO_INTERRUPT, LOCAL_INTERRUPT, ENTRY_TYPES };
enum { CPU_ENABLED = 1, CPU_BOOT = 2, CPU_BYTES = 20, OTHER_BYTES = 8, HEADER_BYTES = 44 };

struct buses {
	bool has_pci;
	uint8_t isa, ioapic;
	uint32_t isa_pins, pci_pins;
};

static unsigned bits(uint32_t v)
{
	unsigned n = 0;

	for (; v; v &= v - 1)
		n++;
	return n;
}

static uint64_t scan(uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p += 16)
		if (peek32(p) == 0x5f504d5f && acpi_sum_ok(p, 16)) /* "_MP_" */
			return p;
	return 0;
}

static uint64_t find_pointer(void)
{
	uint64_t ebda = (uint64_t)peek16(0x40e) << 4;
	uint64_t p = ebda ? scan(ebda, ebda + 0x400) : 0;

	if (!p)
		p = scan(0x9fc00, 0xa0000);
	return p ? p : scan(0xf0000, 0x100000);
}

static void check_header(uint64_t table)
{
	uint32_t length = peek16(table + 4);

	check(peek32(table) == 0x504d4350 && peek8(table + 6) == 4, 3, "PCMP at 0x%lx, %u bytes, specification 1.%u",
	      table, length, peek8(table + 6));
	check(acpi_sum_ok(table, length), 4, "table: checksum");
	check(table >= 0xf0000 && table + length <= 0x100000, 5, "the table lies in the BIOS area");
	check(peek32(table + 36) == 0xfee00000, 6, "local APICs at 0x%x", peek32(table + 36));
}

/* Processors are 0, 1, 2 and so on, and the first one boots. */
static bool cpu_is_right(uint64_t p, unsigned index)
{
	return peek8(p + 1) == index && peek8(p + 3) == (index ? CPU_ENABLED : CPU_ENABLED | CPU_BOOT);
}

/* ISA's IRQ n is on pin n: KVM's PIT, IRQ 0, is on pin 0. PCI's are level triggered, active low, and INTA# only. */
static bool io_interrupt_is_right(uint64_t p, const struct buses *buses)
{
	uint8_t bus = peek8(p + 4), irq = peek8(p + 5), pin = peek8(p + 7);

	if (peek8(p + 1) != 0 || peek8(p + 6) != buses->ioapic)
		return false;
	if (buses->has_pci && bus == 0)
		return peek16(p + 2) == 0xf && (irq & 0x83) == 0 && irq != 0 && pin > 2 && pin < 16;
	return bus == buses->isa && irq != 2 && pin == irq;
}

/* A pin is one ISA interrupt's, or PCI's, whose slots share. */
static void check_pin(uint64_t p, struct buses *buses)
{
	bool is_isa = peek8(p + 4) == buses->isa;
	uint32_t bit = 1U << (peek8(p + 7) & 31);

	if ((buses->isa_pins | (is_isa ? buses->pci_pins : 0)) & bit)
		check(false, 9, "pin %u is another interrupt's already", peek8(p + 7));
	if (is_isa)
		buses->isa_pins |= bit;
	else
		buses->pci_pins |= bit;
}

static void check_bus(uint64_t p, unsigned index, struct buses *buses)
{
	char type[7] = {0};

	memcpy(type, (const void *)(p + 2), 6);
	check(peek8(p + 1) == index, 12, "bus %u: '%s'", peek8(p + 1), type);
	if (!memcmp(type, "PCI   ", 6) && index == 0)
		buses->has_pci = true;
	else
		check(!memcmp(type, "ISA   ", 6), 12, "it is the ISA bus");
	buses->isa = buses->has_pci ? 1 : 0;
}

static void check_local_interrupt(uint64_t p)
{
	static const char *const names[] = {"INT", "NMI", "SMI", "ExtINT"};
	uint8_t type = peek8(p + 1), lint = peek8(p + 7);

	check((type == 3 && lint == 0) || (type == 1 && lint == 1), 10, "%s on LINT%u of APIC 0x%x", names[type & 3],
	      lint, peek8(p + 6));
}

static void check_entry(uint64_t p, const unsigned counts[ENTRY_TYPES], struct buses *buses)
{
	switch (peek8(p)) {
	case CPU:
		if (!cpu_is_right(p, counts[CPU]))
			check(false, 8, "processor %u: APIC id %u, flags %x", counts[CPU], peek8(p + 1), peek8(p + 3));
		break;
	case BUS:
		check_bus(p, counts[BUS], buses);
		break;
	case IOAPIC:
		buses->ioapic = peek8(p + 1);
		check(peek8(p + 3) & 1 && peek32(p + 4) == 0xfec00000, 9, "IOAPIC %u at 0x%x", buses->ioapic,
		      peek32(p + 4));
		break;
	case IO_INTERRUPT:
		check(io_interrupt_is_right(p, buses), 9, "bus %u, IRQ %u on pin %u, flags %x", peek8(p + 4),
		      peek8(p + 5), peek8(p + 7), peek16(p + 2));
		check_pin(p, buses);
		break;
	case LOCAL_INTERRUPT:
		check_local_interrupt(p);
		break;
	}
}

static void walk(uint64_t table, unsigned counts[ENTRY_TYPES], struct buses *buses)
{
	uint64_t p = table + HEADER_BYTES, end = table + peek16(table + 4);
	unsigned entries = 0;
	uint8_t type = 0;

	for (; p < end && peek8(p) >= type && peek8(p) < ENTRY_TYPES; entries++) {
		type = peek8(p);
		check_entry(p, counts, buses);
		counts[type]++;
		p += type == CPU ? CPU_BYTES : OTHER_BYTES;
	}
	check(p == end && entries == peek16(table + 34), 7, "the %u entries are in order and end where the table does",
	      entries);
}

int guest_main(void)
{
	unsigned counts[ENTRY_TYPES] = {0};
	struct buses buses = {0};
	uint64_t pointer = find_pointer();

	check(pointer != 0, 1, "pointer: checksum; it is at 0x%lx", pointer);
	check(peek8(pointer + 8) == 1 && peek8(pointer + 9) == 4 && peek32(pointer + 11) == 0, 2,
	      "pointer: 16 bytes, specification 1.4, a table, no IMCR");
	check_header(peek32(pointer + 4));
	walk(peek32(pointer + 4), counts, &buses);
	check(counts[CPU] > 0, 11, "the table lists %u CPUs", counts[CPU]);
	check(counts[CPU] == arg_u64("cpus", counts[CPU]), 11, "that is what the command line says");
	check(counts[BUS] == (buses.has_pci ? 2 : 1) && counts[IOAPIC] == 1 && counts[LOCAL_INTERRUPT] == 2, 11,
	      "%u buses, one IOAPIC, 2 local interrupts", counts[BUS]);
	check((buses.isa_pins | buses.pci_pins) == 0xfffb, 11, "every pin from 0 to 15 but 2 has an interrupt");
	check(counts[IO_INTERRUPT] == bits(buses.isa_pins) + (buses.has_pci ? 31 : 0), 11,
	      "%u interrupts: ISA's, and one for each slot of PCI's", counts[IO_INTERRUPT]);
	return 0;
}
