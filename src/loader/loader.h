/*
 * The loader: a plan in, plain facts out.
 *
 * It writes guest memory through gmem and never sets a register, opens a VM or looks at the host; so it runs
 * under a fuzzer. The kind of a kernel comes from its bytes, never from its name. Everything in a kernel file
 * is hostile: sizes and offsets are checked against the file, the memory map and each other before use.
 */
#pragma once

#include <stdint.h>

#include "err.h"
#include "gmem.h"

/* An open regular file and its size when it was opened. */
struct image {
	const char *path; /* borrowed; for sentences */
	int fd;
	uint64_t size_bytes;
};

/* Open `path` for reading; `what` ("kernel", "initrd") begins the sentence. 0 or -errno. [setup] */
int image_open(struct image *image, const char *what, const char *path, struct err *err);
void image_close(struct image *image);

/* Read exactly size_bytes at offset; -ENODATA when the file is shorter. */
int image_read(const struct image *image, uint64_t offset, void *ret_data, size_t size_bytes);

/* Types of the address map, numbered as in E820 and in the PVH memory map. */
enum memory_type {
	MEMORY_RAM = 1,
	MEMORY_RESERVED = 2,
	MEMORY_ACPI = 3,
};

struct memory_range {
	gpa_t base;
	uint64_t size_bytes;
	enum memory_type type;
};

enum { MEMORY_MAP_MAX = 32 };

enum boot_protocol {
	BOOT_AUTO,    /* by the kernel: PVH if it has the note, else Linux 64-bit */
	BOOT_LINUX64, /* Linux x86 64-bit boot protocol: long mode, RSI = boot_params */
	BOOT_PVH,     /* Xen PVH direct boot: 32-bit protected mode, EBX = hvm_start_info */
};

/* Where the loader may put its own structures; all inside RAM, disjoint, below 1 MiB. */
struct load_area {
	gpa_t boot_params; /* 4 KiB: zero page, or hvm_start_info with its lists */
	gpa_t cmdline;     /* cmdline_size_bytes */
	uint32_t cmdline_size_bytes;
	/* What else the VMM keeps in RAM (page tables, GDT, ...): nothing is loaded here. Size 0: nothing. */
	gpa_t reserved;
	uint64_t reserved_size_bytes;
};

struct load_plan {
	struct gmem *gmem;              /* fresh: the loader counts on RAM being zero */
	const struct memory_range *map; /* ascending, disjoint; what the guest is told */
	unsigned map_count;
	gpa_t low_ram_end; /* end of the RAM that begins at 1 MiB and lies below 4 GiB */
	struct load_area area;
	gpa_t acpi_rsdp; /* 0: none */
	const struct image *kernel;
	const struct image *initrds; /* concatenated in this order */
	unsigned initrd_count;
	const char *cmdline; /* "" for none */
	enum boot_protocol protocol;
};

struct load_result {
	enum boot_protocol protocol; /* LINUX64 or PVH */
	gpa_t entry;                 /* RIP */
	gpa_t info;                  /* RSI (boot_params) or EBX (hvm_start_info) */
};

/* What a kernel file is, from its bytes; enough to refuse it before anything is created. */
enum kernel_kind {
	KERNEL_ELF,     /* ELF64 x86-64, no PVH note: Linux 64-bit boot protocol */
	KERNEL_ELF_PVH, /* ELF32/ELF64 with a XEN_ELFNOTE_PHYS32_ENTRY note */
	KERNEL_BZIMAGE, /* with a 64-bit entry */
};

/*
 * Look at the file's headers. 0, or -errno with a sentence (ERR_CONFIG) that names the file, says what was
 * found (an ELF for another machine, an arm64 Image, a gzip file, a 16-bit-only bzImage, a script, ...) and
 * what is accepted. [setup]
 */
int kernel_probe(const struct image *kernel, enum boot_protocol protocol, enum kernel_kind *ret_kind, struct err *err);

/* Load kernel, initrd, command line and boot information. 0, or -errno with a sentence (ERR_CONFIG). [setup] */
int kernel_load(const struct load_plan *plan, struct load_result *ret_result, struct err *err);
