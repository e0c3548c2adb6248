/* Kernel files for the loader's tests, built in memory and handed over in memfds. */
#pragma once

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "loader/boot_params.h"
#include "loader/loader.h"
#include "util.h"

/* A file in the making; it grows with zeros when something is put beyond its end. */
struct blob {
	size_t size_bytes;
	uint8_t bytes[64 << 10];
};

static inline void blob_put(struct blob *blob, size_t offset, const void *data, size_t size_bytes)
{
	assert_true(offset + size_bytes <= sizeof(blob->bytes));
	memcpy(blob->bytes + offset, data, size_bytes);
	if (blob->size_bytes < offset + size_bytes)
		blob->size_bytes = offset + size_bytes;
}

static inline void blob_put_text(struct blob *blob, size_t offset, const char *text)
{
	blob_put(blob, offset, text, strlen(text));
}

static inline void image_set(struct image *image, const void *data, size_t size_bytes)
{
	assert_int_equal(ftruncate(image->fd, 0), 0);
	assert_int_equal(pwrite(image->fd, data, size_bytes, 0), (ssize_t)size_bytes);
	image->size_bytes = size_bytes;
}

static inline struct image image_make(const char *path, const void *data, size_t size_bytes)
{
	struct image image = {.path = path, .fd = memfd_create("image", MFD_CLOEXEC)};
	assert_true(image.fd >= 0);
	image_set(&image, data, size_bytes);
	return image;
}

/* ELF */

enum { CODE_OFFSET = 0x1000, CODE_BYTES = 0x300, NOTE_OFFSET = 0x800 };

static inline Elf64_Ehdr elf64_ehdr(uint16_t phdr_count, uint64_t entry)
{
	return (Elf64_Ehdr){
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = entry,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = phdr_count,
	};
}

static inline Elf64_Phdr elf64_load(uint64_t offset, uint64_t paddr, uint64_t file_bytes, uint64_t mem_bytes)
{
	return (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = offset,
		.p_vaddr = paddr,
		.p_paddr = paddr,
		.p_filesz = file_bytes,
		.p_memsz = mem_bytes,
	};
}

static inline void elf64_put_phdr(struct blob *blob, unsigned i, Elf64_Phdr phdr)
{
	blob_put(blob, sizeof(Elf64_Ehdr) + i * sizeof(phdr), &phdr, sizeof(phdr));
}

static inline void put_code(struct blob *blob)
{
	for (unsigned i = 0; i < CODE_BYTES; i++)
		blob_put(blob, CODE_OFFSET + i, &(uint8_t){(uint8_t)(i * 7 + 1)}, 1);
}

/* A vmlinux: one segment at `paddr` with one page of bss behind. */
static inline void elf64_make(struct blob *blob, uint64_t paddr)
{
	Elf64_Ehdr ehdr = elf64_ehdr(1, paddr + 0x40);
	blob->size_bytes = 0;
	memset(blob->bytes, 0, sizeof(blob->bytes));
	blob_put(blob, 0, &ehdr, sizeof(ehdr));
	elf64_put_phdr(blob, 0, elf64_load(CODE_OFFSET, paddr, CODE_BYTES, CODE_BYTES + 0x1000));
	put_code(blob);
}

/* One note; returns the offset behind it. */
static inline size_t note_put(struct blob *blob, size_t at, const char *name, uint32_t type, const void *desc,
			      uint32_t desc_bytes, uint64_t align)
{
	uint32_t header[3] = {(uint32_t)strlen(name) + 1, desc_bytes, type};
	size_t desc_at = at + align_up(sizeof(header) + header[0], align);
	blob_put(blob, at, header, sizeof(header));
	blob_put(blob, at + sizeof(header), name, header[0]);
	blob_put(blob, desc_at, desc, desc_bytes);
	return desc_at + align_up(desc_bytes, align);
}

/* Give it a PT_NOTE segment with some other note and a PVH note of desc_bytes. */
static inline void elf64_add_pvh(struct blob *blob, uint64_t entry, uint32_t desc_bytes, uint64_t align)
{
	size_t end = note_put(blob, NOTE_OFFSET, "GNU", 3, "0123456789", 10, align);
	end = note_put(blob, end, "Xen", 18, &entry, desc_bytes, align);
	elf64_put_phdr(blob, 1,
		       (Elf64_Phdr){.p_type = PT_NOTE,
				    .p_offset = NOTE_OFFSET,
				    .p_filesz = end - NOTE_OFFSET,
				    .p_memsz = end - NOTE_OFFSET,
				    .p_align = align});
	blob_put(blob, offsetof(Elf64_Ehdr, e_phnum), &(uint16_t){2}, 2);
}

/* An i386 ELF with a PVH note when `entry` is not 0. */
static inline void elf32_make(struct blob *blob, uint32_t paddr, uint32_t entry)
{
	Elf32_Ehdr ehdr = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_386,
		.e_entry = paddr,
		.e_phoff = sizeof(Elf32_Ehdr),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = entry ? 2 : 1,
	};
	Elf32_Phdr phdrs[2] = {
		{.p_type = PT_LOAD,
		 .p_offset = CODE_OFFSET,
		 .p_vaddr = 0xc0000000 + paddr,
		 .p_paddr = paddr,
		 .p_filesz = CODE_BYTES,
		 .p_memsz = CODE_BYTES},
		{.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = 20, .p_memsz = 20, .p_align = 4},
	};
	blob->size_bytes = 0;
	memset(blob->bytes, 0, sizeof(blob->bytes));
	blob_put(blob, 0, &ehdr, sizeof(ehdr));
	blob_put(blob, sizeof(ehdr), phdrs, sizeof(phdrs));
	note_put(blob, NOTE_OFFSET, "Xen", 18, &entry, 4, 4);
	put_code(blob);
}

/* bzImage */

enum { BZIMAGE_PAYLOAD_OFFSET = 0x400, BZIMAGE_BYTES = BZIMAGE_PAYLOAD_OFFSET + 0x400 };

static inline void blob_put16(struct blob *blob, size_t offset, uint16_t value)
{
	blob_put(blob, offset, &value, sizeof(value));
}

static inline void blob_put32(struct blob *blob, size_t offset, uint32_t value)
{
	blob_put(blob, offset, &value, sizeof(value));
}

static inline void bzimage_make(struct blob *blob)
{
	blob->size_bytes = 0;
	memset(blob->bytes, 0, sizeof(blob->bytes));
	blob_put_text(blob, 0, "MZ");
	blob_put(blob, SETUP_SECTS, &(uint8_t){1}, 1);
	blob_put32(blob, SETUP_SYSSIZE, 0x400 / 16);
	blob_put16(blob, SETUP_BOOT_FLAG, SETUP_BOOT_FLAG_MAGIC);
	blob_put16(blob, SETUP_JUMP, 0x6aeb);
	blob_put32(blob, SETUP_HEADER, SETUP_HEADER_MAGIC);
	blob_put16(blob, SETUP_VERSION, 0x020f);
	blob_put(blob, SETUP_LOADFLAGS, &(uint8_t){SETUP_LOADED_HIGH}, 1);
	blob_put32(blob, SETUP_INITRD_ADDR_MAX, 0x7fffffff);
	blob_put32(blob, SETUP_KERNEL_ALIGNMENT, 0x200000);
	blob_put(blob, SETUP_RELOCATABLE_KERNEL, &(uint8_t){1}, 1);
	blob_put16(blob, SETUP_XLOADFLAGS, SETUP_XLF_KERNEL_64);
	blob_put32(blob, SETUP_CMDLINE_SIZE, 2047);
	blob_put32(blob, SETUP_PREF_ADDRESS, 0x400000);
	blob_put32(blob, SETUP_INIT_SIZE, 0x300000);
	for (unsigned i = 0; i < 0x400; i++)
		blob_put(blob, BZIMAGE_PAYLOAD_OFFSET + i, &(uint8_t){(uint8_t)(i * 5 + 3)}, 1);
}
