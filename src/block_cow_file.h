/* How the file of an overlay is found or made; see block_cow_map.h for its format. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "log.h"

enum { COW_HEADER_BYTES = 4096 };

/* What the header says; the rest of it follows from the size of the disk. */
struct cow_layout {
	uint64_t disk_bytes;
	uint64_t map_bytes; /* whole blocks */
	uint64_t data_offset_bytes;
	uint64_t file_bytes;
};

/* -EFBIG: no file can hold it. */
int cow_layout_init(struct cow_layout *layout, uint64_t disk_bytes);

/* An unlinked file in `dir`. The descriptor, or -errno with a sentence. [setup] */
int cow_file_make_unlinked(const char *dir, const struct cow_layout *layout, struct err *err);

/* A named file, locked: made when it is absent or empty, else checked. The descriptor, or -errno. [setup] */
int cow_file_open(const char *path, const struct cow_layout *layout, const struct log *log, struct err *err);
