/*
 * The stream's receiving: many frames in one read into a buffer of ours, and from there to the receives that wait.
 *
 * When no receive waits, the buffer fills up to its half at least, and then the socket is not read: the peer has to
 * wait, and nothing is lost.
 */
#include "netif_stream_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "iov.h"
#include "util.h"

enum { FRAME_WITH_PREFIX_MAX = STREAM_PREFIX_BYTES + NETIF_FRAME_MAX_BYTES };

/* The frame at the buffer's begin: 1 when it is whole, 0 when there is more to come, -EPROTO when it cannot be. */
static int look(const struct netif_stream_receive *in, uint32_t *ret_size_bytes)
{
	size_t have = in->end - in->begin;
	uint32_t size;
	if (have < STREAM_PREFIX_BYTES)
		return 0;
	memcpy(&size, in->buffer + in->begin, sizeof(size));
	size = ntohl(size);
	*ret_size_bytes = size;
	if (size < NETIF_FRAME_MIN_BYTES || size > NETIF_FRAME_MAX_BYTES)
		return -EPROTO;
	return have - STREAM_PREFIX_BYTES >= size;
}

/* One that does not fit is dropped, and the receive waits for the next. */
static void give(struct netif_stream *stream, const uint8_t *frame, uint32_t size_bytes)
{
	static const uint8_t header[NETIF_HEADER_BYTES];
	struct netif_stream_receive *in = &stream->receive;
	struct netif_packet *packet = in->waiting.head;
	if (packet->size_bytes - NETIF_HEADER_BYTES < size_bytes) {
		stream->netif.counters.dropped++;
		return;
	}
	netif_stream_unlink(&in->waiting, packet);
	(void)iov_write(packet->iov, packet->iov_count, 0, header, NETIF_HEADER_BYTES);
	(void)iov_write(packet->iov, packet->iov_count, NETIF_HEADER_BYTES, frame, size_bytes);
	netif_complete_later(packet, (int)(NETIF_HEADER_BYTES + size_bytes));
}

static int deliver(struct netif_stream *stream, uint32_t *ret_size_bytes)
{
	struct netif_stream_receive *in = &stream->receive;
	int r = 0;
	while (in->waiting.head && (r = look(in, ret_size_bytes)) > 0) {
		give(stream, in->buffer + in->begin + STREAM_PREFIX_BYTES, *ret_size_bytes);
		in->begin += STREAM_PREFIX_BYTES + *ret_size_bytes;
	}
	return r;
}

/* Moved to the front only when the end is near: each byte is moved a few times at most, however small the reads are. */
static void make_room(struct netif_stream_receive *in)
{
	if (in->begin != in->end && sizeof(in->buffer) - in->end >= FRAME_WITH_PREFIX_MAX)
		return;
	memmove(in->buffer, in->buffer + in->begin, in->end - in->begin);
	in->end -= in->begin;
	in->begin = 0;
}

static void complain(struct netif_stream *stream, uint32_t size_bytes)
{
	char why[64];
	(void)snprintf(why, sizeof(why), "the peer sent a frame of %u bytes", size_bytes);
	netif_stream_lose(stream, why);
}

void netif_stream_receive_start(struct netif_stream *stream)
{
	struct netif_stream_receive *in = &stream->receive;
	uint32_t size = 0;
	if (stream->link != STREAM_UP)
		return;
	if (deliver(stream, &size) < 0) {
		complain(stream, size);
		return;
	}
	if (in->op.state != LOOP_OP_IDLE || in->end - in->begin > sizeof(in->buffer) / 2)
		return;
	make_room(in);
	if (loop_read(stream->netif.loop, &in->op, stream->file, in->buffer + in->end, sizeof(in->buffer) - in->end,
		      UINT64_MAX) < 0)
		netif_stream_ring_full(stream);
}

static void receive_done(struct loop_op *op, int res)
{
	struct netif_stream *stream = container_of(op, struct netif_stream, receive.op);
	struct netif_stream_receive *in = &stream->receive;
	if (stream->link != STREAM_UP) {
		netif_stream_settle(stream);
		return;
	}
	if (res == -EAGAIN || res == -EINTR || res == -ENOMEM || res == -ENOBUFS) {
		netif_stream_ring_full(stream);
		return;
	}
	if (res <= 0) {
		bool within = in->waiting.head && in->begin != in->end;
		netif_stream_lose(stream, within ? "the peer left in the middle of a frame" : NULL);
		return;
	}
	in->end += (size_t)res;
	netif_stream_receive_start(stream);
}

void netif_stream_receive_reset(struct netif_stream *stream)
{
	stream->receive.begin = stream->receive.end = 0;
}

void netif_stream_receive_init(struct netif_stream_receive *receive)
{
	receive->op.done = receive_done;
	receive->waiting.tail = &receive->waiting.head;
}
