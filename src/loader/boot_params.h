/*
 * The zero page of the Linux x86 boot protocol, and the setup header, which stands at the same offset in it and
 * in a bzImage file. Names and offsets: Documentation/arch/x86/{boot,zero-page}.rst.
 */
#pragma once

#include "loader/initrd.h"
#include "loader/kernel.h"

enum boot_params_offset {
	BOOT_PARAMS_ACPI_RSDP_ADDR = 0x070,    /* 8 */
	BOOT_PARAMS_EXT_RAMDISK_IMAGE = 0x0c0, /* 4 */
	BOOT_PARAMS_EXT_RAMDISK_SIZE = 0x0c4,  /* 4 */
	BOOT_PARAMS_E820_ENTRIES = 0x1e8,      /* 1 */
	BOOT_PARAMS_E820_TABLE = 0x2d0,        /* 20 each: address 8, size 8, type 4 */
};

enum setup_header_offset {
	SETUP_SECTS = 0x1f1,              /* 1: 0 means 4 */
	SETUP_SYSSIZE = 0x1f4,            /* 4: in 16 bytes, rounded up */
	SETUP_VID_MODE = 0x1fa,           /* 2 */
	SETUP_BOOT_FLAG = 0x1fe,          /* 2 */
	SETUP_JUMP = 0x200,               /* 2: EB xx; the header ends at 0x202 + xx */
	SETUP_HEADER = 0x202,             /* 4: "HdrS" */
	SETUP_VERSION = 0x206,            /* 2 */
	SETUP_TYPE_OF_LOADER = 0x210,     /* 1 */
	SETUP_LOADFLAGS = 0x211,          /* 1 */
	SETUP_CODE32_START = 0x214,       /* 4 */
	SETUP_RAMDISK_IMAGE = 0x218,      /* 4 */
	SETUP_RAMDISK_SIZE = 0x21c,       /* 4 */
	SETUP_CMD_LINE_PTR = 0x228,       /* 4 */
	SETUP_INITRD_ADDR_MAX = 0x22c,    /* 4: the last byte that an initrd may occupy */
	SETUP_KERNEL_ALIGNMENT = 0x230,   /* 4 */
	SETUP_RELOCATABLE_KERNEL = 0x234, /* 1 */
	SETUP_XLOADFLAGS = 0x236,         /* 2 */
	SETUP_CMDLINE_SIZE = 0x238,       /* 4: without the NUL */
	SETUP_SETUP_DATA = 0x250,         /* 8 */
	SETUP_PREF_ADDRESS = 0x258,       /* 8 */
	SETUP_INIT_SIZE = 0x260,          /* 4 */
	SETUP_END_2_12 = 0x268,           /* where the header ends in protocol 2.12 */
};

enum {
	SETUP_BOOT_FLAG_MAGIC = 0xaa55,
	SETUP_HEADER_MAGIC = 0x53726448, /* "HdrS" */
	SETUP_VERSION_2_12 = 0x020c,
	SETUP_LOADED_HIGH = 1 << 0,   /* loadflags */
	SETUP_XLF_KERNEL_64 = 1 << 0, /* xloadflags */
	SETUP_TYPE_UNDEFINED = 0xff,  /* type_of_loader: no assigned id */
	SETUP_VID_MODE_NORMAL = 0xffff,
};

/* Write the plan's zero page at area.boot_params. */
void boot_params_write(const struct load_plan *plan, const struct kernel_file *kernel, const struct initrd *initrd);
