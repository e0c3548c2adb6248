/*
 * Frames over a stream socket under any order of packets, cancels, partial moves, and bytes from a peer; the loop is a
 * fake.
 *
 * What is held against a model: each packet ends exactly once and in the end; memory of an ended packet is in no
 * operation; what is sent is a sequence of whole frames, in order, with the bytes of a living packet; what is received
 * is what a peer that keeps to the framing has said.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netif_stream_impl.h"
#include "util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	PACKETS = 12,
	OPS = 2,
	TIMERS = 2,
	STREAM_BYTES = 1 << 20,
	SERIAL_BYTES = 4,
	IDLE = 0xa5, /* fills the memory of a packet that is not under way */
};
static const uint64_t NS_PER_MS = 1000000;

struct fake_op {
	struct loop_op *op;
	const struct iovec *iov;
	size_t iov_count;
	struct iovec read_iov;
	bool sends;
};

struct fake_packet {
	struct netif_packet packet;
	bool busy, receives;
	struct iovec iov[3];
	uint8_t data[NETIF_PACKET_MAX_BYTES];
};

struct loop {
	uint64_t now_ns;
	struct fake_op ops[OPS];
	struct loop_timer *timers[TIMERS];
	struct loop_task *deferred;
	struct netif_stream *stream;
	struct fake_packet packets[PACKETS];
	uint8_t said[STREAM_BYTES]; /* by the peer */
	size_t said_begin, said_end;
	bool chaos;                   /* the peer has not kept to the framing */
	uint32_t serial, last_serial; /* of packets to send: their first bytes */
	uint8_t prefix[STREAM_PREFIX_BYTES];
	size_t prefix_bytes;
	uint32_t frame_left, frame_at; /* of the frame that is being sent */
	uint32_t frame_serial;
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

int loop_add_file(struct loop *loop, int fd)
{
	(void)loop;
	return fd;
}

void loop_remove_file(struct loop *loop, int file)
{
	(void)file;
	for (unsigned i = 0; i < OPS; i++)
		assert(!loop->ops[i].op);
}

void loop_timer_disarm(struct loop *loop, struct loop_timer *timer)
{
	for (unsigned i = 0; i < TIMERS; i++) {
		if (loop->timers[i] == timer)
			loop->timers[i] = NULL;
	}
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

static struct fake_op *start(struct loop *loop, struct loop_op *op, bool sends)
{
	assert(op->state == LOOP_OP_IDLE && op->done);
	for (unsigned i = 0; i < OPS; i++) {
		if (loop->ops[i].op)
			continue;
		op->state = LOOP_OP_INFLIGHT;
		loop->ops[i] = (struct fake_op){.op = op, .sends = sends};
		return &loop->ops[i];
	}
	abort();
}

/* Now and then the ring is full. */
static bool is_full(struct loop *loop)
{
	return next_byte(loop) == 0xfe;
}

int loop_sendmsg(struct loop *loop, struct loop_op *op, int fd, const struct msghdr *message)
{
	(void)fd;
	if (is_full(loop))
		return -ENOSPC;
	struct fake_op *fake = start(loop, op, true);
	fake->iov = message->msg_iov;
	fake->iov_count = message->msg_iovlen;
	assert(fake->iov_count > 0);
	return 0;
}

int loop_read(struct loop *loop, struct loop_op *op, int fd, void *buf, size_t size_bytes, uint64_t offset)
{
	(void)fd;
	assert(offset == UINT64_MAX && size_bytes > 0);
	if (is_full(loop))
		return -ENOSPC;
	struct fake_op *fake = start(loop, op, false);
	fake->read_iov = (struct iovec){buf, size_bytes};
	fake->iov = &fake->read_iov;
	fake->iov_count = 1;
	return 0;
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

static uint8_t filling(uint32_t serial)
{
	return (uint8_t)(serial & 0x7f);
}

static void take_sent_byte(struct loop *loop, uint8_t byte)
{
	if (loop->frame_left == 0) {
		loop->prefix[loop->prefix_bytes++] = byte;
		if (loop->prefix_bytes < STREAM_PREFIX_BYTES)
			return;
		uint32_t size;
		memcpy(&size, loop->prefix, sizeof(size));
		loop->frame_left = ntohl(size);
		loop->prefix_bytes = 0;
		loop->frame_at = loop->frame_serial = 0;
		assert(loop->frame_left >= NETIF_FRAME_MIN_BYTES && loop->frame_left <= NETIF_FRAME_MAX_BYTES);
		return;
	}
	if (loop->frame_at < SERIAL_BYTES)
		loop->frame_serial = loop->frame_serial << 8 | byte;
	else
		assert(byte == filling(loop->frame_serial));
	loop->frame_left--;
	if (++loop->frame_at != SERIAL_BYTES)
		return;
	assert(loop->frame_serial > loop->last_serial && loop->frame_serial <= loop->serial);
	loop->last_serial = loop->frame_serial;
}

static struct fake_op *find_op(struct loop *loop, bool sends)
{
	for (unsigned i = 0; i < OPS; i++) {
		if (loop->ops[i].op && loop->ops[i].sends == sends)
			return &loop->ops[i];
	}
	return NULL;
}

static uint64_t room_of(const struct fake_op *op)
{
	uint64_t room = 0;
	for (size_t i = 0; i < op->iov_count; i++)
		room += op->iov[i].iov_len;
	assert(room > 0);
	return room;
}

static void step_sent(struct loop *loop, uint64_t most)
{
	struct fake_op *op = find_op(loop, true);
	if (!op)
		return;
	uint64_t n = min_u64(room_of(op), most), left = n;
	for (size_t i = 0; loop->stream->link == STREAM_UP && left; i++) {
		const uint8_t *bytes = op->iov[i].iov_base;
		for (size_t k = 0; k < op->iov[i].iov_len && left; k++, left--)
			take_sent_byte(loop, bytes[k]);
	}
	finish(op, (int)n);
}

static void step_received(struct loop *loop, uint64_t most)
{
	struct fake_op *op = find_op(loop, false);
	if (!op || loop->said_begin == loop->said_end)
		return;
	uint64_t n = min_u64(min_u64(room_of(op), most), loop->said_end - loop->said_begin);
	memcpy(op->iov->iov_base, loop->said + loop->said_begin, n);
	loop->said_begin += n;
	finish(op, (int)n);
}

static void step_broken(struct loop *loop, uint8_t arg)
{
	static const int RESULTS[] = {0, -ECONNRESET, -ECANCELED, -EAGAIN, -EPIPE, -ENOMEM};
	struct fake_op *op = &loop->ops[arg % OPS];
	if (op->op)
		finish(op, RESULTS[arg / OPS % ARRAY_SIZE(RESULTS)]);
}

/* --- what the peer says --------------------------------------------------------------------------------------------
 */

static bool has_room(const struct loop *loop, size_t size)
{
	return size <= STREAM_BYTES - loop->said_end;
}

static void say_input(struct loop *loop, size_t size)
{
	size = min_u64(size, (size_t)(loop->input_end - loop->input));
	if (!has_room(loop, size))
		return;
	memcpy(loop->said + loop->said_end, loop->input, size);
	loop->said_end += size;
	loop->input += size;
	loop->chaos = true;
}

static uint32_t some_size(uint8_t arg)
{
	static const uint32_t LARGE[] = {NETIF_FRAME_MAX_BYTES, 65520, 9014, 1514, 40000, 30000, 20000, 10000};
	return arg < 0xe0 ? NETIF_FRAME_MIN_BYTES + arg * 3U : LARGE[arg % ARRAY_SIZE(LARGE)];
}

static void say_frame(struct loop *loop, uint8_t arg)
{
	uint32_t size = some_size(arg), prefix = htonl(size);
	if (!has_room(loop, sizeof(prefix) + size))
		return;
	memcpy(loop->said + loop->said_end, &prefix, sizeof(prefix));
	memset(loop->said + loop->said_end + sizeof(prefix), arg | 1, size);
	loop->said_end += sizeof(prefix) + size;
}

/* --- packets -------------------------------------------------------------------------------------------------------
 */

static bool overlaps(const struct iovec *iov, const struct fake_packet *p)
{
	const uint8_t *begin = iov->iov_base;
	return begin < p->data + sizeof(p->data) && p->data < begin + iov->iov_len;
}

static void check_released(const struct loop *loop, const struct fake_packet *p)
{
	for (unsigned i = 0; i < OPS; i++) {
		const struct fake_op *op = &loop->ops[i];
		for (size_t k = 0; op->op && k < op->iov_count; k++)
			assert(!overlaps(&op->iov[k], p));
	}
}

static void check_received(const struct loop *loop, const struct fake_packet *p, int res)
{
	static const uint8_t header[NETIF_HEADER_BYTES];
	assert(res == -ECANCELED || res >= NETIF_HEADER_BYTES + NETIF_FRAME_MIN_BYTES);
	assert(res <= (int)p->packet.size_bytes);
	if (res < 0 || loop->chaos)
		return;
	assert(memcmp(p->data, header, sizeof(header)) == 0);
	uint8_t byte = p->data[NETIF_HEADER_BYTES];
	assert(byte & 1);
	for (int i = NETIF_HEADER_BYTES; i < res; i++)
		assert(p->data[i] == byte);
}

static void packet_done(struct netif_packet *packet, int res)
{
	struct fake_packet *p = container_of(packet, struct fake_packet, packet);
	assert(p->busy);
	p->busy = false;
	check_released(the_loop, p);
	if (p->receives)
		check_received(the_loop, p, res);
	else
		assert(res == 0 || res == -ECANCELED);
	memset(p->data, IDLE, packet->size_bytes);
}

static void step_submit(struct loop *loop, uint8_t arg, bool receives)
{
	struct fake_packet *p = &loop->packets[arg % PACKETS];
	uint32_t size = NETIF_HEADER_BYTES + some_size(next_byte(loop)), cut = arg * 7U % size;
	if (p->busy)
		return;
	for (size_t i = 0; i < size; i++)
		assert(p->data[i] == IDLE);
	if (!receives) {
		uint32_t serial = htonl(++loop->serial);
		memset(p->data + NETIF_HEADER_BYTES, filling(loop->serial), size - NETIF_HEADER_BYTES);
		memcpy(p->data + NETIF_HEADER_BYTES, &serial, sizeof(serial));
	}
	p->iov[0] = (struct iovec){p->data, cut};
	p->iov[1] = (struct iovec){p->data + cut, 0};
	p->iov[2] = (struct iovec){p->data + cut, size - cut};
	p->packet = (struct netif_packet){.iov = p->iov, .iov_count = 3, .size_bytes = size, .done = packet_done};
	p->busy = true;
	p->receives = receives;
	if (receives)
		netif_receive(&loop->stream->netif, &p->packet);
	else
		netif_send(&loop->stream->netif, &p->packet);
	assert(p->busy);
}

static void step_cancel(struct loop *loop, uint8_t arg)
{
	struct fake_packet *p = &loop->packets[arg % PACKETS];
	if (p->busy)
		netif_cancel(&loop->stream->netif, &p->packet);
}

/* --- the stream ----------------------------------------------------------------------------------------------------
 */

static void attach(struct loop *loop)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	close(pair[1]);
	loop->chaos = false;
	loop->said_begin = loop->said_end = 0;
	loop->prefix_bytes = loop->frame_left = 0;
	netif_stream_attach(loop->stream, pair[0]);
}

static void lost(struct netif_stream *stream)
{
	assert(stream->link == STREAM_DOWN && !stream->netif.info.link_up);
}

static void free_stream(struct netif_stream *stream)
{
	free(stream);
}

static const struct netif_stream_policy POLICY = {.lost = lost, .free = free_stream};

static void step(struct loop *loop)
{
	uint8_t op = next_byte(loop), arg = next_byte(loop);
	switch (op % 10) {
	case 0:
		step_submit(loop, arg, false);
		break;
	case 1:
		step_submit(loop, arg, true);
		break;
	case 2:
		step_cancel(loop, arg);
		break;
	case 3:
		step_sent(loop, 1 + arg * (uint64_t)arg);
		break;
	case 4:
		step_received(loop, 1 + arg * (uint64_t)arg * 4);
		break;
	case 5:
		pass_time(loop, arg * NS_PER_MS);
		break;
	case 6:
		step_broken(loop, arg);
		break;
	case 7:
		say_input(loop, arg);
		break;
	case 8:
		say_frame(loop, arg);
		break;
	default:
		if (loop->stream->link == STREAM_DOWN)
			attach(loop);
		break;
	}
	run_deferred(loop);
}

/* A guest's reset: it ends without the peer's help. */
static void end_all(struct loop *loop)
{
	for (unsigned i = 0; i < PACKETS; i++)
		step_cancel(loop, (uint8_t)i);
	for (unsigned i = 0; i < 10; i++) {
		run_deferred(loop);
		pass_time(loop, 0);
	}
	for (unsigned i = 0; i < PACKETS; i++)
		assert(!loop->packets[i].busy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static struct loop loop;
	memset(&loop, 0, sizeof(loop));
	the_loop = &loop;
	loop.now_ns = 1000 * NS_PER_MS;
	loop.input = data;
	loop.input_end = data + size_bytes;
	for (unsigned i = 0; i < PACKETS; i++)
		memset(loop.packets[i].data, IDLE, sizeof(loop.packets[i].data));

	loop.stream = calloc(1, sizeof(*loop.stream));
	if (!loop.stream)
		abort();
	netif_stream_init(loop.stream, &loop, NULL, &POLICY, "fuzz", "");
	attach(&loop);
	run_deferred(&loop);
	while (loop.input < loop.input_end)
		step(&loop);
	loop.input = loop.input_end = NULL;
	end_all(&loop);
	netif_free(&loop.stream->netif);
	assert(!loop.deferred);
	for (unsigned i = 0; i < OPS; i++)
		assert(!loop.ops[i].op);
	for (unsigned i = 0; i < TIMERS; i++)
		assert(!loop.timers[i]);
	return 0;
}
