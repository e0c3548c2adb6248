#include "loader/initrd.h"

#include <errno.h>
#include <inttypes.h>

#include "util.h"

/*
 * Each file begins on a page, so that it can be mapped and not only the first. Linux asks for 4 bytes, and
 * allows any number of zeros between archives (Documentation/driver-api/early-userspace/buffer-format.rst).
 */
enum { INITRD_ALIGN = GMEM_PAGE_SIZE };

static int total_size(const struct load_plan *plan, uint64_t *ret_size_bytes, struct err *err)
{
	uint64_t total = 0;
	for (unsigned i = 0; i < plan->initrd_count; i++) {
		const struct image *image = &plan->initrds[i];
		if (image->size_bytes == 0)
			return err_config(err, -EINVAL, "initrd '%s': the file is empty", image->path);
		total = align_up(total, INITRD_ALIGN);
		/* The largest file offset is half of the type, and `total` stays below that. */
		if (image->size_bytes > INT64_MAX - INITRD_ALIGN - total)
			return err_config(err, -ENOSPC, "initrd '%s': too big", image->path);
		total += image->size_bytes;
	}
	*ret_size_bytes = total;
	return 0;
}

int initrd_place(struct place *place, gpa_t end, struct initrd *ret_initrd, struct err *err)
{
	const struct load_plan *plan = place->plan;
	struct initrd initrd = {0};
	int rc = total_size(plan, &initrd.size_bytes, err);
	if (rc < 0)
		return rc;
	if (initrd.size_bytes > 0) {
		end = min_u64(end, plan->low_ram_end);
		rc = place_take_highest(place, "the initrd", initrd.size_bytes, end, &initrd.base);
	}
	if (rc < 0)
		return err_config(err, rc,
				  "initrd '%s'%s: too big: %" PRIu64
				  " MiB do not fit beside the kernel below 0x%" PRIx64 "; the VM has %" PRIu64
				  " MiB of RAM",
				  plan->initrds[0].path, plan->initrd_count > 1 ? " and the others" : "",
				  mib_up(initrd.size_bytes), end, gmem_size_bytes(plan->gmem) >> 20);
	*ret_initrd = initrd;
	return 0;
}

int initrd_load(const struct load_plan *plan, const struct initrd *initrd, struct err *err)
{
	gpa_t gpa = initrd->base;
	for (unsigned i = 0; i < plan->initrd_count; i++) {
		const struct image *image = &plan->initrds[i];
		int rc = gmem_load_file(plan->gmem, gpa, image->fd, 0, image->size_bytes);
		if (rc < 0) {
			rc = kernel_read_failed(rc, err);
			(void)err_wrap(err, "initrd '%s'", image->path);
			return rc;
		}
		gpa_t next = align_up(gpa + image->size_bytes, INITRD_ALIGN);
		gpa_t end = gpa + image->size_bytes;
		if (i + 1 < plan->initrd_count)
			(void)gmem_fill(plan->gmem, end, 0, (size_t)(next - end));
		gpa = next;
	}
	return 0;
}
