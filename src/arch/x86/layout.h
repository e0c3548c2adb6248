/* Where things are in a PC's address spaces. Fixed addresses of the platform, and our choices among what it leaves. */
#pragma once

#include "util.h"

enum {
	/* Low memory: what the loader and the boot state write, all in the RAM below 640 KiB. */
	LAYOUT_GDT = 0x500,
	LAYOUT_BOOT_PARAMS = 0x7000,
	LAYOUT_PAGE_TABLES = 0x9000, /* PML4, PDPT, four PDs: 0x9000 to 0xefff */
	LAYOUT_PAGE_TABLES_END = 0xf000,
	LAYOUT_CMDLINE = 0x20000,
	LAYOUT_CMDLINE_SIZE = 0x10000,

	LAYOUT_EBDA = 0x9fc00, /* end of conventional memory */
	LAYOUT_ACPI = 0xe0000, /* the BIOS area, where an RSDP is looked for */
	LAYOUT_ACPI_SIZE = 0x10000,
	LAYOUT_MPTABLE = 0xf0000, /* its upper half, where an MP floating pointer is looked for */
	LAYOUT_MPTABLE_SIZE = 0x10000,
	LAYOUT_HIGH_RAM = 0x100000,
};

/* RAM stops at 3 GiB and goes on at 4 GiB: the gibibyte between belongs to devices, APICs and KVM. */
#define LAYOUT_HOLE_START GIB(3)
#define LAYOUT_HOLE_END   GIB(4)

/* In that gibibyte: where PCI's BARs are, its configuration space, and virtio-mmio's registers, one page a device. */
#define LAYOUT_PCI_WINDOW32      0xc0000000ULL
#define LAYOUT_PCI_WINDOW32_SIZE 0x20000000ULL
#define LAYOUT_PCI_ECAM          0xe0000000ULL
#define LAYOUT_VIRTIO_MMIO       0xe8000000ULL

/* Above all RAM there is a second window, for a guest that wants to move BARs there. */
#define LAYOUT_PCI_WINDOW64_SIZE GIB(16)

#define LAYOUT_IOAPIC       0xfec00000ULL
#define LAYOUT_LAPIC        0xfee00000ULL
#define LAYOUT_IDENTITY_MAP 0xfffbc000ULL /* one page that KVM on older Intel CPUs uses for real mode */
#define LAYOUT_TSS          0xfffbd000ULL /* three pages, for the same */

enum {
	PORT_PIT = 0x40,
	PORT_I8042_DATA = 0x60,
	PORT_SPEAKER = 0x61,
	PORT_I8042_COMMAND = 0x64,
	PORT_RTC = 0x70,
	PORT_DEBUGCON_BOCHS = 0xe9,
	PORT_DEBUG_EXIT = 0xf4,
	PORT_COM1 = 0x3f8,
	PORT_DEBUGCON = 0x402,
	PORT_PVPANIC = 0x505,
	PORT_STREAM = 0x5e0,
	PORT_PM_ACPI = 0x600,
	PORT_PCI_CONFIG = 0xcf8,
};

enum {
	GSI_I8042 = 1,
	GSI_COM1 = 4,
	GSI_RTC = 8,
	GSI_SCI = 9,
};

/*
 * PCI's four interrupt lines. Below 16, so that a guest which uses the 8259s, or knows only what the Interrupt Line
 * register says, has them too.
 */
#define LAYOUT_PCI_INTX_GSI                                                                                            \
	{                                                                                                              \
		5, 6, 10, 11                                                                                           \
	}

/* What virtio-mmio devices get, in this order: ISA interrupts that nothing else has, and the IOAPIC's other inputs. */
#define LAYOUT_VIRTIO_MMIO_GSI                                                                                         \
	{                                                                                                              \
		5, 6, 7, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23                                            \
	}
