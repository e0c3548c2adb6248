/* The stream's sending: many frames in one message, from where the guest has them. */
#include "netif_stream_impl.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>

#include "iov.h"
#include "util.h"

static struct netif_stream *stream_of(struct loop_op *op)
{
	return container_of(op, struct netif_stream, send.op);
}

static uint32_t frame_bytes(const struct netif_packet *packet)
{
	return packet->size_bytes - NETIF_HEADER_BYTES;
}

static uint32_t total_bytes(const struct netif_packet *packet)
{
	return STREAM_PREFIX_BYTES + frame_bytes(packet);
}

static bool has_spill(const struct netif_stream_send *send)
{
	return send->spill_begin < send->spill_end;
}

/* --- the message -------------------------------------------------------------------------------------------- */

/* What the packet still has to send, into the message from span *at on; false when it did not all fit. */
static bool add_packet(struct netif_stream_send *send, const struct netif_packet *packet, unsigned *at)
{
	uint32_t sent = packet->progress_bytes, *prefix = &send->prefixes[send->offered++];
	if (sent < STREAM_PREFIX_BYTES) {
		*prefix = htonl(frame_bytes(packet));
		send->iov[(*at)++] = (struct iovec){(uint8_t *)prefix + sent, STREAM_PREFIX_BYTES - sent};
		sent = STREAM_PREFIX_BYTES;
	}
	uint32_t left = total_bytes(packet) - sent;
	unsigned count = iov_slice(packet->iov, packet->iov_count, NETIF_HEADER_BYTES + sent - STREAM_PREFIX_BYTES,
				   left, send->iov + *at, STREAM_IOV_MAX - *at);
	for (unsigned i = 0; i < count; i++)
		left -= (uint32_t)send->iov[*at + i].iov_len;
	*at += count;
	return left == 0;
}

/*
 * Frames until STREAM_MESSAGE_MAX, or one that is larger. A peer sees no messages, but it may see where the kernel cuts
 * one in pieces (each 48 KiB): passt before 2024-09 loses its place in the stream where a piece ends inside a prefix,
 * or where a frame comes in three. So no piece ends inside a frame, but in a large one that begins a message: that
 * comes in two.
 */
static unsigned fill_message(struct netif_stream_send *send)
{
	unsigned count = 0;
	uint32_t bytes = send->spill_end - send->spill_begin;
	send->offered = 0;
	if (has_spill(send))
		send->iov[count++] = (struct iovec){send->spill + send->spill_begin, bytes};
	for (const struct netif_packet *packet = send->queue.head; packet; packet = packet->next) {
		bytes += total_bytes(packet) - packet->progress_bytes;
		if (count && bytes > STREAM_MESSAGE_MAX)
			break;
		if (count == STREAM_IOV_MAX || send->offered == STREAM_BATCH_MAX || !add_packet(send, packet, &count))
			break;
	}
	return count;
}

void netif_stream_send_start(struct netif_stream *stream)
{
	struct netif_stream_send *send = &stream->send;
	if (stream->link != STREAM_UP || send->op.state != LOOP_OP_IDLE || (!send->queue.head && !has_spill(send)))
		return;
	send->message = (struct msghdr){.msg_iov = send->iov, .msg_iovlen = fill_message(send)};
	if (loop_sendmsg(stream->netif.loop, &send->op, stream->file, &send->message) < 0)
		netif_stream_ring_full(stream);
}

/* --- its end -------------------------------------------------------------------------------------------------- */

static void sent(struct netif_stream_send *send, size_t bytes)
{
	uint32_t n = (uint32_t)min_u64(bytes, send->spill_end - send->spill_begin);
	send->spill_begin += n;
	bytes -= n;
	while (bytes) {
		struct netif_packet *packet = send->queue.head;
		n = (uint32_t)min_u64(bytes, total_bytes(packet) - packet->progress_bytes);
		packet->progress_bytes += n;
		bytes -= n;
		if (packet->progress_bytes < total_bytes(packet))
			break;
		send->offered--;
		netif_stream_unlink(&send->queue, packet);
		netif_complete_later(packet, 0);
	}
}

/* A frame that has begun must end, or the stream is no stream of frames any more: its rest is copied. */
static void take_back(struct netif_stream_send *send, struct netif_packet *packet)
{
	uint32_t begun = packet->progress_bytes, prefix = htonl(frame_bytes(packet));
	netif_stream_unlink(&send->queue, packet);
	if (begun == 0) {
		netif_complete_later(packet, -ECANCELED);
		return;
	}
	assert(!has_spill(send)); /* it would have gone before the packet */
	memcpy(send->spill, &prefix, sizeof(prefix));
	(void)iov_read(packet->iov, packet->iov_count, NETIF_HEADER_BYTES, send->spill + STREAM_PREFIX_BYTES,
		       frame_bytes(packet));
	send->spill_begin = begun;
	send->spill_end = total_bytes(packet);
	netif_complete_later(packet, 0);
}

static void take_back_cancelled(struct netif_stream_send *send)
{
	struct netif_packet *packet = send->queue.head;
	for (; send->offered; send->offered--) {
		struct netif_packet *next = packet->next;
		if (packet->cancelled)
			take_back(send, packet);
		packet = next;
	}
}

static bool is_passing(int res)
{
	return res > 0 || res == -ECANCELED || res == -EAGAIN || res == -EINTR || res == -ENOBUFS || res == -ENOMEM;
}

static void send_done(struct loop_op *op, int res)
{
	struct netif_stream *stream = stream_of(op);
	if (stream->link != STREAM_UP) {
		netif_stream_settle(stream);
		return;
	}
	if (!is_passing(res)) {
		netif_stream_lose(stream, NULL);
		return;
	}
	sent(&stream->send, res > 0 ? (size_t)res : 0);
	take_back_cancelled(&stream->send);
	/* -ECANCELED: for the sake of one packet; the others go on. Of the rest there may be more at once: not now. */
	if (res > 0 || res == -ECANCELED)
		netif_stream_send_start(stream);
	else
		netif_stream_ring_full(stream);
}

/* --- the rest ---------------------------------------------------------------------------------------------------- */

static bool is_offered(const struct netif_stream_send *send, const struct netif_packet *wanted)
{
	const struct netif_packet *packet = send->queue.head;
	for (unsigned i = 0; i < send->offered; i++, packet = packet->next) {
		if (packet == wanted)
			return true;
	}
	return false;
}

/* A message that has moved some bytes ends with their number, so none is lost. */
void netif_stream_send_cancel(struct netif_stream *stream, struct netif_packet *packet)
{
	struct netif_stream_send *send = &stream->send;
	if (send->op.state != LOOP_OP_IDLE && is_offered(send, packet))
		loop_cancel(stream->netif.loop, &send->op);
	else
		take_back(send, packet);
}

void netif_stream_send_reset(struct netif_stream *stream)
{
	struct netif_stream_send *send = &stream->send;
	struct netif_packet *packet = send->queue.head;
	send->queue.head = NULL;
	send->queue.tail = &send->queue.head;
	send->offered = 0;
	send->spill_begin = send->spill_end = 0;
	while (packet) {
		struct netif_packet *next = packet->next;
		if (packet->cancelled)
			netif_complete_later(packet, -ECANCELED);
		else
			netif_drop(packet);
		packet = next;
	}
}

void netif_stream_send_init(struct netif_stream_send *send)
{
	send->op.done = send_done;
	send->queue.tail = &send->queue.head;
}
