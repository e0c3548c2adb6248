/* The NBD client against a server in a thread: an honest one in all its dialects, one that comes and goes, hostile
 * ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block.h"
#include "block_nbd_address.h"
#include "block_nbd_proto.h"
#include "nbd_server.h"
#include "util.h"

static const uint64_t LIMIT_NS = 10000000000;

static struct loop *loop;
static struct nbd_server *server;
static struct block *block;
static char last_line[512];
static unsigned lines;

struct test_request {
	struct block_request request;
	struct iovec iov[8];
	uint8_t *data;
	unsigned times;
	int res;
};

static void on_done(struct block_request *request, int res)
{
	struct test_request *t = container_of(request, struct test_request, request);
	t->times++;
	t->res = res;
}

static void keep_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx, (void)level;
	lines++;
	(void)snprintf(last_line, sizeof(last_line), "%s", line);
}

static const struct log test_log = {.level = LOG_LEVEL_WARN, .sink = keep_line};

static int setup(void **state)
{
	(void)state;
	loop = loop_new(NULL);
	server = nbd_server_new();
	block = NULL;
	lines = 0;
	last_line[0] = '\0';
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	block_free(block);
	if (server)
		nbd_server_stop(server);
	loop_free(loop);
	return 0;
}

static void open_block(void)
{
	struct err err = {0};
	nbd_server_start(server);
	struct block_nbd_config config = {.address = server->address, .reconnect_seconds = 1};
	block = block_nbd_open(loop, &test_log, &config, &err);
	if (!block)
		print_message("%s\n", err.text);
	assert_non_null(block);
}

/* `data` in spans of uneven lengths. */
static void prepare(struct test_request *t, enum block_op op, uint64_t offset, uint64_t size, uint8_t *data)
{
	*t = (struct test_request){.data = data};
	t->request = (struct block_request){
		.op = op, .offset_bytes = offset, .size_bytes = size, .iov = t->iov, .done = on_done};
	for (uint64_t at = 0, length = 1; data && at < size; at += length, length = length * 6 + 1) {
		if (t->request.iov_count == ARRAY_SIZE(t->iov) - 1 || length > size - at)
			length = size - at;
		t->iov[t->request.iov_count++] = (struct iovec){data + at, length};
	}
}

static void wait_for(struct test_request *t)
{
	uint64_t deadline = loop_now_ns() + LIMIT_NS;
	while (!t->times && loop_now_ns() < deadline)
		assert_int_equal(loop_wait(loop, 100000000), 0);
	assert_int_equal(t->times, 1);
}

static void settle(unsigned ms)
{
	uint64_t deadline = loop_now_ns() + ms * 1000000ULL;
	while (loop_now_ns() < deadline)
		loop_wait(loop, deadline - loop_now_ns());
}

static int run(enum block_op op, uint64_t offset, uint64_t size, uint8_t *data)
{
	struct test_request t;
	prepare(&t, op, offset, size, data);
	block_submit(block, &t.request);
	assert_int_equal(t.times, 0);
	wait_for(&t);
	return t.res;
}

static void check_read(uint64_t offset, uint64_t size)
{
	uint8_t *data = malloc(size);
	memset(data, 0xee, size);
	assert_int_equal(run(BLOCK_READ, offset, size, data), 0);
	assert_memory_equal(data, server->disk + offset, size);
	free(data);
}

/* --- an honest server ----------------------------------------------------------------------------------------- */

static void use_everything(void)
{
	static uint8_t pattern[NBD_SERVER_DISK];
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 7 + i / 512);
	check_read(0, NBD_SERVER_DISK);
	check_read(512, 512);
	assert_int_equal(run(BLOCK_WRITE, 4096, 100 * 512, pattern), 0);
	assert_memory_equal(server->disk + 4096, pattern, 100 * 512);
	assert_int_equal(run(BLOCK_WRITE_ZEROES, 8192, 4096, NULL), 0);
	assert_int_equal(run(BLOCK_DISCARD, 16384, 4096, NULL), 0);
	assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL), 0);
	assert_int_equal(server->flushes, 1);
	check_read(0, NBD_SERVER_DISK);
	assert_int_equal(server->connections, 1);
	assert_int_equal(lines, 0);
}

static void an_export_tells_what_it_is(void **state)
{
	(void)state;
	open_block();
	assert_int_equal(block->info.size_bytes, NBD_SERVER_DISK);
	assert_int_equal(block->info.block_size_bytes, 512);
	assert_int_equal(block->info.physical_block_bytes, 4096);
	assert_int_equal(block->info.optimal_io_bytes, 0);
	assert_int_equal(block->info.discard_granularity_bytes, 4096);
	assert_true(block->info.can_write_zeroes);
	assert_false(block->info.read_only);
}

static void flags_and_sizes_are_honoured(void **state)
{
	(void)state;
	server->flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
	server->min_block = 1024;
	server->preferred_block = 65536;
	server->size_bytes = NBD_SERVER_DISK - 512;
	open_block();
	assert_true(block->info.read_only);
	assert_int_equal(block->info.size_bytes, NBD_SERVER_DISK - 1024);
	assert_int_equal(block->info.block_size_bytes, 1024);
	assert_int_equal(block->info.physical_block_bytes, 4096);
	assert_int_equal(block->info.optimal_io_bytes, 65536);
	assert_int_equal(block->info.discard_granularity_bytes, 0);
	assert_false(block->info.can_write_zeroes);
	assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL), 0); /* not sent: the server has none */
	assert_int_equal(server->requests, 0);
}

static void structured_replies(void **state)
{
	(void)state;
	open_block();
	use_everything();
}

static void fragments_and_holes_the_last_first(void **state)
{
	(void)state;
	server->fragment_bytes = 512;
	open_block();
	use_everything();
}

static void simple_replies(void **state)
{
	(void)state;
	server->no_structured = true;
	open_block();
	use_everything();
}

static void without_go(void **state)
{
	(void)state;
	server->no_go = true;
	open_block();
	use_everything();
}

static void without_anything_new(void **state)
{
	(void)state;
	server->no_fixed = true;
	server->no_zeroes = false;
	open_block();
	use_everything();
}

static void large_requests_are_split(void **state)
{
	(void)state;
	server->max_block = 3 * 4096;
	open_block();
	use_everything();
	assert_int_equal(server->largest, 3 * 4096);
}

static void zeroes_may_be_a_hole_or_not(void **state)
{
	(void)state;
	open_block();
	assert_int_equal(run(BLOCK_WRITE_ZEROES, 0, 512, NULL), 0);
	assert_int_equal(server->last_flags, NBD_CMD_FLAG_NO_HOLE);
	struct test_request t;
	prepare(&t, BLOCK_WRITE_ZEROES, 0, 512, NULL);
	t.request.may_unmap = true;
	block_submit(block, &t.request);
	wait_for(&t);
	assert_int_equal(server->last_flags, 0);
}

static void errors_reach_their_requests(void **state)
{
	(void)state;
	static const struct {
		uint32_t nbd;
		int res;
	} ERRORS[] = {{NBD_EPERM, -EPERM},   {NBD_EIO, -EIO},       {NBD_ENOMEM, -ENOMEM},
		      {NBD_EINVAL, -EINVAL}, {NBD_ENOSPC, -ENOSPC}, {NBD_ENOTSUP, -EOPNOTSUPP},
		      {0x80000000, -EIO},    {1234567, -EIO}};
	uint8_t data[512];
	server->error = NBD_EIO;
	open_block();
	for (size_t i = 0; i < ARRAY_SIZE(ERRORS); i++) {
		server->error = ERRORS[i].nbd;
		assert_int_equal(run(BLOCK_READ, 0, 512, data), ERRORS[i].res);
		assert_int_equal(run(BLOCK_WRITE, 0, 512, data), ERRORS[i].res);
		assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL), ERRORS[i].res);
	}
	server->error = 0;
	check_read(0, 4096);
	assert_int_equal(server->connections, 1);
	assert_true(lines > 0 && lines <= LOG_LIMIT_BURST + 2);
}

static void closing_says_goodbye(void **state)
{
	(void)state;
	open_block();
	check_read(0, 512);
	block_free(block);
	block = NULL;
	for (unsigned i = 0; i < 1000 && !server->disconnects; i++)
		usleep(1000);
	assert_int_equal(server->disconnects, 1);
}

/* Takes them all before it answers the first, from the last to the first. */
enum { PIPELINED = 50 };

static void script_backwards(struct nbd_server *s, int fd, unsigned number)
{
	(void)number;
	struct nbd_server_request *requests = calloc(PIPELINED, sizeof(*requests));
	bool ok = nbd_server_handshake(s, fd);
	for (unsigned i = 0; ok && i < PIPELINED; i++)
		ok = nbd_server_take(s, fd, &requests[i]);
	for (unsigned i = PIPELINED; ok && i > 0; i--)
		ok = nbd_server_answer(s, fd, &requests[i - 1]);
	free(requests);
}

static void requests_are_pipelined(void **state)
{
	(void)state;
	static struct test_request t[PIPELINED];
	static uint8_t data[PIPELINED][1024];
	server->script = script_backwards;
	open_block();
	for (unsigned i = 0; i < PIPELINED; i++) {
		prepare(&t[i], BLOCK_READ, i * 1024ULL, 1024, data[i]);
		block_submit(block, &t[i].request);
	}
	for (unsigned i = 0; i < PIPELINED; i++) {
		wait_for(&t[i]);
		assert_int_equal(t[i].res, 0);
		assert_memory_equal(data[i], server->disk + i * 1024, 1024);
	}
}

static void more_than_fits_on_the_wire_waits(void **state)
{
	(void)state;
	enum { COUNT = 300 };
	static struct test_request t[COUNT];
	static uint8_t data[COUNT][512];
	open_block();
	for (unsigned i = 0; i < COUNT; i++) {
		memset(data[i], (int)i, 512);
		prepare(&t[i], BLOCK_WRITE, i * 512ULL, 512, data[i]);
		block_submit(block, &t[i].request);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		wait_for(&t[i]);
		assert_int_equal(t[i].res, 0);
	}
	assert_memory_equal(server->disk, data, sizeof(data));
}

/* --- one that comes and goes ------------------------------------------------------------------------------------ */

/* Answers `number + 1` requests of each connection, and the next one only by half. */
static void script_flaky(struct nbd_server *s, int fd, unsigned number)
{
	struct nbd_server_request *request = malloc(sizeof(*request));
	bool ok = nbd_server_handshake(s, fd);
	for (unsigned i = 0; ok && i <= number; i++)
		ok = nbd_server_take(s, fd, request) && nbd_server_answer(s, fd, request);
	if (ok && nbd_server_take(s, fd, request))
		(void)nbd_server_send(fd, "\x66\x8e\x33\xef\0\0\0\1", 8);
	free(request);
}

static void what_was_not_answered_is_sent_again(void **state)
{
	(void)state;
	enum { COUNT = 12 };
	static struct test_request t[COUNT];
	static uint8_t data[COUNT][8192];
	server->script = script_flaky;
	open_block();
	for (unsigned i = 0; i < COUNT; i++) {
		memset(data[i], (int)(i + 1), 8192);
		prepare(&t[i], BLOCK_WRITE, i * 8192ULL, 8192, data[i]);
		block_submit(block, &t[i].request);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		wait_for(&t[i]);
		assert_int_equal(t[i].res, 0);
	}
	assert_memory_equal(server->disk, data, sizeof(data));
	assert_true(server->connections >= 4 && server->connections <= 5);
	check_read(0, 65536);
}

static void without_a_server_requests_fail_in_time(void **state)
{
	(void)state;
	static struct test_request t[100];
	static uint8_t data[100][512];
	open_block();
	check_read(0, 512);
	nbd_server_stop(server);
	server = NULL;
	uint64_t begin = loop_now_ns();
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		prepare(&t[i], i % 2 ? BLOCK_READ : BLOCK_WRITE, i * 512ULL, 512, data[i]);
		block_submit(block, &t[i].request);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		wait_for(&t[i]);
		assert_int_equal(t[i].res, -EIO);
	}
	uint64_t ms = (loop_now_ns() - begin) / 1000000;
	assert_true(ms >= 900 && ms < 3000);
	settle(20);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(t[i].times, 1);
}

static void script_slow(struct nbd_server *s, int fd, unsigned number)
{
	(void)number;
	struct nbd_server_request *request = malloc(sizeof(*request));
	bool ok = nbd_server_handshake(s, fd);
	for (unsigned i = 0; ok && (ok = nbd_server_take(s, fd, request)); i++) {
		if (i == 1)
			usleep(1300000);
		ok = nbd_server_answer(s, fd, request);
	}
	free(request);
}

static void a_silent_server_is_waited_for_and_told_of(void **state)
{
	(void)state;
	server->script = script_slow;
	open_block();
	check_read(0, 512);
	assert_int_equal(lines, 0);
	check_read(0, 512);
	assert_int_equal(lines, 1);
	assert_non_null(strstr(last_line, "the server has not answered for 1 seconds; waiting"));
	assert_int_equal(server->connections, 1);
}

static void script_grows(struct nbd_server *s, int fd, unsigned number)
{
	struct nbd_server_request *request = malloc(sizeof(*request));
	s->size_bytes = NBD_SERVER_DISK - (number == 1 ? 512 : 0);
	if (number == 0 && nbd_server_handshake(s, fd))
		(void)nbd_server_take(s, fd, request);
	else if (number > 0)
		nbd_server_serve(s, fd);
	free(request);
}

static void another_disk_is_refused(void **state)
{
	(void)state;
	uint8_t data[512];
	server->script = script_grows;
	open_block();
	assert_int_equal(run(BLOCK_READ, 0, 512, data), -EIO);
	assert_non_null(strstr(last_line, "the export had 262144 bytes and has 261632 now"));
	check_read(0, 512); /* the third time it is the old one again */
	assert_int_equal(server->connections, 3);
}

/* --- cancelling --------------------------------------------------------------------------------------------------- */

/* Sends half of the first read's data, and then nothing until it is told that the client has something new. */
static void script_half_a_read(struct nbd_server *s, int fd, unsigned number)
{
	struct nbd_server_request *request = malloc(sizeof(*request)), *second = malloc(sizeof(*second));
	uint8_t offset[8] = {0};
	if (number == 0 && nbd_server_handshake(s, fd) && nbd_server_take(s, fd, request)) {
		uint8_t header[NBD_CHUNK_SIZE];
		uint8_t *p = nbd_put16(nbd_put32(header, NBD_STRUCTURED_REPLY_MAGIC), NBD_REPLY_FLAG_DONE);
		nbd_put32(nbd_put64(nbd_put16(p, NBD_REPLY_TYPE_OFFSET_DATA), request->cookie), request->length + 8);
		uint32_t half = request->length / 2;
		(void)(nbd_server_send(fd, header, sizeof(header)) && nbd_server_send(fd, offset, 8) &&
		       nbd_server_send(fd, s->disk, half) && nbd_server_take(s, fd, second) &&
		       nbd_server_send(fd, s->disk + half, half) && nbd_server_answer(s, fd, second));
		while (nbd_server_take(s, fd, second) && nbd_server_answer(s, fd, second))
			;
	} else if (number > 0) {
		nbd_server_serve(s, fd);
	}
	free(request);
	free(second);
}

static void a_read_is_cancelled_while_it_arrives(void **state)
{
	(void)state;
	enum { SIZE = 200 * 1024 };
	static uint8_t data[SIZE];
	struct test_request t;
	server->script = script_half_a_read;
	open_block();
	prepare(&t, BLOCK_READ, 0, SIZE, data);
	block_submit(block, &t.request);
	for (unsigned i = 0; i < 100 && data[SIZE / 2 - 512 - 1] != server->disk[SIZE / 2 - 512 - 1]; i++)
		settle(1);
	block_cancel(block, &t.request);
	block_cancel(block, &t.request);
	assert_int_equal(t.times, 0);
	wait_for(&t);
	assert_int_equal(t.res, -ECANCELED);
	/* From here on the memory is the guest's again. */
	memset(data, 0x11, SIZE);
	check_read(512, 1024);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(data[i], 0x11);
	assert_int_equal(server->connections, 1);
	assert_int_equal(t.times, 1);
}

/* Never reads the first connection's requests, for as long as it lasts. */
static void script_deaf(struct nbd_server *s, int fd, unsigned number)
{
	if (number > 0)
		nbd_server_serve(s, fd);
	else if (nbd_server_handshake(s, fd)) {
		struct pollfd hangup = {.fd = fd};
		(void)poll(&hangup, 1, 10000);
	}
}

static void a_write_that_nobody_takes_is_cancelled(void **state)
{
	(void)state;
	enum { SIZE = NBD_SERVER_DISK, COUNT = 8 };
	static uint8_t data[SIZE];
	static struct test_request t[COUNT];
	server->script = script_deaf;
	open_block();
	for (unsigned i = 0; i < COUNT; i++) {
		prepare(&t[i], BLOCK_WRITE, 0, SIZE, data);
		block_submit(block, &t[i].request);
	}
	settle(50);
	uint64_t begin = loop_now_ns();
	for (unsigned i = 0; i < COUNT; i++)
		block_cancel(block, &t[i].request);
	for (unsigned i = 0; i < COUNT; i++) {
		wait_for(&t[i]);
		assert_int_equal(t[i].res, -ECANCELED);
	}
	assert_true(loop_now_ns() - begin < 2 * 1000000000ULL);
	settle(20);
	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(t[i].times, 1);
}

static void requests_are_cancelled_anywhere(void **state)
{
	(void)state;
	enum { COUNT = 200 };
	static uint8_t data[COUNT][4096];
	static struct test_request t[COUNT];
	open_block();
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			prepare(&t[i], i % 3 ? BLOCK_READ : BLOCK_WRITE, i % 64 * 4096ULL, 4096, data[i]);
			block_submit(block, &t[i].request);
		}
		for (unsigned turns = 0; turns < round; turns++)
			loop_wait(loop, 0);
		for (unsigned i = round % 3; i < COUNT; i += 3)
			block_cancel(block, &t[i].request);
		for (unsigned i = 0; i < COUNT; i++) {
			wait_for(&t[i]);
			assert_true(t[i].res == 0 || (i % 3 == round % 3 && t[i].res == -ECANCELED));
		}
	}
	check_read(0, NBD_SERVER_DISK);
	assert_int_equal(server->connections, 1);
	assert_int_equal(lines, 0);
}

/* The answer is still owed, and an operation waits for it. */
static void a_client_closes_while_an_answer_is_owed(void **state)
{
	(void)state;
	uint8_t data[512];
	struct test_request t;
	server->script = script_deaf;
	open_block();
	prepare(&t, BLOCK_READ, 0, 512, data);
	block_submit(block, &t.request);
	settle(20);
	block_cancel(block, &t.request);
	wait_for(&t);
	assert_int_equal(t.res, -ECANCELED);
	uint64_t begin = loop_now_ns();
	block_free(block);
	block = NULL;
	assert_true(loop_now_ns() - begin < 500 * 1000000ULL);
}

static void while_the_server_is_gone_requests_can_be_cancelled(void **state)
{
	(void)state;
	struct test_request t;
	uint8_t data[512];
	open_block();
	nbd_server_stop(server);
	server = NULL;
	prepare(&t, BLOCK_READ, 0, 512, data);
	block_submit(block, &t.request);
	settle(50);
	assert_int_equal(t.times, 0);
	block_cancel(block, &t.request);
	wait_for(&t);
	assert_int_equal(t.res, -ECANCELED);
}

/* --- hostile replies -------------------------------------------------------------------------------------------------
 */

/* What the first connection answers to a read of 4096 bytes at 4096; later ones are honest. */
struct lie {
	const char *name;
	const char *complaint;
	void (*tell)(int fd, struct nbd_server_request *request);
};

static void data_chunk(int fd, const struct nbd_server_request *request, bool last, uint64_t offset, uint32_t size)
{
	uint8_t data[8 + 8192] = {0};
	nbd_put64(data, offset);
	(void)nbd_server_chunk(fd, request, last, NBD_REPLY_TYPE_OFFSET_DATA, data, size + 8);
}

static void hole_chunk(int fd, const struct nbd_server_request *request, uint64_t offset, uint32_t size)
{
	uint8_t data[12];
	nbd_put32(nbd_put64(data, offset), size);
	(void)nbd_server_chunk(fd, request, true, NBD_REPLY_TYPE_OFFSET_HOLE, data, 12);
}

static void error_chunk(int fd, const struct nbd_server_request *request, uint16_t type, uint32_t size,
			uint16_t message)
{
	uint8_t data[16384] = {0};
	nbd_put16(nbd_put32(data, NBD_EIO), message);
	(void)nbd_server_chunk(fd, request, true, type, data, size);
}

static void lie_magic(int fd, struct nbd_server_request *r)
{
	(void)r;
	(void)nbd_server_send(fd, "HTTP/1.1 400 Bad Request\r\n", 26);
}

static void lie_cookie(int fd, struct nbd_server_request *r)
{
	r->cookie += 64;
	data_chunk(fd, r, true, 4096, 4096);
}

static void lie_cookie_zero(int fd, struct nbd_server_request *r)
{
	r->cookie = 0;
	(void)nbd_server_simple(fd, r, NBD_EIO);
}

static void lie_simple(int fd, struct nbd_server_request *r)
{
	(void)nbd_server_simple(fd, r, 0);
}

static void lie_before(int fd, struct nbd_server_request *r)
{
	data_chunk(fd, r, true, 4095, 512);
}

static void lie_after(int fd, struct nbd_server_request *r)
{
	data_chunk(fd, r, true, 4096 + 3584, 513);
}

static void lie_wrapping(int fd, struct nbd_server_request *r)
{
	data_chunk(fd, r, true, UINT64_MAX - 100, 512);
}

static void lie_too_long(int fd, struct nbd_server_request *r)
{
	data_chunk(fd, r, true, 4096, 4097);
}

static void lie_twice(int fd, struct nbd_server_request *r)
{
	data_chunk(fd, r, false, 4096, 2048);
	data_chunk(fd, r, false, 4096 + 2047, 2049);
}

static void lie_enclosing(int fd, struct nbd_server_request *r)
{
	data_chunk(fd, r, false, 4096 + 512, 512);
	data_chunk(fd, r, false, 4096, 4096);
}

static void lie_gap(int fd, struct nbd_server_request *r)
{
	data_chunk(fd, r, false, 4096, 2048);
	data_chunk(fd, r, true, 4096 + 2049, 2047);
}

static void lie_nothing(int fd, struct nbd_server_request *r)
{
	(void)nbd_server_chunk(fd, r, true, NBD_REPLY_TYPE_NONE, NULL, 0);
}

static void lie_none_not_last(int fd, struct nbd_server_request *r)
{
	(void)nbd_server_chunk(fd, r, false, NBD_REPLY_TYPE_NONE, NULL, 0);
}

static void lie_islands(int fd, struct nbd_server_request *r)
{
	for (unsigned i = 0; i < 100; i++)
		data_chunk(fd, r, false, 4096 + 2 * i, 1);
}

static void lie_empty_hole(int fd, struct nbd_server_request *r)
{
	hole_chunk(fd, r, 4096, 0);
}

static void lie_huge_hole(int fd, struct nbd_server_request *r)
{
	hole_chunk(fd, r, 4096, UINT32_MAX);
}

static void lie_type(int fd, struct nbd_server_request *r)
{
	error_chunk(fd, r, 77, 6, 0);
}

static void lie_short_error(int fd, struct nbd_server_request *r)
{
	error_chunk(fd, r, NBD_REPLY_TYPE_ERROR, 5, 0);
}

static void lie_long_message(int fd, struct nbd_server_request *r)
{
	error_chunk(fd, r, NBD_REPLY_TYPE_ERROR, 100, 95);
}

static void lie_endless_message(int fd, struct nbd_server_request *r)
{
	error_chunk(fd, r, NBD_REPLY_TYPE_ERROR, 9000, 8000);
}

static void lie_short_error_offset(int fd, struct nbd_server_request *r)
{
	error_chunk(fd, r, NBD_REPLY_TYPE_ERROR_OFFSET, 13, 0);
}

static void lie_two_answers(int fd, struct nbd_server_request *r)
{
	(void)nbd_server_chunk(fd, r, false, NBD_REPLY_TYPE_ERROR, "\0\0\0\5\0\0", 6);
	(void)nbd_server_simple(fd, r, NBD_EIO);
}

static void lie_endless_errors(int fd, struct nbd_server_request *r)
{
	while (nbd_server_chunk(fd, r, false, NBD_REPLY_TYPE_ERROR, "\0\0\0\5\0\0", 6))
		;
}

static void lie_shutdown(int fd, struct nbd_server_request *r)
{
	(void)nbd_server_simple(fd, r, NBD_ESHUTDOWN);
}

static const struct lie LIES[] = {
	{"magic", "is no answer", lie_magic},
	{"cookie", "not asked", lie_cookie},
	{"cookie 0", "not asked", lie_cookie_zero},
	{"simple", "promised", lie_simple},
	{"before", "outside", lie_before},
	{"after", "outside", lie_after},
	{"wrapping", "outside", lie_wrapping},
	{"too long", "type or length", lie_too_long},
	{"twice", "twice", lie_twice},
	{"enclosing", "twice", lie_enclosing},
	{"gap", "gaps", lie_gap},
	{"nothing", "gaps", lie_nothing},
	{"none, not last", "type or length", lie_none_not_last},
	{"islands", "too many pieces", lie_islands},
	{"empty hole", "outside", lie_empty_hole},
	{"huge hole", "outside", lie_huge_hole},
	{"type", "type or length", lie_type},
	{"short error", "type or length", lie_short_error},
	{"long message", "malformed", lie_long_message},
	{"endless message", "type or length", lie_endless_message},
	{"short error offset", "type or length", lie_short_error_offset},
	{"two answers", "mixed", lie_two_answers},
	{"endless errors", "malformed", lie_endless_errors},
	{"shutdown", "shutting down", lie_shutdown},
};

static void script_lie(struct nbd_server *s, int fd, unsigned number)
{
	const struct lie *lie = s->script_data;
	struct nbd_server_request *request = malloc(sizeof(*request));
	if (number > 0)
		nbd_server_serve(s, fd);
	else if (nbd_server_handshake(s, fd) && nbd_server_take(s, fd, request)) {
		lie->tell(fd, request);
		char byte;
		(void)!recv(fd, &byte, 1, 0); /* the client hangs up */
	}
	free(request);
}

/* With guards around the memory that is read into. */
static void a_liar_is_left_and_the_request_asked_again(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(LIES); i++) {
		uint8_t data[4096 + 1024];
		memset(data, 0x99, sizeof(data));
		server->script = script_lie;
		server->script_data = (void *)&LIES[i];
		open_block();
		assert_int_equal(run(BLOCK_READ, 4096, 4096, data + 512), 0);
		assert_memory_equal(data + 512, server->disk + 4096, 4096);
		for (size_t k = 0; k < 512; k++)
			assert_true(data[k] == 0x99 && data[4096 + 512 + k] == 0x99);
		if (!strstr(last_line, LIES[i].complaint) || server->connections != 2)
			fail_msg("%s: '%s', %u connections", LIES[i].name, last_line, server->connections);
		teardown(NULL);
		setup(NULL);
	}
	nbd_server_start(server);
}

/* The same honest answer, cut after each of its bytes. */
static void script_cut(struct nbd_server *s, int fd, unsigned number)
{
	struct nbd_server_request *request = malloc(sizeof(*request));
	uint8_t answer[2 * NBD_CHUNK_SIZE + 8 + 12 + NBD_SIMPLE_REPLY_SIZE];
	if (nbd_server_handshake(s, fd) && nbd_server_take(s, fd, request)) {
		uint8_t *p = nbd_put32(nbd_put32(answer, NBD_STRUCTURED_REPLY_MAGIC), NBD_REPLY_TYPE_OFFSET_HOLE);
		p = nbd_put32(nbd_put64(p, request->cookie), 12);
		p = nbd_put32(nbd_put64(p, request->offset), request->length);
		p = nbd_put32(nbd_put32(p, NBD_STRUCTURED_REPLY_MAGIC), 1 << 16 | NBD_REPLY_TYPE_NONE);
		p = nbd_put32(nbd_put64(p, request->cookie), 0);
		size_t size = (size_t)(p - answer);
		(void)nbd_server_send(fd, answer, min_u64(number, size));
		if (number >= size)
			while (nbd_server_take(s, fd, request) && nbd_server_answer(s, fd, request))
				;
	}
	free(request);
}

static void an_answer_may_be_cut_anywhere(void **state)
{
	(void)state;
	uint8_t data[512], zeroes[512] = {0};
	memset(data, 0x99, sizeof(data));
	server->script = script_cut;
	nbd_server_start(server);
	/* Each cut costs a reconnect with a growing pause; so a new client each time. */
	for (unsigned i = 0; i < 53; i++) {
		struct err err = {0};
		struct block_nbd_config config = {.address = server->address, .reconnect_seconds = 1};
		server->connections = i;
		block = block_nbd_open(loop, &test_log, &config, &err);
		assert_non_null(block);
		struct test_request t;
		prepare(&t, BLOCK_READ, 0, 512, data);
		block_submit(block, &t.request);
		for (unsigned k = 0; k < 1000 && !t.times && server->connections < i + 2; k++)
			settle(1);
		if (!t.times) {
			assert_true(i < 52);
			block_cancel(block, &t.request);
			wait_for(&t);
		}
		if (i == 52) {
			assert_int_equal(t.res, 0);
			assert_memory_equal(data, zeroes, 512);
		}
		block_free(block);
		block = NULL;
		for (unsigned k = 0; k < 1000 && server->connection_fd >= 0; k++)
			usleep(1000);
	}
}

/* --- opening
 * ------------------------------------------------------------------------------------------------------------ */

static void expect_refusal(const char *address, const char *words)
{
	struct err err = {0};
	struct block_nbd_config config = {.address = address};
	assert_null(block_nbd_open(loop, &test_log, &config, &err));
	if (!strstr(err.text, words))
		fail_msg("'%s' has no '%s'", err.text, words);
	assert_int_equal(strncmp(err.text, "disk 'nbd=", 10), 0);
	assert_true(err.code < 0);
}

static void nobody_there_is_said_so(void **state)
{
	(void)state;
	nbd_server_start(server);
	expect_refusal("unix:/nonexistent/x", "disk 'nbd=unix:/nonexistent/x': connect: No such file or directory; "
					      "is the server running?");
	expect_refusal("127.0.0.1:1", "connect: Connection refused; is the server running?");
	expect_refusal("unix:", "expected unix:PATH");
	expect_refusal("localhost", "expected unix:PATH");
	expect_refusal("[::1]", "expected unix:PATH");
	expect_refusal(":10809", "expected unix:PATH");
	expect_refusal("host.invalid:99999999", "look up host 'host.invalid', port '99999999'");
}

static void addresses_are_taken_apart(void **state)
{
	(void)state;
	nbd_server_start(server);
	static struct nbd_address address;
	assert_int_equal(nbd_address_resolve("unix:/a/b:c:d", &address, NULL), 0);
	assert_string_equal(address.export_name, "c:d");
	assert_int_equal(nbd_address_resolve("unix:/a/b", &address, NULL), 0);
	assert_string_equal(address.export_name, "");
	assert_int_equal(nbd_address_resolve("127.0.0.1:10809:x", &address, NULL), 0);
	assert_string_equal(address.export_name, "x");
	assert_int_equal(address.count, 1);
	assert_int_equal(address.endpoints[0].addr.ss_family, AF_INET);
	char text[2000];
	memset(text, 'x', sizeof(text));
	memcpy(text, "unix:", 5);
	text[1999] = '\0';
	assert_int_equal(nbd_address_resolve(text, &address, NULL), -ENAMETOOLONG);
	text[50] = ':';
	assert_int_equal(nbd_address_resolve(text, &address, NULL), -ENAMETOOLONG);
}

struct speech {
	const char *words; /* the sentence that follows from it */
	size_t size_bytes;
	const char *bytes;
};

#define SPEECH(words, bytes)                                                                                           \
	{                                                                                                              \
		words, sizeof(bytes) - 1, bytes                                                                        \
	}
#define GREETING                    "NBDMAGICIHAVEOPT\0\3"
#define REPLY(option, type, length) "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0" option type "\0\0\0" length
#define NO_STRUCTURE                REPLY("\x8", "\x80\0\0\1", "\0")

static const struct speech SPEECHES[] = {
	SPEECH("not an NBD server", "SSH-2.0-OpenSSH_9.2p1 Debian"),
	SPEECH("old NBD protocol", "NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0"),
	SPEECH("malformed", "NBDMAGIC????????\0\3"),
	SPEECH("demands TLS", GREETING REPLY("\x8", "\x80\0\0\5", "\0")),
	SPEECH("demands TLS", GREETING NO_STRUCTURE REPLY("\7", "\x80\0\0\5", "\0")),
	SPEECH("no such export (it says: nope?)", GREETING NO_STRUCTURE REPLY("\7", "\x80\0\0\6", "\5") "nope\n"),
	SPEECH("shutting down", GREETING NO_STRUCTURE REPLY("\7", "\x80\0\0\7", "\0")),
	SPEECH("policy", GREETING NO_STRUCTURE REPLY("\7", "\x80\0\0\2", "\0")),
	SPEECH("option is malformed", GREETING REPLY("\7", "\0\0\0\1", "\0")),
	SPEECH("option is malformed", GREETING "\0\3\xe8\x89\4\x55\x65\xaa\0\0\0\x8\0\0\0\1\0\0\0\0"),
	SPEECH("too long", GREETING "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\x8\0\0\0\1\0\1\0\1"),
	SPEECH("description of the export", GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\1", "\0")),
	SPEECH("description of the export", GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\1") "\0"),
	SPEECH("description of the export",
	       GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\xb") "\0\0\0\0\0\0\0\0\0\0\0"),
	SPEECH("impossibly large", GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\xc") "\0\0\x80\0\0\0\0\0\0\0\0\1"),
	SPEECH("block sizes", GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\xe") "\0\3\0\0\0\3\0\0\x10\0\0\0\x10\0"),
	SPEECH("block sizes",
	       GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\xe") "\0\3\0\0\x10\0\0\0\x10\0\0\0\0\x10"),
	SPEECH("may have no export 'disk'", GREETING NO_STRUCTURE REPLY("\7", "\x80\0\0\1", "\0")),
	SPEECH("is empty", GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\xc") "\0\0\0\0\0\0\0\0\1\xff\0\1" REPLY(
				   "\7", "\0\0\0\1", "\0")),
	SPEECH("blocks of 8192 bytes",
	       GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\xc") "\0\0\0\0\0\0\0\0\1\0\0\1" REPLY(
		       "\7", "\0\0\0\3", "\xe") "\0\3\0\0\x20\0\0\0\x20\0\0\0\x20\0" REPLY("\7", "\0\0\0\1", "\0")),
};

/* All at once: the client takes no more than it needs. Then the end, or what it wrote would be a reset. */
static void script_speech(struct nbd_server *s, int fd, unsigned number)
{
	(void)number;
	const struct speech *speech = s->script_data;
	char drain[4096];
	(void)nbd_server_send(fd, speech->bytes, speech->size_bytes);
	(void)shutdown(fd, SHUT_WR);
	while (recv(fd, drain, sizeof(drain), 0) > 0)
		;
}

static void what_cannot_be_is_refused_with_a_sentence(void **state)
{
	(void)state;
	server->script = script_speech;
	nbd_server_start(server);
	for (size_t i = 0; i < ARRAY_SIZE(SPEECHES); i++) {
		server->script_data = (void *)&SPEECHES[i];
		expect_refusal(server->address, SPEECHES[i].words);
	}
}

static void a_handshake_may_be_cut_anywhere(void **state)
{
	(void)state;
	static const struct speech whole =
		SPEECH("", GREETING NO_STRUCTURE REPLY("\7", "\0\0\0\3", "\xc") "\0\0\0\0\0\0\0\x10\0\0\0\1" REPLY(
				   "\7", "\0\0\0\1", "\0"));
	static struct speech cuts[256]; /* the server may still look at the one before */
	assert_true(whole.size_bytes <= ARRAY_SIZE(cuts));
	server->script = script_speech;
	for (size_t i = 0; i < whole.size_bytes; i++) {
		cuts[i] = whole;
		cuts[i].size_bytes = i;
		server->script_data = &cuts[i];
		if (i == 0)
			nbd_server_start(server);
		expect_refusal(server->address, "the server closed the connection while it was set up");
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_export_tells_what_it_is),
		TEST(flags_and_sizes_are_honoured),
		TEST(structured_replies),
		TEST(fragments_and_holes_the_last_first),
		TEST(simple_replies),
		TEST(without_go),
		TEST(without_anything_new),
		TEST(large_requests_are_split),
		TEST(zeroes_may_be_a_hole_or_not),
		TEST(errors_reach_their_requests),
		TEST(closing_says_goodbye),
		TEST(requests_are_pipelined),
		TEST(more_than_fits_on_the_wire_waits),
		TEST(what_was_not_answered_is_sent_again),
		TEST(without_a_server_requests_fail_in_time),
		TEST(a_silent_server_is_waited_for_and_told_of),
		TEST(another_disk_is_refused),
		TEST(a_read_is_cancelled_while_it_arrives),
		TEST(a_write_that_nobody_takes_is_cancelled),
		TEST(requests_are_cancelled_anywhere),
		TEST(a_client_closes_while_an_answer_is_owed),
		TEST(while_the_server_is_gone_requests_can_be_cancelled),
		TEST(a_liar_is_left_and_the_request_asked_again),
		TEST(an_answer_may_be_cut_anywhere),
		TEST(nobody_there_is_said_so),
		TEST(addresses_are_taken_apart),
		TEST(what_cannot_be_is_refused_with_a_sentence),
		TEST(a_handshake_may_be_cut_anywhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
