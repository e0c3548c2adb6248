/* A virtio-net driver (VIRTIO 1.2, 5.1) with one pair of queues and no control queue. */
#ifndef GUEST_NET_H
#define GUEST_NET_H

#include <linux/virtio_net.h>

#include "virtio.h"

enum { NET_MAC_BYTES = 6, NET_HEADER_BYTES = sizeof(struct virtio_net_hdr_v1), NET_PIECES_MAX = 32 };

struct net {
	struct virtio_dev dev;
	struct virtq rx, tx;
	uint8_t mac[NET_MAC_BYTES];
};

/*
 * What this driver can use, less EVENT_IDX (argument `event-idx=0`), INDIRECT (`indirect=0`) and MRG_RXBUF (`mrg=0`).
 * Segments larger than a frame, with their checksums to be done, only where `segments` says so.
 */
uint64_t net_features(bool segments);
/* Finds the network card number `net=N` (0). */
bool net_open(struct net *n);
/* Reset, negotiation, queues of `queue_size` entries or as many as the device has, DRIVER_OK. False: refused. */
bool net_start(struct net *n, uint64_t features, unsigned queue_size);

/*
 * Makes a frame available behind its header, in the first of `pieces` buffers; net_kick follows. False: no room.
 * What has been sent is taken by net_sent.
 */
bool net_send(struct net *n, const struct virtio_buf *bufs, unsigned pieces);
bool net_sent(struct net *n);

/* Gives the device a buffer to receive into. False: no room. */
bool net_give(struct net *n, void *buffer, uint32_t bytes);
/*
 * Takes one buffer that was filled: the first of a packet begins with a header whose num_buffers says how many there
 * are (1 without MRG_RXBUF). NULL: none has come.
 */
void *net_take(struct net *n, uint32_t *ret_bytes);

#endif
