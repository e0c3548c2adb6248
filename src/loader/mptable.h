/*
 * The table of Intel's MultiProcessor Specification 1.4, for kernels that have no ACPI or do not use it.
 *
 * One blob holds the floating pointer structure, which is its first 16 bytes, and the configuration table that it
 * points to. Guests look for the first on every 16th byte of 0xF0000..0xFFFFF (and of the last KiB below 640 KiB).
 *
 * The table says: virtual wire mode without an IMCR; ISA's IRQ n is on input n of the one IOAPIC, but IRQ 2, the
 * cascade, on none; the 8259s are on LINT0 of CPU 0, the NMI is on LINT1 of all. With PCI there are two buses: 0, which
 * is PCI, and 1, ISA, whose IRQs are less those whose inputs PCI has; without, ISA is bus 0.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gmem.h"

enum {
	MPTABLE_CPUS_MAX = 254, /* APIC ids 0 to 253; 255 is broadcast */
	MPTABLE_PCI_PINS = 4,
	MPTABLE_BLOB_SIZE_MAX = 8192, /* enough for every configuration */
};

struct mptable_config {
	unsigned cpus; /* 1 to MPTABLE_CPUS_MAX; APIC ids from 0, which boots */
	gpa_t lapic_base;
	gpa_t ioapic_base;
	uint8_t ioapic_id;
	uint8_t sci_irq; /* ACPI's interrupt, 3 to 15: level triggered, active high */
	bool has_pci;    /* a bus 0 with slots 1 to 31 */
	/* The IOAPIC inputs of INTA#, that of slot s in [s % 4]: level triggered, active low. 3 to 15, not the SCI. */
	uint8_t pci_intx_gsi[MPTABLE_PCI_PINS];
};

/*
 * Render into `blob`; at most size_bytes are written. `base`, where the caller will write it, is a multiple of 16 and
 * the end of the blob lies below 4 GiB. 0 with the bytes used in ret_size_bytes, -EINVAL when the configuration cannot
 * be, -ENOSPC when it does not fit (the contents of `blob` are then undefined). Pure. [any]
 */
int mptable_render(const struct mptable_config *config, gpa_t base, uint8_t *blob, size_t size_bytes,
		   size_t *ret_size_bytes);
