/* Copy-on-write overlays against a model of the disk: any mix of requests in flight, errors, cancels, named files. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "block.h"
#include "skips.h"
#include "test_block_cow_base.h"

enum {
	SECTOR = BLOCK_SECTOR_BYTES,
	CLUSTER = 4096,
	CLUSTER_SECTORS = CLUSTER / SECTOR,
	SECTORS = 259, /* the last cluster is not whole */
	DISK_BYTES = SECTORS * SECTOR,
	DATA_OFFSET = 65536, /* of the file of a disk of this size */
	SPANS = 5,
};

static struct loop *loop;
static char dir[] = "/tmp/vmlet-test-cow-XXXXXX";
static char path[64];

static struct fake_base *base;
static struct block *cow;
static uint8_t model[DISK_BYTES];

static int setup(void **state)
{
	(void)state;
	alarm(30); /* a test that hangs has failed */
	loop = loop_new(NULL);
	strcpy(dir + sizeof(dir) - 7, "XXXXXX");
	if (!loop || !mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/overlay", dir);
	fill_sectors(model, 0, SECTORS, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	unlink(path);
	return rmdir(dir);
}

static void open_sized(const char *at, uint64_t size_bytes, uint32_t block_size_bytes)
{
	struct err err = {0};
	base = fake_base_new(loop, size_bytes, block_size_bytes);
	cow = block_cow_open(loop, NULL, &base->block, &(struct block_cow_config){.path = at, .dir = dir}, &err);
	if (!cow)
		fail_msg("%s", err.text);
}

static void open_overlay(const char *at)
{
	open_sized(at, DISK_BYTES, SECTOR);
}

static void close_overlay(void)
{
	assert_int_equal(base->others, 0);
	block_free(cow);
	cow = NULL;
}

/* --- requests -------------------------------------------------------------------------------------------------- */

struct io {
	struct block_request request;
	struct iovec iov[SPANS];
	uint8_t *data;
	int res;
	unsigned done;
	bool inside; /* block_submit is going on */
};

static void io_done(struct block_request *request, int res)
{
	struct io *io = container_of(request, struct io, request);
	assert_false(io->inside);
	io->res = res;
	io->done++;
}

/* The buffer in pieces of any size. */
static void scatter(struct io *io, uint32_t *random)
{
	size_t left = io->request.size_bytes;
	uint8_t *at = io->data;
	for (unsigned i = 0; i < SPANS; i++) {
		size_t size = i == SPANS - 1 ? left : next_random(random) % (left + 1);
		io->iov[i] = (struct iovec){at, size};
		at += size;
		left -= size;
	}
}

static void submit(struct io *io, enum block_op op, uint64_t first, uint64_t count)
{
	uint32_t random = (uint32_t)(first * 7 + count);
	io->request = (struct block_request){
		.op = op,
		.offset_bytes = first * SECTOR,
		.size_bytes = count * SECTOR,
		.iov = io->iov,
		.iov_count = SPANS,
		.done = io_done,
	};
	scatter(io, &random);
	io->done = 0;
	io->inside = true;
	block_submit(cow, &io->request);
	io->inside = false;
}

static int finish(struct io *io)
{
	while (!io->done)
		assert_int_equal(loop_wait(loop, UINT64_MAX), 0);
	return io->res;
}

static int run(enum block_op op, uint64_t first, uint64_t count, uint8_t *data)
{
	struct io io = {.data = data};
	submit(&io, op, first, count);
	int res = finish(&io);
	assert_int_equal(io.done, 1);
	return res;
}

static int flush(void)
{
	return run(BLOCK_FLUSH, 0, 0, NULL);
}

static void write_model(uint64_t first, uint64_t count, uint64_t generation)
{
	fill_sectors(model + first * SECTOR, first, count, generation);
	assert_int_equal(run(BLOCK_WRITE, first, count, model + first * SECTOR), 0);
}

static void check_disk(void)
{
	uint8_t *disk = calloc(1, DISK_BYTES);
	assert_int_equal(run(BLOCK_READ, 0, SECTORS, disk), 0);
	for (unsigned i = 0; i < SECTORS; i++)
		if (memcmp(disk + i * SECTOR, model + i * SECTOR, SECTOR) != 0)
			fail_msg("sector %u differs", i);
	free(disk);
}

/* --- one at a time ----------------------------------------------------------------------------------------------- */

static void what_is_not_written_comes_from_the_base(void **state)
{
	(void)state;
	open_overlay(NULL);
	assert_int_equal(cow->info.size_bytes, DISK_BYTES);
	assert_int_equal(cow->info.block_size_bytes, SECTOR);
	assert_int_equal(cow->info.physical_block_bytes, CLUSTER);
	assert_false(cow->info.read_only);
	check_disk();
	write_model(8, 8, 1);
	assert_int_equal(base->reads, 1); /* a whole cluster: nothing to copy up */
	check_disk();
	close_overlay();
}

static void the_rest_of_a_cluster_is_copied_up_once(void **state)
{
	(void)state;
	open_overlay(NULL);
	write_model(19, 2, 1); /* inside one cluster */
	assert_int_equal(base->reads, 2);
	write_model(17, 5, 2);
	assert_int_equal(base->reads, 2);
	write_model(29, 20, 3); /* a head, two whole, a tail */
	assert_int_equal(base->reads, 4);
	write_model(257, 2, 4); /* at the end: a head alone */
	assert_int_equal(base->reads, 5);
	check_disk();
	close_overlay();
}

static void flushes_of_an_unlinked_overlay_end(void **state)
{
	(void)state;
	open_overlay(NULL);
	write_model(0, 1, 1);
	assert_int_equal(flush(), 0);
	close_overlay();
}

static void zeroes_and_discards(void **state)
{
	(void)state;
	open_overlay(NULL);
	assert_true(cow->info.can_write_zeroes);
	write_model(16, 16, 1);
	/* Half a cluster of the base's, half and whole ones of ours and of the base's. */
	const uint64_t ranges[][2] = {{3, 2}, {18, 3}, {24, 8}, {35, 40}, {258, 1}};
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
		assert_int_equal(run(BLOCK_WRITE_ZEROES, ranges[i][0], ranges[i][1], NULL), 0);
		memset(model + ranges[i][0] * SECTOR, 0, ranges[i][1] * SECTOR);
		check_disk();
	}
	/* A discard keeps what is the base's. */
	write_model(88, 8, 2);
	assert_int_equal(run(BLOCK_DISCARD, 80, 24, NULL), 0);
	memset(model + 88 * SECTOR, 0, 8 * SECTOR);
	check_disk();
	close_overlay();
}

static void a_base_of_4k_blocks_gets_aligned_requests(void **state)
{
	(void)state;
	open_sized(NULL, SECTORS / 8 * CLUSTER, CLUSTER);
	assert_int_equal(cow->info.block_size_bytes, CLUSTER);
	uint8_t *data = calloc(4, CLUSTER), *back = calloc(6, CLUSTER);
	fill_sectors(data, 8, 32, 1);
	assert_int_equal(run(BLOCK_WRITE, 8, 32, data), 0);
	assert_int_equal(run(BLOCK_WRITE, 9, 8, data), -EINVAL);
	assert_int_equal(run(BLOCK_READ, 0, 48, back), 0);
	assert_memory_equal(back + CLUSTER, data, 4 * CLUSTER);
	free(data);
	free(back);
	close_overlay();
}

static void a_read_of_many_runs(void **state)
{
	(void)state;
	enum { BIG = 300 };
	open_sized(NULL, BIG * CLUSTER, SECTOR);
	uint8_t *disk = malloc(BIG * CLUSTER), *back = malloc(BIG * CLUSTER);
	fill_sectors(disk, 0, BIG * CLUSTER_SECTORS, 0);
	for (unsigned i = 1; i < BIG; i += 2) {
		fill_sectors(disk + i * CLUSTER, i * CLUSTER_SECTORS, CLUSTER_SECTORS, 1);
		assert_int_equal(run(BLOCK_WRITE, i * CLUSTER_SECTORS, CLUSTER_SECTORS, disk + i * CLUSTER), 0);
	}
	assert_int_equal(run(BLOCK_READ, 3, BIG * CLUSTER_SECTORS - 3, back), 0);
	assert_memory_equal(back, disk + 3 * SECTOR, (size_t)(BIG * CLUSTER - 3 * SECTOR));
	free(disk);
	free(back);
	close_overlay();
}

/* More spans than the kernel takes at once. */
static void a_request_of_very_many_spans(void **state)
{
	(void)state;
	enum { COUNT = 3000, BYTES = COUNT * 16 - COUNT * 16 % SECTOR };
	open_overlay(NULL);
	static uint8_t data[COUNT * 16];
	static struct iovec iov[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		size_t begin = i * 16 < BYTES ? i * 16 : BYTES;
		size_t end = begin + 16 < BYTES ? begin + 16 : BYTES;
		iov[i] = (struct iovec){data + begin, end - begin};
	}
	fill_sectors(data, 9, BYTES / SECTOR, 1);
	struct io io = {.res = 1};
	io.request = (struct block_request){
		.op = BLOCK_WRITE, .offset_bytes = 9 * SECTOR, .size_bytes = BYTES, .iov = iov, .iov_count = COUNT};
	io.request.done = io_done;
	block_submit(cow, &io.request);
	assert_int_equal(finish(&io), 0);
	memcpy(model + 9 * SECTOR, data, BYTES);
	check_disk();

	memset(data, 0, sizeof(data));
	io.done = 0;
	io.request.op = BLOCK_READ;
	block_submit(cow, &io.request);
	assert_int_equal(finish(&io), 0);
	assert_memory_equal(data, model + 9 * SECTOR, BYTES);
	close_overlay();
}

/* --- many at a time ------------------------------------------------------------------------------------------------
 */

enum { AT_ONCE = 24 };

struct mix {
	uint32_t random;
	uint64_t generation;
	bool busy[SECTORS];     /* a request is under way there */
	bool optional[SECTORS]; /* discarded: zeroes, or what the model says */
	struct io ios[AT_ONCE];
	bool active[AT_ONCE];
};

static bool range_is_free(const struct mix *mix, uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++)
		if (mix->busy[i])
			return false;
	return true;
}

static void check_read(struct mix *mix, const struct io *io, uint64_t first, uint64_t count)
{
	static const uint8_t zeroes[SECTOR];
	for (uint64_t i = first; i < first + count; i++) {
		const uint8_t *got = io->data + (i - first) * SECTOR;
		if (memcmp(got, model + i * SECTOR, SECTOR) == 0)
			continue;
		if (!mix->optional[i] || memcmp(got, zeroes, SECTOR) != 0)
			fail_msg("sector %u differs", (unsigned)i);
	}
}

/* What a request that is done means for the model. */
static void mix_end(struct mix *mix, struct io *io)
{
	uint64_t first = io->request.offset_bytes / SECTOR;
	uint64_t count = io->request.size_bytes / SECTOR;
	assert_int_equal(io->res, 0);
	if (io->request.op == BLOCK_WRITE)
		memcpy(model + first * SECTOR, io->data, count * SECTOR);
	if (io->request.op == BLOCK_WRITE_ZEROES)
		memset(model + first * SECTOR, 0, count * SECTOR);
	if (io->request.op == BLOCK_READ)
		check_read(mix, io, first, count);
	for (uint64_t i = first; i < first + count; i++) {
		mix->busy[i] = false;
		if (io->request.op == BLOCK_DISCARD)
			mix->optional[i] = true;
		else if (io->request.op != BLOCK_READ)
			mix->optional[i] = false;
	}
	free(io->data);
}

/* Ranges share clusters, but no sector: so what each sector holds at the end is known. */
static void mix_begin(struct mix *mix, struct io *io)
{
	static const enum block_op ops[] = {BLOCK_READ,  BLOCK_READ,    BLOCK_WRITE,        BLOCK_WRITE,
					    BLOCK_WRITE, BLOCK_DISCARD, BLOCK_WRITE_ZEROES, BLOCK_FLUSH};
	enum block_op op = ops[next_random(&mix->random) % ARRAY_SIZE(ops)];
	uint64_t first = 0, count = 0;
	if (op != BLOCK_FLUSH) {
		uint64_t max = next_random(&mix->random) % 4 ? 12 : 60;
		do {
			first = next_random(&mix->random) % SECTORS;
			count = 1 + next_random(&mix->random) % max;
			count = min_u64(count, SECTORS - first);
			max = max > 1 ? max - 1 : 1;
		} while (!range_is_free(mix, first, count));
	}
	memset(mix->busy + first, true, count);
	io->data = calloc(1, count * SECTOR + 1);
	if (op == BLOCK_WRITE)
		fill_sectors(io->data, first, count, ++mix->generation);
	submit(io, op, first, count);
}

static void run_mix(unsigned count)
{
	static struct mix mix;
	mix = (struct mix){.random = count, .generation = count};
	unsigned active = 0;
	while (count || active) {
		for (unsigned i = 0; i < AT_ONCE; i++) {
			if (mix.active[i] && mix.ios[i].done) {
				mix_end(&mix, &mix.ios[i]);
				mix.active[i] = false;
				active--;
			}
			if (!mix.active[i] && count && next_random(&mix.random) % 4) {
				mix_begin(&mix, &mix.ios[i]);
				mix.active[i] = true;
				active++;
				count--;
			}
		}
		if (active)
			assert_int_equal(loop_wait(loop, UINT64_MAX), 0);
	}
	/* From here on what was discarded is what it is now. */
	struct io all = {.data = calloc(1, DISK_BYTES)};
	submit(&all, BLOCK_READ, 0, SECTORS);
	assert_int_equal(finish(&all), 0);
	check_read(&mix, &all, 0, SECTORS);
	memcpy(model, all.data, DISK_BYTES);
	free(all.data);
}

static void any_mix_of_requests(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		fill_sectors(model, 0, SECTORS, 0);
		open_overlay(NULL);
		base->random = round;
		run_mix(150 + round);
		check_disk();
		close_overlay();
	}
}

static void any_mix_of_requests_to_a_named_overlay(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		open_overlay(path);
		check_disk();
		run_mix(100 + round);
		close_overlay();
	}
	open_overlay(path);
	check_disk();
	close_overlay();
}

/* Which of two writes to a sector wins is open; that one does, and that nothing else is lost, is not. */
static void writes_over_each_other(void **state)
{
	(void)state;
	open_overlay(NULL);
	enum { WRITES = 40, FIRST = 13, COUNT = 22 };
	static struct io ios[WRITES];
	uint32_t random = 5;
	for (unsigned i = 0; i < WRITES; i++) {
		uint64_t first = FIRST + next_random(&random) % COUNT;
		uint64_t count = 1 + next_random(&random) % (FIRST + COUNT - first);
		ios[i].data = malloc(count * SECTOR);
		fill_sectors(ios[i].data, first, count, i + 1);
		submit(&ios[i], BLOCK_WRITE, first, count);
	}
	for (unsigned i = 0; i < WRITES; i++)
		assert_int_equal(finish(&ios[i]), 0);

	static uint8_t disk[DISK_BYTES];
	assert_int_equal(run(BLOCK_READ, 0, SECTORS, disk), 0);
	for (unsigned i = 0; i < SECTORS; i++) {
		bool covered = false, found = false;
		for (unsigned j = 0; j < WRITES; j++) {
			uint64_t first = ios[j].request.offset_bytes / SECTOR;
			if (i < first || i >= first + ios[j].request.size_bytes / SECTOR)
				continue;
			covered = true;
			found |= memcmp(disk + i * SECTOR, ios[j].data + (i - first) * SECTOR, SECTOR) == 0;
		}
		if (!covered)
			found = memcmp(disk + i * SECTOR, model + i * SECTOR, SECTOR) == 0;
		assert_true(found);
	}
	for (unsigned i = 0; i < WRITES; i++)
		free(ios[i].data);
	close_overlay();
}

/* So many that the ring does not take them all at once, as long as nobody runs it. */
static void more_requests_than_the_ring_takes(void **state)
{
	(void)state;
	enum { MANY = 700 };
	static struct io ios[2][MANY];
	open_sized(NULL, MANY * CLUSTER, SECTOR);
	uint8_t *disk = malloc(MANY * CLUSTER), *back = malloc(MANY * CLUSTER);
	fill_sectors(disk, 0, MANY * CLUSTER_SECTORS, 1);
	for (unsigned i = 0; i < MANY; i++) {
		ios[0][i].data = disk + i * CLUSTER;
		submit(&ios[0][i], BLOCK_WRITE, i * CLUSTER_SECTORS, CLUSTER_SECTORS);
	}
	block_cancel(cow, &ios[0][MANY - 1].request);
	for (unsigned i = 0; i < MANY - 1; i++)
		assert_int_equal(finish(&ios[0][i]), 0);
	assert_int_equal(finish(&ios[0][MANY - 1]), -ECANCELED);
	for (unsigned i = 0; i < MANY - 1; i++) {
		ios[1][i].data = back + i * CLUSTER;
		submit(&ios[1][i], BLOCK_READ, i * CLUSTER_SECTORS, CLUSTER_SECTORS);
	}
	for (unsigned i = 0; i < MANY - 1; i++)
		assert_int_equal(finish(&ios[1][i]), 0);
	assert_memory_equal(back, disk, (MANY - 1) * CLUSTER);
	free(disk);
	free(back);
	close_overlay();
}

/* The real thing underneath: what it was, byte for byte, is what it is. */
static void a_raw_base_is_never_written(void **state)
{
	(void)state;
	static uint8_t after[DISK_BYTES + 1];
	char raw_path[80];
	(void)snprintf(raw_path, sizeof(raw_path), "%s/base", dir);
	int fd = open(raw_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, model, DISK_BYTES), DISK_BYTES);
	assert_int_equal(fchmod(fd, 0400), 0);
	struct err err = {0};
	const struct block_raw_config raw_config = {.path = raw_path, .read_only = true};
	struct block *raw = block_raw_open(loop, NULL, &raw_config, &err);
	if (!raw)
		fail_msg("%s", err.text);
	cow = block_cow_open(loop, NULL, raw, &(struct block_cow_config){.path = path}, &err);
	assert_non_null(cow);
	run_mix(300);
	check_disk();
	block_free(cow);

	fill_sectors(model, 0, SECTORS, 0);
	assert_int_equal(pread(fd, after, sizeof(after), 0), DISK_BYTES);
	assert_memory_equal(after, model, DISK_BYTES);
	raw = block_raw_open(loop, NULL, &raw_config, &err);
	assert_null(block_cow_open(loop, NULL, raw, &(struct block_cow_config){.path = raw_path}, &err));
	assert_non_null(strstr(err.text, geteuid() == 0 ? "not an overlay" : "Permission denied"));
	assert_int_equal(pread(fd, after, sizeof(after), 0), DISK_BYTES);
	assert_memory_equal(after, model, DISK_BYTES);
	close(fd);
	assert_int_equal(unlink(raw_path), 0);
}

/* --- cancels and errors ----------------------------------------------------------------------------------------------
 */

static void cancelled_requests_end_once(void **state)
{
	(void)state;
	open_overlay(NULL);
	write_model(0, 8, 1);
	base->hold = true;
	static uint8_t data[64 * SECTOR];
	struct io ios[4] = {{.data = data}, {.data = data}, {.data = data}, {.data = data}};
	submit(&ios[0], BLOCK_READ, 0, 64);
	submit(&ios[1], BLOCK_WRITE, 17, 2); /* fills wait for the base */
	submit(&ios[2], BLOCK_WRITE, 18, 2); /* waits for the one before */
	submit(&ios[3], BLOCK_WRITE, 22, 1);
	for (unsigned i = 0; i < 4; i++)
		(void)loop_wait(loop, 1000000);
	for (unsigned i = 0; i < 3; i++) {
		block_cancel(cow, &ios[i].request);
		block_cancel(cow, &ios[i].request);
		assert_int_equal(ios[i].done, 0);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(finish(&ios[i]), -ECANCELED);
		assert_int_equal(ios[i].done, 1);
	}
	base->hold = false;
	loop_post(loop, &base->task);
	assert_int_equal(finish(&ios[3]), 0);
	memcpy(model + 22 * SECTOR, data, SECTOR);
	/* What was cancelled may have written the sectors that it was for, and has touched no other. */
	write_model(17, 3, 3);
	check_disk();
	close_overlay();
}

static void an_error_of_the_base_is_the_requests_error(void **state)
{
	(void)state;
	open_overlay(NULL);
	write_model(8, 8, 1);
	base->read_error = -EIO;
	static uint8_t data[DISK_BYTES];
	assert_int_equal(run(BLOCK_READ, 0, SECTORS, data), -EIO);
	assert_int_equal(run(BLOCK_READ, 8, 8, data), 0);
	assert_int_equal(run(BLOCK_WRITE, 17, 1, data), -EIO);
	assert_int_equal(run(BLOCK_WRITE, 24, 8, data), 0);
	memcpy(model + 24 * SECTOR, data, 8 * SECTOR);
	base->read_error = 0;
	check_disk();
	close_overlay();
}

/* A file-size limit in the middle of the disk: writes behind it fail, and what they were for stays as it was. */
static void a_file_that_cannot_grow(void **state)
{
	(void)state;
	open_overlay(NULL);
	struct rlimit saved, small;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &saved), 0);
	(void)signal(SIGXFSZ, SIG_IGN);
	small = (struct rlimit){.rlim_cur = DATA_OFFSET + 32 * SECTOR, .rlim_max = saved.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	static uint8_t data[16 * SECTOR];
	fill_sectors(data, 24, 16, 1);
	assert_int_equal(run(BLOCK_WRITE, 40, 8, data), -EFBIG);
	assert_int_equal(run(BLOCK_WRITE, 24, 16, data), -EFBIG); /* half of it fits */
	assert_int_equal(run(BLOCK_WRITE, 42, 1, data), -EFBIG);
	check_disk();
	write_model(24, 8, 2);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &saved), 0);
	write_model(24, 16, 3);
	check_disk();
	close_overlay();
}

static bool put_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool done = write(fd, text, strlen(text)) > 0;
	close(fd);
	return done;
}

/* A mount namespace, with whatever right to one there is. */
static bool enter_namespace(void)
{
	char users[32], groups[32];
	(void)snprintf(users, sizeof(users), "0 %u 1", (unsigned)geteuid());
	(void)snprintf(groups, sizeof(groups), "0 %u 1", (unsigned)getegid());
	if (geteuid() == 0)
		return unshare(CLONE_NEWNS) == 0;
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && put_file("/proc/self/uid_map", users) &&
	       put_file("/proc/self/setgroups", "deny") && put_file("/proc/self/gid_map", groups);
}

/* In a child with a tiny file system of its own. Exit status: 0 right, 1 wrong, 2 not allowed here. */
static int fill_a_tiny_disk(void)
{
	if (!enter_namespace() || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", dir, "tmpfs", 0, "size=256k") < 0)
		return 2;
	loop = loop_new(NULL); /* the parent's is not for a child */
	open_sized(NULL, 64 * KIB(16), SECTOR);
	static uint8_t data[KIB(16)], back[KIB(16)];
	unsigned written = 0, full = 0;
	for (unsigned i = 0; i < 64; i++) {
		fill_sectors(data, i * 32, 32, 1);
		int res = run(BLOCK_WRITE, i * 32, 32, data);
		if (res != 0 && res != -ENOSPC)
			return 1;
		bool fits = res == 0;
		written += fits;
		full += !fits;
		fill_sectors(data, i * 32, 32, fits);
		if (run(BLOCK_READ, i * 32, 32, back) != 0 || memcmp(data, back, sizeof(data)) != 0)
			return 1;
	}
	/* Room again. */
	if (!written || !full || run(BLOCK_DISCARD, 0, 64, NULL) != 0)
		return 1;
	fill_sectors(data, 63 * 32, 32, 2);
	return run(BLOCK_WRITE, 63 * 32, 32, data) == 0 ? 0 : 1;
}

static void a_full_file_system(void **state)
{
	(void)state;
	pid_t pid = fork();
	if (pid == 0)
		_exit(fill_a_tiny_disk());
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), 1);
	if (WEXITSTATUS(status) == 2)
		skip_one();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_not_written_comes_from_the_base, setup, teardown),
		cmocka_unit_test_setup_teardown(the_rest_of_a_cluster_is_copied_up_once, setup, teardown),
		cmocka_unit_test_setup_teardown(flushes_of_an_unlinked_overlay_end, setup, teardown),
		cmocka_unit_test_setup_teardown(zeroes_and_discards, setup, teardown),
		cmocka_unit_test_setup_teardown(a_base_of_4k_blocks_gets_aligned_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(a_read_of_many_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(a_request_of_very_many_spans, setup, teardown),
		cmocka_unit_test_setup_teardown(any_mix_of_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(any_mix_of_requests_to_a_named_overlay, setup, teardown),
		cmocka_unit_test_setup_teardown(writes_over_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(more_requests_than_the_ring_takes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_raw_base_is_never_written, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelled_requests_end_once, setup, teardown),
		cmocka_unit_test_setup_teardown(an_error_of_the_base_is_the_requests_error, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_cannot_grow, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_file_system, setup, teardown),
	};
	int failed = cmocka_run_group_tests_name("block_cow", tests, NULL, NULL);
	return status_of(failed);
}
