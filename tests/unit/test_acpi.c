#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loader/acpi.h"
#include "loader/acpi_aml.h"
#include "util.h"

enum { BASE = 0xe0000 };

static const struct acpi_config full_config = {
	.cpus = 1,
	.lapic_base = 0xfee00000,
	.ioapic_base = 0xfec00000,
	.ioapic_id = 7,
	.sci_irq = 9,
	.pm1_event_port = 0x600,
	.pm1_control_port = 0x604,
	.pm_timer_port = 0x608,
	.slp_typ_s5 = 5,
	.reset_port = 0xcf9,
	.reset_value = 6,
	.com1_port = 0x3f8,
	.com1_irq = 4,
	.rtc_port = 0x70,
	.rtc_irq = 8,
	.pvpanic_port = 0x505,
	.i8042_keyboard = true,
	.io_reserved = {{.port = 0xf4, .count = 4}},
	.io_reserved_count = 1,
};

/* Every table and every kind of descriptor at once, whether or not a machine has them all. */
static struct acpi_config pci_config(void)
{
	struct acpi_config config = full_config;
	const uint8_t gsi[ACPI_PCI_PINS] = {5, 10, 11, 7};

	config.pci_ecam_base = 0xe0000000;
	config.pci_window32_base = 0xc0000000;
	config.pci_window32_size_bytes = 0x20000000;
	config.pci_window64_base = 0x4000000000;
	config.pci_window64_size_bytes = 0x1000000000;
	memcpy(config.pci_intx_gsi, gsi, sizeof(gsi));
	config.virtio_mmio_base = 0xfeb00000;
	config.virtio_mmio_count = 3;
	config.virtio_mmio_gsi[0] = 12;
	config.virtio_mmio_gsi[1] = config.virtio_mmio_gsi[2] = 16;
	return config;
}

struct tables {
	uint8_t *blob;
	size_t size_bytes;
	const uint8_t *xsdt, *fadt, *madt, *facs, *dsdt, *mcfg;
};

static uint8_t sum(const uint8_t *data, size_t size_bytes)
{
	uint8_t s = 0;

	for (size_t i = 0; i < size_bytes; i++)
		s = (uint8_t)(s + data[i]);
	return s;
}

/* The table at guest address `gpa`, which must lie in the blob and have the right signature and checksum. */
static const uint8_t *table_at(const struct tables *t, uint64_t gpa, const char *signature)
{
	const uint8_t *table;
	uint32_t length;

	assert_in_range(gpa, BASE, BASE + t->size_bytes - 36);
	table = t->blob + (gpa - BASE);
	assert_memory_equal(table, signature, 4);
	length = le32_load(table + 4);
	assert_in_range(length, 36, t->size_bytes - (gpa - BASE));
	if (strcmp(signature, "FACS") != 0)
		assert_int_equal(sum(table, length), 0);
	return table;
}

static void render(struct tables *t, const struct acpi_config *config)
{
	t->blob = malloc(ACPI_BLOB_SIZE_MAX);
	assert_non_null(t->blob);
	assert_int_equal(acpi_render(config, BASE, t->blob, ACPI_BLOB_SIZE_MAX, &t->size_bytes), 0);
	assert_memory_equal(t->blob, "RSD PTR ", 8);
	assert_int_equal(sum(t->blob, 20), 0);
	assert_int_equal(sum(t->blob, 36), 0);
	assert_int_equal(t->blob[15], 2);
	t->xsdt = table_at(t, le64_load(t->blob + 24), "XSDT");
	assert_int_equal(le32_load(t->xsdt + 4), 36 + (config->pci_ecam_base != 0 ? 3 : 2) * 8);
	t->fadt = table_at(t, le64_load(t->xsdt + 36), "FACP");
	t->madt = table_at(t, le64_load(t->xsdt + 44), "APIC");
	t->mcfg = config->pci_ecam_base != 0 ? table_at(t, le64_load(t->xsdt + 52), "MCFG") : NULL;
	t->facs = table_at(t, le32_load(t->fadt + 36), "FACS");
	t->dsdt = table_at(t, le64_load(t->fadt + 140), "DSDT");
	assert_int_equal(le32_load(t->fadt + 40), le64_load(t->fadt + 140));
	assert_int_equal((t->facs - t->blob) % 64, 0);
}

static unsigned madt_count(const struct tables *t, uint8_t type)
{
	const uint8_t *end = t->madt + le32_load(t->madt + 4);
	const uint8_t *p = t->madt + 44;
	unsigned n = 0;

	for (; p < end; p += p[1]) {
		assert_true(p[1] >= 2 && p[1] <= end - p);
		n += p[0] == type;
	}
	assert_ptr_equal(p, end);
	return n;
}

static void test_tables_for_cpu_counts(void **state)
{
	static const unsigned counts[] = {1, 2, 254};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct acpi_config config = full_config;
		struct tables t;

		config.cpus = counts[i];
		render(&t, &config);
		assert_int_equal(madt_count(&t, 0), counts[i]);
		assert_int_equal(madt_count(&t, 1), 1);
		assert_int_equal(madt_count(&t, 2), 1); /* the SCI's */
		assert_int_equal(madt_count(&t, 4), 1);
		for (unsigned cpu = 0; cpu < counts[i]; cpu++) {
			const uint8_t entry[8] = {0, 8, (uint8_t)cpu, (uint8_t)cpu, 1};

			assert_memory_equal(t.madt + 44 + 8 * cpu, entry, 8);
		}
		free(t.blob);
	}
}

static void assert_gas(const uint8_t *gas, uint8_t bits, uint8_t access, uint64_t port)
{
	const uint8_t head[4] = {1, bits, 0, access};

	assert_memory_equal(gas, head, 4);
	assert_int_equal(le64_load(gas + 4), port);
}

static void test_fadt(void **state)
{
	struct tables t;

	(void)state;
	render(&t, &full_config);
	assert_int_equal(le32_load(t.fadt + 4), 276);
	assert_int_equal(t.fadt[8], 6);
	assert_int_equal(le16_load(t.fadt + 46), 9);     /* SCI_INT */
	assert_int_equal(le32_load(t.fadt + 48), 0);     /* SMI_CMD */
	assert_int_equal(le32_load(t.fadt + 56), 0x600); /* PM1a_EVT_BLK */
	assert_int_equal(le32_load(t.fadt + 64), 0x604); /* PM1a_CNT_BLK */
	assert_int_equal(le32_load(t.fadt + 76), 0x608); /* PM_TMR_BLK */
	assert_int_equal(le32_load(t.fadt + 88), 0x040002 << 8 | 4);
	assert_int_equal(t.fadt[108], 0x32);              /* CENTURY */
	assert_int_equal(le16_load(t.fadt + 109), 7);     /* IAPC_BOOT_ARCH */
	assert_int_equal(le32_load(t.fadt + 112), 0x565); /* flags */
	assert_gas(t.fadt + 116, 8, 1, 0xcf9);            /* RESET_REG */
	assert_int_equal(t.fadt[128], 6);                 /* RESET_VALUE */
	assert_gas(t.fadt + 148, 32, 2, 0x600);           /* X_PM1a_EVT_BLK */
	assert_gas(t.fadt + 172, 16, 2, 0x604);           /* X_PM1a_CNT_BLK */
	assert_gas(t.fadt + 208, 32, 3, 0x608);           /* X_PM_TMR_BLK */
	free(t.blob);
}

static void test_sci_is_level_active_high(void **state)
{
	const uint8_t entry[10] = {2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0};
	struct tables t;

	(void)state;
	render(&t, &full_config);
	assert_memory_equal(t.madt + 44 + 8 + 12, entry, sizeof(entry));
	free(t.blob);
}

static void test_absent_devices_leave_nothing(void **state)
{
	struct acpi_config config = full_config;
	struct tables t;

	(void)state;
	config.com1_port = config.rtc_port = config.pvpanic_port = config.reset_port = 0;
	config.i8042_keyboard = false;
	config.io_reserved_count = 0;
	render(&t, &config);
	assert_int_equal(le16_load(t.fadt + 109), 0x25); /* no 8042, no RTC */
	assert_int_equal(le32_load(t.fadt + 112) & 1 << 10, 0);
	assert_int_equal(t.fadt[108], 0);
	assert_null(memmem(t.dsdt, le32_load(t.dsdt + 4), "COM1", 4));
	assert_null(memmem(t.dsdt, le32_load(t.dsdt + 4), "PEVT", 4));
	assert_non_null(memmem(t.dsdt, le32_load(t.dsdt + 4), "MBRD", 4));
	free(t.blob);
}

static void test_s5_package(void **state)
{
	static const uint8_t s5[] = {0x08, '_', 'S', '5', '_', 0x12, 0x08, 4, 0x0a, 5, 0x0a, 5, 0, 0};
	struct tables t;

	(void)state;
	render(&t, &full_config);
	assert_memory_equal(t.dsdt + 36, s5, sizeof(s5));
	free(t.blob);
}

static const uint8_t *dsdt_find(const struct tables *t, const void *bytes, size_t size_bytes)
{
	return memmem(t->dsdt, le32_load(t->dsdt + 4), bytes, size_bytes);
}

static void test_mcfg(void **state)
{
	const uint8_t body[24] = {[11] = 0xe0}; /* 8 reserved bytes, base, segment 0, buses 0 to 0 */
	struct acpi_config config = pci_config();
	struct tables t;

	(void)state;
	render(&t, &config);
	assert_int_equal(le32_load(t.mcfg + 4), 60);
	assert_memory_equal(t.mcfg + 36, body, sizeof(body));
	free(t.blob);
}

/* Linux believes the MCFG only if a PNP0C02 device reserves what it says. */
static void test_ecam_is_reserved(void **state)
{
	const uint8_t fixed[] = {0x86, 9, 0, 1, 0, 0, 0, 0xe0, 0, 0, 0x10, 0};
	struct acpi_config config = pci_config();
	const uint8_t *motherboard, *next, *found;
	struct tables t;

	(void)state;
	render(&t, &config);
	motherboard = dsdt_find(&t, "MBRD", 4);
	next = dsdt_find(&t, "PCI0", 4);
	found = dsdt_find(&t, fixed, sizeof(fixed));
	assert_non_null(motherboard);
	assert_true(motherboard < found && found < next);
	free(t.blob);
}

static void test_pci_windows(void **state)
{
	static const uint8_t crs[] = {
		0x88, 13,   0,    2,    0x0c, 0,    0, 0,    0,    0,    0,    0,    0,    0, 1,    0,    /* bus 0 */
		0x88, 13,   0,    1,    0x0c, 3,    0, 0,    0,    0,    0xf7, 0x0c, 0,    0, 0xf8, 0x0c, /* I/O */
		0x47, 1,    0xf8, 0x0c, 0xf8, 0x0c, 1, 8,                                                 /* its own */
		0x88, 13,   0,    1,    0x0c, 3,    0, 0,    0,    0x0d, 0xff, 0xff, 0,    0, 0,    0xf3, /* I/O */
		0x87, 23,   0,    0,    0x0c, 1,                                                          /* memory */
		0,    0,    0,    0,    0,    0,    0, 0xc0, 0xff, 0xff, 0xff, 0xdf, 0,    0, 0,    0,
		0,    0,    0,    0x20, 0x8a, 43,   0, 0,    0x0c, 1, /* memory */
		0,    0,    0,    0,    0,    0,    0, 0,    0,    0,    0,    0,    0x40, 0, 0,    0,
		0xff, 0xff, 0xff, 0xff, 0x4f, 0,    0, 0,    0,    0,    0,    0,    0,    0, 0,    0,
		0,    0,    0,    0,    0x10, 0,    0, 0,    0x79, 0,
	};
	struct acpi_config config = pci_config();
	struct tables t;

	(void)state;
	render(&t, &config);
	assert_non_null(dsdt_find(&t, crs, sizeof(crs)));
	free(t.blob);
	config.pci_window32_size_bytes = config.pci_window64_size_bytes = 0;
	render(&t, &config);
	assert_null(dsdt_find(&t, "\x87\x17\x00", 3));
	assert_null(dsdt_find(&t, "\x8a\x2b\x00", 3));
	free(t.blob);
}

/* Slots 1 to 31, INTA# to INTD#, each with the GSI of the swizzle. */
static void test_pci_routes(void **state)
{
	static const uint8_t gsi[] = {5, 10, 11, 7};
	static const uint8_t pins[4][2] = {{0}, {1}, {0x0a, 2}, {0x0a, 3}};
	struct acpi_config config = pci_config();
	struct tables t;

	(void)state;
	render(&t, &config);
	for (unsigned slot = 1; slot < 32; slot++)
		for (unsigned pin = 0; pin < 4; pin++) {
			size_t pin_bytes = pin < 2 ? 1 : 2;
			uint8_t entry[16] = {0x12, (uint8_t)(10 + pin_bytes), 4, 0x0c, 0xff, 0xff, (uint8_t)slot, 0};

			memcpy(entry + 8, pins[pin], pin_bytes);
			entry[8 + pin_bytes] = 0;
			entry[9 + pin_bytes] = 0x0a;
			entry[10 + pin_bytes] = gsi[(slot + pin) % 4];
			assert_non_null(dsdt_find(&t, entry, 11 + pin_bytes));
		}
	assert_null(dsdt_find(&t, "\x0c\xff\xff\x00\x00", 5));
	assert_non_null(dsdt_find(&t, "_PRT\x12", 5));
	assert_int_equal(dsdt_find(&t, "_PRT\x12", 5)[7], 31 * 4); /* behind a package length of two bytes */
	free(t.blob);
}

/* Base, size and interrupt of each; only an input that several have is said to be shared. */
static void test_virtio_mmio(void **state)
{
	struct acpi_config config = pci_config();
	struct tables t;

	(void)state;
	render(&t, &config);
	for (uint8_t i = 0; i < config.virtio_mmio_count; i++) {
		const uint8_t crs[] = {0x86, 9,
				       0,    1,
				       0,    (uint8_t)(i << 4),
				       0xb0, 0xfe,
				       0,    0x10,
				       0,    0,
				       0x89, 6,
				       0,    i == 0 ? 1 : 9,
				       1,    i == 0 ? 12 : 16,
				       0,    0,
				       0,    0x79,
				       0};
		const char name[] = {'V', 'R', '0', (char)('0' + i)};

		assert_non_null(dsdt_find(&t, name, sizeof(name)));
		assert_non_null(dsdt_find(&t, crs, sizeof(crs)));
	}
	assert_null(dsdt_find(&t, "VR03", 4));
	free(t.blob);
}

static void test_no_pci_leaves_nothing(void **state)
{
	struct tables t;

	(void)state;
	render(&t, &full_config);
	assert_null(dsdt_find(&t, "PCI0", 4));
	assert_null(dsdt_find(&t, "LNRO0005", 8));
	assert_null(memmem(t.blob, t.size_bytes, "MCFG", 4));
	free(t.blob);
}

/* The largest configuration fits the size that the header promises. */
static void test_largest_fits(void **state)
{
	struct acpi_config config = pci_config();
	struct tables t;

	(void)state;
	config.cpus = ACPI_CPUS_MAX;
	config.io_reserved_count = ACPI_IO_RESERVED_MAX;
	for (unsigned i = 0; i < ACPI_IO_RESERVED_MAX; i++)
		config.io_reserved[i] = (struct acpi_io_range){0x500, 1};
	config.virtio_mmio_count = ACPI_VIRTIO_MMIO_MAX;
	memset(config.virtio_mmio_gsi, 16, sizeof(config.virtio_mmio_gsi));
	render(&t, &config);
	assert_non_null(dsdt_find(&t, "VR1E", 4));
	free(t.blob);
}

/* Every smaller buffer is refused, and not one byte beyond it is written. */
static void test_small_buffers(void **state)
{
	struct acpi_config config = pci_config();
	struct tables t;

	(void)state;
	render(&t, &config);
	for (size_t n = 0; n < t.size_bytes; n++) {
		uint8_t *blob = malloc(n + 1);
		size_t unused = 12345;

		assert_non_null(blob);
		blob[n] = 0xa5;
		assert_int_equal(acpi_render(&config, BASE, blob, n, &unused), -ENOSPC);
		assert_int_equal(blob[n], 0xa5);
		assert_int_equal(unused, 12345);
		free(blob);
	}
	free(t.blob);
}

static void assert_refused(const struct acpi_config *config, uint64_t base)
{
	uint8_t blob[ACPI_BLOB_SIZE_MAX];
	size_t unused;

	assert_int_equal(acpi_render(config, base, blob, sizeof(blob), &unused), -EINVAL);
}

static void test_impossible_configurations(void **state)
{
	struct acpi_config config = full_config;

	(void)state;
	assert_refused(&config, BASE + 16);
	assert_refused(&config, 0xfffffffc0);
	assert_refused(&config, 0xffffffc0);
	config.cpus = 0;
	assert_refused(&config, BASE);
	config.cpus = 255;
	assert_refused(&config, BASE);
	config = full_config;
	config.sci_irq = 16;
	assert_refused(&config, BASE);
	config = full_config;
	config.io_reserved_count = ACPI_IO_RESERVED_MAX + 1;
	memset(config.io_reserved, 1, sizeof(config.io_reserved));
	assert_refused(&config, BASE);
}

static void test_impossible_pci(void **state)
{
	static const uint8_t bad_gsis[] = {0, 1, 2, 4, 8, 9, 16};
	struct acpi_config config = pci_config();

	(void)state;
	config.pci_ecam_base += 0x1000;
	assert_refused(&config, BASE);
	config.pci_ecam_base = 0x100000000;
	assert_refused(&config, BASE);
	config = pci_config();
	config.pci_window32_size_bytes = 0x20000001; /* into ECAM */
	assert_refused(&config, BASE);
	config = pci_config();
	config.pci_window32_base = 0xf0000000; /* beyond 4 GiB */
	assert_refused(&config, BASE);
	config = pci_config();
	config.pci_window64_base = UINT64_MAX - 0xfff;
	assert_refused(&config, BASE);
	for (size_t i = 0; i < ARRAY_SIZE(bad_gsis); i++) {
		config = pci_config();
		config.pci_intx_gsi[3] = bad_gsis[i];
		assert_refused(&config, BASE);
	}
}

static void test_impossible_virtio_mmio(void **state)
{
	static const uint8_t bad_gsis[] = {2, 5, 9, 24};
	struct acpi_config config = pci_config();

	(void)state;
	config.virtio_mmio_base += 0x800;
	assert_refused(&config, BASE);
	config.virtio_mmio_base = 0xffffe000;
	assert_refused(&config, BASE);
	config = pci_config();
	config.virtio_mmio_count = ACPI_VIRTIO_MMIO_MAX + 1;
	assert_refused(&config, BASE);
	for (size_t i = 0; i < ARRAY_SIZE(bad_gsis); i++) {
		config = pci_config();
		config.virtio_mmio_gsi[1] = bad_gsis[i];
		assert_refused(&config, BASE);
	}
}

/* PkgLength at every border between its forms (ACPI 6.4, 20.2.4). */
static void test_package_length(void **state)
{
	static const struct {
		size_t body;
		uint8_t bytes[4];
		size_t count;
	} cases[] = {
		{4, {5}, 1},
		{62, {63}, 1},
		{63, {0x41, 0x04}, 2},
		{4093, {0x4f, 0xff}, 2},
		{4094, {0x81, 0x00, 0x01}, 3},
		{1048572, {0x8f, 0xff, 0xff}, 3},
		{1048573, {0xc1, 0x00, 0x00, 0x01}, 4},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct acpi_buf aml = {.size_bytes = cases[i].body + 16};
		size_t opened;

		aml.data = malloc(aml.size_bytes);
		assert_non_null(aml.data);
		opened = aml_open_scope(&aml, "_SB_");
		acpi_put_zeros(&aml, cases[i].body - 4);
		aml_close(&aml, opened);
		assert_int_equal(aml.used, 1 + cases[i].count + cases[i].body);
		assert_memory_equal(aml.data + 1, cases[i].bytes, cases[i].count);
		assert_memory_equal(aml.data + 1 + cases[i].count, "_SB_", 4);
		free(aml.data);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables_for_cpu_counts),
		cmocka_unit_test(test_fadt),
		cmocka_unit_test(test_sci_is_level_active_high),
		cmocka_unit_test(test_absent_devices_leave_nothing),
		cmocka_unit_test(test_s5_package),
		cmocka_unit_test(test_mcfg),
		cmocka_unit_test(test_ecam_is_reserved),
		cmocka_unit_test(test_pci_windows),
		cmocka_unit_test(test_pci_routes),
		cmocka_unit_test(test_virtio_mmio),
		cmocka_unit_test(test_no_pci_leaves_nothing),
		cmocka_unit_test(test_largest_fits),
		cmocka_unit_test(test_small_buffers),
		cmocka_unit_test(test_impossible_configurations),
		cmocka_unit_test(test_impossible_pci),
		cmocka_unit_test(test_impossible_virtio_mmio),
		cmocka_unit_test(test_package_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
