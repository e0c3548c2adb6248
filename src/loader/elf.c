/*
 * ELF: a Linux vmlinux, or any kernel with a PVH entry note.
 *
 * Segments go to their physical addresses (p_paddr). Section headers are never looked at.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "loader/elf_note.h"
#include "loader/kernel.h"
#include "util.h"

enum {
	NOTES_MAX_BYTES = 1 << 20,     /* of one PT_NOTE segment */
	XEN_ELFNOTE_PHYS32_ENTRY = 18, /* xen/include/public/elfnote.h */
};

/* The two classes differ in the width of a word and in where things stand. */
struct elf_layout {
	uint8_t word_bytes;
	uint8_t ehdr_bytes, e_entry, e_phoff, e_phentsize, e_phnum;
	uint8_t phdr_bytes, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align;
};

#define LAYOUT(class)                                                                                                  \
	{                                                                                                              \
		.word_bytes = sizeof(class##_Addr), .ehdr_bytes = sizeof(class##_Ehdr),                                \
		.e_entry = offsetof(class##_Ehdr, e_entry), .e_phoff = offsetof(class##_Ehdr, e_phoff),                \
		.e_phentsize = offsetof(class##_Ehdr, e_phentsize), .e_phnum = offsetof(class##_Ehdr, e_phnum),        \
		.phdr_bytes = sizeof(class##_Phdr), .p_offset = offsetof(class##_Phdr, p_offset),                      \
		.p_vaddr = offsetof(class##_Phdr, p_vaddr), .p_paddr = offsetof(class##_Phdr, p_paddr),                \
		.p_filesz = offsetof(class##_Phdr, p_filesz), .p_memsz = offsetof(class##_Phdr, p_memsz),              \
		.p_align = offsetof(class##_Phdr, p_align),                                                            \
	}

static const struct elf_layout layout_32 = LAYOUT(Elf32);
static const struct elf_layout layout_64 = LAYOUT(Elf64);

struct elf {
	const struct image *image;
	const struct elf_layout *layout;
	uint8_t ehdr[sizeof(Elf64_Ehdr)];
	unsigned phdr_count;
	uint8_t phdrs[KERNEL_SEGMENTS_MAX * sizeof(Elf64_Phdr)];
	bool is_program; /* for an operating system */
	bool has_pvh;
	uint64_t pvh_entry;
};

static uint64_t word_load(const struct elf *elf, const uint8_t *at)
{
	return elf->layout->word_bytes == 8 ? le64_load(at) : le32_load(at);
}

static const uint8_t *phdr_at(const struct elf *elf, unsigned i)
{
	return elf->phdrs + (size_t)i * elf->layout->phdr_bytes;
}

static uint32_t phdr_type(const struct elf *elf, unsigned i)
{
	return le32_load(phdr_at(elf, i)); /* p_type comes first in both classes */
}

/* What it is an ELF of. */

static const struct {
	uint16_t machine;
	const char *name;
} machines[] = {
	{EM_386, "i386"},        {EM_X86_64, "x86-64"}, {EM_AARCH64, "aarch64"}, {EM_ARM, "arm"},
	{EM_PPC, "ppc"},         {EM_PPC64, "ppc64"},   {EM_S390, "s390"},       {EM_MIPS, "mips"},
	{EM_SPARCV9, "sparc64"}, {EM_IA_64, "ia64"},    {258, "loongarch"},
};

static const char *machine_name(uint16_t machine, bool is_64, char text[32])
{
	if (machine == EM_RISCV)
		return is_64 ? "riscv64" : "riscv32";
	for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
		if (machines[i].machine == machine)
			return machines[i].name;
	}
	(void)snprintf(text, 32, "machine number %u", machine);
	return text;
}

static int check_machine(const struct elf *elf, struct err *err)
{
	bool is_64 = elf->layout == &layout_64;
	uint16_t machine = le16_load(elf->ehdr + offsetof(Elf64_Ehdr, e_machine));
	char text[32];

	if (machine == (is_64 ? EM_X86_64 : EM_386))
		return 0;
	return err_config(err, -ENOEXEC, KERNEL_REFUSED "this is an ELF%s for %s" KERNEL_ACCEPTED, is_64 ? "64" : "32",
			  machine_name(machine, is_64, text));
}

static int check_type(const struct elf *elf, struct err *err)
{
	uint16_t type = le16_load(elf->ehdr + offsetof(Elf64_Ehdr, e_type));
	const char *name;
	switch (type) {
	case ET_EXEC:
		return 0;
	case ET_REL:
		name = "a relocatable ELF, such as a .o file or a .ko kernel module";
		break;
	case ET_DYN:
		name = "a shared or position-independent ELF (ET_DYN), which has no fixed load address";
		break;
	case ET_CORE:
		name = "an ELF core dump";
		break;
	default:
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "this is an ELF of type %u" KERNEL_ACCEPTED, type);
	}
	return err_config(err, -ENOEXEC, KERNEL_REFUSED "this is %s" KERNEL_ACCEPTED, name);
}

/* Reading the headers. */

static int truncated(const struct elf *elf, const char *what, struct err *err)
{
	return err_config(err, -ENOEXEC,
			  KERNEL_REFUSED "a truncated ELF: %s lies beyond the end of the file (%" PRIu64 " bytes)",
			  what, elf->image->size_bytes);
}

static int read_ehdr(struct elf *elf, struct err *err)
{
	if (elf->image->size_bytes < sizeof(Elf32_Ehdr))
		return truncated(elf, "its header", err);
	int rc = image_read(elf->image, 0, elf->ehdr, sizeof(Elf32_Ehdr));
	if (rc < 0)
		return kernel_read_failed(rc, err);
	if (elf->ehdr[EI_DATA] != ELFDATA2LSB)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "this is a big-endian ELF" KERNEL_ACCEPTED);

	elf->layout = elf->ehdr[EI_CLASS] == ELFCLASS32 ? &layout_32 : &layout_64;
	if (elf->layout == &layout_32)
		return 0;
	if (elf->image->size_bytes < sizeof(Elf64_Ehdr))
		return truncated(elf, "its header", err);
	rc = image_read(elf->image, 0, elf->ehdr, sizeof(Elf64_Ehdr));
	return rc < 0 ? kernel_read_failed(rc, err) : 0;
}

static int read_phdrs(struct elf *elf, struct err *err)
{
	uint64_t size = elf->image->size_bytes;
	uint64_t offset = word_load(elf, elf->ehdr + elf->layout->e_phoff);
	unsigned entry_bytes = le16_load(elf->ehdr + elf->layout->e_phentsize);
	elf->phdr_count = le16_load(elf->ehdr + elf->layout->e_phnum);

	if (elf->phdr_count == 0)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "an ELF without program headers: nothing to load");
	if (elf->phdr_count > KERNEL_SEGMENTS_MAX)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "an ELF with %u program headers; vmlet takes %u",
				  elf->phdr_count, KERNEL_SEGMENTS_MAX);
	if (entry_bytes != elf->layout->phdr_bytes)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "a damaged ELF: program headers of %u bytes",
				  entry_bytes);
	uint64_t table_bytes = (uint64_t)elf->phdr_count * entry_bytes;
	if (offset > size || table_bytes > size - offset)
		return truncated(elf, "its program header table", err);
	int rc = image_read(elf->image, offset, elf->phdrs, (size_t)table_bytes);
	return rc < 0 ? kernel_read_failed(rc, err) : 0;
}

/* Loadable segments. */

static int add_segment(struct elf *elf, unsigned i, struct kernel_file *kernel, struct err *err)
{
	const struct elf_layout *layout = elf->layout;
	const uint8_t *phdr = phdr_at(elf, i);
	uint64_t size = elf->image->size_bytes;
	struct kernel_segment segment = {
		.offset = word_load(elf, phdr + layout->p_offset),
		.file_bytes = word_load(elf, phdr + layout->p_filesz),
		.paddr = word_load(elf, phdr + layout->p_paddr),
		.vaddr = word_load(elf, phdr + layout->p_vaddr),
		.mem_bytes = word_load(elf, phdr + layout->p_memsz),
	};

	if (segment.file_bytes > segment.mem_bytes)
		return err_config(err, -ENOEXEC,
				  KERNEL_REFUSED "a damaged ELF: segment %u has more bytes in the file "
						 "(0x%" PRIx64 ") than in memory (0x%" PRIx64 ")",
				  i, segment.file_bytes, segment.mem_bytes);
	if (segment.mem_bytes == 0)
		return 0;
	if (segment.file_bytes > 0 && (segment.offset > size || segment.file_bytes > size - segment.offset))
		return truncated(elf, "a segment", err);
	kernel->segments[kernel->segment_count++] = segment;
	return 0;
}

static int find_segments(struct elf *elf, struct kernel_file *kernel, struct err *err)
{
	for (unsigned i = 0; i < elf->phdr_count; i++) {
		uint32_t type = phdr_type(elf, i);
		if (type == PT_INTERP)
			return err_config(err, -ENOEXEC,
					  KERNEL_REFUSED "this is a program, linked dynamically" KERNEL_ACCEPTED);
		int rc = type == PT_LOAD ? add_segment(elf, i, kernel, err) : 0;
		if (rc < 0)
			return rc;
	}
	if (kernel->segment_count == 0)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "an ELF without a loadable segment");
	return 0;
}

/* Notes: the PVH entry; or what a C library leaves in programs. */

static int use_notes(struct elf *elf, const uint8_t *notes, size_t size_bytes, uint64_t align, struct err *err)
{
	struct elf_note note;
	if (elf_note_find(notes, size_bytes, align, "GNU", NT_GNU_ABI_TAG, &note))
		elf->is_program = true;
	if (elf->has_pvh || !elf_note_find(notes, size_bytes, align, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &note))
		return 0;
	if (note.desc_bytes != 4 && note.desc_bytes != 8)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "its PVH note has %u bytes instead of 4 or 8",
				  note.desc_bytes);
	elf->has_pvh = true;
	elf->pvh_entry = note.desc_bytes == 8 ? le64_load(note.desc) : le32_load(note.desc);
	return 0;
}

static int read_notes(struct elf *elf, unsigned i, struct err *err)
{
	const uint8_t *phdr = phdr_at(elf, i);
	uint64_t offset = word_load(elf, phdr + elf->layout->p_offset);
	uint64_t size_bytes = word_load(elf, phdr + elf->layout->p_filesz);
	uint64_t file_bytes = elf->image->size_bytes;

	if (size_bytes == 0)
		return 0;
	if (offset > file_bytes || size_bytes > file_bytes - offset)
		return truncated(elf, "a note segment", err);
	if (size_bytes > NOTES_MAX_BYTES)
		return err_config(err, -ENOEXEC,
				  KERNEL_REFUSED "an ELF with %" PRIu64 " bytes of notes; vmlet takes %u", size_bytes,
				  NOTES_MAX_BYTES);
	uint8_t *notes = malloc((size_t)size_bytes);
	if (!notes)
		return err_set(err, -ENOMEM, "reading its notes: %s", err_name(ENOMEM));
	int rc = image_read(elf->image, offset, notes, (size_t)size_bytes);
	if (rc < 0)
		rc = kernel_read_failed(rc, err);
	else
		rc = use_notes(elf, notes, (size_t)size_bytes, word_load(elf, phdr + elf->layout->p_align), err);
	free(notes);
	return rc;
}

static int find_notes(struct elf *elf, struct err *err)
{
	for (unsigned i = 0; i < elf->phdr_count; i++) {
		int rc = phdr_type(elf, i) == PT_NOTE ? read_notes(elf, i, err) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Where it starts. */

static int choose_protocol(const struct elf *elf, enum boot_protocol wanted, struct kernel_file *kernel,
			   struct err *err)
{
	bool is_64 = elf->layout == &layout_64;

	if (wanted == BOOT_PVH && !elf->has_pvh)
		return err_config(err, -ENOTSUP,
				  "PVH boot was asked for, but this ELF has no PVH entry note "
				  "(XEN_ELFNOTE_PHYS32_ENTRY)");
	if (wanted == BOOT_LINUX64 && !is_64)
		return err_config(err, -ENOTSUP,
				  "the Linux 64-bit boot protocol was asked for, but this is an ELF32 for i386");
	if (!is_64 && !elf->has_pvh)
		return err_config(err, -ENOEXEC,
				  KERNEL_REFUSED "this is an ELF32 for i386 without a PVH entry note" KERNEL_ACCEPTED);
	if (elf->is_program && !elf->has_pvh)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "this is a program, linked statically" KERNEL_ACCEPTED);
	kernel->kind = elf->has_pvh ? KERNEL_ELF_PVH : KERNEL_ELF;
	kernel->protocol = wanted != BOOT_AUTO ? wanted : elf->has_pvh ? BOOT_PVH : BOOT_LINUX64;
	return 0;
}

/* e_entry of a vmlinux is physical; other linkers leave the virtual address there. */
static bool find_entry(const struct kernel_file *kernel, uint64_t address, gpa_t *ret_entry)
{
	for (unsigned i = 0; i < kernel->segment_count; i++) {
		const struct kernel_segment *segment = &kernel->segments[i];
		if (address >= segment->paddr && address - segment->paddr < segment->file_bytes) {
			*ret_entry = address;
			return true;
		}
	}
	for (unsigned i = 0; i < kernel->segment_count; i++) {
		const struct kernel_segment *segment = &kernel->segments[i];
		if (address >= segment->vaddr && address - segment->vaddr < segment->file_bytes) {
			*ret_entry = segment->paddr + (address - segment->vaddr);
			return true;
		}
	}
	return false;
}

static int set_entry(const struct elf *elf, struct kernel_file *kernel, struct err *err)
{
	bool is_pvh = kernel->protocol == BOOT_PVH;
	uint64_t address = is_pvh ? elf->pvh_entry : word_load(elf, elf->ehdr + elf->layout->e_entry);

	if (!find_entry(kernel, address, &kernel->entry))
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "its %s 0x%" PRIx64 " lies outside its segments",
				  is_pvh ? "PVH entry" : "entry", address);
	if (is_pvh && kernel->entry > UINT32_MAX)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "its 32-bit PVH entry 0x%" PRIx64 " lies above 4 GiB",
				  kernel->entry);
	return 0;
}

int elf_parse(const struct image *image, enum boot_protocol protocol, struct kernel_file *ret_kernel, struct err *err)
{
	struct elf elf = {.image = image};
	int rc = read_ehdr(&elf, err);
	if (rc == 0)
		rc = check_machine(&elf, err);
	if (rc == 0)
		rc = check_type(&elf, err);
	if (rc == 0)
		rc = read_phdrs(&elf, err);
	if (rc == 0)
		rc = find_segments(&elf, ret_kernel, err);
	if (rc == 0)
		rc = find_notes(&elf, err);
	if (rc == 0)
		rc = choose_protocol(&elf, protocol, ret_kernel, err);
	if (rc == 0)
		rc = set_entry(&elf, ret_kernel, err);
	if (rc < 0)
		return rc;

	ret_kernel->cmdline_max_bytes = KERNEL_CMDLINE_MAX;
	ret_kernel->initrd_end = GIB(4); /* Linux itself takes an initrd anywhere below */
	return 0;
}
