/*
 * A bounded byte writer for the ACPI tables and the MP table. Past the end nothing is written but `used` goes on
 * counting, so that a renderer needs no error path: it looks at acpi_buf_fits once, at the end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct acpi_buf {
	uint8_t *data; /* borrowed */
	size_t size_bytes;
	size_t used; /* what has been put, whether or not it fitted */
};

static inline bool acpi_buf_fits(const struct acpi_buf *buf)
{
	return buf->used <= buf->size_bytes;
}

/* Append; numbers are little-endian. */
void acpi_put_bytes(struct acpi_buf *buf, const void *data, size_t size_bytes);
void acpi_put_zeros(struct acpi_buf *buf, size_t count);
void acpi_put_u8(struct acpi_buf *buf, uint8_t v);
void acpi_put_u16(struct acpi_buf *buf, uint16_t v);
void acpi_put_u32(struct acpi_buf *buf, uint32_t v);
void acpi_put_u64(struct acpi_buf *buf, uint64_t v);

/* Append zeros until `used` is a multiple of `align`, a power of two. */
void acpi_put_align(struct acpi_buf *buf, size_t align);

/* Put `size_bytes` in at `offset` (0 to used) and move what follows up. */
void acpi_buf_insert(struct acpi_buf *buf, size_t offset, const void *data, size_t size_bytes);

/* The byte that makes the sum of all, its own place included, 0: that place holds 0 before. */
uint8_t acpi_checksum(const uint8_t *data, size_t size_bytes);
