/* ELF files: other machines and types, damage, limits, notes. */
#include "test_loader_probe.h"

#include "loader/elf_note.h"

static void test_pvh_notes(void **state)
{
	(void)state;
	static const struct {
		uint32_t desc_bytes;
		uint64_t align;
	} cases[] = {{4, 4}, {8, 4}, {4, 8}, {8, 8}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		elf64_make(&blob, MIB(1));
		elf64_add_pvh(&blob, MIB(1), cases[i].desc_bytes, cases[i].align);
		expect_kind(BOOT_PVH, KERNEL_ELF_PVH);
	}
	elf64_make(&blob, MIB(1));
	elf64_add_pvh(&blob, MIB(1), 2, 4);
	expect_refused("its PVH note has 2 bytes instead of 4 or 8");

	elf64_make(&blob, MIB(1));
	elf64_add_pvh(&blob, MIB(1) + CODE_BYTES, 8, 4);
	expect_refused("its PVH entry 0x100300 lies outside its segments");
}

static void test_pvh_above_4g(void **state)
{
	(void)state;
	elf64_make(&blob, GIB(5));
	elf64_add_pvh(&blob, GIB(5), 8, 4);
	expect_refused("PVH entry 0x140000000 lies above 4 GiB");
	expect_kind(BOOT_LINUX64, KERNEL_ELF_PVH);
}

static void put_elf_type(uint16_t type)
{
	elf64_make(&blob, MIB(1));
	blob_put16(&blob, offsetof(Elf64_Ehdr, e_type), type);
}

static void test_elf_types(void **state)
{
	(void)state;
	put_elf_type(ET_REL);
	expect_refused("a .ko kernel module");
	put_elf_type(ET_DYN);
	expect_refused("(ET_DYN), which has no fixed load address; vmlet boots");
	put_elf_type(ET_CORE);
	expect_refused("an ELF core dump");
	put_elf_type(77);
	expect_refused("an ELF of type 77");

	elf64_make(&blob, MIB(1));
	blob_put(&blob, EI_DATA, &(uint8_t){ELFDATA2MSB}, 1);
	expect_refused("a big-endian ELF");
	elf32_make(&blob, MIB(1), 0);
	expect_refused("an ELF32 for i386 without a PVH entry note");
}

static void test_elf_machines(void **state)
{
	(void)state;
	static const struct {
		uint16_t machine;
		const char *part;
	} cases[] = {
		{EM_AARCH64, "this is an ELF64 for aarch64; vmlet boots"},
		{EM_RISCV, "this is an ELF64 for riscv64"},
		{EM_PPC64, "this is an ELF64 for ppc64"},
		{EM_386, "this is an ELF64 for i386"},
		{1234, "this is an ELF64 for machine number 1234"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		elf64_make(&blob, MIB(1));
		blob_put16(&blob, offsetof(Elf64_Ehdr, e_machine), cases[i].machine);
		expect_refused(cases[i].part);
	}
	elf32_make(&blob, MIB(1), MIB(1));
	blob_put16(&blob, offsetof(Elf32_Ehdr, e_machine), EM_RISCV);
	expect_refused("this is an ELF32 for riscv32");
}

static void test_elf_damaged(void **state)
{
	(void)state;
	elf64_make(&blob, MIB(1));
	blob_put16(&blob, offsetof(Elf64_Ehdr, e_phnum), 0);
	expect_refused("without program headers");
	blob_put16(&blob, offsetof(Elf64_Ehdr, e_phnum), 257);
	expect_refused("257 program headers; vmlet takes 256");
	blob_put16(&blob, offsetof(Elf64_Ehdr, e_phnum), 0xffff);
	expect_refused("65535 program headers");

	elf64_make(&blob, MIB(1));
	blob_put16(&blob, offsetof(Elf64_Ehdr, e_phentsize), 32);
	expect_refused("program headers of 32 bytes");

	elf64_make(&blob, MIB(1));
	blob_put(&blob, offsetof(Elf64_Ehdr, e_phoff), &(uint64_t){UINT64_MAX - 8}, 8);
	expect_refused("its program header table lies beyond the end of the file");

	elf64_make(&blob, MIB(1));
	elf64_put_phdr(&blob, 0, elf64_load(CODE_OFFSET, MIB(1), CODE_BYTES, CODE_BYTES - 1));
	expect_refused("segment 0 has more bytes in the file (0x300) than in memory (0x2ff)");
	elf64_put_phdr(&blob, 0, elf64_load(UINT64_MAX, MIB(1), 2, 2));
	expect_refused("a segment lies beyond the end of the file");
	elf64_put_phdr(&blob, 0, (Elf64_Phdr){.p_type = PT_GNU_STACK});
	expect_refused("without a loadable segment");
	elf64_put_phdr(&blob, 0, (Elf64_Phdr){.p_type = PT_INTERP});
	expect_refused("a program, linked dynamically");
}

static void test_elf_notes_damaged(void **state)
{
	(void)state;
	Elf64_Phdr note = {.p_type = PT_NOTE, .p_offset = 0, .p_filesz = (1 << 20) + 1};
	elf64_make(&blob, MIB(1));
	elf64_add_pvh(&blob, MIB(1), 8, 4);
	elf64_put_phdr(&blob, 1, note);
	expect_refused("a note segment lies beyond the end of the file");

	struct image image = image_make(path, blob.bytes, blob.size_bytes);
	assert_int_equal(ftruncate(image.fd, 2 << 20), 0);
	image.size_bytes = 2 << 20;
	struct err err = {0};
	enum kernel_kind kind;
	assert_int_equal(kernel_probe(&image, BOOT_AUTO, &kind, &err), -ENOEXEC);
	assert_non_null(strstr(err.text, "1048577 bytes of notes; vmlet takes 1048576"));
	image_close(&image);

	/* A note that runs out of its segment ends the search; then there is no PVH entry. */
	elf64_make(&blob, MIB(1));
	elf64_add_pvh(&blob, MIB(1), 8, 4);
	blob_put32(&blob, NOTE_OFFSET + 4, UINT32_MAX);
	expect_kind(BOOT_AUTO, KERNEL_ELF);
	blob_put32(&blob, NOTE_OFFSET, UINT32_MAX);
	expect_kind(BOOT_AUTO, KERNEL_ELF);
}

static void test_elf_program(void **state)
{
	(void)state;
	elf64_make(&blob, MIB(4));
	elf64_add_pvh(&blob, MIB(4), 8, 4);
	note_put(&blob, NOTE_OFFSET, "GNU", NT_GNU_ABI_TAG, "0123456789", 10, 4);
	expect_kind(BOOT_AUTO, KERNEL_ELF_PVH);
	note_put(&blob, NOTE_OFFSET + 28, "Xen", 17, "01234567", 8, 4);
	expect_refused("a program, linked statically");
}

static void test_elf_entry(void **state)
{
	(void)state;
	elf64_make(&blob, MIB(1));
	blob_put(&blob, offsetof(Elf64_Ehdr, e_entry), &(uint64_t){MIB(1) + CODE_BYTES}, 8);
	expect_refused("its entry 0x100300 lies outside its segments");
	blob_put(&blob, offsetof(Elf64_Ehdr, e_entry), &(uint64_t){MIB(1) - 1}, 8);
	expect_refused("its entry 0xfffff lies outside");
}

/* What ends exactly with the file, or counts exactly up to a limit, is taken. */
static void test_elf_edges(void **state)
{
	(void)state;
	elf64_make(&blob, MIB(1));
	blob_put(&blob, offsetof(Elf64_Ehdr, e_entry), &(uint64_t){MIB(1)}, 8);
	expect_kind(BOOT_AUTO, KERNEL_ELF);
	blob_put(&blob, offsetof(Elf64_Ehdr, e_entry), &(uint64_t){MIB(1) + CODE_BYTES - 1}, 8);
	expect_kind(BOOT_AUTO, KERNEL_ELF);
	blob_put16(&blob, offsetof(Elf64_Ehdr, e_phnum), 256); /* the others are PT_NULL */
	expect_refused("its program header table lies beyond");
	blob_put(&blob, sizeof(Elf64_Ehdr) + 256 * sizeof(Elf64_Phdr) - 1, "", 1);
	memcpy(blob.bytes + CODE_OFFSET, (uint8_t[CODE_BYTES]){0}, CODE_BYTES);
	expect_kind(BOOT_AUTO, KERNEL_ELF);

	/* The program headers last, then a note segment last. */
	Elf64_Phdr phdr = elf64_load(CODE_OFFSET, MIB(1), CODE_BYTES, CODE_BYTES);
	elf64_make(&blob, MIB(1));
	blob_put(&blob, offsetof(Elf64_Ehdr, e_phoff), &(uint64_t){blob.size_bytes}, 8);
	blob_put(&blob, blob.size_bytes, &phdr, sizeof(phdr));
	expect_kind(BOOT_AUTO, KERNEL_ELF);
	elf64_make(&blob, MIB(1));
	elf64_add_pvh(&blob, MIB(1), 8, 4);
	size_t end = note_put(&blob, blob.size_bytes, "Xen", 18, &(uint64_t){MIB(1)}, 8, 4);
	phdr = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = end - 24, .p_filesz = 24, .p_align = 4};
	elf64_put_phdr(&blob, 1, phdr);
	expect_kind(BOOT_PVH, KERNEL_ELF_PVH);
	phdr.p_filesz++;
	elf64_put_phdr(&blob, 1, phdr);
	expect_refused("a note segment lies beyond");
}

static void test_note_search(void **state)
{
	(void)state;
	struct elf_note note;
	blob_text("");
	size_t first = note_put(&blob, 0, "Xen", 18, "abcdefgh", 8, 4);
	note_put(&blob, first, "Xen", 18, "ijklmnop", 8, 4);
	const uint8_t *bytes = blob.bytes;

	assert_true(elf_note_find(bytes, 24, 4, "Xen", 18, &note));
	assert_ptr_equal(note.desc, bytes + 16);
	assert_int_equal(note.desc_bytes, 8);
	for (size_t size = 0; size < 24; size++)
		assert_false(elf_note_find(bytes, size, 4, "Xen", 18, &note));
	for (size_t size = 0; size < 48; size++)
		assert_false(elf_note_find(bytes, size, 4, "Xe", 18, &note));
	assert_false(elf_note_find(bytes, 48, 4, "Xen", 17, &note));

	/* Behind one of another type; its last padding may be missing. */
	blob_put32(&blob, 8, 3);
	blob_put32(&blob, first + 4, 7);
	assert_true(elf_note_find(bytes, 47, 4, "Xen", 18, &note));
	assert_ptr_equal(note.desc, bytes + 40);
	assert_int_equal(note.desc_bytes, 7);
	assert_false(elf_note_find(bytes, 46, 4, "Xen", 18, &note));
	assert_false(elf_note_find(bytes, 47, 4, "Xen", 17, &note)); /* the padding is not searched */
	/* A note without a descriptor, at the very end. */
	blob_put32(&blob, first + 4, 0);
	assert_true(elf_note_find(bytes, 40, 4, "Xen", 18, &note));
	assert_int_equal(note.desc_bytes, 0);
	/* A nameless header alone. */
	blob_put32(&blob, first, 0);
	assert_false(elf_note_find(bytes, 36, 4, "Xen", 18, &note));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pvh_notes),   cmocka_unit_test(test_pvh_above_4g),
		cmocka_unit_test(test_elf_types),   cmocka_unit_test(test_elf_machines),
		cmocka_unit_test(test_elf_damaged), cmocka_unit_test(test_elf_notes_damaged),
		cmocka_unit_test(test_elf_program), cmocka_unit_test(test_elf_entry),
		cmocka_unit_test(test_elf_edges),   cmocka_unit_test(test_note_search),
	};
	return cmocka_run_group_tests_name("loader_elf", tests, NULL, NULL);
}
