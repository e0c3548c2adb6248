#include "loader/mptable.h"

#include <errno.h>
#include <string.h>

#include "loader/acpi_buf.h"
#include "util.h"

/* MultiProcessor Specification 1.4, 4.1 "MP Floating Pointer Structure" and 4.2 "MP Configuration Table Header". */
enum {
	SPEC_REV = 4,
	POINTER_SIZE_BYTES = 16,
	POINTER_CHECKSUM_OFFSET = 10,
	TABLE_LENGTH_OFFSET = 4,
	TABLE_CHECKSUM_OFFSET = 7,
	TABLE_ENTRY_COUNT_OFFSET = 34,
};

/* 4.3 "Base MP Configuration Table Entries", in the order that they must have. */
enum entry_type {
	ENTRY_PROCESSOR = 0,
	ENTRY_BUS = 1,
	ENTRY_IOAPIC = 2,
	ENTRY_IO_INTERRUPT = 3,
	ENTRY_LOCAL_INTERRUPT = 4,
};

/* 4.3.1 "Processor Entries". */
enum cpu_flags {
	CPU_ENABLED = 1 << 0,
	CPU_BOOT = 1 << 1,
};

enum { IOAPIC_ENABLED = 1 << 0 };

/* 4.3.4 "I/O Interrupt Assignment Entries". */
enum interrupt_type { INTERRUPT_INT = 0, INTERRUPT_NMI = 1, INTERRUPT_EXTINT = 3 };
enum interrupt_flags {
	AS_THE_BUS = 0,
	ACTIVE_HIGH = 1 << 0,
	ACTIVE_LOW = 3 << 0,
	LEVEL = 3 << 2,
};

enum { LAPIC_VERSION = 0x14, IOAPIC_VERSION = 0x11 }; /* as KVM's version registers read */
enum { ISA_IRQS = 16, IRQ_CASCADE = 2, PCI_SLOTS = 32 };
enum { LINT_EXTINT = 0, LINT_NMI = 1, LAPIC_BOOT = 0, LAPIC_ALL = 0xff };

/*
 * Nobody who finds CPUID believes these: family 6, and of the four feature bits that 4.3.1 knows those that every
 * 64-bit CPU has (FPU, CMPXCHG8B, APIC).
 */
enum { CPU_SIGNATURE = 0x600, CPU_FEATURES = 1 << 0 | 1 << 8 | 1 << 9 };

static const char oem_id[8] = "VMLET   ";
static const char product_id[12] = "VMLETVM     ";

struct mptable {
	const struct mptable_config *config;
	struct acpi_buf buf;
	uint16_t entry_count;
};

/* The header, less what close_table fills in: length, checksum, number of entries. */
static void open_table(struct mptable *mptable)
{
	struct acpi_buf *buf = &mptable->buf;

	acpi_put_bytes(buf, "PCMP", 4);
	acpi_put_u16(buf, 0);
	acpi_put_u8(buf, SPEC_REV);
	acpi_put_u8(buf, 0);
	acpi_put_bytes(buf, oem_id, sizeof(oem_id));
	acpi_put_bytes(buf, product_id, sizeof(product_id));
	acpi_put_u32(buf, 0); /* OEM table pointer */
	acpi_put_u16(buf, 0); /* OEM table size */
	acpi_put_u16(buf, 0);
	acpi_put_u32(buf, (uint32_t)mptable->config->lapic_base);
	acpi_put_zeros(buf, 4); /* extended table: length, checksum; reserved */
}

static struct acpi_buf *open_entry(struct mptable *mptable, enum entry_type type)
{
	mptable->entry_count++;
	acpi_put_u8(&mptable->buf, (uint8_t)type);
	return &mptable->buf;
}

static void put_cpu(struct mptable *mptable, uint8_t apic_id)
{
	struct acpi_buf *buf = open_entry(mptable, ENTRY_PROCESSOR);

	acpi_put_u8(buf, apic_id);
	acpi_put_u8(buf, LAPIC_VERSION);
	acpi_put_u8(buf, apic_id == LAPIC_BOOT ? CPU_ENABLED | CPU_BOOT : CPU_ENABLED);
	acpi_put_u32(buf, CPU_SIGNATURE);
	acpi_put_u32(buf, CPU_FEATURES);
	acpi_put_zeros(buf, 8); /* reserved */
}

/* Linux looks for a PCI bus under its own number, so that one is 0; ids ascend from 0 (4.3.2). */
static uint8_t isa_bus_id(const struct mptable_config *config)
{
	return config->has_pci ? 1 : 0;
}

static void put_bus(struct mptable *mptable, uint8_t id, const char type[6])
{
	struct acpi_buf *buf = open_entry(mptable, ENTRY_BUS);

	acpi_put_u8(buf, id);
	acpi_put_bytes(buf, type, 6);
}

static void put_buses(struct mptable *mptable)
{
	if (mptable->config->has_pci)
		put_bus(mptable, 0, "PCI   ");
	put_bus(mptable, isa_bus_id(mptable->config), "ISA   ");
}

static void put_ioapic(struct mptable *mptable)
{
	struct acpi_buf *buf = open_entry(mptable, ENTRY_IOAPIC);

	acpi_put_u8(buf, mptable->config->ioapic_id);
	acpi_put_u8(buf, IOAPIC_VERSION);
	acpi_put_u8(buf, IOAPIC_ENABLED);
	acpi_put_u32(buf, (uint32_t)mptable->config->ioapic_base);
}

/* IRQ 0 is no exception: KVM wires its PIT to IOAPIC pin 0, not to pin 2 as a PC does. */
static void put_isa_irq(struct mptable *mptable, uint8_t irq)
{
	struct acpi_buf *buf = open_entry(mptable, ENTRY_IO_INTERRUPT);

	acpi_put_u8(buf, INTERRUPT_INT);
	acpi_put_u16(buf, irq == mptable->config->sci_irq ? ACTIVE_HIGH | LEVEL : AS_THE_BUS);
	acpi_put_u8(buf, isa_bus_id(mptable->config));
	acpi_put_u8(buf, irq);
	acpi_put_u8(buf, mptable->config->ioapic_id);
	acpi_put_u8(buf, irq); /* the IOAPIC's input */
}

static bool gsi_is_pci(const struct mptable_config *config, unsigned gsi)
{
	return config->has_pci && memchr(config->pci_intx_gsi, (int)gsi, sizeof(config->pci_intx_gsi));
}

static void put_isa_irqs(struct mptable *mptable)
{
	for (unsigned irq = 0; irq < ISA_IRQS; irq++)
		if (irq != IRQ_CASCADE && !gsi_is_pci(mptable->config, irq))
			put_isa_irq(mptable, (uint8_t)irq);
}

/* D.3 "PCI interrupts": the slot is in bits 2 to 6 of the source bus IRQ, INTA# is pin 0. */
static void put_pci_irq(struct mptable *mptable, unsigned slot)
{
	struct acpi_buf *buf = open_entry(mptable, ENTRY_IO_INTERRUPT);

	acpi_put_u8(buf, INTERRUPT_INT);
	acpi_put_u16(buf, ACTIVE_LOW | LEVEL);
	acpi_put_u8(buf, 0); /* the PCI bus */
	acpi_put_u8(buf, (uint8_t)(slot << 2));
	acpi_put_u8(buf, mptable->config->ioapic_id);
	acpi_put_u8(buf, mptable->config->pci_intx_gsi[slot % MPTABLE_PCI_PINS]);
}

/* Slot 0 is the host bridge, which interrupts nobody. */
static void put_pci_irqs(struct mptable *mptable)
{
	for (unsigned slot = 1; mptable->config->has_pci && slot < PCI_SLOTS; slot++)
		put_pci_irq(mptable, slot);
}

static void put_local_interrupt(struct mptable *mptable, enum interrupt_type type, uint8_t lapic_id, uint8_t lint)
{
	struct acpi_buf *buf = open_entry(mptable, ENTRY_LOCAL_INTERRUPT);

	acpi_put_u8(buf, (uint8_t)type);
	acpi_put_u16(buf, AS_THE_BUS);
	acpi_put_u8(buf, isa_bus_id(mptable->config));
	acpi_put_u8(buf, 0); /* IRQ */
	acpi_put_u8(buf, lapic_id);
	acpi_put_u8(buf, lint);
}

static void put_entries(struct mptable *mptable)
{
	for (unsigned i = 0; i < mptable->config->cpus; i++)
		put_cpu(mptable, (uint8_t)i);
	put_buses(mptable);
	put_ioapic(mptable);
	put_isa_irqs(mptable);
	put_pci_irqs(mptable);
	put_local_interrupt(mptable, INTERRUPT_EXTINT, LAPIC_BOOT, LINT_EXTINT);
	put_local_interrupt(mptable, INTERRUPT_NMI, LAPIC_ALL, LINT_NMI);
}

static void close_table(struct mptable *mptable)
{
	uint8_t *table = mptable->buf.data + POINTER_SIZE_BYTES;
	size_t size_bytes = mptable->buf.used - POINTER_SIZE_BYTES;

	le16_store(table + TABLE_LENGTH_OFFSET, (uint16_t)size_bytes);
	le16_store(table + TABLE_ENTRY_COUNT_OFFSET, mptable->entry_count);
	table[TABLE_CHECKSUM_OFFSET] = acpi_checksum(table, size_bytes);
}

/* The feature bytes stay 0: a configuration table is there, an IMCR is not. */
static void fill_pointer(uint8_t *pointer, gpa_t table)
{
	memcpy(pointer, "_MP_", 4);
	le32_store(pointer + 4, (uint32_t)table);
	pointer[8] = POINTER_SIZE_BYTES / 16;
	pointer[9] = SPEC_REV;
	pointer[POINTER_CHECKSUM_OFFSET] = acpi_checksum(pointer, POINTER_SIZE_BYTES);
}

static bool pci_is_valid(const struct mptable_config *config)
{
	for (unsigned i = 0; config->has_pci && i < MPTABLE_PCI_PINS; i++) {
		uint8_t gsi = config->pci_intx_gsi[i];

		if (gsi < 3 || gsi >= ISA_IRQS || gsi == config->sci_irq)
			return false;
	}
	return true;
}

static bool config_is_valid(const struct mptable_config *config)
{
	return config->cpus >= 1 && config->cpus <= MPTABLE_CPUS_MAX && config->lapic_base <= UINT32_MAX &&
	       config->ioapic_base <= UINT32_MAX && config->sci_irq >= 3 && config->sci_irq < ISA_IRQS &&
	       pci_is_valid(config);
}

int mptable_render(const struct mptable_config *config, gpa_t base, uint8_t *blob, size_t size_bytes,
		   size_t *ret_size_bytes)
{
	struct mptable mptable = {
		.config = config,
		.buf = {.data = blob, .size_bytes = size_bytes},
	};

	if (!config_is_valid(config) || base % 16 != 0 || base > UINT32_MAX - MPTABLE_BLOB_SIZE_MAX)
		return -EINVAL;
	acpi_put_zeros(&mptable.buf, POINTER_SIZE_BYTES);
	open_table(&mptable);
	put_entries(&mptable);
	if (!acpi_buf_fits(&mptable.buf))
		return -ENOSPC;
	close_table(&mptable);
	fill_pointer(blob, base + POINTER_SIZE_BYTES);
	*ret_size_bytes = mptable.buf.used;
	return 0;
}
