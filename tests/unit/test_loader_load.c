/* What a kernel becomes in guest memory: segments, zero page, PVH start info; and what does not fit. */
#include "test_loader_machine.h"

#include "loader/pvh.h"

static void test_elf_linux64(void **state)
{
	(void)state;
	struct machine m;
	uint8_t page[4096];
	elf64_make(&blob, MIB(2) + 0x123);
	machine_init(&m, MIB(16));
	load(&m);

	assert_int_equal(m.result.protocol, BOOT_LINUX64);
	assert_int_equal(m.result.entry, MIB(2) + 0x123 + 0x40);
	assert_int_equal(m.result.info, BOOT_PARAMS);
	expect_bytes(&m, MIB(2) + 0x123, blob.bytes + CODE_OFFSET, CODE_BYTES);
	expect_fill(&m, MIB(2), 0, 0x123);
	expect_fill(&m, MIB(2) + 0x123 + CODE_BYTES, 0, 0x1000);
	expect_bytes(&m, CMDLINE, "console=ttyS0", 14);

	read_page(&m, BOOT_PARAMS, page);
	assert_int_equal(le32_load(page + SETUP_HEADER), SETUP_HEADER_MAGIC);
	assert_int_equal(le16_load(page + SETUP_BOOT_FLAG), SETUP_BOOT_FLAG_MAGIC);
	assert_int_equal(page[SETUP_TYPE_OF_LOADER], 0xff);
	assert_int_equal(page[SETUP_LOADFLAGS], SETUP_LOADED_HIGH);
	assert_int_equal(le16_load(page + SETUP_VERSION), 0x020c);
	assert_int_equal(le16_load(page + SETUP_VID_MODE), 0xffff);
	assert_int_equal(le32_load(page + SETUP_CMDLINE_SIZE), 2047);
	assert_int_equal(le32_load(page + SETUP_CMD_LINE_PTR), CMDLINE);
	assert_int_equal(le64_load(page + BOOT_PARAMS_ACPI_RSDP_ADDR), RSDP);
	assert_int_equal(le32_load(page + SETUP_RAMDISK_IMAGE), 0);
	assert_int_equal(le32_load(page + SETUP_RAMDISK_SIZE), 0);
	machine_fini(&m);
}

static void test_elf_virtual_entry(void **state)
{
	(void)state;
	struct machine m;
	Elf64_Phdr phdr = elf64_load(CODE_OFFSET, MIB(2), CODE_BYTES, CODE_BYTES);
	phdr.p_vaddr = 0xffffffff81000000;
	elf64_make(&blob, MIB(2));
	elf64_put_phdr(&blob, 0, phdr);
	blob_put(&blob, offsetof(Elf64_Ehdr, e_entry), &(uint64_t){phdr.p_vaddr + 8}, 8);
	machine_init(&m, MIB(16));
	load(&m);
	assert_int_equal(m.result.entry, MIB(2) + 8);
	machine_fini(&m);

	blob_put(&blob, offsetof(Elf64_Ehdr, e_entry), &(uint64_t){phdr.p_vaddr}, 8);
	machine_init(&m, MIB(16));
	load(&m);
	assert_int_equal(m.result.entry, MIB(2));
	machine_fini(&m);

	phdr.p_vaddr = 0; /* a physical entry at the first byte */
	elf64_put_phdr(&blob, 0, phdr);
	blob_put(&blob, offsetof(Elf64_Ehdr, e_entry), &(uint64_t){MIB(2)}, 8);
	machine_init(&m, MIB(16));
	load(&m);
	assert_int_equal(m.result.entry, MIB(2));
	machine_fini(&m);
}

static void test_e820(void **state)
{
	(void)state;
	struct machine m;
	uint8_t page[4096];
	elf64_make(&blob, MIB(2));
	machine_init(&m, GIB(6));
	load(&m);

	read_page(&m, BOOT_PARAMS, page);
	assert_int_equal(page[BOOT_PARAMS_E820_ENTRIES], 4);
	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *entry = page + BOOT_PARAMS_E820_TABLE + i * 20;
		assert_int_equal(le64_load(entry), m.map[i].base);
		assert_int_equal(le64_load(entry + 8), m.map[i].size_bytes);
		assert_int_equal(le32_load(entry + 16), m.map[i].type);
	}
	assert_int_equal(le64_load(page + BOOT_PARAMS_E820_TABLE + 60), GIB(4));
	assert_int_equal(le64_load(page + BOOT_PARAMS_E820_TABLE + 68), GIB(3));
	machine_fini(&m);
}

static void expect_pvh(struct machine *m, unsigned map_count)
{
	uint8_t page[4096];
	read_page(m, m->result.info, page);
	assert_int_equal(le32_load(page + PVH_MAGIC), 0x336ec578);
	assert_int_equal(le32_load(page + PVH_VERSION), 1);
	assert_int_equal(le32_load(page + PVH_FLAGS), 0);
	assert_int_equal(le64_load(page + PVH_CMDLINE_PADDR), CMDLINE);
	assert_int_equal(le64_load(page + PVH_RSDP_PADDR), RSDP);
	assert_int_equal(le32_load(page + PVH_MEMMAP_ENTRIES), map_count);
	const uint8_t *entry = page + (le64_load(page + PVH_MEMMAP_PADDR) - m->result.info);
	for (unsigned i = 0; i < map_count; i++, entry += 24) {
		assert_int_equal(le64_load(entry), m->map[i].base);
		assert_int_equal(le64_load(entry + 8), m->map[i].size_bytes);
		assert_int_equal(le32_load(entry + 16), m->map[i].type);
		assert_int_equal(le32_load(entry + 20), 0);
	}
}

static void test_pvh(void **state)
{
	(void)state;
	struct machine m;
	uint8_t page[4096];
	elf64_make(&blob, MIB(1));
	elf64_add_pvh(&blob, MIB(1) + 16, 8, 4);
	machine_init(&m, GIB(6));
	load(&m);
	assert_int_equal(m.result.protocol, BOOT_PVH);
	assert_int_equal(m.result.entry, MIB(1) + 16);
	expect_pvh(&m, 4);
	read_page(&m, BOOT_PARAMS, page);
	assert_int_equal(le32_load(page + PVH_NR_MODULES), 0);
	assert_int_equal(le64_load(page + PVH_MODLIST_PADDR), 0);
	machine_fini(&m);

	elf32_make(&blob, MIB(1), MIB(1) + 4);
	machine_init(&m, MIB(16));
	add_initrd(&m, "/i", 5000, 0xaa);
	load(&m);
	assert_int_equal(m.result.entry, MIB(1) + 4);
	expect_pvh(&m, 3);
	read_page(&m, BOOT_PARAMS, page);
	assert_int_equal(le32_load(page + PVH_NR_MODULES), 1);
	const uint8_t *module = page + (le64_load(page + PVH_MODLIST_PADDR) - BOOT_PARAMS);
	assert_int_equal(le64_load(module), MIB(16) - 0x2000);
	assert_int_equal(le64_load(module + 8), 5000);
	assert_int_equal(le64_load(module + 16), 0);
	expect_fill(&m, MIB(16) - 0x2000, 0xaa, 5000);
	machine_fini(&m);
}

static void test_pvh_note_but_linux64_wanted(void **state)
{
	(void)state;
	struct machine m;
	elf64_make(&blob, MIB(1));
	elf64_add_pvh(&blob, MIB(1) + 16, 8, 4);
	machine_init(&m, MIB(16));
	m.plan.protocol = BOOT_LINUX64;
	load(&m);
	assert_int_equal(m.result.protocol, BOOT_LINUX64);
	assert_int_equal(m.result.entry, MIB(1) + 0x40);
	machine_fini(&m);
}

static void test_bzimage(void **state)
{
	(void)state;
	struct machine m;
	uint8_t page[4096];
	bzimage_make(&blob);
	blob.bytes[0x1ef] = 0xff; /* the sentinel, which must not reach the zero page */
	blob_put32(&blob, SETUP_SETUP_DATA, 0x1234);
	memset(blob.bytes + 0x26b, 0xee, 0x290 - 0x26b); /* the header ends at 0x202 + 0x6a */
	machine_init(&m, MIB(16));
	add_initrd(&m, "/i", 100, 0x55);
	load(&m);

	assert_int_equal(m.result.protocol, BOOT_LINUX64);
	assert_int_equal(m.result.entry, 0x400200);
	expect_bytes(&m, 0x400000, blob.bytes + BZIMAGE_PAYLOAD_OFFSET, 0x400);
	read_page(&m, BOOT_PARAMS, page);
	assert_int_equal(page[0x1ef], 0);
	assert_int_equal(le16_load(page + SETUP_VERSION), 0x020f);
	assert_int_equal(page[SETUP_SECTS], 1);
	assert_int_equal(page[SETUP_TYPE_OF_LOADER], 0xff);
	assert_int_equal(le32_load(page + SETUP_CODE32_START), 0x400000);
	assert_int_equal(le32_load(page + SETUP_INIT_SIZE), 0x300000);
	assert_int_equal(le32_load(page + SETUP_CMD_LINE_PTR), CMDLINE);
	assert_int_equal(le32_load(page + SETUP_RAMDISK_IMAGE), MIB(16) - 0x1000);
	assert_int_equal(le32_load(page + SETUP_RAMDISK_SIZE), 100);
	assert_int_equal(le32_load(page + BOOT_PARAMS_EXT_RAMDISK_IMAGE), 0);
	assert_int_equal(le64_load(page + SETUP_SETUP_DATA), 0);
	assert_int_equal(page[0x26b], 0xee);
	expect_fill(&m, BOOT_PARAMS + 0x26c, 0, 0x290 - 0x26c);
	machine_fini(&m);
}

/* The header's own length decides, between the fields that vmlet uses and the hole in the zero page. */
static void test_bzimage_header_length(void **state)
{
	(void)state;
	static const struct {
		uint8_t length;
		unsigned end;
	} cases[] = {{0, 0x268}, {0x66, 0x268}, {0x67, 0x269}, {0x8e, 0x290}, {0xff, 0x290}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct machine m;
		bzimage_make(&blob);
		blob_put(&blob, SETUP_JUMP + 1, &cases[i].length, 1);
		memset(blob.bytes + 0x264, 0xee, 0x100);
		machine_init(&m, MIB(16));
		load(&m);
		expect_fill(&m, BOOT_PARAMS + 0x264, 0xee, cases[i].end - 0x264);
		expect_fill(&m, BOOT_PARAMS + cases[i].end, 0, 0x2d0 - cases[i].end);
		machine_fini(&m);
	}
}

static void test_bzimage_address(void **state)
{
	(void)state;
	static const struct {
		uint32_t preferred;
		uint8_t relocatable;
		gpa_t entry;
	} cases[] = {{0x410000, 1, 0x600200}, {0x410000, 0, 0x410200}, {0, 1, 0x200200}, {0, 0, 0x100200}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct machine m;
		bzimage_make(&blob);
		blob_put32(&blob, SETUP_PREF_ADDRESS, cases[i].preferred);
		blob_put(&blob, SETUP_RELOCATABLE_KERNEL, &cases[i].relocatable, 1);
		machine_init(&m, MIB(16));
		load(&m);
		assert_int_equal(m.result.entry, cases[i].entry);
		machine_fini(&m);
	}
}

static void test_bzimage_setup_sects_0(void **state)
{
	(void)state;
	struct machine m;
	static uint8_t code[0x400];
	bzimage_make(&blob);
	memset(code, 0x90, sizeof(code));
	blob_put(&blob, SETUP_SECTS, "", 1);
	blob_put(&blob, 5 * 512, code, sizeof(code));
	machine_init(&m, MIB(16));
	load(&m);
	expect_bytes(&m, 0x400000, code, sizeof(code));
	machine_fini(&m);
}

static void test_cmdline_limits(void **state)
{
	(void)state;
	struct machine m;
	static char line[2049];
	memset(line, 'a', 2048);

	elf64_make(&blob, MIB(2));
	machine_init(&m, MIB(8));
	m.plan.cmdline = line;
	expect_refused(&m, -E2BIG,
		       "kernel '/boot/k': ", "the command line has 2048 bytes; this kernel takes at most 2047");
	m.plan.cmdline = line + 1;
	load(&m);
	expect_bytes(&m, CMDLINE, line + 1, 2048);
	m.plan.area.cmdline_size_bytes = 2047;
	expect_refused(&m, -E2BIG, "kernel '/boot/k': ", "has 2047 bytes; this kernel takes at most 2046");
	machine_fini(&m);

	bzimage_make(&blob);
	blob_put32(&blob, SETUP_CMDLINE_SIZE, 255);
	machine_init(&m, MIB(8));
	m.plan.cmdline = line + 2048 - 256;
	expect_refused(&m, -E2BIG, "kernel '/boot/k': ", "has 256 bytes; this kernel takes at most 255");
	machine_fini(&m);
}

static void expect_elf_refused(Elf64_Phdr phdr, int code, const char *part)
{
	struct machine m;
	elf64_make(&blob, MIB(2));
	blob_put16(&blob, offsetof(Elf64_Ehdr, e_phnum), 2);
	elf64_put_phdr(&blob, 1, phdr);
	machine_init(&m, MIB(16));
	m.plan.area.reserved = 0x90000;
	m.plan.area.reserved_size_bytes = 0x4000;
	expect_refused(&m, code, "kernel '/boot/k': ", part);
	machine_fini(&m);
}

static void test_elf_does_not_fit(void **state)
{
	(void)state;
	expect_elf_refused(elf64_load(0, MIB(15), 0, MIB(1) + 1), -ENOSPC,
			   "too big: a segment of the kernel needs memory from 0xf00000 to 0x1000001, so 17 MiB of "
			   "RAM, and the VM has 16 MiB");
	expect_elf_refused(elf64_load(0, MIB(15), 0, UINT64_MAX), -ENOSPC, "impossible size");
	expect_elf_refused(elf64_load(0, UINT64_MAX, 0, 1), -ENOSPC, "impossible size");
	expect_elf_refused(elf64_load(0, UINT64_MAX - 1, 0, 1), -ENOSPC, "too big");
	expect_elf_refused(elf64_load(0, 0xa0000, 0, 4096), -ENOSPC, "which is not all RAM in this VM");
	expect_elf_refused(elf64_load(0, LOW_END - 1, 0, 2), -ENOSPC, "which is not all RAM in this VM");
	expect_elf_refused(elf64_load(0, MIB(2) + CODE_BYTES + 0xfff, 0, 1), -EINVAL,
			   "a segment of the kernel at 0x200000 (0x1300 bytes) overlaps a segment of the kernel");
	expect_elf_refused(elf64_load(0, BOOT_PARAMS + 4095, 0, 1), -EINVAL, "overlaps vmlet's boot information");
	expect_elf_refused(elf64_load(0, CMDLINE - 1, 0, 2), -EINVAL, "overlaps the command line at 0x20000");
	expect_elf_refused(elf64_load(0, 0x8000, 0, 0x90000), -EINVAL, "overlaps the command line");
	expect_elf_refused(elf64_load(0, 0x93fff, 0, 1), -EINVAL, "overlaps vmlet's page tables");
}

static void test_elf_fits_exactly(void **state)
{
	(void)state;
	static const Elf64_Phdr empty = {.p_type = PT_LOAD, .p_paddr = UINT64_MAX};
	const Elf64_Phdr phdrs[] = {
		elf64_load(0, MIB(15), 0, MIB(1)),                      /* to the last byte of RAM */
		elf64_load(0, BOOT_PARAMS + 4096, 0, 4096),             /* below 1 MiB, beside our own page */
		elf64_load(0, MIB(2) + CODE_BYTES + 0x1000, 0, 0x1000), /* touching */
		empty,
	};
	for (size_t i = 0; i < ARRAY_SIZE(phdrs); i++) {
		struct machine m;
		elf64_make(&blob, MIB(2));
		blob_put16(&blob, offsetof(Elf64_Ehdr, e_phnum), 2);
		elf64_put_phdr(&blob, 1, phdrs[i]);
		machine_init(&m, MIB(16));
		load(&m);
		machine_fini(&m);
	}
}

static void test_bzimage_does_not_fit(void **state)
{
	(void)state;
	struct machine m;
	bzimage_make(&blob);
	machine_init(&m, MIB(7) - 0x1000);
	expect_refused(&m, -ENOSPC, "kernel '/boot/k': too big: the kernel needs memory from 0x400000 to 0x700000",
		       "so 7 MiB of RAM, and the VM has 6 MiB");
	machine_fini(&m);
	machine_init(&m, MIB(7));
	load(&m);
	machine_fini(&m);
}

/* A kernel big enough to be mapped; bss begins in the middle of a page of which the file has more. */
static void test_big_segment(void **state)
{
	(void)state;
	struct machine m;
	enum { BYTES = 400 << 10, FILE_BYTES = BYTES - 0x234 };
	uint8_t *bytes = malloc(BYTES + 0x1000);
	assert_non_null(bytes);
	elf64_make(&blob, MIB(2));
	elf64_put_phdr(&blob, 0, elf64_load(CODE_OFFSET, MIB(2), FILE_BYTES, MIB(1)));
	memset(bytes, 0xcc, BYTES + 0x1000);
	memcpy(bytes, blob.bytes, blob.size_bytes);

	machine_init(&m, MIB(16));
	image_set(&m.kernel, bytes, BYTES + 0x1000);
	load(&m);
	expect_bytes(&m, MIB(2), bytes + CODE_OFFSET, FILE_BYTES);
	expect_fill(&m, MIB(2) + FILE_BYTES, 0, MIB(1) - FILE_BYTES);
	machine_fini(&m);
	free(bytes);
}

/* Only the rest of the last page of a segment is zeroed, and nothing is written behind the command line. */
static void test_writes_no_more_than_needed(void **state)
{
	(void)state;
	struct machine m;
	elf64_make(&blob, MIB(2));
	elf64_put_phdr(&blob, 0, elf64_load(CODE_OFFSET, MIB(2), CODE_BYTES, MIB(1)));
	machine_init(&m, MIB(16));
	assert_int_equal(gmem_fill(m.plan.gmem, 0, 0xcc, MIB(16)), 0);
	load(&m);
	expect_bytes(&m, MIB(2), blob.bytes + CODE_OFFSET, CODE_BYTES);
	expect_fill(&m, MIB(2) + CODE_BYTES, 0, 0x1000 - CODE_BYTES);
	expect_fill(&m, MIB(2) + 0x1000, 0xcc, MIB(14) - 0x1000);
	expect_fill(&m, MIB(2) - 0x1000, 0xcc, 0x1000);
	expect_fill(&m, CMDLINE + 14, 0xcc, 100);
	machine_fini(&m);

	elf64_put_phdr(&blob, 0, elf64_load(CODE_OFFSET, MIB(2), CODE_BYTES, CODE_BYTES + 3));
	machine_init(&m, MIB(16));
	assert_int_equal(gmem_fill(m.plan.gmem, 0, 0xcc, MIB(16)), 0);
	load(&m);
	expect_fill(&m, MIB(2) + CODE_BYTES, 0, 3);
	expect_fill(&m, MIB(2) + CODE_BYTES + 3, 0xcc, 100);
	machine_fini(&m);
}

static void test_shrunk_after_parse(void **state)
{
	(void)state;
	struct machine m;
	elf64_make(&blob, MIB(2));
	machine_init(&m, MIB(16));
	m.kernel.size_bytes += 100; /* as if 100 bytes had been there when it was opened */
	assert_int_equal(ftruncate(m.kernel.fd, CODE_OFFSET + 1), 0);
	expect_refused(&m, -ENODATA, "kernel '/boot/k': ", "the file has become shorter while it was being read");
	machine_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_elf_linux64),
		cmocka_unit_test(test_elf_virtual_entry),
		cmocka_unit_test(test_e820),
		cmocka_unit_test(test_pvh),
		cmocka_unit_test(test_pvh_note_but_linux64_wanted),
		cmocka_unit_test(test_bzimage),
		cmocka_unit_test(test_bzimage_header_length),
		cmocka_unit_test(test_bzimage_address),
		cmocka_unit_test(test_bzimage_setup_sects_0),
		cmocka_unit_test(test_cmdline_limits),
		cmocka_unit_test(test_elf_does_not_fit),
		cmocka_unit_test(test_elf_fits_exactly),
		cmocka_unit_test(test_bzimage_does_not_fit),
		cmocka_unit_test(test_big_segment),
		cmocka_unit_test(test_writes_no_more_than_needed),
		cmocka_unit_test(test_shrunk_after_parse),
	};
	return cmocka_run_group_tests_name("loader_load", tests, NULL, NULL);
}
