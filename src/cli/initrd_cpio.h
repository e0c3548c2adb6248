/*
 * An archive that Linux unpacks into its root file system (cpio "newc", Documentation/driver-api/early-userspace/
 * buffer-format.rst), written into a memory file.
 *
 * Directories above a file are made with it. A path is written once; a second time nothing happens. The first failure
 * is remembered: only initrd_cpio_finish needs to be looked at.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"

struct initrd_cpio {
	int fd;
	uint32_t entries;
	uint64_t size_bytes;
	char **paths; /* allocated: those written so far */
	size_t path_count;
	int failed;             /* -errno, or 0 */
	struct cli_error error; /* then the sentence */
};

/* 0, or -errno: no memory file can be made. */
int initrd_cpio_init(struct initrd_cpio *cpio);
void initrd_cpio_fini(struct initrd_cpio *cpio); /* closes the descriptor */

/* `path` is absolute, without ".", ".." and doubled slashes; `mode` has the permissions only. */
void initrd_cpio_add_directory(struct initrd_cpio *cpio, const char *path, unsigned mode);
void initrd_cpio_add_bytes(struct initrd_cpio *cpio, const char *path, unsigned mode, const void *data,
			   size_t size_bytes);
/* The contents of the host's file. */
void initrd_cpio_add_file(struct initrd_cpio *cpio, const char *path, unsigned mode, const char *host_path);

/* 0, or -errno with a sentence: no more is added, and the archive is complete. */
int initrd_cpio_finish(struct initrd_cpio *cpio, struct cli_error *error);
