/* What an ELF program or library needs of its dynamic linker. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { PROGRAM_NEEDS_MAX = 256 };

/* Strings are in the mapped file. */
struct program_elf {
	const unsigned char *file;
	size_t size_bytes;
	const char *interpreter; /* NULL: a static program, or a library */
	const char *needs[PROGRAM_NEEDS_MAX];
	size_t need_count;
	const char *runpath; /* DT_RUNPATH, else DT_RPATH; NULL: none */
};

/* True when the bytes begin as an ELF file does. */
bool program_elf_is(const unsigned char *file, size_t size_bytes);

/*
 * Look at the file, which stays where it is as long as `elf` is used. 0, -ENOEXEC: it is not for x86-64, -EINVAL: it is
 * cut off or broken.
 */
int program_elf_read(struct program_elf *elf, const unsigned char *file, size_t size_bytes);
