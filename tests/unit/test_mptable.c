#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loader/mptable.h"
#include "util.h"

enum { BASE = 0xf0000, POINTER_SIZE = 16, HEADER_SIZE = 44, CPU_SIZE = 20, ENTRY_SIZE = 8 };

static const struct mptable_config one_cpu = {
	.cpus = 1,
	.lapic_base = 0xfee00000,
	.ioapic_base = 0xfec00000,
	.ioapic_id = 7,
	.sci_irq = 9,
};

static struct mptable_config pci_config(void)
{
	struct mptable_config config = one_cpu;
	const uint8_t gsi[MPTABLE_PCI_PINS] = {5, 10, 11, 5};

	config.has_pci = true;
	memcpy(config.pci_intx_gsi, gsi, sizeof(gsi));
	return config;
}

struct rendered {
	uint8_t *blob;
	size_t size_bytes;
	const uint8_t *table;
};

static uint8_t sum(const uint8_t *data, size_t size_bytes)
{
	uint8_t s = 0;

	for (size_t i = 0; i < size_bytes; i++)
		s = (uint8_t)(s + data[i]);
	return s;
}

static void render(struct rendered *r, const struct mptable_config *config)
{
	r->blob = malloc(MPTABLE_BLOB_SIZE_MAX);
	assert_non_null(r->blob);
	memset(r->blob, 0xa5, MPTABLE_BLOB_SIZE_MAX);
	assert_int_equal(mptable_render(config, BASE, r->blob, MPTABLE_BLOB_SIZE_MAX, &r->size_bytes), 0);
	r->table = r->blob + POINTER_SIZE;
}

static void test_pointer(void **state)
{
	const uint8_t head[10] = {'_', 'M', 'P', '_', 0x10, 0x00, 0x0f, 0x00, 1, 4};
	const uint8_t features[5] = {0};
	struct rendered r;

	(void)state;
	render(&r, &one_cpu);
	assert_memory_equal(r.blob, head, sizeof(head));
	assert_memory_equal(r.blob + 11, features, sizeof(features));
	assert_int_equal(sum(r.blob, POINTER_SIZE), 0);
	free(r.blob);
}

static void test_header(void **state)
{
	struct rendered r;

	(void)state;
	render(&r, &one_cpu);
	assert_memory_equal(r.table, "PCMP", 4);
	assert_int_equal(le16_load(r.table + 4), r.size_bytes - POINTER_SIZE);
	assert_int_equal(r.table[6], 4);
	assert_memory_equal(r.table + 8, "VMLET   VMLETVM     ", 20);
	assert_int_equal(le32_load(r.table + 28), 0);                  /* OEM table pointer */
	assert_int_equal(le16_load(r.table + 32), 0);                  /* OEM table size */
	assert_int_equal(le16_load(r.table + 34), 1 + 1 + 1 + 15 + 2); /* entries */
	assert_int_equal(le32_load(r.table + 36), 0xfee00000);
	assert_int_equal(le32_load(r.table + 40), 0); /* extended table */
	free(r.blob);
}

static void test_cpus(void **state)
{
	static const unsigned counts[] = {1, 2, 254};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct mptable_config config = one_cpu;
		struct rendered r;

		config.cpus = counts[i];
		render(&r, &config);
		assert_int_equal(r.size_bytes, POINTER_SIZE + HEADER_SIZE + CPU_SIZE * counts[i] + ENTRY_SIZE * 19);
		assert_int_equal(le16_load(r.table + 4), r.size_bytes - POINTER_SIZE);
		assert_int_equal(le16_load(r.table + 34), counts[i] + 19);
		assert_int_equal(sum(r.table, r.size_bytes - POINTER_SIZE), 0);
		for (unsigned cpu = 0; cpu < counts[i]; cpu++) {
			const uint8_t flags = cpu == 0 ? 3 : 1;
			const uint8_t entry[CPU_SIZE] = {0, (uint8_t)cpu, 0x14, flags, 0, 6, 0, 0, 1, 3};

			assert_memory_equal(r.table + HEADER_SIZE + CPU_SIZE * cpu, entry, CPU_SIZE);
		}
		free(r.blob);
	}
}

static void test_buses_and_interrupts(void **state)
{
	const uint8_t bus[ENTRY_SIZE] = {1, 0, 'I', 'S', 'A', ' ', ' ', ' '};
	const uint8_t ioapic[ENTRY_SIZE] = {2, 7, 0x11, 1, 0x00, 0x00, 0xc0, 0xfe};
	const uint8_t extint[ENTRY_SIZE] = {4, 3, 0, 0, 0, 0, 0, 0};
	const uint8_t nmi[ENTRY_SIZE] = {4, 1, 0, 0, 0, 0, 0xff, 1};
	struct rendered r;
	const uint8_t *p;

	(void)state;
	render(&r, &one_cpu);
	p = r.table + HEADER_SIZE + CPU_SIZE;
	assert_memory_equal(p, bus, ENTRY_SIZE);
	assert_memory_equal(p += ENTRY_SIZE, ioapic, ENTRY_SIZE);
	for (uint8_t irq = 0; irq < 16; irq++) {
		const uint8_t entry[ENTRY_SIZE] = {3, 0, irq == 9 ? 0xd : 0, 0, 0, irq, 7, irq};

		if (irq != 2)
			assert_memory_equal(p += ENTRY_SIZE, entry, ENTRY_SIZE);
	}
	assert_memory_equal(p += ENTRY_SIZE, extint, ENTRY_SIZE);
	assert_memory_equal(p += ENTRY_SIZE, nmi, ENTRY_SIZE);
	assert_ptr_equal(p + ENTRY_SIZE, r.blob + r.size_bytes);
	free(r.blob);
}

/* PCI is bus 0, the number that a kernel knows it by; its inputs have no ISA interrupt besides. */
static void test_pci(void **state)
{
	static const uint8_t gsi[] = {5, 10, 11, 5};
	const uint8_t pci[ENTRY_SIZE] = {1, 0, 'P', 'C', 'I', ' ', ' ', ' '};
	const uint8_t isa[ENTRY_SIZE] = {1, 1, 'I', 'S', 'A', ' ', ' ', ' '};
	const uint8_t extint[ENTRY_SIZE] = {4, 3, 0, 0, 1, 0, 0, 0};
	struct mptable_config config = pci_config();
	struct rendered r;
	const uint8_t *p;

	(void)state;
	render(&r, &config);
	assert_int_equal(sum(r.table, r.size_bytes - POINTER_SIZE), 0);
	assert_int_equal(le16_load(r.table + 34), 1 + 2 + 1 + 12 + 31 + 2);
	p = r.table + HEADER_SIZE + CPU_SIZE;
	assert_memory_equal(p, pci, ENTRY_SIZE);
	assert_memory_equal(p += ENTRY_SIZE, isa, ENTRY_SIZE);
	p += ENTRY_SIZE; /* the IOAPIC */
	for (uint8_t irq = 0; irq < 16; irq++) {
		const uint8_t entry[ENTRY_SIZE] = {3, 0, irq == 9 ? 0xd : 0, 0, 1, irq, 7, irq};

		if (irq != 2 && irq != 5 && irq != 10 && irq != 11)
			assert_memory_equal(p += ENTRY_SIZE, entry, ENTRY_SIZE);
	}
	for (uint8_t slot = 1; slot < 32; slot++) {
		const uint8_t entry[ENTRY_SIZE] = {3, 0, 0xf, 0, 0, (uint8_t)(slot << 2), 7, gsi[slot % 4]};

		assert_memory_equal(p += ENTRY_SIZE, entry, ENTRY_SIZE);
	}
	assert_memory_equal(p += ENTRY_SIZE, extint, ENTRY_SIZE);
	assert_ptr_equal(p + 2 * ENTRY_SIZE, r.blob + r.size_bytes);
	free(r.blob);
}

static void test_largest_fits(void **state)
{
	struct mptable_config config = pci_config();
	struct rendered r;

	(void)state;
	config.cpus = MPTABLE_CPUS_MAX;
	render(&r, &config);
	assert_int_equal(sum(r.table, r.size_bytes - POINTER_SIZE), 0);
	free(r.blob);
}

/* Every smaller buffer is refused, and not one byte beyond it is written. */
static void test_small_buffers(void **state)
{
	struct rendered r;

	(void)state;
	render(&r, &one_cpu);
	for (size_t n = 0; n < r.size_bytes; n++) {
		uint8_t *blob = malloc(n + 1);
		size_t unused = 12345;

		assert_non_null(blob);
		blob[n] = 0xa5;
		assert_int_equal(mptable_render(&one_cpu, BASE, blob, n, &unused), -ENOSPC);
		assert_int_equal(blob[n], 0xa5);
		assert_int_equal(unused, 12345);
		free(blob);
	}
	free(r.blob);
}

static void assert_refused(const struct mptable_config *config, uint64_t base)
{
	uint8_t blob[MPTABLE_BLOB_SIZE_MAX];
	size_t unused = 12345;

	assert_int_equal(mptable_render(config, base, blob, sizeof(blob), &unused), -EINVAL);
	assert_int_equal(unused, 12345);
}

static void test_impossible_configurations(void **state)
{
	struct mptable_config config = one_cpu;

	(void)state;
	assert_refused(&config, BASE + 8);
	assert_refused(&config, 0xfffffff0);
	assert_refused(&config, 0x1000f0000);
	config.cpus = 0;
	assert_refused(&config, BASE);
	config.cpus = 255;
	assert_refused(&config, BASE);
	config = one_cpu;
	config.sci_irq = 16;
	assert_refused(&config, BASE);
	config.sci_irq = 2;
	assert_refused(&config, BASE);
	config = one_cpu;
	config.lapic_base = 0x1fee00000;
	assert_refused(&config, BASE);
	config = one_cpu;
	config.ioapic_base = 0x1fec00000;
	assert_refused(&config, BASE);
}

static void test_impossible_pci(void **state)
{
	static const uint8_t bad_gsis[] = {0, 2, 9, 16};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_gsis); i++) {
		struct mptable_config config = pci_config();

		config.pci_intx_gsi[i] = bad_gsis[i];
		assert_refused(&config, BASE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pointer),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_cpus),
		cmocka_unit_test(test_buses_and_interrupts),
		cmocka_unit_test(test_pci),
		cmocka_unit_test(test_largest_fits),
		cmocka_unit_test(test_small_buffers),
		cmocka_unit_test(test_impossible_configurations),
		cmocka_unit_test(test_impossible_pci),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
