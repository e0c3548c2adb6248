/* Descriptors: closing once, and reading files whole. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Close *fd if it is open and make it -1. [any] */
void fd_close(int *fd);

/* Read exactly size_bytes at offset; 0, -ENODATA when the file ends early, or -errno. [any] */
int fd_pread_all(int fd, void *ret_data, size_t size_bytes, uint64_t offset);
