#include "loader/acpi_aml.h"

#include <assert.h>
#include <string.h>

/* ACPI 6.4, 20.2 "AML Grammar Definition". */
enum aml_op {
	AML_ZERO_OP = 0x00,
	AML_ONE_OP = 0x01,
	AML_NAME_OP = 0x08,
	AML_BYTE_PREFIX = 0x0a,
	AML_WORD_PREFIX = 0x0b,
	AML_DWORD_PREFIX = 0x0c,
	AML_STRING_PREFIX = 0x0d,
	AML_QWORD_PREFIX = 0x0e,
	AML_SCOPE_OP = 0x10,
	AML_BUFFER_OP = 0x11,
	AML_PACKAGE_OP = 0x12,
	AML_EXT_OP_PREFIX = 0x5b,
	AML_EXT_DEVICE_OP = 0x82,
};

/* ACPI 6.4, 6.4.2 "Small Resource Data Type": type << 3 | length. */
enum aml_resource {
	AML_RESOURCE_IRQ_NO_FLAGS = 4 << 3 | 2,
	AML_RESOURCE_IO = 8 << 3 | 7,
	AML_RESOURCE_END_TAG = 15 << 3 | 1,
};

/* 6.4.3 "Large Resource Data Type". */
enum aml_large_resource {
	AML_RESOURCE_MEMORY32_FIXED = 0x86,
	AML_RESOURCE_DWORD_SPACE = 0x87,
	AML_RESOURCE_WORD_SPACE = 0x88,
	AML_RESOURCE_INTERRUPT = 0x89,
	AML_RESOURCE_QWORD_SPACE = 0x8a,
};

enum aml_large_length {
	AML_LENGTH_INTERRUPT = 6,
	AML_LENGTH_MEMORY32_FIXED = 9,
	AML_LENGTH_WORD_SPACE = 13,
	AML_LENGTH_DWORD_SPACE = 23,
	AML_LENGTH_QWORD_SPACE = 43,
};

/* 6.4.3.5 "Address Space Resource Descriptors". */
enum aml_space { AML_SPACE_MEMORY = 0, AML_SPACE_IO = 1, AML_SPACE_BUS_NUMBERS = 2 };
enum aml_space_flags {
	AML_SPACE_MIN_FIXED = 1 << 2, /* bit 0 clear: produced, for the devices behind the bridge */
	AML_SPACE_MAX_FIXED = 1 << 3,
	AML_SPACE_READ_WRITE = 1 << 0, /* memory; the bits for caching clear: not cacheable */
	AML_SPACE_ENTIRE_RANGE = 3,    /* I/O: the ISA ports too */
};

/* 6.4.3.6 "Extended Interrupt Descriptor"; the other bits clear: level triggered, active high. */
enum aml_interrupt_flags { AML_INTERRUPT_CONSUMER = 1 << 0, AML_INTERRUPT_SHARED = 1 << 3 };

enum { AML_MEMORY_READ_WRITE = 1 };
enum { AML_IO_DECODE_16 = 1 };

static void aml_put_segment(struct acpi_buf *aml, const char *name)
{
	assert(strlen(name) == 4);
	acpi_put_bytes(aml, name, 4);
}

void aml_put_integer(struct acpi_buf *aml, uint64_t value)
{
	if (value <= 1) {
		acpi_put_u8(aml, value == 0 ? AML_ZERO_OP : AML_ONE_OP);
	} else if (value <= UINT8_MAX) {
		acpi_put_u8(aml, AML_BYTE_PREFIX);
		acpi_put_u8(aml, (uint8_t)value);
	} else if (value <= UINT16_MAX) {
		acpi_put_u8(aml, AML_WORD_PREFIX);
		acpi_put_u16(aml, (uint16_t)value);
	} else if (value <= UINT32_MAX) {
		acpi_put_u8(aml, AML_DWORD_PREFIX);
		acpi_put_u32(aml, (uint32_t)value);
	} else {
		acpi_put_u8(aml, AML_QWORD_PREFIX);
		acpi_put_u64(aml, value);
	}
}

static void aml_put_name(struct acpi_buf *aml, const char *name)
{
	acpi_put_u8(aml, AML_NAME_OP);
	aml_put_segment(aml, name);
}

void aml_name_integer(struct acpi_buf *aml, const char *name, uint64_t value)
{
	aml_put_name(aml, name);
	aml_put_integer(aml, value);
}

void aml_name_string(struct acpi_buf *aml, const char *name, const char *value)
{
	aml_put_name(aml, name);
	acpi_put_u8(aml, AML_STRING_PREFIX);
	acpi_put_bytes(aml, value, strlen(value) + 1);
}

static uint32_t hex_digit(char c)
{
	assert((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'));
	return (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, most significant byte first (ACPI 6.4, 19.3.4). */
static uint32_t eisaid_pack(const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (unsigned i = 0; i < 3; i++) {
		assert(id[i] >= 'A' && id[i] <= 'Z');
		v = v << 5 | (uint32_t)(id[i] - '@');
	}
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	return __builtin_bswap32(v);
}

void aml_name_eisaid(struct acpi_buf *aml, const char *name, const char *id)
{
	aml_name_integer(aml, name, eisaid_pack(id));
}

void aml_name_package(struct acpi_buf *aml, const char *name, const uint64_t *integers, uint8_t count)
{
	size_t opened = aml_open_name_package(aml, name, count);

	for (unsigned i = 0; i < count; i++)
		aml_put_integer(aml, integers[i]);
	aml_close(aml, opened);
}

size_t aml_open_scope(struct acpi_buf *aml, const char *name)
{
	size_t opened;

	acpi_put_u8(aml, AML_SCOPE_OP);
	opened = aml->used;
	aml_put_segment(aml, name);
	return opened;
}

size_t aml_open_device(struct acpi_buf *aml, const char *name)
{
	size_t opened;

	acpi_put_u8(aml, AML_EXT_OP_PREFIX);
	acpi_put_u8(aml, AML_EXT_DEVICE_OP);
	opened = aml->used;
	aml_put_segment(aml, name);
	return opened;
}

size_t aml_open_package(struct acpi_buf *aml, uint8_t count)
{
	size_t opened;

	acpi_put_u8(aml, AML_PACKAGE_OP);
	opened = aml->used;
	acpi_put_u8(aml, count);
	return opened;
}

size_t aml_open_name_package(struct acpi_buf *aml, const char *name, uint8_t count)
{
	aml_put_name(aml, name);
	return aml_open_package(aml, count);
}

/*
 * PkgLength (20.2.4) counts itself: one byte holds 0 to 63; else the low four bits are in the first byte, whose
 * top two bits say how many bytes of eight more bits follow.
 */
void aml_close(struct acpi_buf *aml, size_t opened)
{
	size_t body = aml->used - opened;
	uint8_t length[4];
	unsigned more = 0;

	while (more < 3 && body + 1 + more >= (more == 0 ? (size_t)1 << 6 : (size_t)1 << (4 + 8 * more)))
		more++;
	body += 1 + more;
	assert(body < (size_t)1 << 28);
	length[0] = (uint8_t)(more == 0 ? body : more << 6 | (body & 15));
	for (unsigned i = 1; i <= more; i++)
		length[i] = (uint8_t)(body >> (8 * i - 4));
	acpi_buf_insert(aml, opened, length, 1 + more);
}

void aml_resources_init(struct aml_resources *resources)
{
	resources->buf = (struct acpi_buf){.data = resources->data, .size_bytes = sizeof(resources->data)};
}

void aml_resources_add_io(struct aml_resources *resources, uint16_t port, uint8_t count)
{
	struct acpi_buf *buf = &resources->buf;

	acpi_put_u8(buf, AML_RESOURCE_IO);
	acpi_put_u8(buf, AML_IO_DECODE_16);
	acpi_put_u16(buf, port); /* lowest base */
	acpi_put_u16(buf, port); /* highest base */
	acpi_put_u8(buf, 1);     /* alignment */
	acpi_put_u8(buf, count);
}

void aml_resources_add_irq(struct aml_resources *resources, uint8_t irq)
{
	assert(irq < 16);
	acpi_put_u8(&resources->buf, AML_RESOURCE_IRQ_NO_FLAGS);
	acpi_put_u16(&resources->buf, (uint16_t)(1 << irq));
}

static struct acpi_buf *open_large(struct aml_resources *resources, enum aml_large_resource type,
				   enum aml_large_length length)
{
	acpi_put_u8(&resources->buf, (uint8_t)type);
	acpi_put_u16(&resources->buf, (uint16_t)length);
	return &resources->buf;
}

void aml_resources_add_interrupt(struct aml_resources *resources, uint32_t gsi, bool is_shared)
{
	struct acpi_buf *buf = open_large(resources, AML_RESOURCE_INTERRUPT, AML_LENGTH_INTERRUPT);

	acpi_put_u8(buf, is_shared ? AML_INTERRUPT_CONSUMER | AML_INTERRUPT_SHARED : AML_INTERRUPT_CONSUMER);
	acpi_put_u8(buf, 1); /* one interrupt */
	acpi_put_u32(buf, gsi);
}

void aml_resources_add_memory32(struct aml_resources *resources, uint32_t base, uint32_t size_bytes)
{
	struct acpi_buf *buf = open_large(resources, AML_RESOURCE_MEMORY32_FIXED, AML_LENGTH_MEMORY32_FIXED);

	acpi_put_u8(buf, AML_MEMORY_READ_WRITE);
	acpi_put_u32(buf, base);
	acpi_put_u32(buf, size_bytes);
}

static void put_space(struct acpi_buf *buf, enum aml_space space, uint8_t type_flags)
{
	acpi_put_u8(buf, (uint8_t)space);
	acpi_put_u8(buf, AML_SPACE_MIN_FIXED | AML_SPACE_MAX_FIXED);
	acpi_put_u8(buf, type_flags);
}

static void add_word_space(struct aml_resources *resources, enum aml_space space, uint8_t type_flags, uint16_t first,
			   uint16_t last)
{
	struct acpi_buf *buf = open_large(resources, AML_RESOURCE_WORD_SPACE, AML_LENGTH_WORD_SPACE);

	assert(first <= last && last - first < UINT16_MAX);
	put_space(buf, space, type_flags);
	acpi_put_u16(buf, 0); /* granularity */
	acpi_put_u16(buf, first);
	acpi_put_u16(buf, last);
	acpi_put_u16(buf, 0); /* translation */
	acpi_put_u16(buf, (uint16_t)(last - first + 1));
}

void aml_resources_add_bus_numbers(struct aml_resources *resources, uint16_t first, uint16_t last)
{
	add_word_space(resources, AML_SPACE_BUS_NUMBERS, 0, first, last);
}

void aml_resources_add_io_window(struct aml_resources *resources, uint16_t first, uint16_t last)
{
	add_word_space(resources, AML_SPACE_IO, AML_SPACE_ENTIRE_RANGE, first, last);
}

void aml_resources_add_memory32_window(struct aml_resources *resources, uint32_t first, uint32_t last)
{
	struct acpi_buf *buf = open_large(resources, AML_RESOURCE_DWORD_SPACE, AML_LENGTH_DWORD_SPACE);

	assert(first <= last && last - first < UINT32_MAX);
	put_space(buf, AML_SPACE_MEMORY, AML_SPACE_READ_WRITE);
	acpi_put_u32(buf, 0); /* granularity */
	acpi_put_u32(buf, first);
	acpi_put_u32(buf, last);
	acpi_put_u32(buf, 0); /* translation */
	acpi_put_u32(buf, last - first + 1);
}

void aml_resources_add_memory64_window(struct aml_resources *resources, uint64_t first, uint64_t last)
{
	struct acpi_buf *buf = open_large(resources, AML_RESOURCE_QWORD_SPACE, AML_LENGTH_QWORD_SPACE);

	assert(first <= last && last - first < UINT64_MAX);
	put_space(buf, AML_SPACE_MEMORY, AML_SPACE_READ_WRITE);
	acpi_put_u64(buf, 0); /* granularity */
	acpi_put_u64(buf, first);
	acpi_put_u64(buf, last);
	acpi_put_u64(buf, 0); /* translation */
	acpi_put_u64(buf, last - first + 1);
}

void aml_name_resources(struct acpi_buf *aml, const char *name, const struct aml_resources *resources)
{
	size_t opened;

	assert(acpi_buf_fits(&resources->buf));
	aml_put_name(aml, name);
	acpi_put_u8(aml, AML_BUFFER_OP);
	opened = aml->used;
	aml_put_integer(aml, resources->buf.used + 2);
	acpi_put_bytes(aml, resources->data, resources->buf.used);
	acpi_put_u8(aml, AML_RESOURCE_END_TAG);
	acpi_put_u8(aml, 0); /* 0: no checksum */
	aml_close(aml, opened);
}
