/*
 * Theory of operation. A tap's queue is a file: a write is a packet that goes out, a read is one that came, and the
 * virtio-net header is part of both. Writes are submitted as they are; the kernel does them one after the other while
 * it takes the submissions, so they stay in order.
 *
 * To receive, a batch of reads is submitted: all but the last take what is there and end at once (RWF_NOWAIT), the last
 * one waits. So whatever number of receives is outstanding, only one of them waits in the kernel, and an idle network
 * costs nothing. A batch is one read at first, twice as many as the last when that found a packet for each, else as
 * many as there were packets. Every end of a receive goes through netif_complete_later, one list, in the order in which
 * the packets came.
 *
 * Measured once, by a program that was not kept (Linux 6.18, two cores; ns per packet of 60 and of 1500 bytes, and of
 * 64 KiB to be segmented); tools/bench/net-floor.c, the floor of `bench net`, does batches of 32:
 *
 *	receive: read(2)              675   717  9754    send: write(2)               1011  1074  3678
 *	         32 reads in a batch  569   650  9300          32 writes in a batch    685   721  3269
 *	         8 reads in a batch   616   678  7063          8 writes in a batch     860   829  3789
 *	         32 hard-linked reads 652   712  7976
 *
 * Linux before 6.4 does not do RWF_NOWAIT for a tap (EOPNOTSUPP). There the batch but its last is read by readv(2), on
 * a descriptor that does not block; the last one waits there, too (checked on 6.1: O_NONBLOCK does not make it EAGAIN).
 *
 * A read cuts a packet that its spans have no room for, and says nothing. So they get one byte more: a packet that
 * reaches it was cut, is dropped, and its receive serves again.
 */
#include "netif_tap_impl.h"

#include <errno.h>
#include <sys/uio.h>

enum { RECEIVED_MIN_BYTES = NETIF_HEADER_BYTES + NETIF_FRAME_MIN_BYTES };

static bool is_idle(const struct tap_queue *queue)
{
	return !queue->active && !queue->tap->is_gone;
}

static void put_back(struct tap_queue *queue, struct netif_packet *packet)
{
	if (packet->cancelled)
		netif_complete_later(packet, -ECANCELED);
	else
		tap_list_prepend(&queue->waiting, packet);
}

/* `res` as of a read into the packet's spans and one byte. False: nothing came. */
static bool received(struct tap_queue *queue, struct netif_packet *packet, int res)
{
	bool fits = res >= RECEIVED_MIN_BYTES && (uint32_t)res <= packet->size_bytes;
	if (fits) {
		netif_complete_later(packet, res);
		return true;
	}
	put_back(queue, packet);
	if (res >= 0)
		queue->tap->netif.counters.dropped++;
	return res >= 0;
}

static void batch_ended(struct tap_queue *queue)
{
	if (queue->came == queue->tried)
		queue->batch = (unsigned)min_u64(2ULL * queue->batch, TAP_BATCH_MAX);
	else
		queue->batch = (unsigned)max_u64(queue->came, 1);
	if (queue->failed)
		tap_calm_down(queue->tap);
	else if (queue->waiting.head)
		tap_receive_start(queue);
}

static void try_done(struct loop_op *op, int res)
{
	struct tap_try *try = container_of(op, struct tap_try, op);
	struct tap_queue *queue = try->queue;
	struct tap *tap = queue->tap;
	queue->came += received(queue, try->packet, res);
	try->packet = NULL;
	queue->active--;
	if (try->waits && res < 0 && res != -ECANCELED)
		queue->failed = true;
	if (res == -EOPNOTSUPP && !try->waits)
		tap->cannot_try = true;
	else if (res < 0 && res != -EAGAIN && res != -EINTR && res != -ECANCELED)
		tap_failed(tap, "receive", res);
	if (!queue->active)
		batch_ended(queue);
}

static unsigned add_byte(const struct netif_packet *packet, struct iovec *iov, uint8_t *beyond)
{
	for (unsigned i = 0; i < packet->iov_count; i++)
		iov[i] = packet->iov[i];
	iov[packet->iov_count] = (struct iovec){.iov_base = beyond, .iov_len = 1};
	return packet->iov_count + 1;
}

/* Give the first that waits to the kernel. False: the ring has no room. */
static bool submit_try(struct tap_queue *queue, bool waits)
{
	struct loop *loop = queue->tap->netif.loop;
	struct netif_packet *packet = queue->waiting.head;
	struct tap_try *try = &queue->tries[queue->tried]; /* free: the last batch has ended */
	const struct iovec *iov = packet->iov;
	unsigned count = packet->iov_count;
	if (packet->size_bytes < NETIF_PACKET_MAX_BYTES) { /* else there is room for any */
		iov = try->iov;
		count = add_byte(packet, try->iov, &try->beyond);
	}
	int r = waits ? loop_readv(loop, &try->op, queue->file, iov, count, 0)
		      : loop_try_readv(loop, &try->op, queue->file, iov, count, 0);
	if (r < 0)
		return false;
	try->packet = tap_list_pop(&queue->waiting);
	try->waits = waits;
	queue->active++;
	queue->tried++;
	return true;
}

/* The same at once. False: nothing came. */
static bool read_now(struct tap_queue *queue)
{
	struct netif_packet *packet = tap_list_pop(&queue->waiting);
	struct tap_try *try = &queue->tries[queue->tried]; /* for its spans */
	unsigned count = add_byte(packet, try->iov, &try->beyond);
	ssize_t got = readv(queue->tap->device.fds[packet->queue], try->iov, (int)count);
	queue->tried++;
	bool came = received(queue, packet, got < 0 ? -errno : (int)got);
	queue->came += came;
	return came;
}

static bool try_one(struct tap_queue *queue)
{
	return queue->tap->cannot_try ? read_now(queue) : submit_try(queue, false);
}

static void receive_batch(struct loop_task *task)
{
	struct tap_queue *queue = container_of(task, struct tap_queue, receive_task);
	if (!is_idle(queue) || !queue->waiting.head)
		return;
	queue->tried = queue->came = 0;
	queue->failed = false;
	for (unsigned left = queue->batch - 1; left && queue->waiting.count > 1; left--) {
		if (!try_one(queue))
			break;
	}
	if (queue->waiting.head && !submit_try(queue, true) && !queue->active)
		loop_post(queue->tap->netif.loop, task); /* the ring being full passes */
}

void tap_receive(struct netif *netif, struct netif_packet *packet)
{
	struct tap_queue *queue = tap_queue_of(netif, packet);
	tap_list_append(&queue->waiting, packet);
	tap_receive_start(queue);
}

void tap_receive_start(struct tap_queue *queue)
{
	if (is_idle(queue))
		loop_defer(queue->tap->netif.loop, &queue->receive_task);
}

void tap_receive_cancel(struct tap_queue *queue, const struct netif_packet *packet)
{
	for (unsigned i = 0; i < TAP_BATCH_MAX; i++) {
		if (queue->tries[i].packet == packet)
			loop_cancel(queue->tap->netif.loop, &queue->tries[i].op);
	}
}

void tap_receive_init(struct tap_queue *queue)
{
	queue->batch = 1;
	queue->receive_task.fn = receive_batch;
	for (unsigned i = 0; i < TAP_BATCH_MAX; i++)
		queue->tries[i] = (struct tap_try){.op = {.done = try_done}, .queue = queue};
}
