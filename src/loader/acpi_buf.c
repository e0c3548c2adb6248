#include "loader/acpi_buf.h"

#include <assert.h>
#include <string.h>

#include "util.h"

void acpi_put_bytes(struct acpi_buf *buf, const void *data, size_t size_bytes)
{
	buf->used += size_bytes;
	if (size_bytes > 0 && acpi_buf_fits(buf))
		memcpy(buf->data + buf->used - size_bytes, data, size_bytes);
}

void acpi_put_zeros(struct acpi_buf *buf, size_t count)
{
	buf->used += count;
	if (count > 0 && acpi_buf_fits(buf))
		memset(buf->data + buf->used - count, 0, count);
}

void acpi_put_u8(struct acpi_buf *buf, uint8_t v)
{
	acpi_put_bytes(buf, &v, 1);
}

void acpi_put_u16(struct acpi_buf *buf, uint16_t v)
{
	uint8_t raw[2];

	le16_store(raw, v);
	acpi_put_bytes(buf, raw, sizeof(raw));
}

void acpi_put_u32(struct acpi_buf *buf, uint32_t v)
{
	uint8_t raw[4];

	le32_store(raw, v);
	acpi_put_bytes(buf, raw, sizeof(raw));
}

void acpi_put_u64(struct acpi_buf *buf, uint64_t v)
{
	uint8_t raw[8];

	le64_store(raw, v);
	acpi_put_bytes(buf, raw, sizeof(raw));
}

void acpi_put_align(struct acpi_buf *buf, size_t align)
{
	acpi_put_zeros(buf, (size_t)(align_up(buf->used, align) - buf->used));
}

void acpi_buf_insert(struct acpi_buf *buf, size_t offset, const void *data, size_t size_bytes)
{
	size_t tail = buf->used - offset;

	assert(offset <= buf->used);
	buf->used += size_bytes;
	if (!acpi_buf_fits(buf))
		return;
	memmove(buf->data + offset + size_bytes, buf->data + offset, tail);
	memcpy(buf->data + offset, data, size_bytes);
}

uint8_t acpi_checksum(const uint8_t *data, size_t size_bytes)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < size_bytes; i++)
		sum = (uint8_t)(sum + data[i]);
	return (uint8_t)-sum;
}
