#include "net.h"

enum { RX_QUEUE = 0, TX_QUEUE = 1 };

static void *buffer_of[VIRTQ_SIZE_MAX]; /* that was given to the device, by the chain's head */

static uint64_t bit(unsigned feature)
{
	return (uint64_t)1 << feature;
}

uint64_t net_features(bool segments)
{
	uint64_t v = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS);

	if (segments)
		v |= bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) |
		     bit(VIRTIO_NET_F_GUEST_TSO4);
	if (arg_u64("mrg", 1))
		v |= bit(VIRTIO_NET_F_MRG_RXBUF);
	if (arg_u64("event-idx", 1))
		v |= bit(VIRTIO_RING_F_EVENT_IDX);
	if (arg_u64("indirect", 1))
		v |= bit(VIRTIO_RING_F_INDIRECT_DESC);
	return v;
}

bool net_open(struct net *n)
{
	return virtio_open(&n->dev, VIRTIO_ID_NET, (unsigned)arg_u64("net", 0));
}

static bool setup(struct net *n, struct virtq *q, unsigned index, unsigned size)
{
	unsigned max = virtq_size_max(&n->dev, index);

	if (max > VIRTQ_SIZE_MAX)
		max = VIRTQ_SIZE_MAX;
	if (!size || size > max)
		size = max;
	return size && virtq_setup(&n->dev, q, index, size, VIRTIO_NO_VECTOR);
}

bool net_start(struct net *n, uint64_t features, unsigned queue_size)
{
	if (!virtio_reset(&n->dev) || !virtio_negotiate(&n->dev, features))
		return false;
	if (!setup(n, &n->rx, RX_QUEUE, queue_size) || !setup(n, &n->tx, TX_QUEUE, queue_size))
		return false;
	if (virtio_has(&n->dev, VIRTIO_RING_F_INDIRECT_DESC))
		virtq_use_indirect(&n->tx);
	for (unsigned i = 0; i < NET_MAC_BYTES; i++)
		n->mac[i] = (uint8_t)virtio_config(&n->dev, i, 1);
	virtio_driver_ok(&n->dev);
	return true;
}

bool net_send(struct net *n, const struct virtio_buf *bufs, unsigned pieces)
{
	/* A single buffer gains nothing by a table of its own. */
	struct vring_desc(*indirect)[VIRTQ_SEGMENTS_MAX] = n->tx.indirect;
	int head;

	if (pieces == 1)
		n->tx.indirect = NULL;
	head = virtq_add(&n->tx, bufs, pieces, 0);
	n->tx.indirect = indirect;
	if (head < 0)
		return false;
	virtq_push(&n->tx, (uint16_t)head);
	return true;
}

bool net_sent(struct net *n)
{
	uint32_t len;

	return virtq_take(&n->tx, &len) >= 0;
}

bool net_give(struct net *n, void *buffer, uint32_t bytes)
{
	struct virtio_buf buf = {buffer, bytes};
	int head = virtq_add(&n->rx, &buf, 0, 1);

	if (head < 0)
		return false;
	buffer_of[head] = buffer;
	virtq_push(&n->rx, (uint16_t)head);
	return true;
}

void *net_take(struct net *n, uint32_t *ret_bytes)
{
	int head = virtq_take(&n->rx, ret_bytes);

	return head < 0 ? NULL : buffer_of[head];
}
