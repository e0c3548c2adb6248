/*
 * A raw disk under a host that does less than it was asked for, or not now: linked with a loop, locks and memory that
 * fail when they are told to (-Wl,--wrap).
 */
#include "test_block_raw_disk.h"

#include <errno.h>
#include <stdalign.h>

enum { SECTOR = BLOCK_SECTOR_BYTES, DISK_BYTES = 64 << 10, FOREVER = 1000000 };

static alignas(4096) uint8_t memory[DISK_BYTES];

/* --- the loop that fails ------------------------------------------------------------------------------------------ */

static struct {
	size_t cut_bytes;      /* transfers are at most as long as this; 0: no limit */
	int error;             /* what the next `errors` operations end with */
	unsigned errors;       /* how many */
	unsigned full;         /* how often the ring will have no room */
	unsigned calls;        /* operations asked for */
	unsigned cancel_after; /* the block_request `cancel` is cancelled at that call */
	struct block_request *cancel;
	int lock_error; /* of every lock; 0: none */
	bool no_memory;
} host;

static struct {
	struct loop_task task;
	struct loop_op *op;
	int res;
} ending;

static void end_op(struct loop_task *task)
{
	(void)task;
	ending.op->state = LOOP_OP_IDLE;
	ending.op->done(ending.op, ending.res);
}

/* 1: it went wrong, and *ret_result is what the caller is told. One operation at a time. */
static bool goes_wrong(struct loop_op *op, int *ret_result)
{
	host.calls++;
	*ret_result = 0;
	if (host.cancel && host.calls == host.cancel_after)
		block_cancel(disk, host.cancel);
	if (host.full) {
		host.full--;
		*ret_result = -ENOSPC;
		return true;
	}
	if (!host.errors)
		return false;
	host.errors--;
	op->state = LOOP_OP_INFLIGHT;
	ending.task.fn = end_op;
	ending.op = op;
	ending.res = host.error;
	loop_defer(loop, &ending.task);
	return true;
}

/* The first bytes of it; the array lives until the operation is submitted with the next. */
static unsigned cut(const struct iovec **iov, unsigned iov_count)
{
	static struct iovec first;
	if (!host.cut_bytes)
		return iov_count;
	first = **iov;
	first.iov_len = (size_t)min_u64(first.iov_len, host.cut_bytes);
	*iov = &first;
	return 1;
}

typedef int transfer_fn(struct loop *, struct loop_op *, int, const struct iovec *, unsigned, uint64_t);
transfer_fn __real_loop_readv, __wrap_loop_readv, __real_loop_writev, __wrap_loop_writev;
int __real_loop_fdatasync(struct loop *l, struct loop_op *op, int fd);
int __wrap_loop_fdatasync(struct loop *l, struct loop_op *op, int fd);
int __real_loop_fallocate(struct loop *l, struct loop_op *op, int fd, int mode, uint64_t offset, uint64_t size_bytes);
int __wrap_loop_fallocate(struct loop *l, struct loop_op *op, int fd, int mode, uint64_t offset, uint64_t size_bytes);

int __wrap_loop_readv(struct loop *l, struct loop_op *op, int fd, const struct iovec *iov, unsigned iov_count,
		      uint64_t offset)
{
	int r;
	if (goes_wrong(op, &r))
		return r;
	iov_count = cut(&iov, iov_count);
	return __real_loop_readv(l, op, fd, iov, iov_count, offset);
}

int __wrap_loop_writev(struct loop *l, struct loop_op *op, int fd, const struct iovec *iov, unsigned iov_count,
		       uint64_t offset)
{
	int r;
	if (goes_wrong(op, &r))
		return r;
	iov_count = cut(&iov, iov_count);
	return __real_loop_writev(l, op, fd, iov, iov_count, offset);
}

int __wrap_loop_fdatasync(struct loop *l, struct loop_op *op, int fd)
{
	int r;
	return goes_wrong(op, &r) ? r : __real_loop_fdatasync(l, op, fd);
}

int __wrap_loop_fallocate(struct loop *l, struct loop_op *op, int fd, int mode, uint64_t offset, uint64_t size_bytes)
{
	int r;
	return goes_wrong(op, &r) ? r : __real_loop_fallocate(l, op, fd, mode, offset, size_bytes);
}

int __real_fcntl64(int fd, int cmd, ...);
int __wrap_fcntl64(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);

int __wrap_fcntl64(int fd, int cmd, ...)
{
	if (cmd == F_OFD_SETLK && host.lock_error) {
		errno = host.lock_error;
		return -1;
	}
	va_list args;
	va_start(args, cmd);
	void *arg = va_arg(args, void *);
	va_end(args);
	return __real_fcntl64(fd, cmd, arg);
}

int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list args;
	va_start(args, cmd);
	void *arg = va_arg(args, void *);
	va_end(args);
	return __wrap_fcntl64(fd, cmd, arg);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
int __real_posix_memalign(void **ret, size_t align, size_t size);
int __wrap_posix_memalign(void **ret, size_t align, size_t size);

void *__wrap_calloc(size_t count, size_t size)
{
	return host.no_memory ? NULL : __real_calloc(count, size);
}

int __wrap_posix_memalign(void **ret, size_t align, size_t size)
{
	return host.no_memory ? ENOMEM : __real_posix_memalign(ret, align, size);
}

static int setup_disk(void **state)
{
	memset(&host, 0, sizeof(host));
	int r = setup(state);
	if (r < 0)
		return r;
	fill_file(DISK_BYTES);
	open_disk();
	return 0;
}

/* --- tests ----------------------------------------------------------------------------------------------------------
 */

static void short_transfers_go_on(void **state)
{
	(void)state;
	static const size_t CUTS[] = {1000, SECTOR, 7 * SECTOR + 1, 20000};
	for (size_t i = 0; i < ARRAY_SIZE(CUTS); i++) {
		host.cut_bytes = CUTS[i];
		memset(memory, 0, sizeof(memory));
		const struct iovec iov[] = {{memory, 3001}, {memory + 3001, 0}, {memory + 3001, DISK_BYTES - 3001}};
		assert_int_equal(transfer_spans(BLOCK_READ, 0, iov, 3), 0);
		check_pattern(memory, DISK_BYTES, 0);
		assert_int_equal(zero(0, DISK_BYTES, true), 0);
		assert_int_equal(transfer_spans(BLOCK_WRITE, 0, iov, 3), 0);
		check_file_zeroed(DISK_BYTES, 0, 0);
	}
	assert_int_equal(log_lines, 0);
}

static void direct_steps_begin_at_blocks(void **state)
{
	(void)state;
	close_disk();
	disk = open_with(&(struct block_raw_config){.path = path, .direct = true});
	if (!disk) {
		assert_non_null(strstr(err.text, "direct I/O"));
		return;
	}
	/* Odd memory and steps of one block: where the next begins, O_DIRECT would say. */
	host.cut_bytes = disk->info.block_size_bytes;
	static uint8_t odd[DISK_BYTES + 1];
	fill_pattern(odd + 1, DISK_BYTES, 5);
	assert_int_equal(transfer(BLOCK_WRITE, 0, odd + 1, DISK_BYTES), 0);
	memset(odd, 0, sizeof(odd));
	assert_int_equal(transfer(BLOCK_READ, 0, odd + 1, DISK_BYTES), 0);
	check_pattern(odd + 1, DISK_BYTES, 5);
}

static void what_is_asked_to_try_again_is_tried_again(void **state)
{
	(void)state;
	static const int ERRORS[] = {-EAGAIN, -EINTR};
	for (size_t i = 0; i < ARRAY_SIZE(ERRORS); i++) {
		host.error = ERRORS[i];
		host.errors = 3;
		memset(memory, 0, sizeof(memory));
		assert_int_equal(transfer(BLOCK_READ, 0, memory, DISK_BYTES), 0);
		check_pattern(memory, DISK_BYTES, 0);
		host.errors = 3;
		assert_int_equal(transfer(BLOCK_FLUSH, 0, NULL, 0), 0);
		host.errors = 3;
		assert_int_equal(zero(SECTOR, SECTOR, true), 0);
		check_file_zeroed(DISK_BYTES, SECTOR, 2 * SECTOR);
		fill_pattern(memory, SECTOR, SECTOR);
		host.errors = 3;
		assert_int_equal(transfer(BLOCK_WRITE, SECTOR, memory, SECTOR), 0);
		check_file_zeroed(DISK_BYTES, 0, 0);
	}
	assert_int_equal(log_lines, 0);
}

static void not_for_ever(void **state)
{
	(void)state;
	host.error = -EAGAIN;
	host.errors = FOREVER;
	assert_int_equal(transfer(BLOCK_READ, 0, memory, SECTOR), -EAGAIN);
	assert_int_equal(transfer(BLOCK_FLUSH, 0, NULL, 0), -EAGAIN);
	assert_in_range(host.calls, 4, 100);
	assert_int_equal(log_lines, 2);
}

static void an_error_is_passed_on(void **state)
{
	(void)state;
	static const enum block_op OPS[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD, BLOCK_WRITE_ZEROES};
	for (size_t i = 0; i < ARRAY_SIZE(OPS); i++) {
		host.error = -ENOSPC;
		host.errors = 1;
		assert_int_equal(transfer(OPS[i], SECTOR, memory, SECTOR), -ENOSPC);
		assert_non_null(strstr(log_text, strerror(ENOSPC)));
	}
	host.errors = 1;
	host.error = -EIO;
	assert_int_equal(transfer(BLOCK_FLUSH, 0, NULL, 0), -EIO);
	assert_non_null(strstr(log_text, "flush"));
	assert_int_equal(log_lines, 5);
	/* After a part of it was done, too. */
	host.cut_bytes = SECTOR;
	struct request r;
	start(&r, BLOCK_READ, 0, memory, 4 * SECTOR);
	host.errors = 1;
	assert_int_equal(finish(&r), -EIO);
}

static void what_finds_no_holes_ignores_discards(void **state)
{
	(void)state;
	host.error = -EOPNOTSUPP;
	host.errors = 1;
	assert_int_equal(transfer(BLOCK_DISCARD, 0, NULL, SECTOR), 0);
	assert_int_equal(host.calls, 1);
	assert_int_equal(transfer(BLOCK_DISCARD, 0, NULL, SECTOR), 0); /* known by now */
	assert_int_equal(host.calls, 1);
	check_file_zeroed(DISK_BYTES, 0, 0);
	assert_int_equal(zero(0, SECTOR, true), 0); /* written */
	check_file_zeroed(DISK_BYTES, 0, SECTOR);
	assert_int_equal(log_lines, 0);
}

static void what_has_no_holes_is_written_with_zeroes(void **state)
{
	(void)state;
	for (unsigned unmap = 0; unmap < 2; unmap++) {
		host.error = -EOPNOTSUPP;
		host.errors = 1;
		host.cut_bytes = 3 * SECTOR + 1;
		assert_int_equal(zero(SECTOR, 33 * SECTOR, unmap), 0);
		check_file_zeroed(DISK_BYTES, SECTOR, 34 * SECTOR);
		host.cut_bytes = 0;
		fill_file(DISK_BYTES);
		close_disk();
		open_disk();
	}
	/* A write that is not supported is an error, not a reason to write. */
	host.error = -EOPNOTSUPP;
	host.errors = FOREVER;
	assert_int_equal(zero(SECTOR, SECTOR, true), -EOPNOTSUPP);
	assert_int_equal(transfer(BLOCK_WRITE, 0, memory, SECTOR), -EOPNOTSUPP);
}

static void a_full_ring_is_waited_for(void **state)
{
	(void)state;
	host.full = 3;
	assert_int_equal(transfer(BLOCK_READ, 0, memory, DISK_BYTES), 0);
	check_pattern(memory, DISK_BYTES, 0);
	assert_int_equal(host.calls, 4);

	host.full = FOREVER;
	struct request r;
	start(&r, BLOCK_READ, 0, memory, SECTOR);
	assert_int_equal(loop_wait(loop, UINT64_MAX), 0);
	assert_int_equal(r.done, 0);
	block_cancel(disk, &r.request);
	assert_int_equal(r.done, 0);
	assert_int_equal(finish(&r), -ECANCELED);
}

/* Cancelled after its first step: there is no second one. */
static void no_step_follows_a_cancel(void **state)
{
	(void)state;
	host.cut_bytes = SECTOR;
	host.cancel_after = 2;
	struct request r;
	host.cancel = &r.request;
	start(&r, BLOCK_READ, 0, memory, 8 * SECTOR);
	int res = finish(&r);
	assert_int_equal(res, -ECANCELED);
	assert_int_equal(host.calls, 2);
	assert_int_equal(log_lines, 0);
}

static void without_locks_it_is_opened_with_a_warning(void **state)
{
	(void)state;
	static const int ERRORS[] = {ENOLCK, EOPNOTSUPP};
	for (size_t i = 0; i < ARRAY_SIZE(ERRORS); i++) {
		close_disk();
		log_lines = 0;
		host.lock_error = ERRORS[i];
		open_disk();
		assert_int_equal(log_lines, 1);
		assert_non_null(strstr(log_text, path));
		assert_non_null(strstr(log_text, "no locks"));
		assert_int_equal(transfer(BLOCK_READ, 0, memory, SECTOR), 0);
	}
}

static void without_memory_requests_fail_and_the_disk_goes_on(void **state)
{
	(void)state;
	host.no_memory = true;
	assert_null(open_with(&(struct block_raw_config){.path = path, .read_only = true}));
	assert_non_null(strstr(err.text, path));
	assert_int_equal(err.code, -ENOMEM);

	host.cut_bytes = SECTOR; /* a short one needs memory to go on */
	assert_int_equal(transfer(BLOCK_READ, 0, memory, 2 * SECTOR), -ENOMEM);
	host.cut_bytes = 0;
	assert_int_equal(transfer(BLOCK_READ, 0, memory, 2 * SECTOR), 0);
	host.error = -EOPNOTSUPP;
	host.errors = 1;
	assert_int_equal(zero(0, SECTOR, false), -ENOMEM);
	assert_int_equal(zero(0, SECTOR, false), -ENOMEM); /* before its first step */
	host.no_memory = false;
	assert_int_equal(zero(0, SECTOR, false), 0);
	check_file_zeroed(DISK_BYTES, 0, SECTOR);
}

static void without_memory_there_is_no_bounce_buffer(void **state)
{
	(void)state;
	close_disk();
	disk = open_with(&(struct block_raw_config){.path = path, .direct = true});
	if (!disk) {
		assert_non_null(strstr(err.text, "direct I/O"));
		return;
	}
	host.no_memory = true;
	assert_int_equal(transfer(BLOCK_READ, 0, memory + 1, disk->info.block_size_bytes), -ENOMEM);
	host.no_memory = false;
	assert_int_equal(transfer(BLOCK_READ, 0, memory + 1, disk->info.block_size_bytes), 0);
	check_pattern(memory + 1, disk->info.block_size_bytes, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_disk, teardown)

/* A guest can ask for 4 GiB at once, and the loop must not stand still while the kernel copies them. */
static void a_long_request_is_many_operations(void **state)
{
	(void)state;
	enum { SPANS = 100 };
	struct iovec iov[SPANS];
	close_disk(); /* a larger one */
	close(file);
	unlink(path);
	make_file(SPANS * sizeof(memory));
	open_disk();
	for (unsigned i = 0; i < SPANS; i++)
		iov[i] = (struct iovec){memory, sizeof(memory)};
	host.calls = 0;
	assert_int_equal(transfer_spans(BLOCK_READ, 0, iov, SPANS), 0);
	assert_int_equal(host.calls, 4); /* 6.25 MiB, 2 at a time */
	assert_int_equal(transfer_spans(BLOCK_WRITE, 0, iov, SPANS), 0);
	assert_int_equal(host.calls, 8);
	assert_int_equal(transfer_spans(BLOCK_WRITE, 0, iov, 32), 0);
	assert_int_equal(host.calls, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(short_transfers_go_on),
		TEST(a_long_request_is_many_operations),
		TEST(direct_steps_begin_at_blocks),
		TEST(what_is_asked_to_try_again_is_tried_again),
		TEST(not_for_ever),
		TEST(an_error_is_passed_on),
		TEST(what_finds_no_holes_ignores_discards),
		TEST(what_has_no_holes_is_written_with_zeroes),
		TEST(a_full_ring_is_waited_for),
		TEST(no_step_follows_a_cancel),
		TEST(without_locks_it_is_opened_with_a_warning),
		TEST(without_memory_requests_fail_and_the_disk_goes_on),
		TEST(without_memory_there_is_no_bounce_buffer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
