#include "cli/program_elf.h"

#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

enum { SEGMENTS_MAX = 128 };

/* `size` bytes at a file offset, or NULL when they are not all there. */
static const void *at_offset(const struct program_elf *elf, uint64_t offset, uint64_t size)
{
	if (offset > elf->size_bytes || size > elf->size_bytes - offset)
		return NULL;
	return elf->file + offset;
}

/* A string that ends in the file, or NULL. */
static const char *string_at(const struct program_elf *elf, uint64_t offset)
{
	const char *text = at_offset(elf, offset, 1);

	if (!text || !memchr(text, '\0', elf->size_bytes - offset))
		return NULL;
	return text;
}

static int read_segment(const struct program_elf *elf, const Elf64_Ehdr *header, unsigned index, Elf64_Phdr *ret)
{
	const void *at = at_offset(elf, header->e_phoff + (uint64_t)index * sizeof(*ret), sizeof(*ret));

	if (header->e_phoff > elf->size_bytes || !at)
		return -EINVAL;
	memcpy(ret, at, sizeof(*ret));
	return 0;
}

/* Where the file has what will be at an address. */
static int offset_of_address(const struct program_elf *elf, const Elf64_Ehdr *header, uint64_t address,
			     uint64_t *ret_offset)
{
	for (unsigned i = 0; i < header->e_phnum; i++) {
		Elf64_Phdr segment;

		if (read_segment(elf, header, i, &segment) < 0)
			return -EINVAL;
		if (segment.p_type == PT_LOAD && address >= segment.p_vaddr &&
		    address - segment.p_vaddr < segment.p_filesz) {
			*ret_offset = segment.p_offset + (address - segment.p_vaddr);
			return 0;
		}
	}
	return -EINVAL;
}

static int find_strings(const struct program_elf *elf, const Elf64_Ehdr *header, const Elf64_Phdr *dynamic,
			uint64_t *ret_offset)
{
	for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
		const void *where = at_offset(elf, dynamic->p_offset + at, sizeof(Elf64_Dyn));
		Elf64_Dyn entry;

		if (!where)
			return -EINVAL;
		memcpy(&entry, where, sizeof(entry));
		if (entry.d_tag == DT_NULL)
			break;
		if (entry.d_tag == DT_STRTAB)
			return offset_of_address(elf, header, entry.d_un.d_ptr, ret_offset);
	}
	return -EINVAL;
}

static int take_entry(struct program_elf *elf, const Elf64_Dyn *entry, uint64_t strings)
{
	const char *text;

	if (entry->d_tag != DT_NEEDED && entry->d_tag != DT_RUNPATH && entry->d_tag != DT_RPATH)
		return 0;
	if (entry->d_un.d_val > elf->size_bytes)
		return -EINVAL;
	text = string_at(elf, strings + entry->d_un.d_val);
	if (!text)
		return -EINVAL;
	if (entry->d_tag == DT_RUNPATH || (entry->d_tag == DT_RPATH && !elf->runpath)) {
		elf->runpath = text;
		return 0;
	}
	if (entry->d_tag == DT_RPATH)
		return 0;
	if (elf->need_count == PROGRAM_NEEDS_MAX)
		return -EINVAL;
	elf->needs[elf->need_count++] = text;
	return 0;
}

static int read_dynamic(struct program_elf *elf, const Elf64_Ehdr *header, const Elf64_Phdr *dynamic)
{
	uint64_t strings;

	if (!at_offset(elf, dynamic->p_offset, dynamic->p_filesz) || find_strings(elf, header, dynamic, &strings) < 0)
		return -EINVAL;
	for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
		Elf64_Dyn entry;

		memcpy(&entry, elf->file + dynamic->p_offset + at, sizeof(entry));
		if (entry.d_tag == DT_NULL)
			break;
		if (take_entry(elf, &entry, strings) < 0)
			return -EINVAL;
	}
	return 0;
}

bool program_elf_is(const unsigned char *file, size_t size_bytes)
{
	return size_bytes >= SELFMAG && memcmp(file, ELFMAG, SELFMAG) == 0;
}

static int read_header(const struct program_elf *elf, Elf64_Ehdr *ret_header)
{
	if (elf->size_bytes < sizeof(*ret_header))
		return -EINVAL;
	memcpy(ret_header, elf->file, sizeof(*ret_header));
	if (ret_header->e_ident[EI_CLASS] != ELFCLASS64 || ret_header->e_machine != EM_X86_64)
		return -ENOEXEC;
	if (ret_header->e_phentsize != sizeof(Elf64_Phdr) || ret_header->e_phnum > SEGMENTS_MAX)
		return -EINVAL;
	return 0;
}

int program_elf_read(struct program_elf *elf, const unsigned char *file, size_t size_bytes)
{
	Elf64_Ehdr header;
	int r;

	*elf = (struct program_elf){.file = file, .size_bytes = size_bytes};
	r = read_header(elf, &header);
	for (unsigned i = 0; r == 0 && i < header.e_phnum; i++) {
		Elf64_Phdr segment;

		r = read_segment(elf, &header, i, &segment);
		if (r < 0)
			break;
		if (segment.p_type == PT_INTERP) {
			elf->interpreter = string_at(elf, segment.p_offset);
			r = elf->interpreter ? 0 : -EINVAL;
		} else if (segment.p_type == PT_DYNAMIC) {
			r = read_dynamic(elf, &header, &segment);
		}
	}
	return r;
}
