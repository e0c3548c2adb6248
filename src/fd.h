/* Descriptors: closing once, and reading files whole. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Close *fd if it is open and make it -1. [any] */
void fd_close(int *fd);

/* Read exactly size_bytes at offset; 0, -ENODATA when the file ends early, or -errno. [any] */
int fd_pread_all(int fd, void *ret_data, size_t size_bytes, uint64_t offset);

/*
 * Lock the whole file for this descriptor (an open-file-description lock), `shared` with other readers or alone. 0,
 * -EBUSY when another has it, or -errno. Waits half a second for who has it: the kernel closes the files of an io_uring
 * some time after its process is gone, and who starts a VM again at once would be told that it is still there. [setup]
 */
int fd_lock(int fd, bool shared);
