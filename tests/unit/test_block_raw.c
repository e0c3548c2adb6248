/* Raw disks on real files, through a real loop: every byte lands where it belongs, and what fails says so. */
#include "test_block_raw_disk.h"

#include <errno.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdalign.h>
#include <sys/mman.h>
#include <sys/resource.h>

static const uint64_t MS = 1000000;
enum { SECTOR = BLOCK_SECTOR_BYTES, DISK_BYTES = 1 << 20 };

static alignas(4096) uint8_t memory[DISK_BYTES];

/* --- reading and writing ---------------------------------------------------------------------------------- */

static void edges_are_read_and_written(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	open_disk();
	assert_int_equal(disk->info.size_bytes, DISK_BYTES);
	assert_int_equal(disk->info.block_size_bytes, SECTOR);
	static const uint64_t OFFSETS[] = {0, SECTOR, DISK_BYTES - 3 * SECTOR};
	for (size_t i = 0; i < ARRAY_SIZE(OFFSETS); i++) {
		uint8_t data[3 * SECTOR];
		fill_pattern(data, sizeof(data), OFFSETS[i]);
		assert_int_equal(transfer(BLOCK_WRITE, OFFSETS[i], data, sizeof(data)), 0);
		memset(data, 0, sizeof(data));
		assert_int_equal(pread(file, data, sizeof(data), (off_t)OFFSETS[i]), sizeof(data));
		check_pattern(data, sizeof(data), OFFSETS[i]);
		memset(data, 0, sizeof(data));
		assert_int_equal(transfer(BLOCK_READ, OFFSETS[i], data, sizeof(data)), 0);
		check_pattern(data, sizeof(data), OFFSETS[i]);
	}
	assert_int_equal(transfer(BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(transfer(BLOCK_READ, DISK_BYTES, memory, SECTOR), -EINVAL);
	struct stat st;
	assert_int_equal(fstat(file, &st), 0);
	assert_int_equal(st.st_size, DISK_BYTES);
	assert_int_equal(log_lines, 0);
}

static void scattered_memory_is_in_order(void **state)
{
	(void)state;
	fill_file(DISK_BYTES);
	open_disk();
	uint8_t a[1], b[700], c[8 * SECTOR - 701];
	const struct iovec iov[] = {{a, 1}, {NULL, 0}, {b, 700}, {c, sizeof(c)}};
	assert_int_equal(transfer_spans(BLOCK_READ, SECTOR, iov, 4), 0);
	check_pattern(a, sizeof(a), SECTOR);
	check_pattern(b, sizeof(b), SECTOR + 1);
	check_pattern(c, sizeof(c), SECTOR + 701);
}

/* More spans than the kernel takes at once, some of them empty. */
static void more_spans_than_the_kernel_takes(void **state)
{
	(void)state;
	enum { COUNT = 2100, SPAN = 256 };
	static struct iovec iov[COUNT];
	make_file(DISK_BYTES);
	open_disk();
	unsigned used = 0;
	for (unsigned i = 0; i < COUNT; i++) {
		iov[i] = (struct iovec){memory + used * SPAN, i % 50 == 7 ? 0 : SPAN};
		used += iov[i].iov_len != 0;
	}
	assert_int_equal(used % 2, 0);
	fill_pattern(memory, (size_t)used * SPAN, 3 * SECTOR);
	assert_int_equal(transfer_spans(BLOCK_WRITE, 3 * SECTOR, iov, COUNT), 0);
	memset(memory, 0, sizeof(memory));
	assert_int_equal(transfer_spans(BLOCK_READ, 3 * SECTOR, iov, COUNT), 0);
	check_pattern(memory, (size_t)used * SPAN, 3 * SECTOR);
	memset(memory, 0, sizeof(memory));
	assert_int_equal(pread(file, memory, used * SPAN, 3 * SECTOR), used * SPAN);
	check_pattern(memory, (size_t)used * SPAN, 3 * SECTOR);
}

/* More than the ring has room for, before it runs: all end, once. */
static void more_requests_than_the_ring_takes(void **state)
{
	(void)state;
	enum { COUNT = 700 };
	static struct request r[COUNT];
	fill_file(DISK_BYTES);
	open_disk();
	for (unsigned i = 0; i < COUNT; i++)
		start(&r[i], BLOCK_READ, i * SECTOR, memory + i * SECTOR, SECTOR);
	block_cancel(disk, &r[COUNT - 1].request);
	for (unsigned i = 0; i < COUNT - 1; i++)
		assert_int_equal(finish(&r[i]), 0);
	assert_int_equal(finish(&r[COUNT - 1]), -ECANCELED);
	check_pattern(memory, (COUNT - 1) * SECTOR, 0);
}

static void a_cancelled_request_ends_once(void **state)
{
	(void)state;
	fill_file(DISK_BYTES);
	open_disk();
	for (int i = 0; i < 50; i++) {
		struct request r;
		start(&r, i % 2 ? BLOCK_READ : BLOCK_FLUSH, 0, memory, i % 2 ? DISK_BYTES : 0);
		block_cancel(disk, &r.request);
		int res = finish(&r);
		assert_true(res == 0 || res == -ECANCELED);
		for (int j = 0; j < 3; j++)
			assert_int_equal(loop_wait(loop, MS / 10), 0);
		assert_int_equal(r.done, 1);
	}
	assert_int_equal(log_lines, 0); /* that is no error */
}

static void an_unsafe_flush_does_nothing_later(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	disk = open_with(&(struct block_raw_config){.path = path, .unsafe_flush = true});
	assert_non_null(disk);
	assert_int_equal(transfer(BLOCK_FLUSH, 0, NULL, 0), 0);
}

static void a_read_only_disk(void **state)
{
	(void)state;
	fill_file(DISK_BYTES);
	disk = open_with(&(struct block_raw_config){.path = path, .read_only = true});
	assert_non_null(disk);
	assert_true(disk->info.read_only);
	assert_false(disk->info.can_write_zeroes);
	assert_int_equal(transfer(BLOCK_READ, SECTOR, memory, SECTOR), 0);
	check_pattern(memory, SECTOR, SECTOR);
	assert_int_equal(transfer(BLOCK_WRITE, 0, memory, SECTOR), -EROFS);
	assert_int_equal(transfer(BLOCK_FLUSH, 0, NULL, 0), 0);
	check_file_zeroed(DISK_BYTES, 0, 0);
}

/* --- direct I/O --------------------------------------------------------------------------------------------- */

/* Whatever the memory is like: aligned, odd, cut into odd pieces. Larger than a bounce buffer. */
static void check_direct_io(void)
{
	disk = open_with(&(struct block_raw_config){.path = path, .direct = true});
	if (!disk) {
		assert_non_null(strstr(err.text, "direct I/O")); /* the file system has none */
		return;
	}
	uint32_t block = disk->info.block_size_bytes;
	const uint64_t size = DISK_BYTES / 2;
	for (unsigned shift = 0; shift < 4; shift++) {
		uint8_t *at = memory + (shift ? 4096 : 0) + shift;
		fill_pattern(at, size, block + shift);
		const struct iovec iov[] = {{at, 100 * shift}, {at + 100 * shift, size - 100 * shift}};
		assert_int_equal(transfer_spans(BLOCK_WRITE, block, iov, 2), 0);
		memset(memory, 0, sizeof(memory));
		assert_int_equal(transfer_spans(BLOCK_READ, block, iov, 2), 0);
		check_pattern(at, size, block + shift);
		memset(memory, 0, sizeof(memory));
		assert_int_equal(pread(file, memory, size, block), size);
		check_pattern(memory, size, block + shift);
	}
	assert_int_equal(transfer(BLOCK_READ, DISK_BYTES - block, memory + 1, block), 0);
	/* A file that has been cut in the middle of a block. */
	assert_int_equal(ftruncate(file, DISK_BYTES - 100), 0);
	assert_int_equal(transfer(BLOCK_READ, DISK_BYTES - 2 * block, memory, 2 * block), -EIO);
	assert_int_equal(transfer(BLOCK_READ, DISK_BYTES - 2 * block, memory + 1, 2 * block), -EIO);
}

/* A file in memory: it can punch holes, cannot zero ranges, and says nothing of what direct I/O needs. */
static void make_memory_file(void)
{
	make_file(0);
	unlink(path);
	close(file);
	file = memfd_create("disk", MFD_CLOEXEC);
	assert_true(file >= 0);
	fill_pattern(memory, DISK_BYTES, 0);
	assert_int_equal(pwrite(file, memory, DISK_BYTES, 0), DISK_BYTES);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
}

static void direct_io_takes_any_memory(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	check_direct_io();
}

static void direct_io_where_nobody_says_how(void **state)
{
	(void)state;
	make_memory_file();
	check_direct_io();
}

/* --- holes and zeroes ----------------------------------------------------------------------------------------- */

static uint64_t allocated(void)
{
	struct stat st;
	assert_int_equal(fstat(file, &st), 0);
	assert_int_equal(st.st_size, DISK_BYTES);
	return (uint64_t)st.st_blocks * 512;
}

static void a_discard_gives_storage_back(void **state)
{
	(void)state;
	make_memory_file();
	open_disk();
	uint64_t before = allocated();
	assert_true(disk->info.discard_granularity_bytes >= SECTOR);
	assert_int_equal(transfer(BLOCK_DISCARD, DISK_BYTES / 4, NULL, DISK_BYTES / 2), 0);
	assert_int_equal(before - allocated(), DISK_BYTES / 2);
	check_file_zeroed(DISK_BYTES, DISK_BYTES / 4, 3 * DISK_BYTES / 4);
}

static void check_zeroes(void)
{
	open_disk();
	/* Unaligned for a page; more than one step; then to the end. */
	assert_int_equal(zero(3 * SECTOR, 601 * SECTOR, false), 0);
	check_file_zeroed(DISK_BYTES, 3 * SECTOR, 604 * SECTOR);
	assert_int_equal(zero(2 * SECTOR, SECTOR, true), 0);
	check_file_zeroed(DISK_BYTES, 2 * SECTOR, 604 * SECTOR);
	assert_int_equal(zero(604 * SECTOR, DISK_BYTES - 604 * SECTOR, false), 0);
	check_file_zeroed(DISK_BYTES, 2 * SECTOR, DISK_BYTES);
	assert_int_equal(zero(0, DISK_BYTES, true), 0);
	check_file_zeroed(DISK_BYTES, 0, DISK_BYTES);
	assert_int_equal(log_lines, 0);
}

static void zeroes_are_written(void **state)
{
	(void)state;
	fill_file(DISK_BYTES);
	check_zeroes();
}

static void zeroes_are_written_where_the_file_system_cannot(void **state)
{
	(void)state;
	make_memory_file();
	assert_int_equal(fallocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, SECTOR), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	check_zeroes();
	assert_true(allocated() < DISK_BYTES); /* the last one punched */
}

static void zeroes_that_keep_storage_keep_it(void **state)
{
	(void)state;
	make_memory_file();
	open_disk();
	uint64_t before = allocated();
	assert_int_equal(zero(0, DISK_BYTES, false), 0);
	assert_int_equal(allocated(), before);
	assert_int_equal(zero(0, DISK_BYTES, true), 0);
	assert_int_equal(allocated(), 0);
}

/* --- sizes --------------------------------------------------------------------------------------------------- */

static void a_tail_is_left_alone(void **state)
{
	(void)state;
	fill_file(3 * SECTOR + 100);
	open_disk();
	assert_int_equal(disk->info.size_bytes, 3 * SECTOR);
	assert_non_null(strstr(log_text, "last 100"));
	assert_int_equal(zero(0, 3 * SECTOR, true), 0);
	check_file_zeroed(3 * SECTOR + 100, 0, 3 * SECTOR);
}

static void a_file_without_a_block_is_refused(void **state)
{
	(void)state;
	make_file(0);
	assert_null(open_with(&(struct block_raw_config){.path = path}));
	assert_non_null(strstr(err.text, "empty"));
	assert_non_null(strstr(err.text, "truncate -s"));
	make_file(SECTOR - 1);
	assert_null(open_with(&(struct block_raw_config){.path = path}));
	assert_non_null(strstr(err.text, "smaller than one block"));
	make_file(SECTOR);
	open_disk();
}

static void resize_looks_again(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	open_disk();
	assert_int_equal(ftruncate(file, 2 * DISK_BYTES + 1), 0);
	assert_int_equal(transfer(BLOCK_READ, DISK_BYTES, memory, SECTOR), -EINVAL);
	assert_int_equal(block_resize(disk, &err), 0);
	assert_int_equal(disk->info.size_bytes, 2 * DISK_BYTES);
	assert_int_equal(transfer(BLOCK_READ, 2 * DISK_BYTES - SECTOR, memory, SECTOR), 0);

	assert_int_equal(ftruncate(file, SECTOR), 0);
	assert_int_equal(block_resize(disk, &err), 0);
	assert_int_equal(disk->info.size_bytes, SECTOR);
	assert_int_equal(ftruncate(file, 0), 0);
	assert_true(block_resize(disk, &err) < 0);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(disk->info.size_bytes, SECTOR);
}

/* --- errors --------------------------------------------------------------------------------------------------- */

static void a_file_that_shrinks_gives_errors(void **state)
{
	(void)state;
	fill_file(DISK_BYTES);
	open_disk();
	assert_int_equal(ftruncate(file, 10 * SECTOR + 3), 0);
	assert_int_equal(transfer(BLOCK_READ, 10 * SECTOR, memory, SECTOR), -EIO);
	assert_int_equal(transfer(BLOCK_READ, 20 * SECTOR, memory, SECTOR), -EIO);
	assert_int_equal(transfer(BLOCK_READ, 8 * SECTOR, memory, 8 * SECTOR), -EIO);
	assert_non_null(strstr(log_text, path));
	assert_non_null(strstr(log_text, "read of 4096 bytes at 4096: "));
	assert_non_null(strstr(log_text, strerror(EIO)));
	assert_int_equal(transfer(BLOCK_READ, 8 * SECTOR, memory, 2 * SECTOR), 0);
	check_pattern(memory, 2 * SECTOR, 8 * SECTOR);
	/* A guest cannot fill the host's log. */
	for (int i = 0; i < 100; i++)
		assert_int_equal(transfer(BLOCK_READ, 20 * SECTOR, memory, SECTOR), -EIO);
	assert_in_range(log_lines, 3, LOG_LIMIT_BURST + 2);
}

/* A limit in the middle: what fits is written, the rest is an error of the host. */
static void a_write_that_does_not_fit(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	open_disk();
	fill_pattern(memory, 8 * SECTOR, 0);
	struct rlimit old, small;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 4 * SECTOR;
	void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int res = transfer(BLOCK_WRITE, 0, memory, 8 * SECTOR);
	int past = transfer(BLOCK_WRITE, 8 * SECTOR, memory, SECTOR);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, handler);
	assert_int_equal(res, -EFBIG);
	assert_int_equal(past, -EFBIG);
	assert_non_null(strstr(log_text, strerror(EFBIG)));
	assert_int_equal(pread(file, memory, 8 * SECTOR, 0), 8 * SECTOR);
	check_pattern(memory, 4 * SECTOR, 0);
	for (unsigned i = 4 * SECTOR; i < 8 * SECTOR; i++)
		assert_int_equal(memory[i], 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* --- requests that are very long ------------------------------------------------------------------------------------
 */

enum { LONG_BYTES = 9 << 20, ODD_SPANS = 7 };

/* Spans of other sizes than the steps; what is read is what was written. */
static void long_requests_go_in_steps(void **state)
{
	(void)state;
	make_file(LONG_BYTES);
	open_disk();
	uint8_t *out = malloc(LONG_BYTES), *in = calloc(1, LONG_BYTES);
	assert_true(out && in);
	fill_pattern(out, LONG_BYTES, 0);
	struct iovec iov[ODD_SPANS];
	static const size_t ends[ODD_SPANS] = {4093,    3 << 20,       (3 << 20) + 1, 4 << 20,
					       6 << 20, (8 << 20) + 7, LONG_BYTES};
	for (unsigned i = 0; i < ODD_SPANS; i++) {
		size_t from = i ? ends[i - 1] : 0;
		iov[i] = (struct iovec){out + from, ends[i] - from};
	}
	assert_int_equal(transfer_spans(BLOCK_WRITE, 0, iov, ODD_SPANS), 0);
	for (unsigned i = 0; i < ODD_SPANS; i++)
		iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
	assert_int_equal(transfer_spans(BLOCK_READ, 0, iov, ODD_SPANS), 0);
	assert_memory_equal(in, out, LONG_BYTES);
	free(out);
	free(in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(edges_are_read_and_written),
		TEST(scattered_memory_is_in_order),
		TEST(more_spans_than_the_kernel_takes),
		TEST(long_requests_go_in_steps),
		TEST(more_requests_than_the_ring_takes),
		TEST(a_cancelled_request_ends_once),
		TEST(an_unsafe_flush_does_nothing_later),
		TEST(a_read_only_disk),
		TEST(direct_io_takes_any_memory),
		TEST(direct_io_where_nobody_says_how),
		TEST(a_discard_gives_storage_back),
		TEST(zeroes_are_written),
		TEST(zeroes_are_written_where_the_file_system_cannot),
		TEST(zeroes_that_keep_storage_keep_it),
		TEST(a_tail_is_left_alone),
		TEST(a_file_without_a_block_is_refused),
		TEST(resize_looks_again),
		TEST(a_file_that_shrinks_gives_errors),
		TEST(a_write_that_does_not_fit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
