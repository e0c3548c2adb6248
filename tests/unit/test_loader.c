/* What a kernel file is: each kind that is taken, and the sentence for each that is not. */
#include "test_loader_probe.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

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
		cmocka_unit_test(test_protocol_refused),
		cmocka_unit_test(test_other_files),
		cmocka_unit_test(test_magic_further_on),
		cmocka_unit_test(test_bzimage_refused),
		cmocka_unit_test(test_truncated_everywhere),
		cmocka_unit_test(test_shrunk_after_open),
		cmocka_unit_test(test_open),
	};
	return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
