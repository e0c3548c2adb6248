/*
 * The NBD client under any order of requests, cancels, time, and bytes from a server; the loop is a fake.
 *
 * The first connection is a real one, to a thread that says a good handshake. From then on each byte or two of the
 * input are a step. What is held against a model: each request ends exactly once and in the end; memory of an ended
 * request is in no operation; what is sent is a sequence of whole commands that carry the data of a living write.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block.h"
#include "block_nbd_impl.h"
#include "util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	REQUESTS = 12,
	DATA_BYTES = 8192,
	DISK_BYTES = 65536,
	OPS = 3,
	TIMERS = 8,
	STREAM_BYTES = 65536,
	IDLE = 0xa5, /* fills the memory of a request that is not under way */
};
static const uint64_t NS_PER_MS = 1000000;

struct fake_op {
	struct loop_op *op;
	struct msghdr *message; /* NULL: a connect */
	bool sends;
};

struct fake_request {
	struct block_request request;
	bool busy;
	struct iovec iov[2];
	uint8_t data[DATA_BYTES];
};

struct loop {
	uint64_t now_ns;
	struct fake_op ops[OPS];
	struct loop_timer *timers[TIMERS];
	struct loop_task *deferred;
	struct block *block;
	struct fake_request requests[REQUESTS];
	uint8_t stream[STREAM_BYTES]; /* from the server */
	size_t stream_begin, stream_end;
	uint8_t command[NBD_REQUEST_SIZE]; /* from the client: what is being sent */
	size_t command_bytes;
	uint64_t payload_bytes; /* that are still to come */
	const uint8_t *input, *input_end;
};

static struct loop *the_loop;

static uint8_t next_byte(struct loop *loop)
{
	return loop->input < loop->input_end ? *loop->input++ : 0;
}

/* --- the fake loop -------------------------------------------------------------------------------------------- */

uint64_t loop_now_ns(void)
{
	return the_loop->now_ns;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
	loop_timer_disarm(loop, timer);
	timer->deadline_ns = deadline_ns;
	for (unsigned i = 0; i < TIMERS; i++) {
		if (!loop->timers[i]) {
			loop->timers[i] = timer;
			return;
		}
	}
	abort();
}

void loop_timer_disarm(struct loop *loop, struct loop_timer *timer)
{
	for (unsigned i = 0; i < TIMERS; i++) {
		if (loop->timers[i] == timer)
			loop->timers[i] = NULL;
	}
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	task->next = loop->deferred;
	loop->deferred = task;
}

void loop_unpost(struct loop *loop, struct loop_task *task)
{
	for (struct loop_task **at = &loop->deferred; *at; at = &(*at)->next) {
		if (*at == task) {
			*at = task->next;
			task->queued = false;
			return;
		}
	}
}

static int start(struct loop *loop, struct loop_op *op, struct msghdr *message, bool sends)
{
	assert(op->state == LOOP_OP_IDLE && op->done);
	for (unsigned i = 0; i < OPS; i++) {
		if (loop->ops[i].op)
			continue;
		op->state = LOOP_OP_INFLIGHT;
		loop->ops[i] = (struct fake_op){op, message, sends};
		return 0;
	}
	abort();
}

int loop_connect(struct loop *loop, struct loop_op *op, int fd, const struct sockaddr *address, unsigned size_bytes)
{
	(void)fd, (void)address, (void)size_bytes;
	loop->command_bytes = 0;
	loop->payload_bytes = 0;
	loop->stream_begin = loop->stream_end = 0;
	return start(loop, op, NULL, true);
}

int loop_sendmsg(struct loop *loop, struct loop_op *op, int fd, const struct msghdr *message)
{
	(void)fd;
	return start(loop, op, (struct msghdr *)(uintptr_t)message, true);
}

int loop_recvmsg(struct loop *loop, struct loop_op *op, int fd, struct msghdr *message)
{
	(void)fd;
	return start(loop, op, message, false);
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	(void)loop;
	if (op->state == LOOP_OP_INFLIGHT)
		op->state = LOOP_OP_CANCELLING;
}

static void finish(struct fake_op *fake, int res)
{
	struct loop_op *op = fake->op;
	*fake = (struct fake_op){0};
	op->state = LOOP_OP_IDLE;
	op->done(op, res);
}

void loop_drain(struct loop *loop, struct loop_op *op)
{
	for (unsigned i = 0; i < OPS; i++) {
		if (loop->ops[i].op == op)
			finish(&loop->ops[i], -ECANCELED);
	}
}

static void run_deferred(struct loop *loop)
{
	for (unsigned i = 0; loop->deferred; i++) {
		struct loop_task *task = loop->deferred;
		assert(i < 1000);
		loop->deferred = task->next;
		task->queued = false;
		task->fn(task);
	}
}

static void pass_time(struct loop *loop, uint64_t ns)
{
	loop->now_ns += ns;
	for (unsigned i = 0; i < TIMERS; i++) {
		struct loop_timer *timer = loop->timers[i];
		if (!timer || timer->deadline_ns > loop->now_ns)
			continue;
		loop->timers[i] = NULL;
		timer->fn(timer);
	}
	for (unsigned i = 0; i < OPS; i++) {
		if (loop->ops[i].op && loop->ops[i].op->state == LOOP_OP_CANCELLING)
			finish(&loop->ops[i], -ECANCELED);
	}
}

/* --- the wire -------------------------------------------------------------------------------------------------- */

static uint64_t room_of(const struct fake_op *op)
{
	uint64_t room = 0;
	for (size_t i = 0; i < op->message->msg_iovlen; i++)
		room += op->message->msg_iov[i].iov_len;
	assert(room > 0);
	return room;
}

/* The handshake is not looked at; commands are. */
static void take_sent_byte(struct loop *loop, uint8_t byte)
{
	if (loop->payload_bytes) {
		assert(byte != IDLE);
		loop->payload_bytes--;
		return;
	}
	loop->command[loop->command_bytes++] = byte;
	if (loop->command_bytes < NBD_REQUEST_SIZE)
		return;
	loop->command_bytes = 0;
	uint64_t offset = nbd_load64(loop->command + 16), length = nbd_load32(loop->command + 24);
	assert(nbd_load32(loop->command) == NBD_REQUEST_MAGIC && offset <= DISK_BYTES && length <= DISK_BYTES - offset);
	if (nbd_load16(loop->command + 6) == NBD_CMD_WRITE)
		loop->payload_bytes = length;
}

static struct fake_op *find_op(struct loop *loop, bool sends)
{
	for (unsigned i = 0; i < OPS; i++) {
		if (loop->ops[i].op && loop->ops[i].message && loop->ops[i].sends == sends)
			return &loop->ops[i];
	}
	return NULL;
}

static void step_sent(struct loop *loop, uint64_t most)
{
	struct fake_op *op = find_op(loop, true);
	const struct nbd *nbd = container_of(loop->block, struct nbd, block);
	if (!op)
		return;
	uint64_t n = min_u64(room_of(op), most), left = n;
	for (size_t i = 0; nbd->link == NBD_LINK_UP && left; i++) {
		const struct iovec *iov = &op->message->msg_iov[i];
		for (size_t k = 0; k < iov->iov_len && left; k++, left--)
			take_sent_byte(loop, ((const uint8_t *)iov->iov_base)[k]);
	}
	finish(op, (int)n);
}

static void step_received(struct loop *loop, uint64_t most)
{
	struct fake_op *op = find_op(loop, false);
	if (!op || loop->stream_begin == loop->stream_end)
		return;
	uint64_t n = min_u64(min_u64(room_of(op), most), loop->stream_end - loop->stream_begin), left = n;
	for (size_t i = 0; left; i++) {
		const struct iovec *iov = &op->message->msg_iov[i];
		size_t part = min_u64(iov->iov_len, left);
		memcpy(iov->iov_base, loop->stream + loop->stream_begin, part);
		loop->stream_begin += part;
		left -= part;
	}
	finish(op, (int)n);
}

static void step_broken(struct loop *loop, uint8_t arg)
{
	static const int RESULTS[] = {0, -ECONNRESET, -ECANCELED, -EAGAIN};
	struct fake_op *op = &loop->ops[arg % OPS];
	if (op->op)
		finish(op, RESULTS[arg / OPS % ARRAY_SIZE(RESULTS)]);
}

static void step_connected(struct loop *loop)
{
	for (unsigned i = 0; i < OPS; i++) {
		if (loop->ops[i].op && !loop->ops[i].message)
			finish(&loop->ops[i], 0);
	}
}

/* --- what the server says ----------------------------------------------------------------------------------------- */

static void say(struct loop *loop, const void *bytes, size_t size)
{
	if (size > STREAM_BYTES - loop->stream_end)
		return;
	memcpy(loop->stream + loop->stream_end, bytes, size);
	loop->stream_end += size;
}

static void say_input(struct loop *loop, size_t size)
{
	size = min_u64(size, (size_t)(loop->input_end - loop->input));
	say(loop, loop->input, size);
	loop->input += size;
}

static size_t handshake_words(uint8_t *p, bool structured)
{
	uint8_t *begin = p;
	p = nbd_put16(nbd_put64(nbd_put64(p, NBD_MAGIC), NBD_OPTS_MAGIC), NBD_FLAG_FIXED_NEWSTYLE);
	p = nbd_put32(nbd_put64(p, NBD_REP_MAGIC), NBD_OPT_STRUCTURED_REPLY);
	p = nbd_put32(nbd_put32(p, structured ? NBD_REP_ACK : NBD_REP_ERR_UNSUP), 0);
	p = nbd_put32(nbd_put32(nbd_put64(p, NBD_REP_MAGIC), NBD_OPT_GO), NBD_REP_INFO);
	p = nbd_put64(nbd_put16(nbd_put32(p, 12), NBD_INFO_EXPORT), DISK_BYTES);
	p = nbd_put16(p, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES);
	p = nbd_put32(nbd_put32(nbd_put64(p, NBD_REP_MAGIC), NBD_OPT_GO), NBD_REP_INFO);
	p = nbd_put32(nbd_put16(nbd_put32(p, 14), NBD_INFO_BLOCK_SIZE), 1);
	p = nbd_put32(nbd_put32(p, 4096), 4096);
	p = nbd_put32(nbd_put32(nbd_put64(p, NBD_REP_MAGIC), NBD_OPT_GO), NBD_REP_ACK);
	return (size_t)(nbd_put32(p, 0) - begin);
}

static void say_handshake(struct loop *loop, bool structured)
{
	uint8_t words[256];
	say(loop, words, handshake_words(words, structured));
}

/* Right in all that the input does not change: for a slot that is under way if there is one. */
static void say_reply(struct loop *loop, uint8_t what)
{
	static const uint16_t TYPES[] = {NBD_REPLY_TYPE_NONE,  NBD_REPLY_TYPE_OFFSET_DATA,  NBD_REPLY_TYPE_OFFSET_HOLE,
					 NBD_REPLY_TYPE_ERROR, NBD_REPLY_TYPE_ERROR_OFFSET, 0xffff};
	const struct nbd *nbd = container_of(loop->block, struct nbd, block);
	const struct nbd_slot *slot = &nbd->slots[next_byte(loop) % REQUESTS];
	uint8_t header[64], *p = header, part = next_byte(loop);
	uint16_t type = TYPES[what % ARRAY_SIZE(TYPES)];
	uint32_t begin = (part & 15) * 512U, size = (part >> 4) * 512U;
	if (size == 0) {
		begin = 0;
		size = slot->size_bytes;
	}
	static const uint8_t zeroes[DATA_BYTES];
	if (what & 0x40) {
		p = nbd_put64(nbd_put32(nbd_put32(p, NBD_SIMPLE_REPLY_MAGIC), what & 0x20 ? part : 0), slot->cookie);
		say(loop, header, (size_t)(p - header));
		if (!(what & 0x20) && slot->command == NBD_CMD_READ)
			say(loop, zeroes, min_u64(slot->size_bytes, sizeof(zeroes)));
		return;
	}
	p = nbd_put16(nbd_put16(nbd_put32(p, NBD_STRUCTURED_REPLY_MAGIC), what >> 7), type);
	p = nbd_put64(p, slot->cookie);
	if (type == NBD_REPLY_TYPE_NONE)
		p = nbd_put32(p, 0);
	else if (type == NBD_REPLY_TYPE_OFFSET_DATA)
		p = nbd_put64(nbd_put32(p, size + 8), slot->offset_bytes + begin);
	else if (type == NBD_REPLY_TYPE_OFFSET_HOLE)
		p = nbd_put32(nbd_put64(nbd_put32(p, 12), slot->offset_bytes + begin), size);
	else
		p = nbd_put64(nbd_put16(nbd_put32(nbd_put32(p, 14), part), 0), slot->offset_bytes);
	say(loop, header, (size_t)(p - header));
	if (type == NBD_REPLY_TYPE_OFFSET_DATA)
		say(loop, zeroes, min_u64(size, sizeof(zeroes)));
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static bool overlaps(const struct iovec *iov, const struct fake_request *r)
{
	const uint8_t *begin = iov->iov_base;
	return begin < r->data + DATA_BYTES && r->data < begin + iov->iov_len;
}

/* An operation may still hold a part of an ended request's memory only if there is none. */
static void check_released(const struct loop *loop, const struct fake_request *r)
{
	for (unsigned i = 0; i < OPS; i++) {
		const struct fake_op *op = &loop->ops[i];
		for (size_t k = 0; op->op && op->message && k < op->message->msg_iovlen; k++)
			assert(!overlaps(&op->message->msg_iov[k], r));
	}
}

static void request_done(struct block_request *request, int res)
{
	struct fake_request *r = container_of(request, struct fake_request, request);
	assert(r->busy && res <= 0);
	r->busy = false;
	check_released(the_loop, r);
	memset(r->data, IDLE, DATA_BYTES);
}

static void step_submit(struct loop *loop, uint8_t arg)
{
	struct fake_request *r = &loop->requests[arg % REQUESTS];
	uint8_t where = next_byte(loop);
	if (r->busy)
		return;
	for (size_t i = 0; i < DATA_BYTES; i++)
		assert(r->data[i] == IDLE);
	memset(r->data, 0x11, DATA_BYTES);
	uint64_t size = (1 + where % 16) * 512ULL, cut = where * 13ULL % size;
	r->iov[0] = (struct iovec){r->data, cut};
	r->iov[1] = (struct iovec){r->data + cut, size - cut};
	r->request = (struct block_request){.op = (enum block_op)(arg / REQUESTS % 5),
					    .offset_bytes = where / 16 * 4096ULL,
					    .size_bytes = size,
					    .iov = r->iov,
					    .iov_count = 2,
					    .done = request_done};
	if (r->request.op == BLOCK_FLUSH)
		r->request.offset_bytes = r->request.size_bytes = 0;
	r->busy = true;
	block_submit(loop->block, &r->request);
	assert(r->busy);
}

static void step(struct loop *loop)
{
	uint8_t op = next_byte(loop), arg = next_byte(loop);
	switch (op % 10) {
	case 0:
		step_submit(loop, arg);
		break;
	case 1:
		if (loop->requests[arg % REQUESTS].busy)
			block_cancel(loop->block, &loop->requests[arg % REQUESTS].request);
		break;
	case 2:
		step_sent(loop, 1 + arg * (uint64_t)arg);
		break;
	case 3:
		step_received(loop, 1 + arg * (uint64_t)arg);
		break;
	case 4:
		pass_time(loop, arg * 20 * NS_PER_MS);
		break;
	case 5:
		step_broken(loop, arg);
		break;
	case 6:
		step_connected(loop);
		break;
	case 7:
		say_input(loop, arg);
		break;
	case 8:
		say_handshake(loop, arg & 1);
		break;
	default:
		say_reply(loop, arg);
		break;
	}
	run_deferred(loop);
}

/* --- the first connection: real -------------------------------------------------------------------------------------
 */

static char address[64];
static _Atomic bool first_is_structured;

static void *serve(void *arg)
{
	int listen_fd = (int)(intptr_t)arg, fd;
	while ((fd = accept(listen_fd, NULL, NULL)) >= 0) {
		uint8_t words[256];
		(void)!send(fd, words, handshake_words(words, first_is_structured), MSG_NOSIGNAL);
		while (recv(fd, words, sizeof(words), 0) > 0)
			;
		close(fd);
	}
	return NULL;
}

static void start_server(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	(void)snprintf(address, sizeof(address), "unix:/tmp/vmlet-fuzz-nbd-%d", (int)getpid());
	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", address + strlen("unix:"));
	unlink(un.sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_t thread;
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, 4) < 0 ||
	    pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd))
		abort();
	pthread_detach(thread);
}

static void remove_socket(void)
{
	unlink(address + strlen("unix:"));
}

static bool is_busy(const struct loop *loop)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		if (loop->requests[i].busy)
			return true;
	}
	return false;
}

/* The server has gone for good: whatever is under way must end in time. */
static void end_all(struct loop *loop)
{
	for (unsigned i = 0; is_busy(loop) && i < 200; i++) {
		for (unsigned k = 0; k < OPS; k++) {
			if (loop->ops[k].op)
				finish(&loop->ops[k], -ECONNREFUSED);
		}
		run_deferred(loop);
		pass_time(loop, 100 * NS_PER_MS);
		run_deferred(loop);
	}
	assert(!is_busy(loop));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static struct loop loop;
	if (!address[0]) {
		start_server();
		atexit(remove_socket);
	}
	memset(&loop, 0, sizeof(loop));
	the_loop = &loop;
	loop.now_ns = 1000 * NS_PER_MS;
	loop.input = data;
	loop.input_end = data + size_bytes;
	for (unsigned i = 0; i < REQUESTS; i++)
		memset(loop.requests[i].data, IDLE, DATA_BYTES);

	struct err err = {0};
	first_is_structured = next_byte(&loop) & 1;
	loop.block = block_nbd_open(&loop, NULL, &(struct block_nbd_config){address, false, 1}, &err);
	if (!loop.block)
		abort();
	while (loop.input < loop.input_end)
		step(&loop);
	end_all(&loop);
	block_free(loop.block);
	assert(!loop.deferred);
	for (unsigned i = 0; i < OPS; i++)
		assert(!loop.ops[i].op);
	for (unsigned i = 0; i < TIMERS; i++)
		assert(!loop.timers[i]);
	return 0;
}
