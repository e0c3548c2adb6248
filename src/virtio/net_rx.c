/*
 * Packets in.
 *
 * Theory of operation. A chain of the driver becomes a `net_buffer` when it is popped. It is free (no chain), in the
 * stock, or in a receive. A `net_receive` is what one packet is received into; it is
 *
 *     idle      with or without buffers
 *     posted    the back end has it, full enough for the largest packet that may come
 *     held      it has a packet that is over the rate (net_limit.c)
 *
 * When a packet has come, the buffers that it filled go back to the driver, all at once, and the receive is idle with
 * those that it did not. The driver's queue is kicked, so that the end of the round tops up all idle receives and posts
 * them again: one that is short by one buffer gets one, and nothing else is moved. When the driver has no more to give,
 * the buffers of all idle receives go to the stock, where one receive may find enough of them.
 *
 * Not enough. A driver refills its ring when it comes to it, and meanwhile the largest packet has to wait; a receive
 * that is too small for it would drop it. But a driver that never gives enough must not wait for ever: when nothing is
 * posted and nothing has come for STARVED_NS (net.c), it is taken for poor, and what there is of its buffers is posted
 * as it is. More buffers end that: the meagre receive is cancelled, and filled up.
 */
#include <errno.h>
#include <stdlib.h>

#include "iov.h"
#include "util.h"
#include "virtio/net_impl.h"

static const size_t NUM_BUFFERS_AT = offsetof(struct virtio_net_hdr_v1, num_buffers);

/* --- buffers -------------------------------------------------------------------------------------------------- */

static struct iovec *spans_of(struct net_rx *rx, struct net_buffer *buffer)
{
	return buffer->span_count == 1 ? &buffer->span : &rx->spans[(size_t)(buffer - rx->buffers) * NETIF_IOV_MAX];
}

static void put_free(struct net_rx *rx, struct net_buffer *buffer)
{
	buffer->next = rx->free;
	rx->free = buffer;
}

static void put_stock(struct net_rx *rx, struct net_buffer *buffer)
{
	buffer->next = rx->stock;
	rx->stock = buffer;
	rx->stock_count++;
	rx->stock_bytes += buffer->size_bytes;
}

/* There is one. */
static struct net_buffer *take_stock(struct net_rx *rx)
{
	struct net_buffer *buffer = rx->stock;
	rx->stock = buffer->next;
	rx->stock_count--;
	rx->stock_bytes -= buffer->size_bytes;
	return buffer;
}

/* Unfilled, when the queue stops. */
static void give_back(struct net_rx *rx, struct net_buffer *buffer)
{
	const struct virtq_used used = {buffer->id, buffer->descriptors, 0};
	virtio_push_many(&rx->net->dev, rx->queue, &used, 1);
	put_free(rx, buffer);
}

/* There is a free one: a ring gives out no more chains than it has descriptors. */
static struct net_buffer *take_chain(struct net_rx *rx, const struct virtq_chain *chain)
{
	struct net_buffer *buffer = rx->free;
	rx->free = buffer->next;
	buffer->id = chain->id;
	buffer->descriptors = chain->descriptors;
	buffer->span_count = (unsigned)min_u64(chain->in_count, NETIF_IOV_MAX);
	struct iovec *spans = spans_of(rx, buffer);
	buffer->span_count = iov_slice(chain->iov + chain->out_count, chain->in_count, 0, NETIF_PACKET_MAX_BYTES, spans,
				       buffer->span_count);
	if (buffer->span_count == 1)
		buffer->span = spans[0]; /* also of a chain whose first span is enough */
	buffer->size_bytes = 0;
	for (unsigned i = 0; i < buffer->span_count; i++)
		buffer->size_bytes += (uint32_t)spans[i].iov_len;
	return buffer;
}

/* 5.1.6.3.1 asks for room for the header; with room for an Ethernet header too, any buffer makes a receive. */
static bool is_usable(const struct net_rx *rx, const struct virtq_chain *chain)
{
	if (chain->in_bytes >= NET_PACKET_MIN_BYTES)
		return true;
	log_guest(rx->net->dev.log, &rx->net->log_limit,
		  "virtio-net: queue %u: a receive buffer of %u bytes is useless", rx->queue, chain->in_bytes);
	return false;
}

/* One more from the driver to the stock. */
static bool restock(struct net_rx *rx)
{
	struct virtio_device *dev = &rx->net->dev;
	struct virtq_chain chain;
	while (virtio_pop(dev, rx->queue, &chain) == 1) {
		if (is_usable(rx, &chain)) {
			put_stock(rx, take_chain(rx, &chain));
			return true;
		}
		virtio_push(dev, rx->queue, &chain, 0);
	}
	return false;
}

/* --- receives ------------------------------------------------------------------------------------------------- */

static void put_idle(struct net_receive *receive)
{
	receive->next = receive->rx->idle;
	receive->rx->idle = receive;
}

/* Not empty, and large enough, or in as many pieces as can be. */
static bool is_enough(const struct net_rx *rx, unsigned buffers, unsigned spans, uint32_t size_bytes)
{
	return buffers > 0 && (size_bytes >= rx->net->receive_bytes || spans >= NETIF_IOV_MAX);
}

/* False: it would be in too many pieces. */
static bool append(struct net_receive *receive, struct net_buffer *buffer)
{
	if (buffer->span_count > NETIF_IOV_MAX - receive->iov_count)
		return false;
	memcpy(&receive->iov[receive->iov_count], spans_of(receive->rx, buffer),
	       buffer->span_count * sizeof(receive->iov[0]));
	receive->iov_count += buffer->span_count;
	receive->size_bytes += buffer->size_bytes;
	receive->buffers[receive->buffer_count++] = buffer;
	return true;
}

/* Fill it from the stock, as far as it makes sense. */
static void fill(struct net_receive *receive)
{
	struct net_rx *rx = receive->rx;
	while (rx->stock && !is_enough(rx, receive->buffer_count, receive->iov_count, receive->size_bytes)) {
		struct net_buffer *buffer = take_stock(rx);
		if (!append(receive, buffer)) {
			put_stock(rx, buffer);
			return;
		}
	}
}

/* Take the first `count` buffers out, which have the first `spans` spans. */
static void drop_front(struct net_receive *receive, unsigned count, unsigned spans)
{
	receive->buffer_count -= count;
	receive->iov_count -= spans;
	for (unsigned i = 0; i < receive->buffer_count; i++)
		receive->buffers[i] = receive->buffers[i + count];
	memmove(receive->iov, receive->iov + spans, receive->iov_count * sizeof(receive->iov[0]));
}

static void empty(struct net_receive *receive, void (*put)(struct net_rx *rx, struct net_buffer *buffer))
{
	for (unsigned i = receive->buffer_count; i > 0; i--)
		put(receive->rx, receive->buffers[i - 1]);
	receive->buffer_count = receive->iov_count = 0;
	receive->size_bytes = 0;
}

/* The door takes no more than the largest packet: the rest is cut off while the back end has it. */
static void cut(struct net_receive *receive)
{
	struct netif_packet *packet = &receive->netif;
	size_t excess = receive->size_bytes - min_u64(receive->size_bytes, NETIF_PACKET_MAX_BYTES);
	packet->size_bytes = receive->size_bytes - (uint32_t)excess;
	packet->iov_count = receive->iov_count;
	while (excess >= receive->iov[packet->iov_count - 1].iov_len)
		excess -= receive->iov[--packet->iov_count].iov_len;
	receive->iov[packet->iov_count - 1].iov_len -= excess;
	receive->cut_bytes = excess;
}

static void uncut(struct net_receive *receive)
{
	receive->iov[receive->netif.iov_count - 1].iov_len += receive->cut_bytes;
	receive->cut_bytes = 0;
}

/* The first idle one. */
static void post(struct net_rx *rx)
{
	struct net_receive *receive = rx->idle;
	rx->idle = receive->next;
	receive->posted = true;
	rx->posted++;
	cut(receive);
	netif_receive(rx->net->netif, &receive->netif);
}

/* --- filling up ------------------------------------------------------------------------------------------------- */

/* Is there enough, in this receive and the stock, for the largest packet? Asks the driver as far as it is not. */
static bool is_provided(struct net_rx *rx, const struct net_receive *receive)
{
	while (!is_enough(rx, receive->buffer_count + rx->stock_count, receive->iov_count + rx->stock_count,
			  receive->size_bytes + rx->stock_bytes)) {
		if (!restock(rx))
			return false;
	}
	return true;
}

static void empty_idle(struct net_rx *rx)
{
	for (struct net_receive *receive = rx->idle; receive; receive = receive->next)
		empty(receive, put_stock);
}

/* One idle receive more, or not: everything is in the stock then. */
static bool post_next(struct net_rx *rx)
{
	struct net_receive *receive = rx->idle;
	if (!is_provided(rx, receive)) {
		empty_idle(rx);
		if (!is_provided(rx, receive))
			return false;
	}
	fill(receive);
	post(rx);
	return true;
}

static void post_meagre(struct net_rx *rx)
{
	struct net_receive *receive = rx->idle;
	fill(receive);
	rx->meagre = receive;
	post(rx);
}

/* Nothing more can be posted. */
static void make_do(struct net_rx *rx)
{
	if (rx->meagre && rx->stock)
		netif_cancel(rx->net->netif, &rx->meagre->netif);
	if (rx->meagre || !rx->posted)
		virtio_need_more(&rx->net->dev, rx->queue);
	if (rx->posted || !rx->stock)
		return;
	if (rx->poor)
		post_meagre(rx);
	else
		net_watch(rx->net);
}

void net_rx_serve(struct net_rx *rx)
{
	struct virtio_net *net = rx->net;
	rx->cancelled = false;
	if (rx->pair >= net->pairs || net->rx_limit.waiting)
		return;
	while (rx->idle && post_next(rx))
		rx->poor = false;
	if (rx->idle)
		make_do(rx);
}

void net_rx_starved(struct net_rx *rx)
{
	if (rx->posted)
		return;
	rx->poor = rx->stock != NULL;
	virtio_kick(&rx->net->dev, rx->queue);
}

/* --- packets ---------------------------------------------------------------------------------------------------- */

/* Nearly always the first buffer begins with all of the header. */
static void write_at(const struct net_receive *receive, size_t offset, const void *data, size_t size_bytes)
{
	const struct iovec *first = &receive->iov[0];
	if (offset + size_bytes <= first->iov_len)
		memcpy((uint8_t *)first->iov_base + offset, data, size_bytes);
	else
		iov_write(receive->iov, receive->iov_count, offset, data, size_bytes);
}

/* 5.1.6.4.1 */
static void write_header(const struct net_receive *receive, unsigned count)
{
	const uint8_t none = 0;
	uint8_t num_buffers[2];
	le16_store(num_buffers, (uint16_t)count);
	write_at(receive, NUM_BUFFERS_AT, num_buffers, sizeof(num_buffers));
	if (receive->rx->net->zero_flags)
		write_at(receive, offsetof(struct virtio_net_hdr_v1, flags), &none, sizeof(none));
}

/* All at once: a driver that has seen the first buffer wants the others. */
static void deliver(struct net_receive *receive, uint32_t packet_bytes)
{
	struct net_rx *rx = receive->rx;
	struct virtq_used used[NETIF_IOV_MAX];
	unsigned count = 0, spans = 0;
	for (uint32_t left = packet_bytes; left;) {
		struct net_buffer *buffer = receive->buffers[count];
		uint32_t part = (uint32_t)min_u64(left, buffer->size_bytes);
		used[count++] = (struct virtq_used){buffer->id, buffer->descriptors, part};
		spans += buffer->span_count;
		receive->size_bytes -= buffer->size_bytes;
		left -= part;
		put_free(rx, buffer);
	}
	write_header(receive, count);
	virtio_push_many(&rx->net->dev, rx->queue, used, count);
	drop_front(receive, count, spans);
}

/* Larger than the MTU, and nothing that is to be segmented. */
static bool is_too_large(const struct net_receive *receive, uint32_t packet_bytes)
{
	uint8_t gso_type;
	if (packet_bytes - NETIF_HEADER_BYTES <= receive->rx->net->frame_max_bytes)
		return false;
	iov_read(receive->iov, receive->iov_count, offsetof(struct virtio_net_hdr_v1, gso_type), &gso_type,
		 sizeof(gso_type));
	return (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_NONE;
}

static bool is_wanted(const struct net_receive *receive, uint32_t packet_bytes)
{
	const struct virtio_net *net = receive->rx->net;
	uint8_t destination[NET_FILTER_MAC_BYTES];
	if (!net->plugged || is_too_large(receive, packet_bytes)) {
		net->netif->counters.dropped++;
		return false;
	}
	if (net->filter.promisc)
		return true;
	iov_read(receive->iov, receive->iov_count, NETIF_HEADER_BYTES, destination, sizeof(destination));
	return net_filter_accepts(&net->filter, destination);
}

/* What is not wanted leaves its receive as it was. */
static void arrived(struct net_receive *receive, uint32_t packet_bytes)
{
	struct net_rx *rx = receive->rx;
	if (is_wanted(receive, packet_bytes)) {
		if (!net_limit_rx(receive, packet_bytes))
			return;
		deliver(receive, packet_bytes);
	}
	put_idle(receive);
	virtio_kick(&rx->net->dev, rx->queue);
}

void net_rx_release(struct net_receive *receive)
{
	if (is_wanted(receive, receive->held_bytes))
		deliver(receive, receive->held_bytes);
	put_idle(receive);
	virtio_kick(&receive->rx->net->dev, receive->rx->queue);
}

/* It was cancelled to be filled up, or the back end could not: then it is not asked again at once. */
static void came_back_empty(struct net_receive *receive, int res)
{
	struct net_rx *rx = receive->rx;
	put_idle(receive);
	if (res == -ECANCELED)
		virtio_kick(&rx->net->dev, rx->queue);
	else
		net_watch(rx->net);
}

void net_rx_discard(struct net_receive *receive)
{
	empty(receive, give_back);
	put_idle(receive);
}

static void receive_done(struct netif_packet *packet, int res)
{
	struct net_receive *receive = container_of(packet, struct net_receive, netif);
	struct net_rx *rx = receive->rx;
	virtio_lock(&rx->net->dev);
	receive->posted = false;
	rx->posted--;
	if (rx->meagre == receive)
		rx->meagre = NULL;
	uncut(receive);
	if (rx->cancelled) {
		net_rx_discard(receive);
	} else if (res >= NET_PACKET_MIN_BYTES) {
		arrived(receive, (uint32_t)min_u64((unsigned)res, packet->size_bytes));
	} else {
		came_back_empty(receive, res);
	}
	virtio_unlock(&rx->net->dev);
}

void net_rx_cancel(struct net_rx *rx)
{
	rx->cancelled = true;
	rx->poor = false;
	net_limit_forget_rx(rx);
	for (unsigned i = 0; i < NET_RECEIVES_MAX; i++) {
		struct net_receive *receive = &rx->receives[i];
		if (receive->posted)
			netif_cancel(rx->net->netif, &receive->netif);
		else
			empty(receive, give_back);
	}
	while (rx->stock)
		give_back(rx, take_stock(rx));
}

/* --- life ------------------------------------------------------------------------------------------------------- */

int net_rx_init(struct virtio_net *net, unsigned pair)
{
	struct net_rx *rx = &net->rx[pair];
	*rx = (struct net_rx){.net = net, .pair = pair, .queue = 2 * pair};
	for (unsigned i = NET_RECEIVES_MAX; i > 0; i--) {
		struct net_receive *receive = &rx->receives[i - 1];
		receive->rx = rx;
		receive->netif = (struct netif_packet){.queue = pair, .iov = receive->iov, .done = receive_done};
		put_idle(receive);
	}
	rx->buffers = calloc(NET_QUEUE_SIZE, sizeof(*rx->buffers));
	rx->spans = calloc((size_t)NET_QUEUE_SIZE * NETIF_IOV_MAX, sizeof(*rx->spans));
	if (!rx->buffers || !rx->spans)
		return -ENOMEM;
	for (unsigned i = NET_QUEUE_SIZE; i > 0; i--)
		put_free(rx, &rx->buffers[i - 1]);
	return 0;
}

void net_rx_fini(struct net_rx *rx)
{
	free(rx->buffers);
	free(rx->spans);
}
