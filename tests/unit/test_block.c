/* The door of a disk: what passes, what is refused with which error, and that every request ends exactly once. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "block.h"
#include "util.h"

static const uint64_t MS = 1000000;
enum { DISK_BYTES = 1 << 20, SECTOR = BLOCK_SECTOR_BYTES };

/* --- a back end that only keeps what it is given ---------------------------------------------------------- */

struct fake {
	struct block block;
	struct block_request *has; /* the last request that came through the door */
	unsigned submitted, cancelled, destroyed;
	int resize_result;
};

static struct loop *loop;
static struct fake fake;
static uint8_t memory[8 * SECTOR];

static void fake_submit(struct block *block, struct block_request *request)
{
	struct fake *f = container_of(block, struct fake, block);
	f->has = request;
	f->submitted++;
}

static void fake_cancel(struct block *block, struct block_request *request)
{
	struct fake *f = container_of(block, struct fake, block);
	assert_true(request->cancelled);
	f->cancelled++;
}

static int fake_resize(struct block *block, struct err *err)
{
	struct fake *f = container_of(block, struct fake, block);
	if (f->resize_result < 0)
		return err_set(err, f->resize_result, "fake");
	block->info.size_bytes *= 2;
	return 0;
}

static void fake_destroy(struct block *block)
{
	container_of(block, struct fake, block)->destroyed++;
}

static const struct block_ops FAKE_OPS = {
	.name = "fake",
	.submit = fake_submit,
	.cancel = fake_cancel,
	.resize = fake_resize,
	.destroy = fake_destroy,
};
static const struct block_ops PLAIN_OPS = {.name = "plain", .submit = fake_submit, .destroy = fake_destroy};

static int setup(void **state)
{
	(void)state;
	alarm(20); /* a test that hangs has failed */
	loop = loop_new(NULL);
	fake = (struct fake){0};
	block_init(&fake.block, &FAKE_OPS, loop);
	fake.block.info = (struct block_info){
		.size_bytes = DISK_BYTES,
		.block_size_bytes = SECTOR,
		.physical_block_bytes = 4096,
		.discard_granularity_bytes = 4096,
		.can_write_zeroes = true,
	};
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	if (!fake.destroyed)
		block_free(&fake.block);
	assert_int_equal(fake.destroyed, 1);
	loop_free(loop);
	return 0;
}

/* --- requests --------------------------------------------------------------------------------------------- */

struct request {
	struct block_request request;
	struct iovec iov[4];
	unsigned done;
	int res;
	bool again, frees; /* what `done` does */
};

static void count_done(struct block_request *block_request, int res)
{
	struct request *r = container_of(block_request, struct request, request);
	assert_null(block_request->block);
	r->done++;
	r->res = res;
	if (r->again)
		block_submit(&fake.block, block_request);
	if (r->frees)
		block_free(&fake.block);
}

static void settle(void)
{
	for (int i = 0; i < 4; i++)
		assert_int_equal(loop_wait(loop, MS / 2), 0);
}

static struct request make(enum block_op op, uint64_t offset_bytes, uint64_t size_bytes)
{
	struct request r = {.request = {.op = op, .offset_bytes = offset_bytes, .size_bytes = size_bytes}};
	r.request.done = count_done;
	return r;
}

/* One span as long as the range; never touched, so it may be longer than any memory. */
static void submit(struct request *r)
{
	if (!r->request.iov && (r->request.op == BLOCK_READ || r->request.op == BLOCK_WRITE)) {
		r->iov[0] = (struct iovec){.iov_base = memory, .iov_len = r->request.size_bytes};
		r->request.iov = r->iov;
		r->request.iov_count = 1;
	}
	block_submit(&fake.block, &r->request);
}

/* The door ends it with `res`: later, once, and the back end never sees it. */
static void check_ended_by_door(struct request *r, int res)
{
	unsigned submitted = fake.submitted;
	submit(r);
	assert_int_equal(r->done, 0);
	assert_int_equal(fake.block.in_flight, 1);
	settle();
	assert_int_equal(r->done, 1);
	assert_int_equal(r->res, res);
	assert_int_equal(fake.submitted, submitted);
	assert_int_equal(fake.block.in_flight, 0);
}

static void check_refused(enum block_op op, uint64_t offset_bytes, uint64_t size_bytes, int res)
{
	struct request r = make(op, offset_bytes, size_bytes);
	check_ended_by_door(&r, res);
}

static void check_passes(struct request *r)
{
	fake.has = NULL;
	submit(r);
	assert_ptr_equal(fake.has, &r->request);
	assert_int_equal(r->done, 0);
	assert_int_equal(fake.block.in_flight, 1);
	block_complete(&r->request, 0);
	assert_int_equal(r->done, 1);
	assert_int_equal(r->res, 0);
	assert_int_equal(fake.block.in_flight, 0);
}

static void check_range_passes(enum block_op op, uint64_t offset_bytes, uint64_t size_bytes)
{
	struct request r = make(op, offset_bytes, size_bytes);
	check_passes(&r);
}

static const enum block_op RANGED[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD, BLOCK_WRITE_ZEROES};

static void what_is_inside_passes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(RANGED); i++) {
		check_range_passes(RANGED[i], 0, SECTOR);
		check_range_passes(RANGED[i], DISK_BYTES - SECTOR, SECTOR);
		check_range_passes(RANGED[i], 0, DISK_BYTES);
	}
	check_range_passes(BLOCK_FLUSH, 0, 0);
}

static void what_is_outside_is_refused(void **state)
{
	(void)state;
	const uint64_t top = UINT64_MAX - SECTOR + 1; /* the last sector of all */
	for (size_t i = 0; i < ARRAY_SIZE(RANGED); i++) {
		check_refused(RANGED[i], DISK_BYTES, SECTOR, -EINVAL);
		check_refused(RANGED[i], DISK_BYTES - SECTOR, 2 * SECTOR, -EINVAL);
		check_refused(RANGED[i], 0, DISK_BYTES + SECTOR, -EINVAL);
		check_refused(RANGED[i], top, SECTOR, -EINVAL);
		check_refused(RANGED[i], SECTOR, top, -EINVAL);
		check_refused(RANGED[i], top, top, -EINVAL);
		check_refused(RANGED[i], DISK_BYTES + SECTOR, 0, -EINVAL);
	}
}

static void what_is_not_whole_blocks_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(RANGED); i++) {
		check_refused(RANGED[i], 1, SECTOR, -EINVAL);
		check_refused(RANGED[i], 0, SECTOR - 1, -EINVAL);
		check_refused(RANGED[i], 0, SECTOR + 1, -EINVAL);
	}
	fake.block.info.block_size_bytes = 4096;
	check_refused(BLOCK_READ, SECTOR, 4096, -EINVAL);
	check_refused(BLOCK_READ, 0, SECTOR, -EINVAL);
	check_range_passes(BLOCK_READ, 4096, 4096);
}

static void nothing_is_done_at_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(RANGED); i++) {
		check_refused(RANGED[i], 0, 0, 0);
		check_refused(RANGED[i], DISK_BYTES, 0, 0);
	}
}

static void a_flush_has_no_range(void **state)
{
	(void)state;
	check_refused(BLOCK_FLUSH, 0, SECTOR, -EINVAL);
	check_refused(BLOCK_FLUSH, SECTOR, 0, -EINVAL);
}

static void an_unknown_operation_is_refused(void **state)
{
	(void)state;
	check_refused((enum block_op)(BLOCK_WRITE_ZEROES + 1), 0, SECTOR, -EINVAL);
}

static void a_read_only_disk_is_only_read(void **state)
{
	(void)state;
	fake.block.info.read_only = true;
	check_range_passes(BLOCK_READ, 0, SECTOR);
	check_range_passes(BLOCK_FLUSH, 0, 0);
	check_refused(BLOCK_WRITE, 0, SECTOR, -EROFS);
	check_refused(BLOCK_WRITE, 0, 0, -EROFS);
	check_refused(BLOCK_DISCARD, 0, SECTOR, -EROFS);
	check_refused(BLOCK_WRITE_ZEROES, 0, SECTOR, -EROFS);
}

static void what_the_back_end_lacks_is_refused(void **state)
{
	(void)state;
	fake.block.info.discard_granularity_bytes = 0;
	check_refused(BLOCK_DISCARD, 0, SECTOR, -ENOTSUP);
	check_range_passes(BLOCK_WRITE_ZEROES, 0, SECTOR);
	fake.block.info.can_write_zeroes = false;
	check_refused(BLOCK_WRITE_ZEROES, 0, SECTOR, -ENOTSUP);
	check_range_passes(BLOCK_WRITE, 0, SECTOR);
}

/* --- spans ------------------------------------------------------------------------------------------------ */

static void make_spans(struct request *r, unsigned count, const size_t *sizes)
{
	*r = make(BLOCK_WRITE, 0, 4 * SECTOR);
	for (unsigned i = 0; i < count; i++)
		r->iov[i] = (struct iovec){.iov_base = memory, .iov_len = sizes[i]};
	r->request.iov = r->iov;
	r->request.iov_count = count;
}

static void spans_of_the_right_length_pass(void **state)
{
	(void)state;
	static const size_t SIZES[][4] = {
		{4 * SECTOR, 0, 0, 0}, {0, 0, 0, 4 * SECTOR}, {1, 2, 3, 4 * SECTOR - 6}, {SECTOR, 0, 3 * SECTOR, 0}};
	for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
		struct request r;
		make_spans(&r, 4, SIZES[i]);
		check_passes(&r);
	}
}

static void spans_of_another_length_are_refused(void **state)
{
	(void)state;
	static const size_t SIZES[][4] = {
		{4 * SECTOR, 0, 0, 1},
		{4 * SECTOR - 1, 0, 0, 0},
		{0, 0, 0, 0},
		{SIZE_MAX, 0, 0, 0},
		{SIZE_MAX, 1, 2 * SECTOR, 2 * SECTOR}, /* right, if it were to wrap */
		{SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 1, 4 * SECTOR, 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
		struct request r;
		make_spans(&r, 4, SIZES[i]);
		check_ended_by_door(&r, -EINVAL);
	}
	struct request none;
	make_spans(&none, 0, NULL);
	check_ended_by_door(&none, -EINVAL);
}

/* --- ends ------------------------------------------------------------------------------------------------- */

static void many_refused_end_once_each(void **state)
{
	(void)state;
	struct request r[50];
	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		r[i] = make(BLOCK_READ, i % 2 ? DISK_BYTES : 0, i % 2 ? SECTOR : 0);
		submit(&r[i]);
	}
	assert_int_equal(fake.block.in_flight, ARRAY_SIZE(r));
	settle();
	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		assert_int_equal(r[i].done, 1);
		assert_int_equal(r[i].res, i % 2 ? -EINVAL : 0);
	}
	assert_int_equal(fake.block.in_flight, 0);
}

/* A guest that asks for the impossible again and again must not hold the loop. */
static void one_that_is_submitted_again_does_not_hold_the_loop(void **state)
{
	(void)state;
	struct request r = make(BLOCK_READ, DISK_BYTES, SECTOR);
	r.again = true;
	submit(&r);
	settle();
	assert_in_range(r.done, 2, 1000);
	r.again = false;
	settle();
	assert_int_equal(fake.block.in_flight, 0);
}

static void the_last_done_may_free(void **state)
{
	(void)state;
	struct request first = make(BLOCK_READ, DISK_BYTES, SECTOR), last = first;
	submit(&last); /* they end in the other order */
	submit(&first);
	last.frees = true;
	settle();
	assert_int_equal(first.done, 1);
	assert_int_equal(last.done, 1);
	assert_int_equal(fake.destroyed, 1);
}

static void a_back_end_may_complete_later(void **state)
{
	(void)state;
	struct request r = make(BLOCK_READ, 0, SECTOR);
	submit(&r);
	block_complete_later(&r.request, -EIO);
	assert_int_equal(r.done, 0);
	block_cancel(&fake.block, &r.request); /* too late, and nothing for the back end */
	assert_int_equal(fake.cancelled, 0);
	settle();
	assert_int_equal(r.done, 1);
	assert_int_equal(r.res, -EIO);
}

static void only_what_the_back_end_has_is_cancelled_there(void **state)
{
	(void)state;
	struct request r = make(BLOCK_READ, 0, SECTOR), refused = make(BLOCK_READ, 0, 1), zero = make(BLOCK_READ, 0, 0);
	block_cancel(&fake.block, &r.request); /* not submitted */
	submit(&refused);
	submit(&zero);
	block_cancel(&fake.block, &refused.request);
	block_cancel(&fake.block, &zero.request);
	assert_int_equal(fake.cancelled, 0);
	settle();
	assert_int_equal(refused.res, -EINVAL);
	assert_int_equal(zero.res, 0);

	submit(&r);
	assert_false(r.request.cancelled);
	block_cancel(&fake.block, &r.request);
	assert_int_equal(fake.cancelled, 1);
	assert_int_equal(r.done, 0);
	block_complete(&r.request, -ECANCELED);
	assert_int_equal(r.done, 1);
	block_cancel(&fake.block, &r.request); /* is over */
	assert_int_equal(fake.cancelled, 1);

	submit(&r);
	assert_false(r.request.cancelled);
	block_complete(&r.request, 0);
	assert_int_equal(r.done, 2);
}

static void without_a_cancel_it_ends_by_itself(void **state)
{
	(void)state;
	fake.block.ops = &PLAIN_OPS;
	struct request r = make(BLOCK_READ, 0, SECTOR);
	submit(&r);
	block_cancel(&fake.block, &r.request);
	assert_true(r.request.cancelled);
	assert_int_equal(r.done, 0);
	block_complete(&r.request, 0);
}

static void resize_is_the_back_ends(void **state)
{
	(void)state;
	struct err err = {0};
	check_refused(BLOCK_READ, DISK_BYTES, SECTOR, -EINVAL);
	assert_int_equal(block_resize(&fake.block, &err), 0);
	check_range_passes(BLOCK_READ, DISK_BYTES, SECTOR);
	fake.resize_result = -EIO;
	assert_int_equal(block_resize(&fake.block, &err), -EIO);
	assert_string_equal(err.text, "fake");
	fake.block.ops = &PLAIN_OPS;
	assert_int_equal(block_resize(&fake.block, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "plain"));
}

static void nothing_can_be_freed(void **state)
{
	(void)state;
	block_free(NULL);
	assert_int_equal(fake.destroyed, 0);
}

/* --- bugs of ours: the process ends -------------------------------------------------------------------------- */

static void check_aborts(void (*bug)(void))
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit no_core = {0};
		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
		signal(SIGABRT, SIG_DFL); /* not cmocka's */
		bug();
		_exit(0);
	}
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void complete_twice(void)
{
	struct request r = make(BLOCK_READ, 0, SECTOR);
	submit(&r);
	block_complete(&r.request, 0);
	block_complete(&r.request, 0);
}

static void submit_twice(void)
{
	struct request r = make(BLOCK_READ, 0, SECTOR);
	submit(&r);
	submit(&r);
}

static void free_in_flight(void)
{
	struct request r = make(BLOCK_READ, 0, SECTOR);
	submit(&r);
	block_free(&fake.block);
}

static void exactly_once_is_asserted(void **state)
{
	(void)state;
	check_aborts(complete_twice);
	check_aborts(submit_twice);
	check_aborts(free_in_flight);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_inside_passes),
		TEST(what_is_outside_is_refused),
		TEST(what_is_not_whole_blocks_is_refused),
		TEST(nothing_is_done_at_once),
		TEST(a_flush_has_no_range),
		TEST(an_unknown_operation_is_refused),
		TEST(a_read_only_disk_is_only_read),
		TEST(what_the_back_end_lacks_is_refused),
		TEST(spans_of_the_right_length_pass),
		TEST(spans_of_another_length_are_refused),
		TEST(many_refused_end_once_each),
		TEST(one_that_is_submitted_again_does_not_hold_the_loop),
		TEST(the_last_done_may_free),
		TEST(a_back_end_may_complete_later),
		TEST(only_what_the_back_end_has_is_cancelled_there),
		TEST(without_a_cancel_it_ends_by_itself),
		TEST(resize_is_the_back_ends),
		TEST(nothing_can_be_freed),
		TEST(exactly_once_is_asserted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
