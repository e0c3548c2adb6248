#include "loader/loader.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "loader/boot_params.h"
#include "loader/identify.h"
#include "loader/initrd.h"
#include "loader/kernel.h"
#include "loader/place.h"
#include "loader/pvh.h"
#include "util.h"

int kernel_read_failed(int rc, struct err *err)
{
	if (rc == -ENODATA)
		return err_config(err, rc, "the file has become shorter while it was being read");
	return err_set(err, rc, "read: %s", err_name(rc));
}

static int parse(const struct image *image, enum boot_protocol protocol, struct kernel_file *ret_kernel,
		 struct err *err)
{
	struct identify_head head;
	int rc = identify_read_head(image, &head);
	if (rc < 0)
		return kernel_read_failed(rc, err);
	ret_kernel->segment_count = 0;
	ret_kernel->setup_header_bytes = 0;
	if (identify_match(&head, 0, ELFMAG, SELFMAG))
		return elf_parse(image, protocol, ret_kernel, err);
	if (identify_match(&head, SETUP_HEADER, "HdrS", 4) && identify_match(&head, SETUP_BOOT_FLAG, "\x55\xaa", 2))
		return bzimage_parse(image, protocol, ret_kernel, err);
	return identify_refuse(image, &head, err);
}

/* Every sentence about a kernel begins with its name. */
static int fail(const struct image *image, int rc, struct err *err)
{
	(void)err_wrap(err, "kernel '%s'", image->path);
	return rc;
}

int kernel_probe(const struct image *kernel, enum boot_protocol protocol, enum kernel_kind *ret_kind, struct err *err)
{
	struct kernel_file file = {0};
	int rc = parse(kernel, protocol, &file, err);
	if (rc < 0)
		return fail(kernel, rc, err);
	*ret_kind = file.kind;
	return 0;
}

static int check_cmdline(const struct load_plan *plan, const struct kernel_file *kernel, struct err *err)
{
	assert(plan->area.cmdline_size_bytes > 0);
	uint64_t room = min_u64(kernel->cmdline_max_bytes, plan->area.cmdline_size_bytes - 1);
	size_t length = strlen(plan->cmdline);
	if (length > room)
		return err_config(err, -E2BIG, "the command line has %zu bytes; this kernel takes at most %" PRIu64,
				  length, room);
	return 0;
}

/* From the last segment, which is commonly the highest: its end is how much RAM the kernel needs. */
static int place_kernel(struct place *place, const struct kernel_file *kernel, struct err *err)
{
	const char *what = kernel->kind == KERNEL_BZIMAGE ? "the kernel" : "a segment of the kernel";
	for (unsigned i = kernel->segment_count; i-- > 0;) {
		const struct kernel_segment *segment = &kernel->segments[i];
		int rc = place_take(place, what, segment->paddr, segment->mem_bytes, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/*
 * RAM is fresh, so the bytes behind a segment's file part are zero already; touching them would only cost page
 * faults. The rest of the last page is paid for, so that one is made sure of.
 */
static void zero_tail(struct gmem *gmem, const struct kernel_segment *segment)
{
	gpa_t end = segment->paddr + segment->file_bytes;
	uint64_t tail = (GMEM_PAGE_SIZE - end % GMEM_PAGE_SIZE) % GMEM_PAGE_SIZE;
	int rc = gmem_fill(gmem, end, 0, (size_t)min_u64(tail, segment->mem_bytes - segment->file_bytes));
	assert(rc == 0);
}

static int load_segments(const struct load_plan *plan, const struct kernel_file *kernel, struct err *err)
{
	for (unsigned i = 0; i < kernel->segment_count; i++) {
		const struct kernel_segment *segment = &kernel->segments[i];
		if (segment->file_bytes == 0)
			continue;
		int rc = gmem_load_file(plan->gmem, segment->paddr, plan->kernel->fd, segment->offset,
					segment->file_bytes);
		if (rc < 0)
			return kernel_read_failed(rc, err);
		zero_tail(plan->gmem, segment);
	}
	return 0;
}

static void write_info(const struct load_plan *plan, const struct kernel_file *kernel, const struct initrd *initrd)
{
	int rc = gmem_write(plan->gmem, plan->area.cmdline, plan->cmdline, strlen(plan->cmdline) + 1);
	assert(rc == 0); /* load_area is the board's, and in RAM */
	if (kernel->protocol == BOOT_PVH)
		pvh_write(plan, initrd);
	else
		boot_params_write(plan, kernel, initrd);
}

/* All is checked and placed before the first byte of guest memory is written. */
int kernel_load(const struct load_plan *plan, struct load_result *ret_result, struct err *err)
{
	struct kernel_file kernel = {0};
	struct place place;
	struct initrd initrd;

	place_init(&place, plan);
	int rc = parse(plan->kernel, plan->protocol, &kernel, err);
	if (rc == 0)
		rc = check_cmdline(plan, &kernel, err);
	if (rc == 0)
		rc = place_kernel(&place, &kernel, err);
	if (rc < 0)
		return fail(plan->kernel, rc, err);
	rc = initrd_place(&place, kernel.initrd_end, &initrd, err);
	if (rc < 0)
		return rc;

	rc = load_segments(plan, &kernel, err);
	if (rc < 0)
		return fail(plan->kernel, rc, err);
	rc = initrd_load(plan, &initrd, err);
	if (rc < 0)
		return rc;
	write_info(plan, &kernel, &initrd);
	*ret_result = (struct load_result){kernel.protocol, kernel.entry, plan->area.boot_params};
	return 0;
}
