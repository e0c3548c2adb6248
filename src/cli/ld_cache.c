#include "cli/ld_cache.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* As glibc's sysdeps/generic/dl-cache.h has it, since 2.2; all that ldconfig has written since 2.32. */
struct cache_header {
	char magic[20];
	uint32_t library_count;
	uint32_t strings_size;
	uint8_t flags, padding[3];
	uint32_t extension_offset, unused[3];
};
struct cache_entry {
	int32_t flags;
	uint32_t key, value; /* offsets in the file */
	uint32_t os_version;
	uint64_t hwcap; /* 0: for every CPU */
};
static const char MAGIC[] = "glibc-ld.so.cache1.1";
enum { FLAGS_X86_64 = 0x0303 };

void ld_cache_init(struct ld_cache *cache, const unsigned char *file, size_t size_bytes)
{
	*cache = (struct ld_cache){0};
	if (size_bytes >= sizeof(struct cache_header) && memcmp(file, MAGIC, sizeof(MAGIC) - 1) == 0)
		*cache = (struct ld_cache){file, size_bytes};
}

void ld_cache_open(struct ld_cache *cache, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat;
	void *file = MAP_FAILED;

	*cache = (struct ld_cache){0};
	if (fd < 0)
		return;
	if (fstat(fd, &stat) == 0 && stat.st_size > 0)
		file = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (file == MAP_FAILED)
		return;
	ld_cache_init(cache, file, (size_t)stat.st_size);
	if (!cache->file)
		munmap(file, (size_t)stat.st_size);
}

void ld_cache_close(struct ld_cache *cache)
{
	if (cache->file)
		munmap((void *)(uintptr_t)cache->file, cache->size_bytes);
	*cache = (struct ld_cache){0};
}

/* NULL: it does not end in the file. */
static const char *string_at(const struct ld_cache *cache, uint32_t offset)
{
	if (offset >= cache->size_bytes || !memchr(cache->file + offset, '\0', cache->size_bytes - offset))
		return NULL;
	return (const char *)cache->file + offset;
}

const char *ld_cache_find(const struct ld_cache *cache, const char *name)
{
	struct cache_header header;

	if (!cache->file)
		return NULL;
	memcpy(&header, cache->file, sizeof(header));
	if (header.library_count > (cache->size_bytes - sizeof(header)) / sizeof(struct cache_entry))
		return NULL;
	for (uint32_t i = 0; i < header.library_count; i++) {
		struct cache_entry entry;
		const char *key;

		memcpy(&entry, cache->file + sizeof(header) + i * sizeof(entry), sizeof(entry));
		key = string_at(cache, entry.key);
		if (key && entry.flags == FLAGS_X86_64 && entry.hwcap == 0 && strcmp(key, name) == 0)
			return string_at(cache, entry.value);
	}
	return NULL;
}
