/*
 * Writes the tables of a machine with argv[1] CPUs to the directory argv[2]: one file for each table, as iasl
 * wants them, and `blob`, which is everything at guest address 0xE0000 (or argv[3]). For tests/acpi-iasl.
 */
#include <stdio.h>
#include <stdlib.h>

#include "loader/acpi.h"
#include "util.h"

static uint8_t blob[ACPI_BLOB_SIZE_MAX];

static int write_file(const char *dir, const char *name, const uint8_t *data, size_t size_bytes)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "wb");
	if (!file)
		return -1;
	fwrite(data, 1, size_bytes, file);
	return fclose(file);
}

static int write_table(const char *dir, const uint8_t *table)
{
	char name[5] = {(char)table[0], (char)table[1], (char)table[2], (char)table[3], 0};

	return write_file(dir, name, table, le32_load(table + 4));
}

static int write_tables(const char *dir, uint64_t base)
{
	const uint8_t *xsdt = blob + (le64_load(blob + 24) - base);
	const uint8_t *fadt = blob + (le64_load(xsdt + 36) - base);
	const uint8_t *madt = blob + (le64_load(xsdt + 44) - base);
	const uint8_t *facs = blob + (le32_load(fadt + 36) - base);
	const uint8_t *dsdt = blob + (le32_load(fadt + 40) - base);

	return write_table(dir, xsdt) | write_table(dir, fadt) | write_table(dir, madt) | write_table(dir, facs) |
	       write_table(dir, dsdt);
}

int main(int argc, char **argv)
{
	uint64_t base = argc > 3 ? strtoull(argv[3], NULL, 0) : 0xe0000;
	struct acpi_config config = {
		.lapic_base = 0xfee00000,
		.ioapic_base = 0xfec00000,
		.sci_irq = 9,
		.pm1_event_port = 0x600,
		.pm1_control_port = 0x604,
		.pm_timer_port = 0x608,
		.slp_typ_s5 = 0,
		.reset_port = 0xcf9,
		.reset_value = 6,
		.com1_port = 0x3f8,
		.com1_irq = 4,
		.rtc_port = 0x70,
		.rtc_irq = 8,
		.pvpanic_port = 0x505,
		.i8042_keyboard = true,
		.io_reserved = {{.port = 0xcf9, .count = 1}, {.port = 0xf4, .count = 4}},
		.io_reserved_count = 2,
	};
	size_t size_bytes;

	if (argc < 3)
		return 2;
	config.cpus = (unsigned)strtoul(argv[1], NULL, 0);
	if (acpi_render(&config, base, blob, sizeof(blob), &size_bytes) < 0)
		return 1;
	return write_tables(argv[2], base) | write_file(argv[2], "blob", blob, size_bytes) ? 1 : 0;
}
