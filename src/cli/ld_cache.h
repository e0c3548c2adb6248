/* The dynamic linker's cache, /etc/ld.so.cache: which file a library's name stands for on this host. */
#pragma once

#include <stddef.h>

struct ld_cache {
	const unsigned char *file; /* NULL: there is none, or not one that we know */
	size_t size_bytes;
};

/* The bytes of such a file, which stay where they are as long as `cache` is used; it is not to be closed then. */
void ld_cache_init(struct ld_cache *cache, const unsigned char *file, size_t size_bytes);

/* A cache that is not there knows nothing. */
void ld_cache_open(struct ld_cache *cache, const char *path);
void ld_cache_close(struct ld_cache *cache);

/* The path of the x86-64 library for every CPU, or NULL. Valid until the close. */
const char *ld_cache_find(const struct ld_cache *cache, const char *name);
