/*
 * The ACPI tables of a machine: numbers in, bytes out.
 *
 * One blob holds RSDP, FACS, DSDT, FADT, MADT, MCFG if there is PCI, and XSDT, with the addresses in it right for a
 * blob that the caller writes to guest address `base`. The RSDP is its first byte, so `base` is what a boot protocol is
 * given; a base inside 0xE0000..0xFFFFF lets a guest find it by scanning too.
 *
 * The tables describe fixed ACPI hardware that is in ACPI mode from the start (no SMI command port), so the
 * PM1 control register must read with SCI_EN set. They promise: a power button and a PM timer of 32 bits in the
 * fixed registers, two 8259s, a CMOS RTC with the century at index 0x32, no VGA, no sleep button, no GPEs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gmem.h"

enum {
	ACPI_CPUS_MAX = 254, /* APIC ids 0 to 253; 255 is broadcast */
	ACPI_IO_RESERVED_MAX = 8,
	ACPI_PCI_PINS = 4,
	ACPI_PCI_ECAM_SIZE = 0x100000, /* of the one bus */
	ACPI_VIRTIO_MMIO_MAX = 31,
	ACPI_VIRTIO_MMIO_SIZE = 0x1000, /* of one device, and so the way to the next */
	ACPI_BLOB_SIZE_MAX = 16384,     /* enough for every configuration */
};

struct acpi_io_range {
	uint16_t port;
	uint8_t count; /* not 0 */
};

/* What is in the machine. A port of 0 means that the device is not there, where the comment says so. */
struct acpi_config {
	unsigned cpus; /* 1 to ACPI_CPUS_MAX; APIC ids from 0 */
	gpa_t lapic_base;
	gpa_t ioapic_base; /* its inputs are GSI 0 and up */
	uint8_t ioapic_id;
	uint8_t sci_irq; /* ISA number and GSI, 3 to 15; level triggered, active high */

	uint16_t pm1_event_port;   /* PM1a_EVT: status and enable, 4 ports */
	uint16_t pm1_control_port; /* PM1a_CNT: 2 ports */
	uint16_t pm_timer_port;    /* PM_TMR: 4 ports, 32 bits */
	uint8_t slp_typ_s5;        /* SLP_TYP of power off, 0 to 7 */
	uint16_t reset_port;       /* writing the byte reset_value to it resets; 0: none */
	uint8_t reset_value;

	uint16_t com1_port; /* 16550A, 8 ports; 0: none */
	uint8_t com1_irq;
	uint16_t rtc_port; /* CMOS RTC, 2 ports; 0: none */
	uint8_t rtc_irq;
	uint16_t pvpanic_port; /* 1 port; 0: none */
	bool i8042_keyboard;   /* ports 0x60 and 0x64, IRQ 1: a controller that drivers may probe */

	/* More ports that no driver may take, such as debug-exit; the PM registers are always among them. */
	struct acpi_io_range io_reserved[ACPI_IO_RESERVED_MAX];
	unsigned io_reserved_count;

	/*
	 * PCI: segment 0, bus 0, a host bridge in slot 0 (PCI Firmware 3.2, 4.1; _PRT is ACPI 6.4, 6.2.13). INTA# of
	 * slot s is wired to pci_intx_gsi[s % 4], INTB# to the next, and so on; level triggered, active low. These
	 * GSIs, 3 to 15, may be equal, but no ISA device and not the SCI uses them.
	 */
	gpa_t pci_ecam_base; /* its configuration space, at a multiple of 1 MiB below 4 GiB; 0: no PCI */
	gpa_t pci_window32_base;
	uint64_t pci_window32_size_bytes; /* below 4 GiB, beside ECAM; 0: no such window */
	gpa_t pci_window64_base;
	uint64_t pci_window64_size_bytes; /* 0: no such window */
	uint8_t pci_intx_gsi[ACPI_PCI_PINS];

	/* virtio-mmio devices, one behind the other, below 4 GiB; each level triggered, active high. */
	gpa_t virtio_mmio_base; /* a multiple of 4 KiB */
	unsigned virtio_mmio_count;
	uint8_t virtio_mmio_gsi[ACPI_VIRTIO_MMIO_MAX]; /* 3 to 23, not PCI's; may be shared */
};

/*
 * Render into `blob`; at most size_bytes are written. `base` is a multiple of 64 and the end of the blob lies
 * below 4 GiB. 0 with the bytes used in ret_size_bytes, -EINVAL when the configuration cannot be, -ENOSPC when
 * it does not fit (the contents of `blob` are then undefined). Pure. [any]
 */
int acpi_render(const struct acpi_config *config, gpa_t base, uint8_t *blob, size_t size_bytes, size_t *ret_size_bytes);
