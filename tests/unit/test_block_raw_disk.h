/* For the tests of raw disks: a file in a directory of its own, a loop, a log that is kept, and one request at a time.
 */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "block.h"
#include "util.h"

static struct loop *loop;
static struct block *disk;
static char dir[] = "/tmp/vmlet-test-raw-XXXXXX", path[64];
static int file = -1; /* the test's own look at what the disk does */
static struct err err;

static char log_text[4096];
static unsigned log_lines;

static void keep_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	(void)snprintf(log_text, sizeof(log_text), "%s", line);
	log_lines++;
}
static const struct log test_log = {.level = LOG_LEVEL_DEBUG, .sink = keep_line};

/* `path` is from now on a file of that many zeroes. */
static void make_file(uint64_t size_bytes)
{
	if (file >= 0)
		close(file);
	(void)snprintf(path, sizeof(path), "%s/disk.img", dir);
	unlink(path);
	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, (off_t)size_bytes), 0);
}

static struct block *open_with(const struct block_raw_config *config)
{
	err = (struct err){0};
	return block_raw_open(loop, &test_log, config, &err);
}

static struct block *open_disk(void)
{
	disk = open_with(&(struct block_raw_config){.path = path});
	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

static void close_disk(void)
{
	block_free(disk);
	disk = NULL;
}

static int setup(void **state)
{
	(void)state;
	alarm(30); /* a test that hangs has failed */
	loop = loop_new(NULL);
	log_lines = 0;
	log_text[0] = '\0';
	(void)snprintf(dir, sizeof(dir), "/tmp/vmlet-test-raw-XXXXXX");
	return loop && mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	close_disk();
	loop_free(loop);
	if (file >= 0)
		close(file);
	file = -1;
	unlink(path);
	return rmdir(dir);
}

/* --- requests --------------------------------------------------------------------------------------------- */

struct request {
	struct block_request request;
	struct iovec iov;
	unsigned done;
	int res;
};

static void count_done(struct block_request *block_request, int res)
{
	struct request *r = container_of(block_request, struct request, request);
	r->done++;
	r->res = res;
}

static void start(struct request *r, enum block_op op, uint64_t offset_bytes, void *memory, uint64_t size_bytes)
{
	*r = (struct request){.iov = {.iov_base = memory, .iov_len = size_bytes}};
	r->request = (struct block_request){
		.op = op,
		.offset_bytes = offset_bytes,
		.size_bytes = size_bytes,
		.iov = &r->iov,
		.iov_count = 1,
		.done = count_done,
	};
	block_submit(disk, &r->request);
	assert_int_equal(r->done, 0);
}

static int finish(struct request *r)
{
	while (!r->done)
		assert_int_equal(loop_wait(loop, UINT64_MAX), 0);
	assert_int_equal(r->done, 1);
	return r->res;
}

static inline int transfer(enum block_op op, uint64_t offset_bytes, void *memory, uint64_t size_bytes)
{
	struct request r;
	start(&r, op, offset_bytes, memory, size_bytes);
	return finish(&r);
}

static inline int transfer_spans(enum block_op op, uint64_t offset_bytes, const struct iovec *iov, unsigned iov_count)
{
	struct request r = {0};
	for (unsigned i = 0; i < iov_count; i++)
		r.request.size_bytes += iov[i].iov_len;
	r.request.op = op;
	r.request.offset_bytes = offset_bytes;
	r.request.iov = iov;
	r.request.iov_count = iov_count;
	r.request.done = count_done;
	block_submit(disk, &r.request);
	return finish(&r);
}

static inline int zero(uint64_t offset_bytes, uint64_t size_bytes, bool may_unmap)
{
	struct request r = {.request = {.op = BLOCK_WRITE_ZEROES, .may_unmap = may_unmap, .done = count_done}};
	r.request.offset_bytes = offset_bytes;
	r.request.size_bytes = size_bytes;
	block_submit(disk, &r.request);
	return finish(&r);
}

/* --- contents --------------------------------------------------------------------------------------------- */

/* Bytes that tell their place. */
static inline uint8_t byte_at(uint64_t n)
{
	return (uint8_t)(n * 7 + (n >> 9) * 13 + 1);
}

static inline void fill_pattern(uint8_t *data, size_t size_bytes, uint64_t from)
{
	for (size_t i = 0; i < size_bytes; i++)
		data[i] = byte_at(from + i);
}

static inline void check_pattern(const uint8_t *data, size_t size_bytes, uint64_t from)
{
	for (size_t i = 0; i < size_bytes; i++) {
		if (data[i] != byte_at(from + i))
			fail_msg("byte %zu is %u", i, data[i]);
	}
}

static inline void fill_file(uint64_t size_bytes)
{
	make_file(size_bytes);
	uint8_t *data = malloc(size_bytes);
	assert_non_null(data);
	fill_pattern(data, size_bytes, 0);
	assert_int_equal(pwrite(file, data, size_bytes, 0), size_bytes);
	free(data);
}

/* The file holds its pattern, but zeroes between. */
static inline void check_file_zeroed(uint64_t size_bytes, uint64_t from, uint64_t to)
{
	uint8_t *data = malloc(size_bytes);
	assert_non_null(data);
	assert_int_equal(pread(file, data, size_bytes, 0), size_bytes);
	check_pattern(data, from, 0);
	for (uint64_t i = from; i < to; i++)
		assert_int_equal(data[i], 0);
	check_pattern(data + to, size_bytes - to, to);
	free(data);
}
