/* The Xen PVH start of day: struct hvm_start_info, version 1 (xen/include/public/arch-x86/hvm/start_info.h). */
#pragma once

#include "loader/initrd.h"
#include "loader/kernel.h"

/* Offsets in the page that pvh_write renders: the structure, one module, the memory map. */
enum pvh_offset {
	PVH_MAGIC = 0,           /* 4 */
	PVH_VERSION = 4,         /* 4 */
	PVH_FLAGS = 8,           /* 4 */
	PVH_NR_MODULES = 12,     /* 4 */
	PVH_MODLIST_PADDR = 16,  /* 8 */
	PVH_CMDLINE_PADDR = 24,  /* 8 */
	PVH_RSDP_PADDR = 32,     /* 8 */
	PVH_MEMMAP_PADDR = 40,   /* 8 */
	PVH_MEMMAP_ENTRIES = 48, /* 4 */

	PVH_MODLIST = 64, /* 32 each: paddr 8, size 8, cmdline_paddr 8, reserved 8 */
	PVH_MEMMAP = 96,  /* 24 each: addr 8, size 8, type 4, reserved 4 */
};

enum { PVH_MAGIC_VALUE = 0x336ec578 }; /* "xEn3" with bit 7 of the "E" set */

/* Write the plan's start info at area.boot_params. */
void pvh_write(const struct load_plan *plan, const struct initrd *initrd);
