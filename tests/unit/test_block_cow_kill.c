/*
 * A process that writes to a named overlay is killed, at any moment, a hundred times. What a flush had acknowledged is
 * there every time; what was not flushed is there, or what it replaced is; nothing else ever appears.
 *
 * The writer's choices follow from the number of the batch alone, so this side knows them without being told.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "block.h"
#include "skips.h"
#include "test_block_cow_base.h"

enum {
	ROUNDS = 100,
	ROUNDS_PER_FILE = 5,
	REGIONS = 6,
	REGION_SECTORS = 96,
	SECTORS = REGIONS * REGION_SECTORS, /* those that are written at all */
	BATCH = 6,                          /* writes in flight at once, and then a flush */
	COUNT_MAX = 20,
	LIFE_US_MAX = 15000,
};
static const uint64_t DISK_BYTES = GIB(1);

static char path[64];

/* Regions lie in different blocks of the map, and begin inside a cluster. */
static uint64_t disk_sector(unsigned index)
{
	return index / REGION_SECTORS * (DISK_BYTES / BLOCK_SECTOR_BYTES / REGIONS / 8 * 8) + 3 +
	       index % REGION_SECTORS;
}

/* --- the writes of a batch: ranges of the written sectors, none over another ----------------------------------------
 */

struct range {
	unsigned first, count;
};

static struct range choose_range(uint64_t batch, unsigned number)
{
	uint32_t random = (uint32_t)batch * 2654435761U + number * 40503;
	(void)next_random(&random);
	unsigned share = REGION_SECTORS; /* each in a region of its own */
	unsigned count = 1 + next_random(&random) % COUNT_MAX;
	unsigned first = (number + (unsigned)batch) % REGIONS * share + next_random(&random) % (share - count);
	return (struct range){first, count};
}

/* --- the writer ------------------------------------------------------------------------------------------------------
 */

struct write {
	struct block_request request;
	struct iovec iov;
	uint8_t data[COUNT_MAX * BLOCK_SECTOR_BYTES];
	bool done;
};

static void write_done(struct block_request *request, int res)
{
	if (res < 0)
		_exit(3);
	container_of(request, struct write, request)->done = true;
}

static void submit(struct block *block, struct write *write, enum block_op op, uint64_t sector, unsigned count)
{
	write->done = false;
	write->iov = (struct iovec){write->data, (size_t)count * BLOCK_SECTOR_BYTES};
	write->request = (struct block_request){
		.op = op,
		.offset_bytes = sector * BLOCK_SECTOR_BYTES,
		.size_bytes = write->iov.iov_len,
		.iov = &write->iov,
		.iov_count = 1,
		.done = write_done,
	};
	block_submit(block, &write->request);
}

static void wait_for(struct loop *loop, const struct write *write)
{
	while (!write->done)
		if (loop_wait(loop, UINT64_MAX) < 0)
			_exit(4);
}

static void write_batch(struct loop *loop, struct block *block, uint64_t batch)
{
	static struct write writes[BATCH];
	for (unsigned i = 0; i < BATCH; i++) {
		struct range range = choose_range(batch, i);
		fill_sectors(writes[i].data, disk_sector(range.first), range.count, batch);
		submit(block, &writes[i], BLOCK_WRITE, disk_sector(range.first), range.count);
	}
	for (unsigned i = 0; i < BATCH; i++)
		wait_for(loop, &writes[i]);
	submit(block, &writes[0], BLOCK_FLUSH, 0, 0);
	wait_for(loop, &writes[0]);
}

static struct block *open_overlay(struct loop *loop)
{
	struct err err = {0};
	struct fake_base *base = fake_base_new(loop, DISK_BYTES, BLOCK_SECTOR_BYTES);
	struct block *block = block_cow_open(loop, NULL, &base->block, &(struct block_cow_config){.path = path}, &err);
	if (!block)
		(void)fprintf(stderr, "%s\n", err.text);
	return block;
}

/* Says the number of each batch that a flush has acknowledged. Ends by being killed. */
static void write_until_killed(int report_fd, uint64_t batch)
{
	struct loop *loop = loop_new(NULL);
	struct block *block = loop ? open_overlay(loop) : NULL;
	if (!block)
		_exit(2);
	for (;; batch++) {
		write_batch(loop, block, batch);
		if (write(report_fd, &batch, sizeof(batch)) != sizeof(batch))
			_exit(5);
	}
}

/* --- this side -------------------------------------------------------------------------------------------------------
 */

static uint64_t generations[SECTORS]; /* what is known to be on the disk */

static void apply(uint64_t batch, uint64_t *ret_generations)
{
	for (unsigned i = 0; i < BATCH; i++) {
		struct range range = choose_range(batch, i);
		for (unsigned j = 0; j < range.count; j++)
			ret_generations[range.first + j] = batch;
	}
}

/* Returns the last batch that was acknowledged, or `batch` - 1. `late`: it lives so long after its first one. */
static uint64_t run_and_kill(uint64_t batch, unsigned life_us, bool late)
{
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		write_until_killed(fds[1], batch);
	close(fds[1]);
	struct pollfd report = {.fd = fds[0], .events = POLLIN};
	if (late)
		assert_int_equal(poll(&report, 1, -1), 1);
	(void)nanosleep(&(struct timespec){.tv_nsec = life_us * 1000L}, NULL);
	assert_int_equal(kill(pid, SIGKILL), 0);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));

	uint64_t acknowledged = batch - 1, next;
	while (read(fds[0], &next, sizeof(next)) == sizeof(next)) {
		assert_int_equal(next, acknowledged + 1);
		apply(next, generations);
		acknowledged = next;
	}
	close(fds[0]);
	return acknowledged;
}

/* Each sector is what was acknowledged last, or what the batch after that was writing. What it is now, it stays. */
static void check_disk(struct loop *loop, struct block *block, uint64_t unacknowledged)
{
	static struct write read;
	uint64_t maybe[SECTORS] = {0};
	apply(unacknowledged, maybe);
	for (unsigned i = 0; i < SECTORS; i++) {
		uint8_t want[BLOCK_SECTOR_BYTES];
		submit(block, &read, BLOCK_READ, disk_sector(i), 1);
		wait_for(loop, &read);
		fill_sector(want, disk_sector(i), generations[i]);
		if (memcmp(read.data, want, sizeof(want)) == 0)
			continue;
		fill_sector(want, disk_sector(i), unacknowledged);
		if (!maybe[i] || memcmp(read.data, want, sizeof(want)) != 0)
			fail_msg("sector %u is neither of batch %u nor of %u", i, (unsigned)generations[i],
				 (unsigned)unacknowledged);
		generations[i] = unacknowledged;
	}
}

static void check_file(uint64_t unacknowledged)
{
	struct loop *loop = loop_new(NULL);
	assert_non_null(loop);
	struct block *block = open_overlay(loop);
	assert_non_null(block);
	check_disk(loop, block, unacknowledged);
	block_free(block);
	loop_free(loop);
}

static void kill_in(const char *place, unsigned rounds)
{
	(void)snprintf(path, sizeof(path), "%s/vmlet-test-cow-kill-%d", place, (int)getpid());
	alarm(120);
	uint64_t batch = 1;
	unsigned acknowledged = 0;
	uint32_t random = (uint32_t)getpid();
	for (unsigned round = 0; round < rounds; round++) {
		if (round % ROUNDS_PER_FILE == 0) {
			(void)unlink(path);
			memset(generations, 0, sizeof(generations));
		}
		uint64_t last = run_and_kill(batch, next_random(&random) % LIFE_US_MAX, round % 2);
		acknowledged += (unsigned)(last + 1 - batch);
		check_file(last + 1);
		batch = last + 2; /* the one in between may be there in parts */
	}
	/* Or nothing has been tested. */
	print_message("%s: %u flushes acknowledged in %u rounds\n", place, acknowledged, rounds);
	assert_true(acknowledged >= rounds / 2);
	assert_int_equal(unlink(path), 0);
}

static void on_a_disk(void **state)
{
	(void)state;
	kill_in("/tmp", ROUNDS / 2);
}

/* Where a flush costs nothing, so that the kill finds other moments. */
static void in_memory(void **state)
{
	(void)state;
	if (access("/dev/shm", W_OK) < 0)
		skip_one();
	kill_in("/dev/shm", ROUNDS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_a_disk),
		cmocka_unit_test(in_memory),
	};
	int failed = cmocka_run_group_tests_name("block_cow_kill", tests, NULL, NULL);
	return status_of(failed);
}
