/* Where initrds go, how several become one, and what does not fit. */
#include "test_loader_machine.h"

static void test_initrd_concatenated(void **state)
{
	(void)state;
	struct machine m;
	uint8_t page[4096];
	elf64_make(&blob, MIB(2));
	machine_init(&m, MIB(16));
	add_initrd(&m, "/a", 4097, 1);
	add_initrd(&m, "/b", 300 << 10, 2); /* enough to be mapped */
	add_initrd(&m, "/c", 3, 3);
	load(&m);

	read_page(&m, BOOT_PARAMS, page);
	gpa_t base = le32_load(page + SETUP_RAMDISK_IMAGE);
	assert_int_equal(base, MIB(16) - 0x2000 - (300 << 10) - 0x1000);
	assert_int_equal(le32_load(page + SETUP_RAMDISK_SIZE), 0x2000 + (300 << 10) + 3);
	expect_fill(&m, base, 1, 4097);
	expect_fill(&m, base + 4097, 0, 0x2000 - 4097);
	expect_fill(&m, base + 0x2000, 2, 300 << 10);
	expect_fill(&m, base + 0x2000 + (300 << 10), 3, 3);
	expect_fill(&m, base + 0x2000 + (300 << 10) + 3, 0, 0x1000 - 3);
	machine_fini(&m);
}

static gpa_t load_with_initrd(struct machine *m, size_t size_bytes)
{
	uint8_t page[4096];
	add_initrd(m, "/i", size_bytes, 0x11);
	load(m);
	read_page(m, BOOT_PARAMS, page);
	return le32_load(page + SETUP_RAMDISK_IMAGE);
}

static void test_initrd_limits(void **state)
{
	(void)state;
	struct machine m;
	bzimage_make(&blob);
	machine_init(&m, GIB(6)); /* initrd_addr_max is 0x7fffffff */
	assert_int_equal(load_with_initrd(&m, 4096), GIB(2) - 4096);
	machine_fini(&m);

	elf64_make(&blob, MIB(2)); /* no such limit: the end of low RAM */
	machine_init(&m, GIB(6));
	assert_int_equal(load_with_initrd(&m, 4096), GIB(3) - 4096);
	machine_fini(&m);

	bzimage_make(&blob);
	blob_put32(&blob, SETUP_INITRD_ADDR_MAX, 0x400000 + 100);
	machine_init(&m, MIB(16)); /* the limit lies in the kernel: go below it */
	assert_int_equal(load_with_initrd(&m, 5000), 0x400000 - 0x2000);
	machine_fini(&m);
}

/* initrd_addr_max is the last byte that may be used. */
static void test_initrd_addr_max(void **state)
{
	(void)state;
	struct machine m;
	bzimage_make(&blob);
	blob_put32(&blob, SETUP_INITRD_ADDR_MAX, 0x2fffff);
	machine_init(&m, MIB(16));
	assert_int_equal(load_with_initrd(&m, 4096), 0x2ff000);
	machine_fini(&m);
	blob_put32(&blob, SETUP_INITRD_ADDR_MAX, 0x2ffffe);
	machine_init(&m, MIB(16));
	assert_int_equal(load_with_initrd(&m, 4096), 0x2fe000);
	machine_fini(&m);
}

/* RAM whose last pages are ACPI tables; and never below 1 MiB, where there would be room. */
static void test_initrd_in_ram_only(void **state)
{
	(void)state;
	struct machine m;
	bzimage_make(&blob);
	machine_init(&m, MIB(8));
	m.map[2].size_bytes -= 0x5000;
	m.map[3] = (struct memory_range){MIB(8) - 0x5000, 0x5000, MEMORY_ACPI};
	m.plan.map_count = 4;
	assert_int_equal(load_with_initrd(&m, 4096), MIB(8) - 0x6000);
	machine_fini(&m);

	machine_init(&m, MIB(8)); /* RAM that begins within a page: 3 MiB less 2 KiB are left below the kernel */
	m.map[2] = (struct memory_range){MIB(1) + 0x800, MIB(7) - 0x800, MEMORY_RAM};
	add_initrd(&m, "/i", MIB(3) - 0x800, 0);
	expect_refused(&m, -ENOSPC, "initrd '/i': ", "3 MiB do not fit");
	machine_fini(&m);

	elf64_make(&blob, MIB(1));
	elf64_put_phdr(&blob, 0, elf64_load(CODE_OFFSET, MIB(1), CODE_BYTES, MIB(1)));
	machine_init(&m, MIB(2));
	add_initrd(&m, "/i", 4096, 0);
	expect_refused(&m, -ENOSPC, "initrd '/i': too big", "1 MiB do not fit");
	machine_fini(&m);
}

static void test_initrd_padding(void **state)
{
	(void)state;
	struct machine m;
	elf64_make(&blob, MIB(2));
	machine_init(&m, MIB(16));
	add_initrd(&m, "/a", 100, 1);
	add_initrd(&m, "/b", 4096, 2);
	add_initrd(&m, "/c", 100, 3);
	assert_int_equal(gmem_fill(m.plan.gmem, MIB(15), 0xcc, MIB(1)), 0);
	load(&m);
	expect_fill(&m, MIB(16) - 0x3000 + 100, 0, 0x1000 - 100);
	expect_fill(&m, MIB(16) - 0x2000, 2, 0x1000);
	expect_fill(&m, MIB(16) - 0x1000, 3, 100);
	expect_fill(&m, MIB(16) - 0x1000 + 100, 0xcc, 0x1000 - 100); /* not part of it */
	machine_fini(&m);
}

static void test_initrd_below_kernel(void **state)
{
	(void)state;
	struct machine m;
	bzimage_make(&blob); /* 4 MiB to 7 MiB */
	machine_init(&m, MIB(8));
	assert_int_equal(load_with_initrd(&m, MIB(1)), MIB(7));
	machine_fini(&m);

	machine_init(&m, MIB(8));
	assert_int_equal(load_with_initrd(&m, MIB(1) + 1), MIB(4) - MIB(1) - 0x1000);
	machine_fini(&m);

	machine_init(&m, MIB(8)); /* exactly what is left */
	assert_int_equal(load_with_initrd(&m, MIB(3)), MIB(1));
	machine_fini(&m);
}

static void test_initrd_refused(void **state)
{
	(void)state;
	struct machine m;
	bzimage_make(&blob);
	machine_init(&m, MIB(8));
	add_initrd(&m, "/i", MIB(3) + 1, 0);
	expect_refused(&m, -ENOSPC, "initrd '/i': too big: 4 MiB do not fit beside the kernel below 0x800000",
		       "; the VM has 8 MiB of RAM");
	m.initrds[0].size_bytes = MIB(9); /* more than there is RAM */
	expect_refused(&m, -ENOSPC, "initrd '/i': ", "9 MiB do not fit");
	add_initrd(&m, "/empty", 0, 0);
	expect_refused(&m, -EINVAL, "initrd '/empty': ", "the file is empty");
	machine_fini(&m);

	machine_init(&m, MIB(8));
	add_initrd(&m, "/i", 4096, 0);
	m.initrds[0].size_bytes = INT64_MAX;
	expect_refused(&m, -ENOSPC, "initrd '/i': ", "too big");
	m.initrds[0].size_bytes = 8192;
	expect_refused(&m, -ENODATA, "initrd '/i': ", "the file has become shorter");
	machine_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_initrd_concatenated), cmocka_unit_test(test_initrd_limits),
		cmocka_unit_test(test_initrd_addr_max),     cmocka_unit_test(test_initrd_in_ram_only),
		cmocka_unit_test(test_initrd_padding),      cmocka_unit_test(test_initrd_below_kernel),
		cmocka_unit_test(test_initrd_refused),
	};
	return cmocka_run_group_tests_name("loader_initrd", tests, NULL, NULL);
}
