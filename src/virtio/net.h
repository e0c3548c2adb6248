/*
 * virtio-net (virtio 1.3, 5.1): an Ethernet card over a network back end.
 *
 * Queues: receiveq and transmitq of each pair, then the control queue (2 * queues; without MQ it is the third: 5.1.2).
 * Offered: MAC, STATUS, MTU (when it is known), MRG_RXBUF, CTRL_VQ, CTRL_RX, CTRL_RX_EXTRA, CTRL_MAC_ADDR,
 * GUEST_ANNOUNCE, SPEED_DUPLEX, MQ (when queues > 1), and of CSUM, GUEST_CSUM, HOST_* and GUEST_* segmentation,
 * CTRL_GUEST_OFFLOADS what the back end can do.
 */
#pragma once

#include "err.h"
#include "gmem.h"
#include "log.h"
#include "loop.h"
#include "netif.h"
#include "rate_limit.h"
#include "virtio/virtio.h"

struct virtio_net_init {
	uint8_t mac[NETIF_MAC_BYTES];
	uint16_t mtu; /* what the guest is told; 0: the back end's, or nothing */
	bool packed;
	bool link_down;                 /* at first, whatever the back end says */
	struct rate_limit_config limit; /* operations: packets; of each way */
};

/* `netif` is borrowed and outlives the device, on the same loop; the number of pairs is its info.queues. NULL with
 * `err` set. [setup] */
struct virtio_device *virtio_net_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     struct netif *netif, const struct virtio_net_init *init, struct err *err);

/* The owner pulls the cable, or plugs it in: the guest sees the link up when both he and the back end say so. [loop] */
void virtio_net_set_link(struct virtio_device *dev, bool up);
