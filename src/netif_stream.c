/*
 * Frames over a stream socket: the door's calls, and the life of a link.
 *
 * Work is gathered during a round of the loop and begun at its end, so that frames which the guest sends together leave
 * together. The peer is as hostile as a guest: its lengths are checked before a byte is taken, what it sends waits in a
 * buffer of a fixed size and then in its own socket, and what it does not read waits in the guest's ring.
 */
#include "netif_stream_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "fd.h"
#include "util.h"

static const uint64_t RING_FULL_NS = 10 * 1000000ULL;
static const uint64_t BACKOFF_MIN_NS = 10 * 1000000ULL;
static const uint64_t BACKOFF_MAX_NS = 1000 * 1000000ULL;
static const uint64_t STABLE_NS = 1000 * 1000000ULL; /* a link that lived so long was a good one */
enum { SEND_BUFFER_BYTES = 1 << 20 };                /* the kernel takes what it allows */

static struct netif_stream *stream_of(struct netif *netif)
{
	return container_of(netif, struct netif_stream, netif);
}

/* --- queues of packets --------------------------------------------------------------------------------------- */

void netif_stream_push(struct netif_stream_queue *queue, struct netif_packet *packet)
{
	packet->next = NULL;
	*queue->tail = packet;
	queue->tail = &packet->next;
}

void netif_stream_unlink(struct netif_stream_queue *queue, struct netif_packet *packet)
{
	struct netif_packet **at = &queue->head;
	while (*at != packet)
		at = &(*at)->next;
	*at = packet->next;
	if (!*at)
		queue->tail = at;
}

/* --- the door's calls ------------------------------------------------------------------------------------------ */

static void work(struct loop_task *task)
{
	struct netif_stream *stream = container_of(task, struct netif_stream, work_task);
	netif_stream_send_start(stream);
	netif_stream_receive_start(stream);
}

static void ring_may_have_room(struct loop_timer *timer)
{
	work(&container_of(timer, struct netif_stream, full_timer)->work_task);
}

void netif_stream_ring_full(struct netif_stream *stream)
{
	loop_timer_arm(stream->netif.loop, &stream->full_timer, loop_now_ns() + RING_FULL_NS);
}

static void stream_send(struct netif *netif, struct netif_packet *packet)
{
	struct netif_stream *stream = stream_of(netif);
	if (packet->size_bytes - NETIF_HEADER_BYTES > NETIF_STREAM_FRAME_MAX_BYTES) {
		netif_drop(packet);
		return;
	}
	netif_stream_push(&stream->send.queue, packet);
	if (stream->send.op.state == LOOP_OP_IDLE)
		loop_defer(netif->loop, &stream->work_task);
}

static void stream_receive(struct netif *netif, struct netif_packet *packet)
{
	struct netif_stream *stream = stream_of(netif);
	netif_stream_push(&stream->receive.waiting, packet);
	if (stream->receive.begin != stream->receive.end)
		loop_defer(netif->loop, &stream->work_task);
}

static void stream_cancel(struct netif *netif, struct netif_packet *packet)
{
	struct netif_stream *stream = stream_of(netif);
	if (!packet->receiving) {
		netif_stream_send_cancel(stream, packet);
		return;
	}
	netif_stream_unlink(&stream->receive.waiting, packet);
	netif_complete_later(packet, -ECANCELED);
}

static void end_op(struct netif_stream *stream, struct loop_op *op)
{
	loop_cancel(stream->netif.loop, op);
	loop_drain(stream->netif.loop, op);
}

static void close_socket(struct netif_stream *stream)
{
	if (stream->fd < 0)
		return;
	loop_remove_file(stream->netif.loop, stream->file);
	fd_close(&stream->fd);
}

static void stream_destroy(struct netif *netif)
{
	struct netif_stream *stream = stream_of(netif);
	stream->freeing = true;
	stream->link = STREAM_CLOSING;
	end_op(stream, &stream->send.op);
	end_op(stream, &stream->receive.op);
	loop_timer_disarm(netif->loop, &stream->full_timer);
	loop_unpost(netif->loop, &stream->work_task);
	close_socket(stream);
	stream->policy->free(stream);
}

static const struct netif_ops STREAM_OPS = {
	.name = "stream",
	.send = stream_send,
	.receive = stream_receive,
	.cancel = stream_cancel,
	.destroy = stream_destroy,
};

/* --- the life of a link ---------------------------------------------------------------------------------------- */

void netif_stream_attach(struct netif_stream *stream, int fd)
{
	const int size = SEND_BUFFER_BYTES;
	/* Blocking, or io_uring would not wait for it. What fails here only makes it slower. */
	(void)fcntl(fd, F_SETFL, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	stream->fd = fd;
	stream->file = loop_add_file(stream->netif.loop, fd);
	stream->link = STREAM_UP;
	stream->up_since_ns = loop_now_ns();
	loop_defer(stream->netif.loop, &stream->work_task);
	netif_set_link(&stream->netif, true);
}

void netif_stream_settle(struct netif_stream *stream)
{
	if (stream->freeing || stream->send.op.state != LOOP_OP_IDLE || stream->receive.op.state != LOOP_OP_IDLE)
		return;
	close_socket(stream);
	stream->link = STREAM_DOWN;
	netif_stream_send_reset(stream);
	netif_stream_receive_reset(stream);
	stream->policy->lost(stream);
}

void netif_stream_lose(struct netif_stream *stream, const char *why)
{
	if (stream->link != STREAM_UP)
		return;
	if (why)
		log_guest(stream->log, &stream->limit, "net '%s': %s; disconnected", stream->text, why);
	stream->link = STREAM_CLOSING;
	loop_timer_disarm(stream->netif.loop, &stream->full_timer);
	(void)shutdown(stream->fd, SHUT_RDWR);
	loop_cancel(stream->netif.loop, &stream->send.op);
	loop_cancel(stream->netif.loop, &stream->receive.op);
	netif_set_link(&stream->netif, false);
	netif_stream_settle(stream);
}

uint64_t netif_stream_backoff_ns(struct netif_stream *stream)
{
	bool lived = stream->up_since_ns && loop_now_ns() - stream->up_since_ns >= STABLE_NS;
	stream->up_since_ns = 0;
	if (lived || !stream->backoff_ns)
		stream->backoff_ns = BACKOFF_MIN_NS;
	else
		stream->backoff_ns = min_u64(2 * stream->backoff_ns, BACKOFF_MAX_NS);
	return stream->backoff_ns;
}

void netif_stream_init(struct netif_stream *stream, struct loop *loop, const struct log *log,
		       const struct netif_stream_policy *policy, const char *kind, const char *name)
{
	netif_init(&stream->netif, &STREAM_OPS, loop);
	stream->netif.info.queues = 1;
	stream->policy = policy;
	stream->log = log;
	stream->fd = -1;
	stream->work_task.fn = work;
	stream->full_timer.fn = ring_may_have_room;
	(void)snprintf(stream->text, sizeof(stream->text), "%s%s", kind, name);
	netif_stream_send_init(&stream->send);
	netif_stream_receive_init(&stream->receive);
}
