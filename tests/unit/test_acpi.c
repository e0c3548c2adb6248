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

struct tables {
	uint8_t *blob;
	size_t size_bytes;
	const uint8_t *xsdt, *fadt, *madt, *facs, *dsdt;
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
	assert_int_equal(le32_load(t->xsdt + 4), 36 + 2 * 8);
	t->fadt = table_at(t, le64_load(t->xsdt + 36), "FACP");
	t->madt = table_at(t, le64_load(t->xsdt + 44), "APIC");
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

/* Every smaller buffer is refused, and not one byte beyond it is written. */
static void test_small_buffers(void **state)
{
	struct tables t;

	(void)state;
	render(&t, &full_config);
	for (size_t n = 0; n < t.size_bytes; n++) {
		uint8_t *blob = malloc(n + 1);
		size_t unused = 12345;

		assert_non_null(blob);
		blob[n] = 0xa5;
		assert_int_equal(acpi_render(&full_config, BASE, blob, n, &unused), -ENOSPC);
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
		cmocka_unit_test(test_small_buffers),
		cmocka_unit_test(test_impossible_configurations),
		cmocka_unit_test(test_package_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
