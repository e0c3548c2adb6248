/* What a file that is no kernel of ours is, from its bytes: the middle of a sentence that helps. */
#pragma once

#include <stdbool.h>

#include "loader/loader.h"

enum { IDENTIFY_HEAD_MAX = 4096 };

/* The first bytes of a file. */
struct identify_head {
	size_t size_bytes;
	uint8_t bytes[IDENTIFY_HEAD_MAX];
};

/* 0 or the error of image_read. */
int identify_read_head(const struct image *image, struct identify_head *ret_head);

/* Does `magic` stand at this offset? */
bool identify_match(const struct identify_head *head, size_t offset, const char *magic, size_t magic_bytes);

/* Fill `err` (-ENOEXEC) with "not a bootable kernel: this is ..." and return its code. */
int identify_refuse(const struct image *image, const struct identify_head *head, struct err *err);
