/*
 * bzImage: 16-bit setup code, then the protected-mode part, which is entered in long mode at +0x200.
 *
 * It goes to pref_address even when it could be relocated: when it finds itself lower, the decompressor of
 * x86-64 Linux moves the kernel up to that address anyhow (LOAD_PHYSICAL_ADDR), so init_size bytes of RAM from
 * there on are what it needs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

#include "loader/boot_params.h"
#include "loader/kernel.h"
#include "util.h"

enum {
	SECTOR_BYTES = 512,
	ENTRY_64_OFFSET = 0x200,
	SYSSIZE_UNIT_BYTES = 16,
};

/* A field of the header by its offset in the file. */
static const uint8_t *field(const struct kernel_file *kernel, unsigned offset)
{
	return kernel->setup_header + (offset - SETUP_SECTS);
}

static int read_header(const struct image *image, struct kernel_file *kernel, struct err *err)
{
	if (image->size_bytes < SETUP_END_2_12)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "a truncated bzImage: %" PRIu64 " bytes",
				  image->size_bytes);
	kernel->setup_header_bytes = (unsigned)min_u64(image->size_bytes - SETUP_SECTS, sizeof(kernel->setup_header));
	int rc = image_read(image, SETUP_SECTS, kernel->setup_header, kernel->setup_header_bytes);
	return rc < 0 ? kernel_read_failed(rc, err) : 0;
}

/* Keep what the header's own length says, and at least the fields that are used here. */
static void trim_header(struct kernel_file *kernel)
{
	uint64_t end = SETUP_HEADER + (uint64_t)*field(kernel, SETUP_JUMP + 1);
	uint64_t bytes = max_u64(end, SETUP_END_2_12) - SETUP_SECTS;
	kernel->setup_header_bytes = (unsigned)min_u64(bytes, kernel->setup_header_bytes);
}

static int check_protocol(const struct kernel_file *kernel, enum boot_protocol wanted, struct err *err)
{
	unsigned version = le16_load(field(kernel, SETUP_VERSION));
	unsigned loadflags = *field(kernel, SETUP_LOADFLAGS);
	/* xloadflags came with 2.12, in Linux 3.8. */
	unsigned xloadflags = version >= SETUP_VERSION_2_12 ? le16_load(field(kernel, SETUP_XLOADFLAGS)) : 0;

	if (!(loadflags & SETUP_LOADED_HIGH))
		return err_config(err, -ENOEXEC,
				  KERNEL_REFUSED
				  "this is a zImage or a 16-bit program with a Linux "
				  "setup header (boot protocol %u.%02u, LOADED_HIGH not set)" KERNEL_ACCEPTED,
				  version >> 8, version & 0xff);
	if (!(xloadflags & SETUP_XLF_KERNEL_64))
		return err_config(err, -ENOEXEC,
				  KERNEL_REFUSED
				  "this bzImage has only the 16-bit and 32-bit entry "
				  "points (boot protocol %u.%02u, XLF_KERNEL_64 not set)" KERNEL_ACCEPTED,
				  version >> 8, version & 0xff);
	if (wanted == BOOT_PVH)
		return err_config(err, -ENOTSUP,
				  "PVH boot was asked for, but this is a bzImage, which has no PVH entry; "
				  "its vmlinux may have one");
	return 0;
}

/* runtime_start of boot.rst, and the memory that the kernel needs from there on. */
static int find_address(const struct kernel_file *kernel, struct kernel_segment *segment, struct err *err)
{
	uint64_t preferred = le64_load(field(kernel, SETUP_PREF_ADDRESS));
	uint64_t align = le32_load(field(kernel, SETUP_KERNEL_ALIGNMENT));
	bool is_relocatable = *field(kernel, SETUP_RELOCATABLE_KERNEL);

	if (preferred == 0)
		preferred = MIB(1);
	if (align == 0 || (align & (align - 1)) != 0)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "a damaged bzImage: kernel_alignment is 0x%" PRIx64,
				  align);
	if (preferred < MIB(1) || preferred > UINT32_MAX)
		return err_config(err, -ENOEXEC, KERNEL_REFUSED "a damaged bzImage: pref_address is 0x%" PRIx64,
				  preferred);
	segment->paddr = segment->vaddr = is_relocatable ? align_up(preferred, align) : preferred;
	segment->mem_bytes = max_u64(segment->file_bytes, le32_load(field(kernel, SETUP_INIT_SIZE)));
	return 0;
}

/* The bytes after the setup code; a signature may follow them, and syssize is rounded up. */
static int find_payload(const struct image *image, const struct kernel_file *kernel, struct kernel_segment *segment,
			struct err *err)
{
	unsigned setup_sects = *field(kernel, SETUP_SECTS);
	uint64_t syssize = (uint64_t)le32_load(field(kernel, SETUP_SYSSIZE)) * SYSSIZE_UNIT_BYTES;

	segment->offset = ((setup_sects ? setup_sects : 4) + 1) * (uint64_t)SECTOR_BYTES;
	uint64_t rest = image->size_bytes - min_u64(segment->offset, image->size_bytes);
	if (syssize > rest && syssize - rest >= SYSSIZE_UNIT_BYTES)
		return err_config(err, -ENOEXEC,
				  KERNEL_REFUSED "a truncated bzImage: it has %" PRIu64
						 " bytes and should have %" PRIu64,
				  image->size_bytes, segment->offset + syssize);
	segment->file_bytes = min_u64(syssize, rest);
	if (segment->file_bytes <= ENTRY_64_OFFSET)
		return err_config(err, -ENOEXEC,
				  KERNEL_REFUSED "a damaged bzImage: its 64-bit entry lies beyond its "
						 "code (syssize is %" PRIu64 " bytes)",
				  syssize);
	return 0;
}

int bzimage_parse(const struct image *image, enum boot_protocol protocol, struct kernel_file *ret_kernel,
		  struct err *err)
{
	struct kernel_segment *segment = &ret_kernel->segments[0];
	int rc = read_header(image, ret_kernel, err);
	if (rc == 0)
		rc = check_protocol(ret_kernel, protocol, err);
	if (rc == 0)
		rc = find_payload(image, ret_kernel, segment, err);
	if (rc == 0)
		rc = find_address(ret_kernel, segment, err);
	if (rc < 0)
		return rc;

	ret_kernel->kind = KERNEL_BZIMAGE;
	ret_kernel->protocol = BOOT_LINUX64;
	ret_kernel->segment_count = 1;
	ret_kernel->entry = segment->paddr + ENTRY_64_OFFSET;
	ret_kernel->cmdline_max_bytes = le32_load(field(ret_kernel, SETUP_CMDLINE_SIZE));
	ret_kernel->initrd_end = (gpa_t)le32_load(field(ret_kernel, SETUP_INITRD_ADDR_MAX)) + 1;
	trim_header(ret_kernel);
	return 0;
}
