/* Named overlays: what is in the file and when, which files are refused, and what a flush does. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "block.h"
#include "block_cow_flush.h"
#include "block_cow_map.h"
#include "test_block_cow_base.h"

/* The format, once more, by hand. */
enum {
	CLUSTER = 4096,
	DISK_BYTES = 1 << 20,
	VERSION_AT = 8,
	CLUSTER_AT = 12,
	DISK_AT = 16,
	FLAGS_AT = 40,
	CHECKSUM_AT = 48,
	MAP_AT = 4096,
	DATA_AT = 65536,
	FILE_BYTES = DATA_AT + DISK_BYTES,
};

static struct loop *loop;
static char dir[64], path[96];

static int setup(void **state)
{
	(void)state;
	alarm(30); /* a test that hangs has failed */
	loop = loop_new(NULL);
	/* In memory if possible: what is made stable here are a lot of files that nobody will miss. */
	const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	(void)snprintf(dir, sizeof(dir), "%s/vmlet-test-cow-XXXXXX", place);
	if (!loop || !mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/overlay", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	(void)unlink(path);
	return rmdir(dir);
}

static struct block *try_open(const struct block_cow_config *config, uint64_t disk_bytes, struct err *err)
{
	bool freed = false;
	struct fake_base *base = fake_base_new(loop, disk_bytes, 512);
	base->ret_freed = &freed;
	struct block *cow = block_cow_open(loop, NULL, &base->block, config, err);
	assert_int_equal(freed, !cow); /* it is taken over, in either case */
	if (cow)
		base->ret_freed = NULL;
	return cow;
}

static struct block *open_overlay(void)
{
	struct err err = {0};
	struct block *cow = try_open(&(struct block_cow_config){.path = path}, DISK_BYTES, &err);
	if (!cow)
		fail_msg("%s", err.text);
	return cow;
}

static void must_be_refused(const struct block_cow_config *config, uint64_t disk_bytes, int code, const char *words)
{
	struct err err = {0};
	assert_null(try_open(config, disk_bytes, &err));
	assert_int_equal(err.code, code);
	assert_non_null(strstr(err.text, words));
	assert_non_null(strstr(err.text, config->path ? config->path : config->dir));
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

struct io {
	struct block_request request;
	struct iovec iov;
	int res;
	unsigned done;
};

static void io_done(struct block_request *request, int res)
{
	struct io *io = container_of(request, struct io, request);
	io->res = res;
	io->done++;
}

static void submit(struct block *block, struct io *io, enum block_op op, uint64_t offset, void *data, size_t size_bytes)
{
	*io = (struct io){.iov = {data, size_bytes}};
	io->request = (struct block_request){.op = op, .offset_bytes = offset, .size_bytes = size_bytes};
	io->request.iov = &io->iov;
	io->request.iov_count = 1;
	io->request.done = io_done;
	block_submit(block, &io->request);
}

static int finish(struct io *io)
{
	while (!io->done)
		assert_int_equal(loop_wait(loop, UINT64_MAX), 0);
	assert_int_equal(io->done, 1);
	return io->res;
}

static int run(struct block *block, enum block_op op, uint64_t offset, void *data, size_t size_bytes)
{
	struct io io;
	submit(block, &io, op, offset, data, size_bytes);
	return finish(&io);
}

static void write_cluster(struct block *cow, unsigned cluster, uint64_t generation)
{
	uint8_t data[CLUSTER];
	fill_sectors(data, cluster * 8, 8, generation);
	assert_int_equal(run(cow, BLOCK_WRITE, cluster * CLUSTER, data, sizeof(data)), 0);
}

static void check_cluster(struct block *cow, unsigned cluster, uint64_t generation)
{
	uint8_t want[CLUSTER], got[CLUSTER];
	fill_sectors(want, cluster * 8, 8, generation);
	assert_int_equal(run(cow, BLOCK_READ, cluster * CLUSTER, got, sizeof(got)), 0);
	assert_memory_equal(got, want, CLUSTER);
}

/* --- the file ---------------------------------------------------------------------------------------------------- */

static void read_file(void *ret_data, size_t size_bytes, off_t offset)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, ret_data, size_bytes, offset), size_bytes);
	close(fd);
}

static void write_file(const void *data, size_t size_bytes, off_t offset)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size_bytes, offset), size_bytes);
	close(fd);
}

static uint8_t map_byte(unsigned number)
{
	uint8_t byte;
	read_file(&byte, 1, MAP_AT + (off_t)number);
	return byte;
}

static void the_file_is_as_documented(void **state)
{
	(void)state;
	struct block *cow = open_overlay();
	write_cluster(cow, 9, 1);
	block_free(cow);

	uint8_t header[56], data[CLUSTER], want[CLUSTER];
	read_file(header, sizeof(header), 0);
	assert_memory_equal(header, "vmletcow", 8);
	assert_int_equal(le32_load(header + VERSION_AT), 1);
	assert_int_equal(le32_load(header + CLUSTER_AT), CLUSTER);
	assert_int_equal(le64_load(header + DISK_AT), DISK_BYTES);
	assert_int_equal(le64_load(header + 24), MAP_AT);
	assert_int_equal(le64_load(header + 32), DATA_AT);
	assert_int_equal(le64_load(header + FLAGS_AT), 0);
	assert_int_equal(map_byte(0), 0);
	assert_int_equal(map_byte(1), 2);
	fill_sectors(want, 72, 8, 1);
	read_file(data, sizeof(data), DATA_AT + 9 * CLUSTER);
	assert_memory_equal(data, want, sizeof(data));
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, FILE_BYTES);
	assert_true(st.st_blocks * 512 < 64 * 1024); /* sparse */
}

static void bits_reach_the_file_with_a_flush(void **state)
{
	(void)state;
	struct block *cow = open_overlay();
	write_cluster(cow, 0, 1);
	write_cluster(cow, 3, 1);
	assert_int_equal(map_byte(0), 0);
	assert_int_equal(run(cow, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(map_byte(0), 9);
	write_cluster(cow, 1, 1);
	assert_int_equal(map_byte(0), 9);
	block_free(cow);
	assert_int_equal(map_byte(0), 11);
}

static void many_flushes_at_once_all_end(void **state)
{
	(void)state;
	struct block *cow = open_overlay();
	static struct io ios[50];
	for (unsigned i = 0; i < ARRAY_SIZE(ios); i++) {
		if (i % 7 == 0)
			write_cluster(cow, i, 1);
		submit(cow, &ios[i], BLOCK_FLUSH, 0, NULL, 0);
		if (i % 3 == 0)
			(void)loop_dispatch(loop);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(ios); i++) {
		assert_int_equal(finish(&ios[i]), 0);
		/* What was written before it was submitted is in the map by now. */
		unsigned last = i / 7 * 7;
		assert_true(map_byte(last / 8) >> last % 8 & 1);
	}
	block_free(cow);
}

static void an_unsafe_flush_writes_the_map_too(void **state)
{
	(void)state;
	const struct block_cow_config config = {.path = path, .unsafe_flush = true};
	struct block *cow = try_open(&config, DISK_BYTES, NULL);
	write_cluster(cow, 0, 1);
	assert_int_equal(run(cow, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(map_byte(0), 1);
	block_free(cow);
}

static void it_is_there_again(void **state)
{
	(void)state;
	struct block *cow = open_overlay();
	write_cluster(cow, 5, 1);
	block_free(cow);
	cow = open_overlay();
	check_cluster(cow, 5, 1);
	check_cluster(cow, 4, 0);
	write_cluster(cow, 4, 2);
	block_free(cow);
	cow = open_overlay();
	check_cluster(cow, 5, 1);
	check_cluster(cow, 4, 2);
	block_free(cow);
}

/* The map of 200 GiB has more blocks than one snapshot takes. */
static void a_big_disk(void **state)
{
	(void)state;
	enum { PLACES = 1600 };
	const uint64_t disk_bytes = GIB(200);
	const struct block_cow_config config = {.path = path};
	struct block *cow = try_open(&config, disk_bytes, NULL);
	assert_non_null(cow);
	uint8_t data[512], got[512];
	for (uint64_t i = 0; i < PLACES; i++) {
		uint64_t offset = i * (disk_bytes / PLACES) / CLUSTER * CLUSTER;
		fill_sector(data, offset, 1);
		assert_int_equal(run(cow, BLOCK_WRITE, offset, data, sizeof(data)), 0);
	}
	assert_int_equal(run(cow, BLOCK_FLUSH, 0, NULL, 0), 0);
	fill_sector(data, disk_bytes - 512, 1);
	assert_int_equal(run(cow, BLOCK_WRITE, disk_bytes - 512, data, sizeof(data)), 0);
	block_free(cow);

	cow = try_open(&config, disk_bytes, NULL);
	for (uint64_t i = 0; i <= PLACES; i++) {
		uint64_t offset = i * (disk_bytes / PLACES) / CLUSTER * CLUSTER;
		offset = i == PLACES ? disk_bytes - 512 : offset;
		fill_sector(data, offset, 1);
		assert_int_equal(run(cow, BLOCK_READ, offset, got, sizeof(got)), 0);
		assert_memory_equal(got, data, sizeof(got));
	}
	block_free(cow);
}

/* --- refusals ----------------------------------------------------------------------------------------------------- */

static void put_checksum(uint8_t *header)
{
	uint64_t hash = 0xcbf29ce484222325;
	for (unsigned i = 0; i < CHECKSUM_AT; i++)
		hash = (hash ^ header[i]) * 0x100000001b3;
	le64_store(header + CHECKSUM_AT, hash);
}

/* A byte of the header changed, with or without a checksum that agrees. */
static void refuse_changed(unsigned at, bool agrees, const char *words)
{
	uint8_t header[56], changed[56], after[56];
	read_file(header, sizeof(header), 0);
	memcpy(changed, header, sizeof(header));
	changed[at] ^= 0x40;
	if (agrees)
		put_checksum(changed);
	write_file(changed, sizeof(changed), 0);
	must_be_refused(&(struct block_cow_config){.path = path}, DISK_BYTES, -EINVAL, words);
	read_file(after, sizeof(after), 0);
	assert_memory_equal(after, changed, sizeof(after));
	write_file(header, sizeof(header), 0);
}

static void damaged_and_foreign_headers_are_refused(void **state)
{
	(void)state;
	struct block *cow = open_overlay();
	write_cluster(cow, 0, 1);
	block_free(cow);
	for (unsigned i = 0; i < 8; i++)
		refuse_changed(i, true, "not an overlay of vmlet");
	for (unsigned i = VERSION_AT; i < CLUSTER_AT; i++)
		refuse_changed(i, true, "format version");
	for (unsigned i = CLUSTER_AT; i < 56; i++)
		refuse_changed(i, false, "damaged");
	for (unsigned i = DISK_AT; i < 24; i++)
		refuse_changed(i, true, "give it the base that it was made for");
	for (unsigned i = 24; i < CHECKSUM_AT; i++)
		refuse_changed(i, true, "does not know");
	refuse_changed(CLUSTER_AT, true, "does not know");

	const struct block_cow_config config = {.path = path};
	must_be_refused(&config, DISK_BYTES + 512, -EINVAL, "belongs to a disk of 1048576 bytes");
	must_be_refused(&config, DISK_BYTES - 512, -EINVAL, "belongs to a disk of 1048576 bytes");
	cow = open_overlay();
	check_cluster(cow, 0, 1);
	block_free(cow);
}

static void files_that_were_cut_are_refused(void **state)
{
	(void)state;
	block_free(open_overlay());
	const off_t sizes[] = {FILE_BYTES - 1, DATA_AT, MAP_AT + 1, MAP_AT - 1, 56};
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(truncate(path, sizes[i]), 0);
		must_be_refused(&(struct block_cow_config){.path = path}, DISK_BYTES, -EINVAL, "cut short");
	}
	assert_int_equal(truncate(path, 40), 0);
	must_be_refused(&(struct block_cow_config){.path = path}, DISK_BYTES, -EINVAL, "damaged");
	assert_int_equal(truncate(path, 7), 0);
	must_be_refused(&(struct block_cow_config){.path = path}, DISK_BYTES, -EINVAL, "not an overlay");
}

static void a_file_whose_maker_was_killed_is_made_again(void **state)
{
	(void)state;
	block_free(open_overlay());
	assert_int_equal(truncate(path, MAP_AT), 0);
	struct block *cow = open_overlay();
	check_cluster(cow, 255, 0);
	write_cluster(cow, 255, 1);
	block_free(cow);
	cow = open_overlay();
	check_cluster(cow, 255, 1);
	block_free(cow);
}

static void other_files_are_not_touched(void **state)
{
	(void)state;
	static const char text[] = "somebody's letters\n";
	char got[sizeof(text)];
	write_file(text, sizeof(text), 0);
	must_be_refused(&(struct block_cow_config){.path = path}, DISK_BYTES, -EINVAL, "name another file");
	read_file(got, sizeof(got), 0);
	assert_memory_equal(got, text, sizeof(text));
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, sizeof(text));
}

static void places_where_no_file_can_be(void **state)
{
	(void)state;
	must_be_refused(&(struct block_cow_config){.path = dir}, DISK_BYTES, -EISDIR, "open: Is a directory");
	must_be_refused(&(struct block_cow_config){.path = "/nowhere/o"}, DISK_BYTES, -ENOENT, "No such file");
	must_be_refused(&(struct block_cow_config){.dir = "/nowhere"}, DISK_BYTES, -ENOENT, "No such file");
	must_be_refused(&(struct block_cow_config){.path = "/dev/null"}, DISK_BYTES, -EINVAL, "not a regular file");
	assert_int_equal(mkfifo(path, 0600), 0);
	must_be_refused(&(struct block_cow_config){.path = path}, DISK_BYTES, -EINVAL, "not a regular file");
	assert_int_equal(unlink(path), 0);
	must_be_refused(&(struct block_cow_config){.path = path}, 1ULL << 63, -EFBIG, "File too large");
	assert_int_equal(access(path, F_OK), -1);
}

static void one_vm_at_a_time(void **state)
{
	(void)state;
	struct block *cow = open_overlay();
	must_be_refused(&(struct block_cow_config){.path = path}, DISK_BYTES, -EBUSY, "in use by another VM");
	block_free(cow);
	block_free(open_overlay());
}

/* --- the map, and flushes that fail ---------------------------------------------------------------------------------
 */

static void runs_of_bits(void **state)
{
	(void)state;
	struct cow_map map;
	assert_int_equal(cow_map_open(&map, &(struct block_cow_config){.dir = dir}, GIB(1), NULL, NULL), 0);
	static bool want[2000];
	uint32_t random = 3;
	for (unsigned round = 0; round < 20; round++) {
		unsigned first = next_random(&random) % 1900, count = next_random(&random) % 100;
		memset(want + first, true, count);
		cow_map_set(&map, first, first + count);
		for (unsigned i = 0; i < 2000; i++) {
			uint64_t limit = 1 + next_random(&random) % (2000 - i);
			uint64_t run_length = 1;
			while (run_length < limit && want[i + run_length] == want[i])
				run_length++;
			assert_int_equal(cow_map_is_written(&map, i), want[i]);
			assert_int_equal(cow_map_run(&map, i, limit), run_length);
		}
	}
	cow_map_close(&map);
}

/* A bit that is set after the snapshot may speak of data that the fdatasync has not made stable. */
static void a_snapshot_has_no_later_bits(void **state)
{
	(void)state;
	struct cow_map map;
	struct cow_map_run part;
	assert_int_equal(cow_map_open(&map, &(struct block_cow_config){.path = path}, GIB(1), NULL, NULL), 0);
	cow_map_set(&map, 0, 1);
	cow_map_rewind(&map);
	assert_int_equal(cow_map_snapshot(&map), 1);
	cow_map_set(&map, 1, 2);
	assert_true(cow_map_next_run(&map, &part));
	assert_int_equal(part.offset_bytes, MAP_AT);
	assert_int_equal(part.data[0], 1);
	assert_false(cow_map_next_run(&map, &part));
	assert_int_equal(cow_map_snapshot(&map), 0); /* behind it: not in this round */

	cow_map_rewind(&map);
	assert_int_equal(cow_map_snapshot(&map), 1);
	cow_map_snapshot_lost(&map);
	assert_false(cow_map_next_run(&map, &part));
	cow_map_rewind(&map);
	assert_int_equal(cow_map_snapshot(&map), 1);
	assert_true(cow_map_next_run(&map, &part));
	assert_int_equal(part.data[0], 3);
	cow_map_close(&map);
}

struct flusher {
	struct block block;
	struct cow_flush flush;
};

static void flusher_submit(struct block *block, struct block_request *request)
{
	cow_flush_submit(&container_of(block, struct flusher, block)->flush, request);
}

/* The host says once that data was lost. It may not say so again, but we do, and no bit says otherwise. */
static void after_a_failed_fdatasync_no_flush_succeeds(void **state)
{
	(void)state;
	static const struct block_ops ops = {.name = "flusher", .submit = flusher_submit};
	struct cow_map map;
	assert_int_equal(cow_map_open(&map, &(struct block_cow_config){.path = path}, DISK_BYTES, NULL, NULL), 0);
	struct flusher flusher = {0};
	block_init(&flusher.block, &ops, loop);
	flusher.block.info.block_size_bytes = 512;
	cow_flush_init(&flusher.flush, loop, &map, false);
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	flusher.flush.file = pipes[1]; /* which cannot be synced */
	cow_map_set(&map, 0, 8);
	assert_int_equal(run(&flusher.block, BLOCK_FLUSH, 0, NULL, 0), -EINVAL);
	flusher.flush.file = map.fd;
	assert_int_equal(run(&flusher.block, BLOCK_FLUSH, 0, NULL, 0), -EINVAL);
	assert_int_equal(map_byte(0), 0);
	cow_flush_fini(&flusher.flush);
	cow_map_close(&map);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_file_is_as_documented, setup, teardown),
		cmocka_unit_test_setup_teardown(bits_reach_the_file_with_a_flush, setup, teardown),
		cmocka_unit_test_setup_teardown(many_flushes_at_once_all_end, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unsafe_flush_writes_the_map_too, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_there_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_big_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_and_foreign_headers_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(files_that_were_cut_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_whose_maker_was_killed_is_made_again, setup, teardown),
		cmocka_unit_test_setup_teardown(other_files_are_not_touched, setup, teardown),
		cmocka_unit_test_setup_teardown(places_where_no_file_can_be, setup, teardown),
		cmocka_unit_test_setup_teardown(one_vm_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(runs_of_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(a_snapshot_has_no_later_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(after_a_failed_fdatasync_no_flush_succeeds, setup, teardown),
	};
	return cmocka_run_group_tests_name("block_cow_file", tests, NULL, NULL);
}
