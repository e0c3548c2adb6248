#include "loader/acpi.h"

#include <errno.h>
#include <string.h>

#include "loader/acpi_buf.h"
#include "loader/acpi_dsdt.h"
#include "util.h"

/* ACPI 6.4, table 5.9 "Fixed ACPI Description Table Fixed Feature Flags". */
enum fadt_flags {
	FADT_WBINVD = 1 << 0,
	FADT_PROC_C1 = 1 << 2,
	FADT_PWR_BUTTON = 1 << 4, /* clear: the power button is in the fixed registers */
	FADT_SLP_BUTTON = 1 << 5, /* set: no sleep button there */
	FADT_FIX_RTC = 1 << 6,    /* set: no RTC wake status there */
	FADT_TMR_VAL_EXT = 1 << 8,
	FADT_RESET_REG_SUP = 1 << 10,
};

/* Table 5.11 "Fixed ACPI Description Table Boot IA-PC Boot Architecture Flags". */
enum fadt_iapc_boot_arch {
	IAPC_LEGACY_DEVICES = 1 << 0,
	IAPC_8042 = 1 << 1,
	IAPC_VGA_NOT_PRESENT = 1 << 2,
	IAPC_CMOS_RTC_NOT_PRESENT = 1 << 5,
};

/* 5.2.3.2 "Generic Address Structure". */
enum gas_access { GAS_ACCESS_BYTE = 1, GAS_ACCESS_WORD = 2, GAS_ACCESS_DWORD = 3 };
enum { GAS_SPACE_IO = 1 };

/* 5.2.12 "Multiple APIC Description Table". */
enum madt_entry {
	MADT_LOCAL_APIC = 0,
	MADT_IO_APIC = 1,
	MADT_SOURCE_OVERRIDE = 2,
	MADT_LOCAL_APIC_NMI = 4,
};

enum madt_bits {
	MADT_PCAT_COMPAT = 1 << 0, /* two 8259s are there, to be masked */
	MADT_LOCAL_APIC_ENABLED = 1 << 0,
	MADT_ACTIVE_HIGH = 1 << 0, /* MPS INTI flags, table 5.26; 0: as the bus does it */
	MADT_LEVEL = 3 << 2,
	MADT_ALL_PROCESSORS = 0xff,
	MADT_BUS_ISA = 0,
};

enum { NMI_LINT = 1 };
enum { ISA_IRQS = 16, IOAPIC_PINS = 24 };
enum { RTC_CENTURY_INDEX = 0x32 };
enum { RSDP_SIZE_BYTES = 36, RSDP_V1_SIZE_BYTES = 20, FACS_SIZE_BYTES = 64, FADT_SIZE_BYTES = 276 };
enum { TABLES_MAX = 3 }; /* that the XSDT lists */
enum { HEADER_LENGTH_OFFSET = 4, HEADER_CHECKSUM_OFFSET = 9, TABLE_ALIGN = 16 };

static const char oem_id[6] = "VMLET ";
static const char oem_table_id[8] = "VMLETVM ";
static const char creator_id[4] = "VMLT";

struct acpi {
	const struct acpi_config *config;
	struct acpi_buf buf;
	gpa_t base;
};

/* Begin a table with the header that all share (5.2.6); what it returns is for table_close. */
static size_t table_open(struct acpi *acpi, const char *signature, uint8_t revision)
{
	struct acpi_buf *buf = &acpi->buf;
	size_t opened;

	acpi_put_align(buf, TABLE_ALIGN);
	opened = buf->used;
	acpi_put_bytes(buf, signature, 4);
	acpi_put_u32(buf, 0); /* length: table_close */
	acpi_put_u8(buf, revision);
	acpi_put_u8(buf, 0); /* checksum: table_close */
	acpi_put_bytes(buf, oem_id, sizeof(oem_id));
	acpi_put_bytes(buf, oem_table_id, sizeof(oem_table_id));
	acpi_put_u32(buf, 1); /* OEM revision */
	acpi_put_bytes(buf, creator_id, sizeof(creator_id));
	acpi_put_u32(buf, 1); /* creator revision */
	return opened;
}

/* Fill in length and checksum; returns the table's guest address. */
static gpa_t table_close(struct acpi *acpi, size_t opened)
{
	struct acpi_buf *buf = &acpi->buf;
	uint8_t *table = buf->data + opened;
	size_t size_bytes = buf->used - opened;

	if (acpi_buf_fits(buf)) {
		le32_store(table + HEADER_LENGTH_OFFSET, (uint32_t)size_bytes);
		table[HEADER_CHECKSUM_OFFSET] = acpi_checksum(table, size_bytes);
	}
	return acpi->base + opened;
}

/* A port of `bytes` bytes as a Generic Address Structure; port 0 is "none", all zeros. */
static void put_gas_io(struct acpi_buf *buf, uint16_t port, unsigned bytes, enum gas_access access)
{
	if (port == 0) {
		acpi_put_zeros(buf, 12);
		return;
	}
	acpi_put_u8(buf, GAS_SPACE_IO);
	acpi_put_u8(buf, (uint8_t)(bytes * 8));
	acpi_put_u8(buf, 0); /* bit offset */
	acpi_put_u8(buf, (uint8_t)access);
	acpi_put_u64(buf, port);
}

static gpa_t put_dsdt(struct acpi *acpi)
{
	size_t table = table_open(acpi, "DSDT", 2);

	acpi_dsdt_put(&acpi->buf, acpi->config);
	return table_close(acpi, table);
}

/* Firmware ACPI Control Structure (5.2.10): no checksum; only its global lock could ever be used. */
static gpa_t put_facs(struct acpi *acpi)
{
	struct acpi_buf *buf = &acpi->buf;
	size_t start;

	acpi_put_align(buf, FACS_SIZE_BYTES);
	start = buf->used;
	acpi_put_bytes(buf, "FACS", 4);
	acpi_put_u32(buf, FACS_SIZE_BYTES);
	acpi_put_zeros(buf, 24);
	acpi_put_u8(buf, 2); /* version */
	acpi_put_zeros(buf, FACS_SIZE_BYTES - 33);
	return acpi->base + start;
}

static uint32_t fadt_flags(const struct acpi_config *config)
{
	uint32_t flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_TMR_VAL_EXT;

	return config->reset_port != 0 ? flags | FADT_RESET_REG_SUP : flags;
}

static uint16_t fadt_iapc_boot_arch(const struct acpi_config *config)
{
	unsigned flags = IAPC_LEGACY_DEVICES | IAPC_VGA_NOT_PRESENT;

	if (config->i8042_keyboard)
		flags |= IAPC_8042;
	if (config->rtc_port == 0)
		flags |= IAPC_CMOS_RTC_NOT_PRESENT;
	return (uint16_t)flags;
}

/* Offsets 36 to 115: the fields of ACPI 1.0 (5.2.9). */
static void put_fadt_v1(struct acpi_buf *buf, const struct acpi_config *config, gpa_t facs, gpa_t dsdt)
{
	acpi_put_u32(buf, (uint32_t)facs);
	acpi_put_u32(buf, (uint32_t)dsdt);
	acpi_put_u8(buf, 0); /* reserved */
	acpi_put_u8(buf, 0); /* preferred PM profile: unspecified */
	acpi_put_u16(buf, config->sci_irq);
	acpi_put_u32(buf, 0);   /* SMI_CMD: none, so always in ACPI mode */
	acpi_put_zeros(buf, 4); /* ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT */
	acpi_put_u32(buf, config->pm1_event_port);
	acpi_put_u32(buf, 0); /* PM1b_EVT_BLK */
	acpi_put_u32(buf, config->pm1_control_port);
	acpi_put_u32(buf, 0); /* PM1b_CNT_BLK */
	acpi_put_u32(buf, 0); /* PM2_CNT_BLK */
	acpi_put_u32(buf, config->pm_timer_port);
	acpi_put_zeros(buf, 8); /* GPE0_BLK, GPE1_BLK */
	acpi_put_u8(buf, PM1_EVENT_BYTES);
	acpi_put_u8(buf, PM1_CONTROL_BYTES);
	acpi_put_u8(buf, 0); /* PM2_CNT_LEN */
	acpi_put_u8(buf, PM_TIMER_BYTES);
	acpi_put_zeros(buf, 4);  /* GPE0_BLK_LEN, GPE1_BLK_LEN, GPE1_BASE, CST_CNT */
	acpi_put_u16(buf, 101);  /* P_LVL2_LAT: over 100, no C2 */
	acpi_put_u16(buf, 1001); /* P_LVL3_LAT: over 1000, no C3 */
	acpi_put_zeros(buf, 8);  /* FLUSH_SIZE, FLUSH_STRIDE, DUTY_OFFSET, DUTY_WIDTH, DAY_ALRM, MON_ALRM */
	acpi_put_u8(buf, config->rtc_port != 0 ? RTC_CENTURY_INDEX : 0);
	acpi_put_u16(buf, fadt_iapc_boot_arch(config));
	acpi_put_u8(buf, 0); /* reserved */
	acpi_put_u32(buf, fadt_flags(config));
}

/* Offsets 116 to 275. The FACS has one address, the 32-bit one: 5.2.9 wants X_FIRMWARE_CTRL to be 0 then. */
static void put_fadt_extended(struct acpi_buf *buf, const struct acpi_config *config, gpa_t dsdt)
{
	put_gas_io(buf, config->reset_port, 1, GAS_ACCESS_BYTE);
	acpi_put_u8(buf, config->reset_value);
	acpi_put_u16(buf, 0); /* ARM_BOOT_ARCH */
	acpi_put_u8(buf, 4);  /* minor version */
	acpi_put_u64(buf, 0); /* X_FIRMWARE_CTRL */
	acpi_put_u64(buf, dsdt);
	put_gas_io(buf, config->pm1_event_port, PM1_EVENT_BYTES, GAS_ACCESS_WORD);
	put_gas_io(buf, 0, 0, 0); /* X_PM1b_EVT_BLK */
	put_gas_io(buf, config->pm1_control_port, PM1_CONTROL_BYTES, GAS_ACCESS_WORD);
	put_gas_io(buf, 0, 0, 0); /* X_PM1b_CNT_BLK */
	put_gas_io(buf, 0, 0, 0); /* X_PM2_CNT_BLK */
	put_gas_io(buf, config->pm_timer_port, PM_TIMER_BYTES, GAS_ACCESS_DWORD);
	put_gas_io(buf, 0, 0, 0); /* X_GPE0_BLK */
	put_gas_io(buf, 0, 0, 0); /* X_GPE1_BLK */
	put_gas_io(buf, 0, 0, 0); /* SLEEP_CONTROL_REG */
	put_gas_io(buf, 0, 0, 0); /* SLEEP_STATUS_REG */
	acpi_put_u64(buf, 0);     /* hypervisor vendor */
}

static gpa_t put_fadt(struct acpi *acpi, gpa_t facs, gpa_t dsdt)
{
	size_t table = table_open(acpi, "FACP", 6);

	put_fadt_v1(&acpi->buf, acpi->config, facs, dsdt);
	put_fadt_extended(&acpi->buf, acpi->config, dsdt);
	return table_close(acpi, table);
}

static void put_madt_cpu(struct acpi_buf *buf, uint8_t apic_id)
{
	acpi_put_u8(buf, MADT_LOCAL_APIC);
	acpi_put_u8(buf, 8);
	acpi_put_u8(buf, apic_id); /* processor UID */
	acpi_put_u8(buf, apic_id);
	acpi_put_u32(buf, MADT_LOCAL_APIC_ENABLED);
}

static void put_madt_ioapic(struct acpi_buf *buf, const struct acpi_config *config)
{
	acpi_put_u8(buf, MADT_IO_APIC);
	acpi_put_u8(buf, 12);
	acpi_put_u8(buf, config->ioapic_id);
	acpi_put_u8(buf, 0); /* reserved */
	acpi_put_u32(buf, (uint32_t)config->ioapic_base);
	acpi_put_u32(buf, 0); /* first GSI */
}

static void put_madt_override(struct acpi_buf *buf, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	acpi_put_u8(buf, MADT_SOURCE_OVERRIDE);
	acpi_put_u8(buf, 10);
	acpi_put_u8(buf, MADT_BUS_ISA);
	acpi_put_u8(buf, irq);
	acpi_put_u32(buf, gsi);
	acpi_put_u16(buf, flags);
}

static void put_madt_nmi(struct acpi_buf *buf)
{
	acpi_put_u8(buf, MADT_LOCAL_APIC_NMI);
	acpi_put_u8(buf, 6);
	acpi_put_u8(buf, MADT_ALL_PROCESSORS);
	acpi_put_u16(buf, 0); /* flags: as the bus does it */
	acpi_put_u8(buf, NMI_LINT);
}

static gpa_t put_madt(struct acpi *acpi)
{
	const struct acpi_config *config = acpi->config;
	struct acpi_buf *buf = &acpi->buf;
	size_t table = table_open(acpi, "APIC", 5);

	acpi_put_u32(buf, (uint32_t)config->lapic_base);
	acpi_put_u32(buf, MADT_PCAT_COMPAT);
	for (unsigned i = 0; i < config->cpus; i++)
		put_madt_cpu(buf, (uint8_t)i);
	put_madt_ioapic(buf, config);
	/* None for IRQ 0: KVM wires its PIT to IOAPIC pin 0, not to pin 2 as a PC does. */
	put_madt_override(buf, config->sci_irq, config->sci_irq, MADT_ACTIVE_HIGH | MADT_LEVEL);
	put_madt_nmi(buf);
	return table_close(acpi, table);
}

/* PCI Firmware 3.2, table 4-2 "MCFG Table to Support Enhanced Configuration Access". */
static gpa_t put_mcfg(struct acpi *acpi)
{
	struct acpi_buf *buf = &acpi->buf;
	size_t table = table_open(acpi, "MCFG", 1);

	acpi_put_zeros(buf, 8);
	acpi_put_u64(buf, acpi->config->pci_ecam_base);
	acpi_put_u16(buf, 0);   /* segment */
	acpi_put_u8(buf, 0);    /* first bus */
	acpi_put_u8(buf, 0);    /* last bus */
	acpi_put_zeros(buf, 4); /* reserved */
	return table_close(acpi, table);
}

/* Root System Description Pointer (5.2.5.3): two checksums, the second over all of it. */
static void fill_rsdp(uint8_t *rsdp, gpa_t xsdt)
{
	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, oem_id, sizeof(oem_id));
	rsdp[15] = 2; /* revision */
	le32_store(rsdp + 20, RSDP_SIZE_BYTES);
	le64_store(rsdp + 24, xsdt);
	rsdp[8] = acpi_checksum(rsdp, RSDP_V1_SIZE_BYTES);
	rsdp[32] = acpi_checksum(rsdp, RSDP_SIZE_BYTES);
}

/* A new table is one more put_ function and one more entry here. */
static void put_all(struct acpi *acpi)
{
	gpa_t tables[TABLES_MAX];
	size_t count = 0;
	gpa_t facs, xsdt;
	size_t table;

	acpi_put_zeros(&acpi->buf, RSDP_SIZE_BYTES);
	facs = put_facs(acpi);
	tables[count++] = put_fadt(acpi, facs, put_dsdt(acpi));
	tables[count++] = put_madt(acpi);
	if (acpi->config->pci_ecam_base != 0)
		tables[count++] = put_mcfg(acpi);
	table = table_open(acpi, "XSDT", 1);
	for (size_t i = 0; i < count; i++)
		acpi_put_u64(&acpi->buf, tables[i]);
	xsdt = table_close(acpi, table);
	if (acpi_buf_fits(&acpi->buf))
		fill_rsdp(acpi->buf.data, xsdt);
}

static bool range_is_below(gpa_t base, uint64_t size_bytes, uint64_t end)
{
	return base <= end && size_bytes <= end - base;
}

static bool gsi_is_isa(const struct acpi_config *config, uint8_t gsi)
{
	return gsi < 3 || gsi == config->sci_irq || (config->com1_port != 0 && gsi == config->com1_irq) ||
	       (config->rtc_port != 0 && gsi == config->rtc_irq);
}

static bool gsi_is_pci(const struct acpi_config *config, uint8_t gsi)
{
	return config->pci_ecam_base != 0 && memchr(config->pci_intx_gsi, gsi, ACPI_PCI_PINS);
}

static bool ranges_overlap(gpa_t a, uint64_t a_size_bytes, gpa_t b, uint64_t b_size_bytes)
{
	return a < b + b_size_bytes && b < a + a_size_bytes;
}

static bool pci_is_valid(const struct acpi_config *config)
{
	if (config->pci_ecam_base == 0)
		return true;
	for (unsigned i = 0; i < ACPI_PCI_PINS; i++)
		if (config->pci_intx_gsi[i] >= ISA_IRQS || gsi_is_isa(config, config->pci_intx_gsi[i]))
			return false;
	return config->pci_ecam_base % ACPI_PCI_ECAM_SIZE == 0 &&
	       range_is_below(config->pci_ecam_base, ACPI_PCI_ECAM_SIZE, GIB(4)) &&
	       range_is_below(config->pci_window32_base, config->pci_window32_size_bytes, GIB(4)) &&
	       range_is_below(config->pci_window64_base, config->pci_window64_size_bytes, UINT64_MAX) &&
	       !ranges_overlap(config->pci_ecam_base, ACPI_PCI_ECAM_SIZE, config->pci_window32_base,
			       config->pci_window32_size_bytes);
}

static bool virtio_mmio_is_valid(const struct acpi_config *config)
{
	if (config->virtio_mmio_count > ACPI_VIRTIO_MMIO_MAX)
		return false;
	for (unsigned i = 0; i < config->virtio_mmio_count; i++) {
		uint8_t gsi = config->virtio_mmio_gsi[i];

		if (gsi >= IOAPIC_PINS || gsi_is_isa(config, gsi) || gsi_is_pci(config, gsi))
			return false;
	}
	return config->virtio_mmio_base % ACPI_VIRTIO_MMIO_SIZE == 0 &&
	       range_is_below(config->virtio_mmio_base, (uint64_t)config->virtio_mmio_count * ACPI_VIRTIO_MMIO_SIZE,
			      GIB(4));
}

static bool config_is_valid(const struct acpi_config *config)
{
	for (unsigned i = 0; i < config->io_reserved_count; i++)
		if (i >= ACPI_IO_RESERVED_MAX || config->io_reserved[i].count == 0)
			return false;
	return config->cpus >= 1 && config->cpus <= ACPI_CPUS_MAX && config->lapic_base <= UINT32_MAX &&
	       config->ioapic_base <= UINT32_MAX && config->sci_irq >= 3 && config->sci_irq < ISA_IRQS &&
	       config->slp_typ_s5 < 8 && config->pm1_event_port != 0 && config->pm1_control_port != 0 &&
	       config->pm_timer_port != 0 && config->com1_irq < ISA_IRQS && config->rtc_irq < ISA_IRQS &&
	       pci_is_valid(config) && virtio_mmio_is_valid(config);
}

int acpi_render(const struct acpi_config *config, gpa_t base, uint8_t *blob, size_t size_bytes, size_t *ret_size_bytes)
{
	struct acpi acpi = {
		.config = config,
		.buf = {.data = blob, .size_bytes = size_bytes},
		.base = base,
	};

	if (!config_is_valid(config) || base % FACS_SIZE_BYTES != 0 || base > UINT32_MAX - ACPI_BLOB_SIZE_MAX)
		return -EINVAL;
	put_all(&acpi);
	if (!acpi_buf_fits(&acpi.buf))
		return -ENOSPC;
	*ret_size_bytes = acpi.buf.used;
	return 0;
}
