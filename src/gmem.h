/*
 * Guest memory: RAM regions and the only accessors by guest-physical address.
 *
 * Law 4: nothing takes a guest address without a length, and nothing hands a device a bare pointer. Every
 * function checks the whole range before it touches a byte, by subtraction, so that nothing wraps; a range
 * may span regions that touch, and one that ends at the last byte of RAM is legal.
 *
 * RAM is private anonymous memory, because only that is given huge pages everywhere. `gmem_load_file` may lay a
 * private (copy-on-write) mapping of a kernel or initrd file over whole pages of it: an image of any size is
 * loaded in microseconds, and VMs that boot the same file share its untouched pages in the page cache.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "err.h"

typedef uint64_t gpa_t;

enum { GMEM_PAGE_SIZE = 4096, GMEM_REGIONS_MAX = 4 };

struct gmem_region {
	gpa_t base;          /* bytes, page aligned */
	uint64_t size_bytes; /* page aligned, not 0 */
	uint8_t *host;       /* filled by gmem_new */
};

struct gmem {
	unsigned region_count;
	struct gmem_region regions[GMEM_REGIONS_MAX]; /* ascending, disjoint */
};

/* Make RAM for `count` ascending, disjoint regions (base and size_bytes filled). NULL with `err` set. [setup] */
struct gmem *gmem_new(const struct gmem_region *regions, unsigned count, struct err *err);
void gmem_free(struct gmem *gmem);

uint64_t gmem_size_bytes(const struct gmem *gmem);

/* Copy; 0, or -EFAULT with nothing touched when any byte of the range is not RAM. [any] */
int gmem_read(const struct gmem *gmem, gpa_t gpa, void *ret_data, size_t size_bytes);
int gmem_write(struct gmem *gmem, gpa_t gpa, const void *data, size_t size_bytes);
int gmem_fill(struct gmem *gmem, gpa_t gpa, uint8_t byte, size_t size_bytes);

/*
 * The host memory behind a range, for I/O straight to and from it: fills up to iov_max spans and returns their
 * count. -EFAULT when any byte is not RAM, -ENOBUFS when iov_max is too few (a range inside one region needs one).
 * The spans stay valid until gmem_free; the guest may change the bytes at any time. [any]
 */
int gmem_iov(const struct gmem *gmem, gpa_t gpa, size_t size_bytes, struct iovec *iov, unsigned iov_max);

/*
 * A window for a structure that is shared with the guest (a ring): all of it inside one region, aligned to
 * `align_bytes` (a power of two). NULL when it cannot be. Access it with atomics only. Valid until gmem_free. [any]
 */
void *gmem_view(const struct gmem *gmem, gpa_t gpa, size_t size_bytes, size_t align_bytes);

/*
 * gmem_read for diagnostics: -EFAULT also where the host cannot give the page any more (a kernel file that was
 * cut short while it was mapped), instead of SIGBUS. [any]
 */
int gmem_peek(const struct gmem *gmem, gpa_t gpa, void *ret_data, size_t size_bytes);

/*
 * Load `size_bytes` at `offset` of the open regular file `fd` to `gpa`: by mapping where file offset and
 * guest address agree within a page and it is worth it, by reading elsewhere. 0; -EFAULT when the range is
 * not RAM; -ENODATA when the file ends early; -errno of the failed call. [setup]
 */
int gmem_load_file(struct gmem *gmem, gpa_t gpa, int fd, uint64_t offset, uint64_t size_bytes);

/*
 * Give the host back the memory behind whole pages; what the guest reads there afterwards is undefined (zeroes, or a
 * file that gmem_load_file mapped). 0; with nothing touched -EINVAL when it is not whole pages, -EFAULT when any of it
 * is not RAM; -EIO when the host refuses. [any]
 */
int gmem_discard(struct gmem *gmem, gpa_t gpa, uint64_t size_bytes);

/* The same for spans that gmem_iov gave out, or whole pages of them (-EFAULT when one of them is not RAM's). [any] */
int gmem_discard_iov(struct gmem *gmem, const struct iovec *iov, unsigned iov_count);
