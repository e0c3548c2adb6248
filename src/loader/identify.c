#include "loader/identify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "loader/kernel.h"
#include "util.h"

struct file_type {
	uint16_t offset;
	uint8_t magic_bytes;
	const char *magic;
	const char *name;
};

#define MAGIC(offset, magic, name)                                                                                     \
	{                                                                                                              \
		offset, sizeof(magic) - 1, magic, name                                                                 \
	}

/* The first match wins, so the more particular one comes first (kernels with an EFI stub begin with "MZ" too). */
static const struct file_type file_types[] = {
	MAGIC(0x38, "ARM\x64", "an arm64 Linux Image"),
	MAGIC(0x38, "RSC\x05", "a RISC-V Linux Image"),
	MAGIC(4, "zimg", "an EFI zboot image, a compressed kernel for EFI firmware"),
	MAGIC(0, "MZ", "an EFI program (PE), perhaps a unified kernel image, without a Linux x86 setup header"),
	MAGIC(0, "\x1f\x8b", "a gzip file"),
	MAGIC(0, "\3757zXZ", "an xz file"),
	MAGIC(0, "\x28\xb5\x2f\xfd", "a zstd file"),
	MAGIC(0, "BZh", "a bzip2 file"),
	MAGIC(0, "\x04\x22\x4d\x18", "an lz4 file"),
	MAGIC(0, "\x02\x21\x4c\x18", "an lz4 file"),
	MAGIC(0, "\x5d\x00\x00", "an lzma file"),
	MAGIC(0, "\x89LZO", "an lzop file"),
	MAGIC(0, "07070", "a cpio archive, as an initrd is"),
	MAGIC(0, "\xc7\x71", "a cpio archive, as an initrd is"),
	MAGIC(0, "#!", "a script"),
	MAGIC(0, "QFI\xfb", "a qcow2 disk image"),
	MAGIC(0, "KDMV", "a VMDK disk image"),
	MAGIC(0, "vhdxfile", "a VHDX disk image"),
	MAGIC(0, "hsqs", "a squashfs file system"),
	MAGIC(0, "\x27\x05\x19\x56", "a U-Boot uImage"),
	MAGIC(0, "\xd0\x0d\xfe\xed", "a device tree or FIT image"),
	MAGIC(0, "!<arch>", "an ar archive, perhaps a Debian package"),
	MAGIC(0, "PK\x03\x04", "a zip file"),
	MAGIC(257, "ustar", "a tar archive"),
	MAGIC(512, "EFI PART", "a disk image with a GPT"),
	MAGIC(0x438, "\x53\xef", "an ext4 file system"),
};

int identify_read_head(const struct image *image, struct identify_head *ret_head)
{
	ret_head->size_bytes = (size_t)min_u64(image->size_bytes, IDENTIFY_HEAD_MAX);
	return image_read(image, 0, ret_head->bytes, ret_head->size_bytes);
}

bool identify_match(const struct identify_head *head, size_t offset, const char *magic, size_t magic_bytes)
{
	return offset + magic_bytes <= head->size_bytes && !memcmp(head->bytes + offset, magic, magic_bytes);
}

static const struct file_type *find_type(const struct identify_head *head)
{
	for (size_t i = 0; i < ARRAY_SIZE(file_types); i++) {
		const struct file_type *type = &file_types[i];
		if (identify_match(head, type->offset, type->magic, type->magic_bytes))
			return type;
	}
	return NULL;
}

/* ISO 9660 section 8.1: the volume descriptors begin at sector 16 of 2048 bytes; byte 1 on is "CD001". */
static bool is_iso(const struct image *image)
{
	char id[5];
	return !image_read(image, 16 * 2048 + 1, id, sizeof(id)) && !memcmp(id, "CD001", sizeof(id));
}

static bool is_text(const struct identify_head *head)
{
	for (size_t i = 0; i < head->size_bytes; i++) {
		uint8_t c = head->bytes[i];
		if ((c < ' ' && c != '\n' && c != '\r' && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

enum { SHOWN_BYTES = 4, SECTOR_BYTES = 512 };

static void show_bytes(char text[3 * SHOWN_BYTES + 1], const struct identify_head *head, size_t offset)
{
	size_t count = (size_t)min_u64(head->size_bytes - offset, SHOWN_BYTES);
	text[0] = 0;
	for (size_t i = 0; i < count; i++)
		(void)snprintf(text + 3 * i - (i > 0), 4, i ? " %02x" : "%02x", head->bytes[offset + i]);
}

static const char *guess_name(const struct image *image, const struct identify_head *head)
{
	if (is_iso(image))
		return "an ISO 9660 disk image";
	if (identify_match(head, 510, "\x55\xaa", 2))
		return "a disk image or boot sector";
	if (is_text(head))
		return "a text file";
	return NULL;
}

int identify_refuse(const struct image *image, const struct identify_head *head, struct err *err)
{
	char found[3 * SHOWN_BYTES + 1];
	if (head->size_bytes == 0)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "the file is empty");
	if (head->size_bytes < SECTOR_BYTES && identify_match(head, 0, "MZ", 2))
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "a truncated file: %zu bytes that begin with MZ",
				  head->size_bytes);

	const struct file_type *type = find_type(head);
	if (type) {
		show_bytes(found, head, type->offset);
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "this is %s (found %s at byte %u)" KERNEL_ACCEPTED,
				  type->name, found, type->offset);
	}
	const char *name = guess_name(image, head);
	if (name)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "this is %s" KERNEL_ACCEPTED, name);
	show_bytes(found, head, 0);
	return err_config(err, -ENOEXEC,
			  KERNEL_REFUSED "of unknown format (%" PRIu64 " bytes, begins with %s)" KERNEL_ACCEPTED,
			  image->size_bytes, found);
}
