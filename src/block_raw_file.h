/*
 * The file or block device under a raw disk: finding out whether it can be one, and what it is like. Everything here
 * blocks, and happens when a disk is opened or resized.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "block.h"
#include "err.h"
#include "log.h"

struct block_raw_file {
	int fd;
	bool is_device;
	uint32_t memory_align; /* of buffers: 1, or what O_DIRECT asks for; a power of two */
};

/* Open, lock, look at it; 0 or -errno with a sentence that names the file. fd -1 on failure. [setup] */
int block_raw_file_open(struct block_raw_file *ret_file, struct block_info *ret_info,
			const struct block_raw_config *config, const struct log *log, struct err *err);

/* Its size now, rounded down to whole blocks; 0 or -errno with a sentence. [any] */
int block_raw_file_size(const struct block_raw_file *file, const char *path, uint32_t block_size_bytes,
			const struct log *log, uint64_t *ret_size_bytes, struct err *err);

/* Gives the lock back, too. Closing twice is once. */
void block_raw_file_close(struct block_raw_file *file);

/*
 * What O_DIRECT asks of offsets and lengths, and of memory (statx(2), STATX_DIOALIGN): powers of two. False: the file
 * system does not say. [any]
 */
bool block_raw_direct_alignment(int fd, uint32_t *ret_offset_align, uint32_t *ret_memory_align);
