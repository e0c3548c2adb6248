/* Guest memory: every edge of a range, and files laid into it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "gmem.h"
#include "util.h"

enum { PAGE = GMEM_PAGE_SIZE };

/* --- a host whose mmap fails late, as Linux before 6.12 may: after it has taken the old mapping away ----------- */

static bool file_maps_fail;
static unsigned file_maps;

void *__real_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
void *__real_mmap64(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *addr, size_t size, int prot, int flags, int fd, off_t offset);

static bool refuses(void *addr, size_t size, int flags)
{
	if (!(flags & MAP_FIXED) || (flags & MAP_ANONYMOUS))
		return false;
	file_maps++;
	if (!file_maps_fail)
		return false;
	munmap(addr, size);
	errno = ENODEV;
	return true;
}

void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	return refuses(addr, size, flags) ? MAP_FAILED : __real_mmap(addr, size, prot, flags, fd, offset);
}

void *__wrap_mmap64(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	return refuses(addr, size, flags) ? MAP_FAILED : __real_mmap64(addr, size, prot, flags, fd, offset);
}

/* --- RAM: [0, 4M), a hole, [8M, 12M) and [12M, 16M) that touch ------------------------------------------------- */

static struct gmem *gmem;
static const uint64_t LOW_END = MIB(4), HIGH = MIB(8), SEAM = MIB(12), HIGH_END = MIB(16);

static int setup(void **state)
{
	(void)state;
	const struct gmem_region regions[] = {{0, MIB(4), NULL}, {MIB(8), MIB(4), NULL}, {MIB(12), MIB(4), NULL}};
	gmem = gmem_new(regions, ARRAY_SIZE(regions), NULL);
	file_maps_fail = false;
	file_maps = 0;
	return gmem ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	gmem_free(gmem);
	return 0;
}

static void new_ram_is_zero_and_its_size_is_the_sum(void **state)
{
	(void)state;
	assert_int_equal(gmem_size_bytes(gmem), MIB(12));
	uint64_t word = 1;
	assert_int_equal(gmem_read(gmem, LOW_END - 8, &word, 8), 0);
	assert_int_equal(word, 0);
	gmem_free(NULL);
}

struct edge {
	gpa_t gpa;
	uint64_t size;
	int code;
};

static void every_edge(void **state)
{
	(void)state;
	const struct edge edges[] = {
		{0, 1, 0},
		{LOW_END - 1, 1, 0},
		{LOW_END - 8, 8, 0},
		{LOW_END - 1, 2, -EFAULT},
		{LOW_END, 1, -EFAULT},
		{HIGH - 1, 1, -EFAULT},
		{HIGH - 1, 2, -EFAULT},
		{HIGH, 1, 0},
		{SEAM - 4, 8, 0},
		{HIGH_END - 1, 1, 0},
		{HIGH_END - 1, 2, -EFAULT},
		{HIGH_END, 1, -EFAULT},
		{UINT64_MAX, 1, -EFAULT},
		{UINT64_MAX, 2, -EFAULT},
		{UINT64_MAX - 3, 8, -EFAULT},
		{LOW_END, 0, 0}, /* no byte of it is not RAM */
		{UINT64_MAX, 0, 0},
	};
	uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
		const struct edge *e = &edges[i];
		assert_int_equal(gmem_write(gmem, e->gpa, data, e->size), e->code);
		uint8_t back[8] = {0};
		assert_int_equal(gmem_read(gmem, e->gpa, back, e->size), e->code);
		assert_memory_equal(back, e->code ? (uint8_t[8]){0} : data, e->size);
		assert_int_equal(gmem_fill(gmem, e->gpa, 0, e->size), e->code);
	}
}

static void sizes_that_would_wrap(void **state)
{
	(void)state;
	uint8_t byte = 0;
	assert_int_equal(gmem_read(gmem, 1, &byte, SIZE_MAX), -EFAULT);
	assert_int_equal(gmem_read(gmem, HIGH, &byte, UINT64_MAX - HIGH + 1), -EFAULT);
	assert_int_equal(gmem_read(gmem, HIGH_END - 1, &byte, UINT64_MAX - HIGH_END + 3), -EFAULT);
	assert_int_equal(gmem_fill(gmem, HIGH, 1, UINT64_MAX), -EFAULT);
	assert_int_equal(gmem_load_file(gmem, HIGH, -1, 0, UINT64_MAX), -EFAULT);
}

/* RAM up to the last address does not go on at address 0. */
static void the_end_of_the_address_space(void **state)
{
	(void)state;
	const struct gmem_region regions[] = {{0, PAGE, NULL}, {UINT64_MAX - PAGE + 1, PAGE, NULL}};
	struct gmem *edge = gmem_new(regions, 2, NULL);
	assert_non_null(edge);
	uint16_t word = 0xabcd;
	assert_int_equal(gmem_write(edge, UINT64_MAX - 1, &word, 2), 0);
	assert_int_equal(gmem_write(edge, UINT64_MAX, &word, 2), -EFAULT);
	assert_int_equal(gmem_fill(edge, UINT64_MAX - PAGE + 1, 1, PAGE + 1), -EFAULT);
	uint8_t first = 1;
	assert_int_equal(gmem_read(edge, 0, &first, 1), 0);
	assert_int_equal(first, 0);
	gmem_free(edge);
}

static void a_refused_write_touches_nothing(void **state)
{
	(void)state;
	uint64_t word = UINT64_MAX;
	assert_int_equal(gmem_write(gmem, LOW_END - 4, &word, 8), -EFAULT);
	uint32_t tail = 1;
	assert_int_equal(gmem_read(gmem, LOW_END - 4, &tail, 4), 0);
	assert_int_equal(tail, 0);
}

static void ranges_across_touching_regions(void **state)
{
	(void)state;
	assert_int_equal(gmem_fill(gmem, SEAM - PAGE, 0x5a, 2 * PAGE), 0);
	uint8_t back[2 * PAGE + 2];
	assert_int_equal(gmem_read(gmem, SEAM - PAGE - 1, back, sizeof(back)), 0);
	assert_int_equal(back[0], 0);
	for (size_t i = 1; i <= 2 * PAGE; i++)
		assert_int_equal(back[i], 0x5a);
	assert_int_equal(back[2 * PAGE + 1], 0);
}

static void impossible_sizes_are_an_error(void **state)
{
	(void)state;
	const struct gmem_region huge = {0, 1ULL << 62, NULL};
	struct err err = {0};
	assert_null(gmem_new(&huge, 1, &err));
	assert_true(err.code < 0);
	assert_non_null(strstr(err.text, "guest memory: "));
}

/* --- spans and windows ---------------------------------------------------------------------------------------- */

/* The spans lead to the bytes that gmem_read finds. */
static void check_iov(gpa_t gpa, size_t size_bytes, int count)
{
	struct iovec iov[3];
	size_t sum = 0;
	assert_int_equal(gmem_iov(gmem, gpa, size_bytes, iov, ARRAY_SIZE(iov)), count);
	for (int i = 0; i < count; i++) {
		memset(iov[i].iov_base, 0x11 + i, iov[i].iov_len);
		uint8_t back[2];
		assert_int_equal(gmem_read(gmem, gpa + sum, &back[0], 1), 0);
		sum += iov[i].iov_len;
		assert_int_equal(gmem_read(gmem, gpa + sum - 1, &back[1], 1), 0);
		assert_true(back[0] == 0x11 + i && back[1] == 0x11 + i);
	}
	assert_int_equal(sum, size_bytes);
	if (count > 0)
		assert_int_equal(gmem_iov(gmem, gpa, size_bytes, iov, (unsigned)count - 1), -ENOBUFS);
}

static void spans_of_every_edge(void **state)
{
	(void)state;
	check_iov(0, 1, 1);
	check_iov(LOW_END - 1, 1, 1);
	check_iov(0, LOW_END, 1);
	check_iov(HIGH, 100, 1);
	check_iov(SEAM - 1, 1, 1);
	check_iov(SEAM - 1, 2, 2);
	check_iov(HIGH, HIGH_END - HIGH, 2);
	check_iov(SEAM, HIGH_END - SEAM, 1);
	check_iov(HIGH_END - 1, 1, 1);
	check_iov(HIGH, 0, 0);
	check_iov(LOW_END, 0, 0);

	const struct {
		gpa_t gpa;
		size_t size_bytes;
	} outside[] = {{LOW_END - 1, 2},   {LOW_END, 1},
		       {HIGH - 1, 2},      {HIGH, HIGH_END - HIGH + 1},
		       {SEAM - 1, MIB(5)}, {HIGH_END, 1},
		       {UINT64_MAX, 1},    {UINT64_MAX, 2},
		       {HIGH, SIZE_MAX},   {HIGH, UINT64_MAX - HIGH + 2},
		       {1, SIZE_MAX}};
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		struct iovec iov[3];
		assert_int_equal(gmem_iov(gmem, outside[i].gpa, outside[i].size_bytes, iov, 3), -EFAULT);
		assert_int_equal(gmem_iov(gmem, outside[i].gpa, outside[i].size_bytes, iov, 0), -EFAULT);
	}
}

static void windows_lie_in_one_region_and_are_aligned(void **state)
{
	(void)state;
	uint32_t *window = gmem_view(gmem, LOW_END - 4, 4, 4), word = 0;
	assert_non_null(window);
	__atomic_store_n(window, 0x12345678, __ATOMIC_RELEASE);
	assert_int_equal(gmem_read(gmem, LOW_END - 4, &word, 4), 0);
	assert_int_equal(word, 0x12345678);
	assert_ptr_equal(gmem_view(gmem, LOW_END - 4, 1, 1), window);

	assert_null(gmem_view(gmem, LOW_END - 4, 5, 4));
	assert_null(gmem_view(gmem, LOW_END, 1, 1));
	assert_null(gmem_view(gmem, UINT64_MAX, 2, 1));
	assert_null(gmem_view(gmem, HIGH, SIZE_MAX, 1));
	assert_non_null(gmem_view(gmem, SEAM - 16, 16, 16));
	assert_null(gmem_view(gmem, SEAM - 16, 32, 16)); /* RAM, but not one piece of the host's memory */
	for (unsigned off = 0; off < 64; off++) {
		for (unsigned align = 1; align <= 32; align *= 2)
			assert_int_equal(!gmem_view(gmem, HIGH + off, 64, align), off % align != 0);
	}
}

/* --- files ------------------------------------------------------------------------------------------------- */

static uint8_t pattern(uint64_t offset)
{
	return (uint8_t)(offset * 7 + (offset >> 8) * 13 + 1) | 1; /* never 0 */
}

static int make_file(uint64_t size)
{
	int fd = memfd_create("image", MFD_CLOEXEC);
	assert_true(fd >= 0);
	uint8_t *data = malloc(size);
	for (uint64_t i = 0; i < size; i++)
		data[i] = pattern(i);
	assert_int_equal(write(fd, data, size), size);
	free(data);
	return fd;
}

/* [gpa, gpa + size) holds the file from `offset`; what surrounds it is still `around`. */
static void check_loaded(gpa_t gpa, uint64_t offset, uint64_t size, uint8_t around)
{
	uint8_t *back = malloc(size + 2 * PAGE);
	assert_int_equal(gmem_read(gmem, gpa - PAGE, back, size + 2 * PAGE), 0);
	for (uint64_t i = 0; i < PAGE; i++)
		assert_true(back[i] == around && back[PAGE + size + i] == around);
	for (uint64_t i = 0; i < size; i++) {
		if (back[PAGE + i] != pattern(offset + i))
			fail_msg("byte %llu of %llu", (unsigned long long)i, (unsigned long long)size);
	}
	free(back);
}

struct load {
	gpa_t gpa;
	uint64_t offset, size;
	bool maps;
};

static void loads_of_every_shape(void **state)
{
	(void)state;
	const uint64_t threshold = KIB(256);
	const struct load loads[] = {
		{MIB(1), 0, 1, false},
		{MIB(1), 0, threshold - 1, false},
		{MIB(1), 0, threshold, true},                   /* whole pages */
		{MIB(1), 0, threshold + 1, true},               /* a tail */
		{MIB(1) + 1, PAGE + 1, threshold + PAGE, true}, /* head and tail */
		{MIB(1) + 1, PAGE + 1, threshold + PAGE - 2, false},
		{MIB(1) + PAGE - 1, PAGE - 1, threshold + 1, true}, /* a head of one byte, no tail */
		{MIB(1) + 1, 0, MIB(1), false},                     /* never congruent */
		{MIB(1) + 512, 512, MIB(1) + 77, true},
		{SEAM - MIB(1), 0, MIB(1) + 100, true}, /* across the seam: mapped, then read */
		{SEAM - 100, PAGE - 100, MIB(1), true}, /* read, then mapped */
	};
	int fd = make_file(MIB(1) + 2 * PAGE);
	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		const struct load *l = &loads[i];
		teardown(NULL);
		setup(NULL);
		assert_int_equal(gmem_fill(gmem, l->gpa - PAGE, 0xee, l->size + 2 * PAGE), 0);
		assert_int_equal(gmem_load_file(gmem, l->gpa, fd, l->offset, l->size), 0);
		assert_int_equal(file_maps, l->maps);
		check_loaded(l->gpa, l->offset, l->size, 0xee);
	}
	close(fd);
}

/* The guest writes to its copy; the file and other VMs that map it stay as they are. */
static void guest_writes_stay_private(void **state)
{
	(void)state;
	int fd = make_file(MIB(1));
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 0, MIB(1)), 0);
	assert_int_equal(file_maps, 1);
	assert_int_equal(gmem_fill(gmem, MIB(1), 0, MIB(1)), 0);
	uint8_t byte;
	assert_int_equal(pread(fd, &byte, 1, 5000), 1);
	assert_int_equal(byte, pattern(5000));
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 0, MIB(1)), 0); /* over the earlier one */
	check_loaded(MIB(1), 0, MIB(1), 0);
	close(fd);
}

static void exactly_to_the_end_of_ram(void **state)
{
	(void)state;
	int fd = make_file(MIB(1) + 1);
	assert_int_equal(gmem_load_file(gmem, LOW_END - MIB(1), fd, 0, MIB(1)), 0);
	assert_int_equal(gmem_load_file(gmem, LOW_END - MIB(1), fd, 0, MIB(1) + 1), -EFAULT);
	assert_int_equal(gmem_load_file(gmem, LOW_END - MIB(1) + 1, fd, 1, MIB(1)), -EFAULT);
	assert_int_equal(gmem_load_file(gmem, HIGH_END - 1, fd, 0, 1), 0);
	assert_int_equal(gmem_load_file(gmem, LOW_END, fd, 0, 0), 0);
	close(fd);
}

static void a_file_that_ends_early(void **state)
{
	(void)state;
	int fd = make_file(MIB(1));
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 0, MIB(1) + 1), -ENODATA);
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 1, MIB(1)), -ENODATA);
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, MIB(1), 1), -ENODATA);
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, UINT64_MAX, 1), -ENODATA);
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, UINT64_MAX, UINT32_MAX), -EFAULT);
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 0, MIB(1)), -ENODATA);
	assert_int_equal(file_maps, 0);
	close(fd);
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 0, 1), -EBADF);
}

/* A file cut short while it is mapped: diagnostics say so instead of raising SIGBUS. */
static void peek_survives_a_cut_file(void **state)
{
	(void)state;
	int fd = make_file(MIB(1));
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 0, MIB(1)), 0);
	uint8_t bytes[15];
	assert_int_equal(gmem_peek(gmem, MIB(1) + 100, bytes, sizeof(bytes)), 0);
	assert_int_equal(bytes[0], pattern(100));
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(gmem_peek(gmem, MIB(1) + 100, bytes, sizeof(bytes)), -EFAULT);
	assert_int_equal(gmem_peek(gmem, LOW_END - 1, bytes, 2), -EFAULT);
	assert_int_equal(gmem_peek(gmem, LOW_END - 1, bytes, 1), 0);
	assert_int_equal(gmem_peek(gmem, SEAM - 7, bytes, sizeof(bytes)), 0); /* across the seam */
	assert_int_equal(gmem_peek(gmem, LOW_END, bytes, 0), 0);
	close(fd);
}

static void a_file_that_cannot_be_mapped_is_read(void **state)
{
	(void)state;
	int fd = make_file(MIB(1));
	file_maps_fail = true;
	assert_int_equal(gmem_fill(gmem, SEAM, 0xee, MIB(2)), 0);
	assert_int_equal(gmem_load_file(gmem, SEAM + PAGE + 5, fd, 5, MIB(1) - 10), 0);
	assert_int_equal(file_maps, 1);
	check_loaded(SEAM + PAGE + 5, 5, MIB(1) - 10, 0xee);

	close(fd);
}

/* --- giving memory back -------------------------------------------------------------------------------------- */

/* How many pages of a range the host keeps in memory for us. */
static unsigned resident(gpa_t gpa, uint64_t size)
{
	unsigned count = 0;
	unsigned char pages[MIB(4) / PAGE];
	void *host = gmem_view(gmem, gpa, size, 1);
	assert_non_null(host);
	assert_true(size / PAGE <= sizeof(pages));
	assert_int_equal(mincore(host, size, pages), 0);
	for (uint64_t i = 0; i < size / PAGE; i++)
		count += pages[i] & 1;
	return count;
}

/* [gpa, gpa + size) is zero, and what surrounds it is still `around`. */
static void check_discarded(gpa_t gpa, uint64_t size, uint8_t around)
{
	uint8_t *back = malloc(size + 2 * PAGE);
	assert_int_equal(gmem_read(gmem, gpa - PAGE, back, size + 2 * PAGE), 0);
	for (uint64_t i = 0; i < PAGE; i++)
		assert_true(back[i] == around && back[PAGE + size + i] == around);
	for (uint64_t i = 0; i < size; i++)
		assert_int_equal(back[PAGE + i], 0);
	free(back);
}

static void discarded_memory_goes_back_to_the_host(void **state)
{
	(void)state;
	const struct {
		gpa_t gpa;
		uint64_t size;
	} ranges[] = {{MIB(1), PAGE},
		      {MIB(2), MIB(1)},
		      {MIB(1) + PAGE, MIB(2)},
		      {HIGH + PAGE, MIB(2) + 3 * PAGE}}; /* a huge page and parts of others, where the host has them */
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		gpa_t region = ranges[i].gpa < HIGH ? 0 : HIGH;
		assert_int_equal(gmem_fill(gmem, region, 0x5a, MIB(4)), 0);
		assert_int_equal(resident(region, MIB(4)), MIB(4) / PAGE);
		assert_int_equal(gmem_discard(gmem, ranges[i].gpa, ranges[i].size), 0);
		assert_int_equal(resident(ranges[i].gpa, ranges[i].size), 0);
		assert_int_equal(resident(region, MIB(4)), (MIB(4) - ranges[i].size) / PAGE);
		check_discarded(ranges[i].gpa, ranges[i].size, 0x5a);
	}
}

static void a_discard_across_touching_regions(void **state)
{
	(void)state;
	assert_int_equal(gmem_fill(gmem, HIGH, 0x5a, HIGH_END - HIGH), 0);
	assert_int_equal(gmem_discard(gmem, SEAM - 2 * PAGE, 5 * PAGE), 0);
	assert_int_equal(resident(SEAM - 2 * PAGE, 2 * PAGE) + resident(SEAM, 3 * PAGE), 0);
	check_discarded(SEAM - 2 * PAGE, 5 * PAGE, 0x5a);
	assert_int_equal(gmem_discard(gmem, HIGH, HIGH_END - HIGH), 0);
	assert_int_equal(resident(HIGH, MIB(4)) + resident(SEAM, MIB(4)), 0);
}

static void a_refused_discard_touches_nothing(void **state)
{
	(void)state;
	const struct {
		gpa_t gpa;
		uint64_t size;
		int code;
	} bad[] = {
		{LOW_END - PAGE, 2 * PAGE, -EFAULT},
		{LOW_END, PAGE, -EFAULT},
		{HIGH - PAGE, 2 * PAGE, -EFAULT},
		{HIGH, HIGH_END - HIGH + PAGE, -EFAULT},
		{HIGH, (uint64_t)0 - PAGE, -EFAULT},
		{(uint64_t)0 - PAGE, PAGE, -EFAULT},
		{(uint64_t)0 - PAGE, 2 * PAGE, -EFAULT},
		{HIGH + 1, PAGE, -EINVAL},
		{HIGH, 1, -EINVAL},
		{HIGH, PAGE - 1, -EINVAL},
		{HIGH + 2048, 2048, -EINVAL},
		{UINT64_MAX, 1, -EINVAL},
		{LOW_END, 0, 0},
	};
	assert_int_equal(gmem_fill(gmem, 0, 0x5a, LOW_END), 0);
	assert_int_equal(gmem_fill(gmem, HIGH, 0x5a, HIGH_END - HIGH), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(gmem_discard(gmem, bad[i].gpa, bad[i].size), bad[i].code);
	assert_int_equal(resident(0, MIB(4)) + resident(HIGH, MIB(4)) + resident(SEAM, MIB(4)), 3 * MIB(4) / PAGE);
}

static void spans_are_discarded_only_inside_ram(void **state)
{
	(void)state;
	struct iovec iov[3];
	assert_int_equal(gmem_fill(gmem, HIGH, 0x5a, HIGH_END - HIGH), 0);
	assert_int_equal(gmem_iov(gmem, SEAM - PAGE, 2 * PAGE, iov, 2), 2);
	assert_int_equal(gmem_iov(gmem, HIGH_END - MIB(1), MIB(1), &iov[2], 1), 1);
	static uint8_t ours[2 * PAGE] __attribute__((aligned(4096))) = {1};
	uint8_t *end = (uint8_t *)iov[2].iov_base + MIB(1);
	const struct {
		struct iovec last;
		int code;
	} bad[] = {
		{{ours, PAGE}, -EFAULT},           {{NULL, PAGE}, -EFAULT},
		{{end - PAGE, 2 * PAGE}, -EFAULT}, {{end - PAGE, SIZE_MAX - PAGE + 1}, -EFAULT},
		{{end - PAGE, PAGE - 1}, -EINVAL}, {{end - PAGE + 1, PAGE}, -EINVAL},
		{{ours + 1, 1}, -EINVAL},
	};
	struct iovec good = iov[2];
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		iov[2] = bad[i].last;
		assert_int_equal(gmem_discard_iov(gmem, iov, 3), bad[i].code);
	}
	assert_int_equal(ours[0], 1);
	assert_int_equal(resident(HIGH, MIB(4)) + resident(SEAM, MIB(4)), 2 * MIB(4) / PAGE);

	iov[2] = good;
	assert_int_equal(gmem_discard_iov(gmem, iov, 3), 0);
	assert_int_equal(resident(SEAM - PAGE, PAGE) + resident(SEAM, PAGE) + resident(HIGH_END - MIB(1), MIB(1)), 0);
	assert_int_equal(resident(HIGH, MIB(4)) + resident(SEAM, MIB(4)), (2 * MIB(4) - 2 * PAGE - MIB(1)) / PAGE);
	check_discarded(SEAM - PAGE, 2 * PAGE, 0x5a);
	assert_int_equal(gmem_discard_iov(gmem, iov, 0), 0);
}

/* Where RAM has huge pages (if the host gives us any), 4 KiB of one go too. */
static void part_of_a_huge_page_is_discarded(void **state)
{
	(void)state;
	const struct gmem_region region = {0, MIB(24), NULL};
	struct gmem *small = gmem;
	gmem = gmem_new(&region, 1, NULL);
	assert_non_null(gmem);
	assert_int_equal(gmem_fill(gmem, MIB(20), 0x5a, MIB(2)), 0);
	assert_int_equal(gmem_discard(gmem, MIB(20) + 7 * PAGE, PAGE), 0);
	assert_int_equal(resident(MIB(20) + 7 * PAGE, PAGE), 0);
	assert_int_equal(resident(MIB(20), MIB(2)), MIB(2) / PAGE - 1);
	check_discarded(MIB(20) + 7 * PAGE, PAGE, 0x5a);
	gmem_free(gmem);
	gmem = small;
}

/* The guest's copy goes; the file shows again. */
static void a_discard_over_a_mapped_file(void **state)
{
	(void)state;
	int fd = make_file(MIB(1));
	assert_int_equal(gmem_load_file(gmem, MIB(1), fd, 0, MIB(1)), 0);
	assert_int_equal(file_maps, 1);
	assert_int_equal(gmem_fill(gmem, MIB(1), 0x5a, MIB(1)), 0);
	assert_int_equal(gmem_discard(gmem, MIB(1), MIB(1)), 0);
	check_loaded(MIB(1), 0, MIB(1), 0);
	close(fd);
}

/* A host program that has locked its memory still gets back what the guest gives up. */
static void locked_memory_can_be_discarded(void **state)
{
	(void)state;
	assert_int_equal(mlock(gmem_view(gmem, MIB(1), KIB(16), 1), KIB(16)), 0);
	assert_int_equal(gmem_fill(gmem, MIB(1) - PAGE, 0x5a, KIB(16) + 2 * PAGE), 0);
	assert_int_equal(gmem_discard(gmem, MIB(1), KIB(16)), 0);
	assert_int_equal(resident(MIB(1), KIB(16)), 0);
	check_discarded(MIB(1), KIB(16), 0x5a);
}

#define GMEM_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		GMEM_TEST(new_ram_is_zero_and_its_size_is_the_sum),
		GMEM_TEST(every_edge),
		GMEM_TEST(sizes_that_would_wrap),
		cmocka_unit_test(the_end_of_the_address_space),
		GMEM_TEST(a_refused_write_touches_nothing),
		GMEM_TEST(ranges_across_touching_regions),
		cmocka_unit_test(impossible_sizes_are_an_error),
		GMEM_TEST(spans_of_every_edge),
		GMEM_TEST(windows_lie_in_one_region_and_are_aligned),
		GMEM_TEST(loads_of_every_shape),
		GMEM_TEST(guest_writes_stay_private),
		GMEM_TEST(exactly_to_the_end_of_ram),
		GMEM_TEST(a_file_that_ends_early),
		GMEM_TEST(peek_survives_a_cut_file),
		GMEM_TEST(a_file_that_cannot_be_mapped_is_read),
		GMEM_TEST(discarded_memory_goes_back_to_the_host),
		GMEM_TEST(a_discard_across_touching_regions),
		GMEM_TEST(a_refused_discard_touches_nothing),
		GMEM_TEST(spans_are_discarded_only_inside_ram),
		GMEM_TEST(part_of_a_huge_page_is_discarded),
		GMEM_TEST(a_discard_over_a_mapped_file),
		GMEM_TEST(locked_memory_can_be_discarded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
