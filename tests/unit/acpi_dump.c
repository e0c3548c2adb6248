/*
 * Writes the tables of a machine with argv[1] CPUs to the directory argv[2]: one file for each table, as iasl
 * wants them, and `blob`, which is everything at guest address 0xE0000. argv[3] says which devices: none, pci or mmio.
 * For tests/acpi-iasl.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/acpi.h"
#include "util.h"

enum { BASE = 0xe0000 };

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

static int write_tables(const char *dir)
{
	const uint8_t *xsdt = blob + (le64_load(blob + 24) - BASE);
	const uint8_t *fadt = blob + (le64_load(xsdt + 36) - BASE);
	const uint8_t *facs = blob + (le32_load(fadt + 36) - BASE);
	const uint8_t *dsdt = blob + (le32_load(fadt + 40) - BASE);
	int rc = write_table(dir, xsdt) | write_table(dir, facs) | write_table(dir, dsdt);

	for (uint32_t at = 36; at < le32_load(xsdt + 4); at += 8)
		rc |= write_table(dir, blob + (le64_load(xsdt + at) - BASE));
	return rc;
}

static void add_pci(struct acpi_config *config)
{
	const uint8_t gsi[ACPI_PCI_PINS] = {5, 10, 11, 7};

	config->pci_ecam_base = 0xe0000000;
	config->pci_window32_base = 0xc0000000;
	config->pci_window32_size_bytes = 0x20000000;
	config->pci_window64_base = 0x4000000000;
	config->pci_window64_size_bytes = 0x1000000000;
	memcpy(config->pci_intx_gsi, gsi, sizeof(gsi));
}

/* With more devices than free inputs, so that some share one. */
static void add_virtio_mmio(struct acpi_config *config)
{
	config->virtio_mmio_base = 0xd0000000;
	config->virtio_mmio_count = ACPI_VIRTIO_MMIO_MAX;
	for (unsigned i = 0; i < ACPI_VIRTIO_MMIO_MAX; i++)
		config->virtio_mmio_gsi[i] = (uint8_t)(i == 0 ? 5 : 16 + i % 8);
}

int main(int argc, char **argv)
{
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

	if (argc < 4)
		return 2;
	config.cpus = (unsigned)strtoul(argv[1], NULL, 0);
	if (strcmp(argv[3], "pci") == 0)
		add_pci(&config);
	else if (strcmp(argv[3], "mmio") == 0)
		add_virtio_mmio(&config);
	if (acpi_render(&config, BASE, blob, sizeof(blob), &size_bytes) < 0)
		return 1;
	return write_tables(argv[2]) | write_file(argv[2], "blob", blob, size_bytes) ? 1 : 0;
}
