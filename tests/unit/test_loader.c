/* What a kernel file is: each kind that is taken, and each refusal's sentence. */
#include "test_loader_images.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "loader/elf_note.h"

static const char path[] = "/boot/k";
static struct blob blob;

static int probe(enum boot_protocol protocol, enum kernel_kind *ret_kind, struct err *err)
{
	struct image image = image_make(path, blob.bytes, blob.size_bytes);
	int rc = kernel_probe(&image, protocol, ret_kind, err);
	image_close(&image);
	return rc;
}

static void expect_kind(enum boot_protocol protocol, enum kernel_kind kind)
{
	struct err err = {0};
	enum kernel_kind found = (enum kernel_kind)99;
	int rc = probe(protocol, &found, &err);
	if (rc < 0)
		fail_msg("%s", err.text);
	assert_int_equal(found, kind);
}

/* Refused with a sentence that begins with the file's name and contains `part`. */
static void expect_refused_as(enum boot_protocol protocol, int code, const char *part)
{
	struct err err = {0};
	enum kernel_kind kind = (enum kernel_kind)99;
	assert_int_equal(probe(protocol, &kind, &err), code);
	assert_int_equal(err.code, code);
	assert_int_equal(err.kind, ERR_CONFIG);
	assert_int_equal(kind, 99);
	assert_int_equal(strncmp(err.text, "kernel '/boot/k': ", 18), 0);
	if (!strstr(err.text, part))
		fail_msg("'%s' does not say '%s'", err.text, part);
	assert_int_equal(probe(protocol, &kind, NULL), code);
}

static void expect_refused(const char *part)
{
	expect_refused_as(BOOT_AUTO, -ENOEXEC, part);
}

static void blob_text(const char *text)
{
	blob.size_bytes = 0;
	memset(blob.bytes, 0, sizeof(blob.bytes));
	blob_put_text(&blob, 0, text);
}

static void test_kinds(void **state)
{
	(void)state;
	elf64_make(&blob, MIB(1));
	expect_kind(BOOT_AUTO, KERNEL_ELF);
	expect_kind(BOOT_LINUX64, KERNEL_ELF);

	elf64_add_pvh(&blob, MIB(1), 8, 4);
	expect_kind(BOOT_AUTO, KERNEL_ELF_PVH);
	expect_kind(BOOT_LINUX64, KERNEL_ELF_PVH);
	expect_kind(BOOT_PVH, KERNEL_ELF_PVH);

	elf32_make(&blob, MIB(1), MIB(1) + 4);
	expect_kind(BOOT_AUTO, KERNEL_ELF_PVH);
	expect_kind(BOOT_PVH, KERNEL_ELF_PVH);

	bzimage_make(&blob);
	expect_kind(BOOT_AUTO, KERNEL_BZIMAGE);
	expect_kind(BOOT_LINUX64, KERNEL_BZIMAGE);
}

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

static void test_protocol_refused(void **state)
{
	(void)state;
	elf64_make(&blob, MIB(1));
	expect_refused_as(BOOT_PVH, -ENOTSUP, "this ELF has no PVH entry note");
	elf32_make(&blob, MIB(1), MIB(1));
	expect_refused_as(BOOT_LINUX64, -ENOTSUP, "this is an ELF32 for i386");
	bzimage_make(&blob);
	expect_refused_as(BOOT_PVH, -ENOTSUP, "this is a bzImage, which has no PVH entry");
}

static void test_pvh_above_4g(void **state)
{
	(void)state;
	elf64_make(&blob, GIB(5));
	elf64_add_pvh(&blob, GIB(5), 8, 4);
	expect_refused("PVH entry 0x140000000 lies above 4 GiB");
	expect_kind(BOOT_LINUX64, KERNEL_ELF_PVH);
}

static void test_other_files(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		const char *part;
	} cases[] = {
		{"\x1f\x8b\x08\x04", "this is a gzip file (found 1f 8b 08 04 at byte 0); vmlet boots an ELF64 x86-64 "
				     "vmlinux, a PVH ELF, or an x86-64 bzImage"},
		{"\3757zXZ", "an xz file (found fd 37 7a 58"},
		{"\x28\xb5\x2f\xfd", "a zstd file"},
		{"BZh91AY", "a bzip2 file"},
		{"\x04\x22\x4d\x18", "an lz4 file"},
		{"\x02\x21\x4c\x18", "an lz4 file"},
		{"\x89LZO", "an lzop file"},
		{"070701000", "a cpio archive"},
		{"#!/bin/sh\n", "a script"},
		{"QFI\xfb", "a qcow2 disk image"},
		{"!<arch>\ndebian-binary", "Debian package"},
		{"\xd0\x0d\xfe\xed", "a device tree"},
		{"hello, world\n", "this is a text file; vmlet boots"},
		{"\x01\x02\x03\x04\x05", "of unknown format (5 bytes, begins with 01 02 03 04); vmlet boots"},
		{"\x01", "of unknown format (1 bytes, begins with 01)"},
		{"MZ", "a truncated file: 2 bytes that begin with MZ"},
		{"\177ELF", "a truncated ELF"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		blob_text(cases[i].bytes);
		expect_refused(cases[i].part);
	}
	blob_text("");
	expect_refused("the file is empty");
}

static void test_magic_further_on(void **state)
{
	(void)state;
	static const struct {
		size_t offset;
		const char *magic;
		const char *part;
	} cases[] = {
		{0x38, "ARM\x64", "an arm64 Linux Image (found 41 52 4d 64 at byte 56)"},
		{0x38, "RSC\x05", "a RISC-V Linux Image"},
		{1000, "x", "an EFI program (PE), perhaps a unified kernel image"},
		{4, "zimg", "an EFI zboot image"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		blob_text("MZ");
		blob_put_text(&blob, cases[i].offset, cases[i].magic);
		blob_put(&blob, 1000, "", 1);
		expect_refused(cases[i].part);
	}
	blob_text("\x01");
	blob_put_text(&blob, 0x8001, "CD001");
	expect_refused("an ISO 9660 disk image");
	blob_text("\x01");
	blob_put_text(&blob, 510, "\x55\xaa");
	expect_refused("a disk image or boot sector");
	blob_put_text(&blob, 512, "EFI PART");
	expect_refused("a disk image with a GPT");
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
	/* A note without a descriptor, at the very end. */
	blob_put32(&blob, first + 4, 0);
	assert_true(elf_note_find(bytes, 40, 4, "Xen", 18, &note));
	assert_int_equal(note.desc_bytes, 0);
	/* A nameless header alone. */
	blob_put32(&blob, first, 0);
	assert_false(elf_note_find(bytes, 36, 4, "Xen", 18, &note));
}

static void test_bzimage_refused(void **state)
{
	(void)state;
	bzimage_make(&blob);
	blob_put16(&blob, SETUP_XLOADFLAGS, 0);
	expect_refused("only the 16-bit and 32-bit entry points (boot protocol 2.15, XLF_KERNEL_64 not set)");
	bzimage_make(&blob);
	blob_put16(&blob, SETUP_VERSION, 0x0206);
	expect_refused("only the 16-bit and 32-bit entry points (boot protocol 2.06");
	blob_put16(&blob, SETUP_VERSION, 0x020b);
	expect_refused("only the 16-bit and 32-bit entry points (boot protocol 2.11");
	blob_put16(&blob, SETUP_VERSION, 0x020c);
	expect_kind(BOOT_AUTO, KERNEL_BZIMAGE);
	bzimage_make(&blob);
	blob.size_bytes = SETUP_END_2_12;
	expect_refused("a truncated bzImage: it has 616 bytes and should have 2048");
	blob.size_bytes--;
	expect_refused("a truncated bzImage: 615 bytes");
	bzimage_make(&blob);
	blob_put(&blob, SETUP_LOADFLAGS, "", 1);
	expect_refused("a zImage or a 16-bit program");
	bzimage_make(&blob);
	blob_put32(&blob, SETUP_KERNEL_ALIGNMENT, 0x300000);
	expect_refused("kernel_alignment is 0x300000");
	bzimage_make(&blob);
	blob_put32(&blob, SETUP_PREF_ADDRESS + 4, 1);
	expect_refused("pref_address is 0x100400000");
	bzimage_make(&blob);
	blob_put32(&blob, SETUP_PREF_ADDRESS, 0x1000);
	expect_refused("pref_address is 0x1000");
	bzimage_make(&blob);
	blob_put32(&blob, SETUP_SYSSIZE, 0x20);
	expect_refused("its 64-bit entry lies beyond its code");
	bzimage_make(&blob);
	blob_put(&blob, SETUP_SECTS, "", 1); /* 0 means 4 */
	expect_refused("it has 2048 bytes and should have 3584");
}

/* Every byte less is either noticed or does not matter (syssize counts in 16 bytes). */
static void test_truncated_everywhere(void **state)
{
	(void)state;
	struct err err;
	enum kernel_kind kind;
	for (int which = 0; which < 3; which++) {
		if (which == 0)
			bzimage_make(&blob);
		else if (which == 1)
			elf32_make(&blob, MIB(1), MIB(1));
		else
			elf64_make(&blob, MIB(1));
		struct image image = image_make(path, blob.bytes, blob.size_bytes);
		size_t slack = which == 0 ? 15 : 0;
		for (size_t size = blob.size_bytes; size-- > 0;) {
			assert_int_equal(ftruncate(image.fd, (off_t)size), 0);
			image.size_bytes = size;
			int rc = kernel_probe(&image, BOOT_AUTO, &kind, &err);
			assert_int_equal(rc, size + slack >= blob.size_bytes ? 0 : -ENOEXEC);
		}
		image_close(&image);
	}
}

static void test_shrunk_after_open(void **state)
{
	(void)state;
	struct err err = {0};
	enum kernel_kind kind;
	elf64_make(&blob, MIB(1));
	struct image image = image_make(path, blob.bytes, blob.size_bytes);
	assert_int_equal(ftruncate(image.fd, 10), 0);
	assert_int_equal(kernel_probe(&image, BOOT_AUTO, &kind, &err), -ENODATA);
	assert_string_equal(err.text, "kernel '/boot/k': the file has become shorter while it was being read");
	image_close(&image);
}

static void expect_open_fails(const char *name, int code, enum err_kind kind, const char *text)
{
	struct image image = {.fd = -7};
	struct err err = {0};
	assert_int_equal(image_open(&image, "kernel", name, &err), code);
	assert_int_equal(err.kind, kind);
	assert_string_equal(err.text, text);
	assert_int_equal(image.fd, -7);
}

static void test_open(void **state)
{
	(void)state;
	char dir[] = "/tmp/vmlet-loader-XXXXXX";
	char name[64];
	char text[256];
	struct image image;

	expect_open_fails("/", -EISDIR, ERR_CONFIG, "kernel '/': not a regular file: this is a directory");
	expect_open_fails("/dev/null", -EINVAL, ERR_CONFIG,
			  "kernel '/dev/null': not a regular file: this is a character device");
	expect_open_fails("/no/such", -ENOENT, ERR_CONFIG, "kernel '/no/such': No such file or directory");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(name, sizeof(name), "%s/f", dir);
	(void)snprintf(text, sizeof(text), "kernel '%s': not a regular file: this is a FIFO", name);
	assert_int_equal(mkfifo(name, 0600), 0);
	expect_open_fails(name, -EINVAL, ERR_CONFIG, text); /* and does not wait for a writer */
	assert_int_equal(unlink(name), 0);

	int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "hello", 5), 5);
	close(fd);
	assert_int_equal(image_open(&image, "kernel", name, NULL), 0);
	assert_int_equal(image.size_bytes, 5);
	uint8_t bytes[3] = {0};
	assert_int_equal(image_read(&image, 2, bytes, 3), 0);
	assert_memory_equal(bytes, "llo", 3);
	assert_int_equal(image_read(&image, 3, bytes, 3), -ENODATA);
	assert_int_equal(image_read(&image, 5, bytes, 0), 0);
	assert_int_equal(image_read(&image, 6, bytes, 0), -ENODATA);
	assert_int_equal(image_read(&image, UINT64_MAX, bytes, 3), -ENODATA);
	image_close(&image);
	image_close(&image);
	unlink(name);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_pvh_notes),
		cmocka_unit_test(test_protocol_refused),
		cmocka_unit_test(test_pvh_above_4g),
		cmocka_unit_test(test_other_files),
		cmocka_unit_test(test_magic_further_on),
		cmocka_unit_test(test_elf_types),
		cmocka_unit_test(test_elf_machines),
		cmocka_unit_test(test_elf_damaged),
		cmocka_unit_test(test_elf_notes_damaged),
		cmocka_unit_test(test_elf_program),
		cmocka_unit_test(test_elf_entry),
		cmocka_unit_test(test_elf_edges),
		cmocka_unit_test(test_note_search),
		cmocka_unit_test(test_bzimage_refused),
		cmocka_unit_test(test_truncated_everywhere),
		cmocka_unit_test(test_shrunk_after_open),
		cmocka_unit_test(test_open),
	};
	return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
