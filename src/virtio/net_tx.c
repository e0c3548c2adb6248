/*
 * Packets out: each chain is one packet, sent from where it lies in the guest's memory. It goes back to the driver when
 * the back end is done with it; what cannot be a packet goes back at once.
 */
#include <errno.h>
#include <stdlib.h>

#include "iov.h"
#include "util.h"
#include "virtio/net_impl.h"

static void put_send(struct net_send *send)
{
	struct net_tx *tx = send->tx;
	if (send->gathered) {
		free(send->gathered);
		send->gathered = NULL;
		tx->gathered_count--;
	}
	send->active = false;
	send->next_free = tx->free;
	tx->free = send;
}

static void send_done(struct netif_packet *packet, int res)
{
	(void)res; /* a lost packet is the network's business */
	struct net_send *send = container_of(packet, struct net_send, netif);
	struct net_tx *tx = send->tx;
	struct virtio_device *dev = &tx->net->dev;
	virtio_lock(dev);
	virtio_push_many(dev, tx->queue, &send->used, 1);
	put_send(send);
	virtio_unlock(dev);
}

/* There is always one: a ring gives out no more chains than it has descriptors. */
static struct net_send *take_send(struct net_tx *tx)
{
	struct net_send *send = tx->free;
	if (send) {
		tx->free = send->next_free;
	} else {
		send = &tx->sends[tx->used_count++];
		send->tx = tx;
		send->netif = (struct netif_packet){.queue = tx->pair, .iov = send->spans, .done = send_done};
	}
	send->active = true;
	return send;
}

/* --- what may go ---------------------------------------------------------------------------------------------- */

static unsigned offload_of_gso(uint8_t gso_type)
{
	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return NETIF_OFFLOAD_TSO4;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return NETIF_OFFLOAD_TSO6;
	case NET_HDR_GSO_UDP_L4:
		return NETIF_OFFLOAD_USO;
	default:
		return UINT32_MAX; /* nobody can */
	}
}

/* Does the header ask for no more than the back end can do? It would send a frame without a checksum, or a giant. */
static bool asks_for_possible(const struct virtio_net *net, const struct virtq_chain *chain)
{
	uint8_t bytes[2]; /* flags, gso_type */
	iov_read(chain->iov, chain->out_count, 0, bytes, sizeof(bytes));
	unsigned needed = bytes[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM ? NETIF_OFFLOAD_CSUM : 0;
	if (bytes[1] != VIRTIO_NET_HDR_GSO_NONE)
		needed |= offload_of_gso(bytes[1]) | (bytes[1] & VIRTIO_NET_HDR_GSO_ECN ? NETIF_OFFLOAD_TSO_ECN : 0);
	return (needed & ~net->netif->info.offloads) == 0;
}

static bool is_packet(struct net_tx *tx, const struct virtq_chain *chain)
{
	struct virtio_net *net = tx->net;
	if (chain->out_bytes < NET_PACKET_MIN_BYTES || chain->out_bytes > NETIF_PACKET_MAX_BYTES)
		log_guest(net->dev.log, &net->log_limit, "virtio-net: queue %u: a packet of %u bytes is dropped",
			  tx->queue, chain->out_bytes);
	else if (!asks_for_possible(net, chain))
		log_guest(net->dev.log, &net->log_limit,
			  "virtio-net: queue %u: a packet that needs what was not offered is dropped", tx->queue);
	else
		return true;
	return false;
}

/* --- sending -------------------------------------------------------------------------------------------------- */

/* In one piece. False: there is no memory, or enough of it is in use. */
static bool gather(struct net_send *send, const struct virtq_chain *chain)
{
	struct net_tx *tx = send->tx;
	if (tx->gathered_count == NET_GATHERED_MAX)
		return false;
	send->gathered = malloc(chain->out_bytes);
	if (!send->gathered)
		return false;
	tx->gathered_count++;
	iov_read(chain->iov, chain->out_count, 0, send->gathered, chain->out_bytes);
	send->spans[0] = (struct iovec){send->gathered, chain->out_bytes};
	send->netif.iov_count = 1;
	return true;
}

static bool take_spans(struct net_send *send, const struct virtq_chain *chain)
{
	if (chain->out_count > NETIF_IOV_MAX)
		return gather(send, chain);
	memcpy(send->spans, chain->iov, chain->out_count * sizeof(send->spans[0]));
	send->netif.iov_count = chain->out_count;
	return true;
}

static void send_chain(struct net_tx *tx, const struct virtq_chain *chain)
{
	struct virtio_net *net = tx->net;
	struct net_send *send = take_send(tx);
	send->used = (struct virtq_used){chain->id, chain->descriptors, 0};
	send->netif.size_bytes = chain->out_bytes;
	if (take_spans(send, chain)) {
		netif_send(net->netif, &send->netif);
		return;
	}
	virtio_push_many(&net->dev, tx->queue, &send->used, 1);
	put_send(send);
}

/* 5.1.6.5.5.2: queues that are not in use are not read. */
static bool may_serve(const struct net_tx *tx)
{
	return tx->pair < tx->net->pairs && !tx->net->tx_limit.waiting;
}

void net_tx_serve(struct net_tx *tx, unsigned max)
{
	struct virtio_net *net = tx->net;
	struct virtq_chain chain;
	for (; max && may_serve(tx) && virtio_pop(&net->dev, tx->queue, &chain) == 1; max--) {
		if (!net->plugged || !is_packet(tx, &chain)) {
			virtio_push(&net->dev, tx->queue, &chain, 0);
		} else if (net_limit_tx(net, tx->pair, chain.out_bytes)) {
			send_chain(tx, &chain);
		} else {
			virtio_unpop(&net->dev, tx->queue, &chain);
		}
	}
}

void net_tx_cancel(struct net_tx *tx)
{
	net_limit_forget_tx(tx->net, tx->pair);
	for (unsigned i = 0; i < tx->used_count; i++) {
		if (tx->sends[i].active)
			netif_cancel(tx->net->netif, &tx->sends[i].netif);
	}
}

/* --- life ------------------------------------------------------------------------------------------------------- */

int net_tx_init(struct virtio_net *net, unsigned pair)
{
	struct net_tx *tx = &net->tx[pair];
	*tx = (struct net_tx){.net = net, .pair = pair, .queue = 2 * pair + 1};
	tx->sends = calloc(NET_QUEUE_SIZE, sizeof(*tx->sends));
	return tx->sends ? 0 : -ENOMEM;
}

void net_tx_fini(struct net_tx *tx)
{
	free(tx->sends);
}
