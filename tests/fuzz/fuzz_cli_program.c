/*
 * What `vmlet exec` reads of a host's files: the first byte says whether the rest is an ELF program or the dynamic
 * linker's cache. Every string that comes of it must end within the file.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/ld_cache.h"
#include "cli/program_elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void check_string(const unsigned char *file, size_t size_bytes, const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	if (at < file || at >= file + size_bytes || !memchr(at, '\0', (size_t)(file + size_bytes - at)))
		abort();
}

static void read_program(const unsigned char *file, size_t size_bytes)
{
	struct program_elf elf;

	if (!program_elf_is(file, size_bytes) || program_elf_read(&elf, file, size_bytes) < 0)
		return;
	if (elf.need_count > PROGRAM_NEEDS_MAX)
		abort();
	if (elf.interpreter)
		check_string(file, size_bytes, elf.interpreter);
	if (elf.runpath)
		check_string(file, size_bytes, elf.runpath);
	for (size_t i = 0; i < elf.need_count; i++)
		check_string(file, size_bytes, elf.needs[i]);
}

static void read_cache(const unsigned char *file, size_t size_bytes)
{
	static const char *const names[] = {"libc.so.6", "", "nosuch"};
	struct ld_cache cache;

	ld_cache_init(&cache, file, size_bytes);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *path = ld_cache_find(&cache, names[i]);

		if (path)
			check_string(file, size_bytes, path);
	}
}

/* A copy of just its size, so that a byte too many is seen. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	unsigned char *file;

	if (size_bytes < 2)
		return 0;
	file = malloc(size_bytes - 1);
	if (!file)
		return 0;
	memcpy(file, data + 1, size_bytes - 1);
	if (data[0] == 'E')
		read_program(file, size_bytes - 1);
	else
		read_cache(file, size_bytes - 1);
	free(file);
	return 0;
}
