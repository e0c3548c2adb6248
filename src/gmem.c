#include "gmem.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fd.h"
#include "util.h"

/* Below this, the system call and the later faults of a mapping cost more than the copy. */
static const uint64_t MAP_THRESHOLD_BYTES = KIB(256);

/*
 * From here on memory is backed by huge pages: a guest's I/O buffers then cost the host one page walk for 2 MiB, which
 * more than doubles large direct reads. Below lie the boot structures and a small guest, which would only be zeroed for
 * longer.
 */
static const uint64_t HUGE_PAGES_FROM_BYTES = MIB(16);
static const uint64_t HUGE_PAGE_SIZE = MIB(2);

#ifndef MADV_DONTNEED_LOCKED /* Linux 5.18; musl does not have it */
enum { MADV_DONTNEED_LOCKED = 24 };
#endif

/*
 * NORESERVE: overcommit is the user's choice, as it is for every other memory of a VM. DONTFORK: a child of the host
 * program has no use for a guest's memory, and must not make the two of them copy it page by page.
 */
static int map_region(struct gmem_region *region)
{
	uint64_t size_bytes = region->size_bytes + HUGE_PAGE_SIZE;
	if (size_bytes < HUGE_PAGE_SIZE)
		return -ENOMEM;
	uint8_t *start =
		mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return -errno;

	/* Huge pages need guest and host addresses that agree within one; what is too much at both ends goes back. */
	uint64_t slack = (region->base - (uintptr_t)start) & (HUGE_PAGE_SIZE - 1);
	region->host = start + slack;
	if (slack)
		munmap(start, slack);
	munmap(region->host + region->size_bytes, HUGE_PAGE_SIZE - slack);

	(void)madvise(region->host, region->size_bytes, MADV_DONTFORK);
	if (region->size_bytes > HUGE_PAGES_FROM_BYTES)
		(void)madvise(region->host + HUGE_PAGES_FROM_BYTES, region->size_bytes - HUGE_PAGES_FROM_BYTES,
			      MADV_HUGEPAGE);
	return 0;
}

struct gmem *gmem_new(const struct gmem_region *regions, unsigned count, struct err *err)
{
	assert(count > 0 && count <= GMEM_REGIONS_MAX);

	struct gmem *gmem = calloc(1, sizeof(*gmem));
	if (!gmem) {
		err_set(err, -ENOMEM, "guest memory: %s", err_name(ENOMEM));
		return NULL;
	}
	for (unsigned i = 0; i < count; i++) {
		struct gmem_region *region = &gmem->regions[gmem->region_count];
		*region = (struct gmem_region){regions[i].base, regions[i].size_bytes, NULL};
		int r = map_region(region);
		if (r < 0) {
			err_set(err, r, "guest memory: %llu MiB: %s", (unsigned long long)(region->size_bytes >> 20),
				err_name(r));
			gmem_free(gmem);
			return NULL;
		}
		gmem->region_count++;
	}
	return gmem;
}

void gmem_free(struct gmem *gmem)
{
	if (!gmem)
		return;
	for (unsigned i = 0; i < gmem->region_count; i++)
		munmap(gmem->regions[i].host, gmem->regions[i].size_bytes);
	free(gmem);
}

uint64_t gmem_size_bytes(const struct gmem *gmem)
{
	uint64_t size = 0;
	for (unsigned i = 0; i < gmem->region_count; i++)
		size += gmem->regions[i].size_bytes;
	return size;
}

/* The host bytes from `gpa` to the end of its region; NULL when it is not RAM. */
static uint8_t *region_tail(const struct gmem *gmem, gpa_t gpa, uint64_t *ret_size_bytes)
{
	for (unsigned i = 0; i < gmem->region_count; i++) {
		const struct gmem_region *region = &gmem->regions[i];
		if (gpa < region->base || gpa - region->base >= region->size_bytes)
			continue;
		*ret_size_bytes = region->size_bytes - (gpa - region->base);
		return region->host + (gpa - region->base);
	}
	return NULL;
}

static bool range_is_ram(const struct gmem *gmem, gpa_t gpa, uint64_t size_bytes)
{
	if (size_bytes && size_bytes - 1 > UINT64_MAX - gpa)
		return false;
	while (size_bytes) {
		uint64_t tail;
		if (!region_tail(gmem, gpa, &tail))
			return false;
		if (size_bytes <= tail)
			return true;
		size_bytes -= tail;
		gpa += tail;
	}
	return true;
}

/* Walk a range that range_is_ram has accepted, span by span. */
struct span {
	uint8_t *host;
	size_t size_bytes;
};

static struct span next_span(const struct gmem *gmem, gpa_t gpa, size_t size_bytes)
{
	uint64_t tail = 0;
	uint8_t *host = region_tail(gmem, gpa, &tail);
	assert(host);
	return (struct span){host, (size_t)min_u64(tail, size_bytes)};
}

int gmem_read(const struct gmem *gmem, gpa_t gpa, void *ret_data, size_t size_bytes)
{
	if (!range_is_ram(gmem, gpa, size_bytes))
		return -EFAULT;

	for (uint8_t *to = ret_data; size_bytes;) {
		struct span span = next_span(gmem, gpa, size_bytes);
		memcpy(to, span.host, span.size_bytes);
		to += span.size_bytes;
		gpa += span.size_bytes;
		size_bytes -= span.size_bytes;
	}
	return 0;
}

int gmem_write(struct gmem *gmem, gpa_t gpa, const void *data, size_t size_bytes)
{
	if (!range_is_ram(gmem, gpa, size_bytes))
		return -EFAULT;

	for (const uint8_t *from = data; size_bytes;) {
		struct span span = next_span(gmem, gpa, size_bytes);
		memcpy(span.host, from, span.size_bytes);
		from += span.size_bytes;
		gpa += span.size_bytes;
		size_bytes -= span.size_bytes;
	}
	return 0;
}

int gmem_fill(struct gmem *gmem, gpa_t gpa, uint8_t byte, size_t size_bytes)
{
	if (!range_is_ram(gmem, gpa, size_bytes))
		return -EFAULT;

	while (size_bytes) {
		struct span span = next_span(gmem, gpa, size_bytes);
		memset(span.host, byte, span.size_bytes);
		gpa += span.size_bytes;
		size_bytes -= span.size_bytes;
	}
	return 0;
}

/* A range that does not lie inside one region: it crosses a seam, or it is not RAM. */
static int iov_across_seams(const struct gmem *gmem, gpa_t gpa, size_t size_bytes, struct iovec *iov, unsigned iov_max)
{
	if (!range_is_ram(gmem, gpa, size_bytes))
		return -EFAULT;

	int count = 0;
	while (size_bytes) {
		if ((unsigned)count == iov_max)
			return -ENOBUFS;
		struct span span = next_span(gmem, gpa, size_bytes);
		iov[count++] = (struct iovec){span.host, span.size_bytes};
		gpa += span.size_bytes;
		size_bytes -= span.size_bytes;
	}
	return count;
}

/* Called for each descriptor of a ring: nearly always one region has all of the range. */
int gmem_iov(const struct gmem *gmem, gpa_t gpa, size_t size_bytes, struct iovec *iov, unsigned iov_max)
{
	uint64_t tail;
	uint8_t *host = region_tail(gmem, gpa, &tail);
	if (!host || size_bytes > tail || size_bytes == 0 || iov_max == 0)
		return iov_across_seams(gmem, gpa, size_bytes, iov, iov_max);

	*iov = (struct iovec){host, size_bytes};
	return 1;
}

void *gmem_view(const struct gmem *gmem, gpa_t gpa, size_t size_bytes, size_t align_bytes)
{
	uint64_t tail;
	uint8_t *host = region_tail(gmem, gpa, &tail);
	if (!host || size_bytes > tail)
		return NULL;
	/* Regions begin on pages here and there, so both addresses are aligned alike. */
	assert(align_bytes <= GMEM_PAGE_SIZE);
	return gpa & (align_bytes - 1) ? NULL : host;
}

int gmem_peek(const struct gmem *gmem, gpa_t gpa, void *ret_data, size_t size_bytes)
{
	if (!range_is_ram(gmem, gpa, size_bytes))
		return -EFAULT;

	for (uint8_t *at = ret_data; size_bytes;) {
		struct span span = next_span(gmem, gpa, size_bytes);
		struct iovec to = {at, span.size_bytes}, from = {span.host, span.size_bytes};
		/* The kernel copies, and reports a fault instead of raising it. */
		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)span.size_bytes)
			return -EFAULT;
		at += span.size_bytes;
		gpa += span.size_bytes;
		size_bytes -= span.size_bytes;
	}
	return 0;
}

static void *map_at(uint8_t *host, size_t size_bytes, int flags, int fd, uint64_t offset)
{
	flags |= MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
	return mmap(host, size_bytes, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
}

/*
 * Lay whole file pages over whole guest pages: 1, or 0 where that cannot be, with RAM as it was (but for huge pages):
 * before 6.12 a file system may refuse after the kernel has taken the old mapping away.
 */
static int map_file_pages(struct span span, int fd, uint64_t offset)
{
	bool is_file = map_at(span.host, span.size_bytes, 0, fd, offset) != MAP_FAILED;
	if (!is_file && map_at(span.host, span.size_bytes, MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		return -errno;
	(void)madvise(span.host, span.size_bytes, MADV_DONTFORK);
	return is_file;
}

static int load_span(struct span span, int fd, uint64_t offset)
{
	uint64_t head = (GMEM_PAGE_SIZE - ((uintptr_t)span.host & (GMEM_PAGE_SIZE - 1))) & (GMEM_PAGE_SIZE - 1);
	bool congruent = (((uintptr_t)span.host ^ offset) & (GMEM_PAGE_SIZE - 1)) == 0;
	if (!congruent || span.size_bytes < head + MAP_THRESHOLD_BYTES)
		return fd_pread_all(fd, span.host, span.size_bytes, offset);

	size_t pages = (size_t)align_down(span.size_bytes - head, GMEM_PAGE_SIZE);
	size_t tail = span.size_bytes - (size_t)head - pages;
	int r = map_file_pages((struct span){span.host + head, pages}, fd, offset + head);
	if (r < 0)
		return r;
	if (r == 0)
		return fd_pread_all(fd, span.host, span.size_bytes, offset);
	r = fd_pread_all(fd, span.host, (size_t)head, offset);
	if (r < 0)
		return r;
	return fd_pread_all(fd, span.host + head + pages, tail, offset + head + pages);
}

int gmem_load_file(struct gmem *gmem, gpa_t gpa, int fd, uint64_t offset, uint64_t size_bytes)
{
	if (!range_is_ram(gmem, gpa, size_bytes))
		return -EFAULT;

	/* A mapping beyond the end of the file would turn into SIGBUS later; refuse it now. */
	off_t file_size = lseek(fd, 0, SEEK_END);
	if (file_size < 0)
		return -errno;
	if (offset > (uint64_t)file_size || size_bytes > (uint64_t)file_size - offset)
		return -ENODATA;

	while (size_bytes) {
		struct span span = next_span(gmem, gpa, (size_t)size_bytes);
		int r = load_span(span, fd, offset);
		if (r < 0)
			return r;
		gpa += span.size_bytes;
		offset += span.size_bytes;
		size_bytes -= span.size_bytes;
	}
	return 0;
}

/* --- giving memory back ------------------------------------------------------------------------------------- */

static bool is_whole_pages(uint64_t start, uint64_t size_bytes)
{
	return ((start | size_bytes) & (GMEM_PAGE_SIZE - 1)) == 0;
}

/*
 * The kernel takes the pages out of our page table at once, whoever uses them, and that is harmless:
 *
 *  - vCPUs: KVM's MMU notifier takes a page out of the guest's table and flushes the TLBs of all vCPUs before it is
 *    freed. A vCPU that touches it afterwards faults, and gets a new page.
 *  - I/O in flight (io_uring, O_DIRECT) holds a reference: it ends in the old page, which nobody sees any more.
 *  - This process, on any thread, gets a new page like a vCPU. Rings may turn into zeroes under our eyes, as the guest
 *    could have made them at any time.
 *
 * So the only one who can lose data is the guest, by giving up a page that it uses. Part of a huge page is given back
 * too: it is split. The _LOCKED variant because a host program may have locked all of its memory (mlockall), and
 * MADV_DONTNEED refuses that.
 */
static int discard_span(struct span span)
{
	return madvise(span.host, span.size_bytes, MADV_DONTNEED_LOCKED) < 0 ? -EIO : 0;
}

int gmem_discard(struct gmem *gmem, gpa_t gpa, uint64_t size_bytes)
{
	if (!is_whole_pages(gpa, size_bytes))
		return -EINVAL;
	if (!range_is_ram(gmem, gpa, size_bytes))
		return -EFAULT;

	while (size_bytes) {
		struct span span = next_span(gmem, gpa, (size_t)size_bytes);
		int r = discard_span(span);
		if (r < 0)
			return r;
		gpa += span.size_bytes;
		size_bytes -= span.size_bytes;
	}
	return 0;
}

static bool span_is_ram(const struct gmem *gmem, const struct iovec *iov)
{
	uintptr_t at = (uintptr_t)iov->iov_base;
	for (unsigned i = 0; i < gmem->region_count; i++) {
		const struct gmem_region *region = &gmem->regions[i];
		uintptr_t start = (uintptr_t)region->host;
		if (at >= start && at - start < region->size_bytes)
			return iov->iov_len <= region->size_bytes - (at - start);
	}
	return false;
}

int gmem_discard_iov(struct gmem *gmem, const struct iovec *iov, unsigned iov_count)
{
	for (unsigned i = 0; i < iov_count; i++) {
		if (!is_whole_pages((uintptr_t)iov[i].iov_base, iov[i].iov_len))
			return -EINVAL;
		if (!span_is_ram(gmem, &iov[i]))
			return -EFAULT;
	}
	for (unsigned i = 0; i < iov_count; i++) {
		int r = discard_span((struct span){iov[i].iov_base, iov[i].iov_len});
		if (r < 0)
			return r;
	}
	return 0;
}
