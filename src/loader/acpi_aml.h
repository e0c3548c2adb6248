/*
 * An AML writer (ACPI 6.4, chapter 20): each function appends one construct to a buffer. What nests is opened and
 * closed; the package length is put in when it is closed, when it is known:
 *
 *	size_t device = aml_open_device(aml, "COM1");
 *	aml_name_eisaid(aml, "_HID", "PNP0501");
 *	aml_close(aml, device);
 *
 * Names are literals of the caller: one segment of four characters, "_SB_" not "_SB".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/acpi_buf.h"

/* Name (name, value). */
void aml_name_integer(struct acpi_buf *aml, const char *name, uint64_t value);
void aml_name_string(struct acpi_buf *aml, const char *name, const char *value);
void aml_name_eisaid(struct acpi_buf *aml, const char *name, const char *id); /* "PNP0501" */

/* Name (name, Package () { integers }); at most 255 of them. */
void aml_name_package(struct acpi_buf *aml, const char *name, const uint64_t *integers, uint8_t count);

/* An integer by itself, as an element of an open package. */
void aml_put_integer(struct acpi_buf *aml, uint64_t value);

/*
 * Open a construct; give what it returns to aml_close. `count` is the number of elements that the caller will put into
 * a package: integers, or packages opened with aml_open_package.
 */
size_t aml_open_scope(struct acpi_buf *aml, const char *name);
size_t aml_open_device(struct acpi_buf *aml, const char *name);
size_t aml_open_name_package(struct acpi_buf *aml, const char *name, uint8_t count);
size_t aml_open_package(struct acpi_buf *aml, uint8_t count);
void aml_close(struct acpi_buf *aml, size_t opened);

/*
 * A list of resources (6.4) is gathered in a small buffer of its own and then named:
 * Name (name, ResourceTemplate () { ... }). When it did not fit its buffer, that is our bug and asserted.
 */
enum { AML_RESOURCES_SIZE_BYTES = 256 };
struct aml_resources {
	struct acpi_buf buf;
	uint8_t data[AML_RESOURCES_SIZE_BYTES];
};

void aml_resources_init(struct aml_resources *resources);
void aml_resources_add_io(struct aml_resources *resources, uint16_t port, uint8_t count);
void aml_resources_add_irq(struct aml_resources *resources, uint8_t irq); /* 0 to 15; edge, active high */

/* Interrupt: of a device that uses it, level triggered, active high. */
void aml_resources_add_interrupt(struct aml_resources *resources, uint32_t gsi, bool is_shared);
void aml_resources_add_memory32(struct aml_resources *resources, uint32_t base,
				uint32_t size_bytes); /* Memory32Fixed */

/* WordBusNumber, WordIO, DWordMemory, QWordMemory: what a bridge passes on. `last` is inclusive. */
void aml_resources_add_bus_numbers(struct aml_resources *resources, uint16_t first, uint16_t last);
void aml_resources_add_io_window(struct aml_resources *resources, uint16_t first, uint16_t last);
void aml_resources_add_memory32_window(struct aml_resources *resources, uint32_t first, uint32_t last);
void aml_resources_add_memory64_window(struct aml_resources *resources, uint64_t first, uint64_t last);

void aml_name_resources(struct acpi_buf *aml, const char *name, const struct aml_resources *resources);
