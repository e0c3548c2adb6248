/*
 * A kernel file, understood: what elf.c and bzimage.c find, and all that the rest of the loader needs.
 *
 * A parser checks the file against itself: every range of it that is named here lies inside the file, and the
 * entry lies inside what is loaded. Whether the guest's memory can hold it is place.c's question.
 */
#pragma once

#include "loader/loader.h"

enum {
	KERNEL_SEGMENTS_MAX = 256,
	KERNEL_SETUP_HEADER_MAX = 0x290 - 0x1f1, /* the hole that boot_params has for it */
	KERNEL_CMDLINE_MAX = 2047,               /* COMMAND_LINE_SIZE of x86 Linux less its NUL */
};

/* The beginning of a sentence about a file that cannot be booted at all. */
#define KERNEL_REFUSED "not a bootable kernel: "

/* What vmlet accepts; ends the sentence about a file that is something else. */
#define KERNEL_ACCEPTED "; vmlet boots an ELF64 x86-64 vmlinux, a PVH ELF, or an x86-64 bzImage"

/* file_bytes of the file at `offset` go to paddr; zeros follow up to mem_bytes. */
struct kernel_segment {
	uint64_t offset;
	uint64_t file_bytes; /* <= mem_bytes */
	gpa_t paddr;
	uint64_t vaddr; /* where an ELF file thinks it runs */
	uint64_t mem_bytes;
};

struct kernel_file {
	enum kernel_kind kind;
	enum boot_protocol protocol; /* never BOOT_AUTO */
	gpa_t entry;
	uint64_t cmdline_max_bytes; /* without the NUL */
	gpa_t initrd_end;           /* the first address that the initrd may not occupy */
	unsigned segment_count;
	struct kernel_segment segments[KERNEL_SEGMENTS_MAX];
	/* Of a bzImage: its setup header, from file offset 0x1f1. */
	unsigned setup_header_bytes;
	uint8_t setup_header[KERNEL_SETUP_HEADER_MAX];
};

/* Fill *ret_kernel for a file known to be of this kind; 0, or -errno with a sentence without the file's name. */
int elf_parse(const struct image *image, enum boot_protocol protocol, struct kernel_file *ret_kernel, struct err *err);
int bzimage_parse(const struct image *image, enum boot_protocol protocol, struct kernel_file *ret_kernel,
		  struct err *err);

/* The sentence for a failed image_read or gmem_load_file of bytes that the file had when it was opened. */
int kernel_read_failed(int rc, struct err *err);
