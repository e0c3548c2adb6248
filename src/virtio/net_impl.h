/*
 * Inside virtio-net: net.c (the device), net_tx.c, net_rx.c (packets), net_control.c (commands), net_limit.c (rates).
 *
 * Everything here runs on the loop with the device's lock held, if it does not say otherwise.
 */
#pragma once

#include <linux/virtio_net.h>

#include "loop.h"
#include "netif.h"
#include "rate_limit.h"
#include "virtio/net.h"
#include "virtio/net_filter.h"
#include "virtio/virtio.h"

/* What the headers of Debian 12 lack (5.1.3, 5.1.6). */
enum {
	NET_F_GUEST_USO4 = 54,
	NET_F_GUEST_USO6 = 55,
	NET_F_HOST_USO = 56,
	NET_HDR_GSO_UDP_L4 = 5,
};

enum {
	/*
	 * A power of two. Linux's mergeable buffers have 1.5 KiB until it has seen larger frames, so the largest packet
	 * takes 44 of them: 1024 are 23 such packets at once, for 1.5 MiB of the guest's memory. With half as
	 * many, small packets came a fifth slower (`bench net --rows 'rx 64'`): batches of eleven.
	 */
	NET_QUEUE_SIZE = 1024,
	/* Receives of a queue that wait for packets at once: what a back end may fill in one go. */
	NET_RECEIVES_MAX = 32,
	/* Chains of a queue in one round: a few system calls' worth, and well below a ring. */
	NET_BATCH = 64,
	/* Packets of a queue in more pieces than a back end takes, that are copied and on their way at once. */
	NET_GATHERED_MAX = 16,
	NET_PACKET_MIN_BYTES = NETIF_HEADER_BYTES + NETIF_FRAME_MIN_BYTES,
};

struct virtio_net;

/* --- transmit (net_tx.c) -------------------------------------------------------------------------------------------
 */

/* A chain of the driver on its way out. */
struct net_send {
	struct netif_packet netif;
	struct net_tx *tx;
	struct virtq_used used;
	bool active;
	void *gathered; /* a copy, when the chain has too many spans; NULL */
	struct net_send *next_free;
	struct iovec spans[NETIF_IOV_MAX];
};

struct net_tx {
	struct virtio_net *net;
	unsigned pair, queue;
	/* As many as the ring holds. Their memory is touched as far as it has been needed at once. */
	struct net_send *sends;
	unsigned used_count; /* ever used */
	struct net_send *free;
	unsigned gathered_count;
};

int net_tx_init(struct virtio_net *net, unsigned pair); /* 0 or -ENOMEM [setup] */
void net_tx_fini(struct net_tx *tx);
/* At most `max` packets. */
void net_tx_serve(struct net_tx *tx, unsigned max);
void net_tx_cancel(struct net_tx *tx);

/* --- receive (net_rx.c) --------------------------------------------------------------------------------------------
 */

/* A chain of the driver that waits to be filled. */
struct net_buffer {
	uint16_t id, descriptors; /* the chain's */
	uint32_t size_bytes;      /* of its spans: at most NETIF_PACKET_MAX_BYTES, the rest is not used */
	unsigned span_count;      /* 1 to NETIF_IOV_MAX */
	struct iovec span;        /* when it is one; else see net_rx.spans */
	struct net_buffer *next;  /* in the stock, or free */
};

/* What one packet is received into: one buffer, or with MRG_RXBUF several. */
struct net_receive {
	struct netif_packet netif;
	struct net_rx *rx;
	bool posted;         /* the back end has it */
	uint32_t held_bytes; /* while it is held: its packet's size */
	uint32_t size_bytes; /* of the buffers */
	unsigned iov_count;  /* of the buffers */
	size_t cut_bytes;    /* cut off the last span that the back end sees */
	unsigned buffer_count;
	struct net_buffer *buffers[NETIF_IOV_MAX];
	struct iovec iov[NETIF_IOV_MAX];
	struct net_receive *next; /* idle, or held */
};

struct net_rx {
	struct virtio_net *net;
	unsigned pair, queue;
	bool cancelled;             /* since the queue was last served */
	bool poor;                  /* the driver gives too little for the largest packet: take what there is */
	unsigned posted;            /* receives that the back end has */
	struct net_receive *meagre; /* posted with too little; NULL */
	struct net_receive *idle;
	struct net_receive receives[NET_RECEIVES_MAX];

	struct net_buffer *stock; /* popped, and in no receive */
	unsigned stock_count;
	uint32_t stock_bytes;
	struct net_buffer *free;
	struct net_buffer *buffers; /* NET_QUEUE_SIZE */
	struct iovec *spans;        /* NETIF_IOV_MAX for each buffer that has several */
};

int net_rx_init(struct virtio_net *net, unsigned pair); /* 0 or -ENOMEM [setup] */
void net_rx_fini(struct net_rx *rx);
void net_rx_serve(struct net_rx *rx);
void net_rx_cancel(struct net_rx *rx);
/* The rate allows the packet that is held. */
void net_rx_release(struct net_receive *receive);
/* It was held, and its queue stops: the packet is lost. */
void net_rx_discard(struct net_receive *receive);
/* No receive is posted, and the driver has given nothing for a while. */
void net_rx_starved(struct net_rx *rx);

/* --- rates (net_limit.c) --------------------------------------------------------------------------------------------
 */

/* One way's. Whoever is refused waits first in line, and all others behind him. */
struct net_limit {
	struct rate_limit rate;
	struct loop_timer timer;
	bool waiting; /* for the timer */
};

void net_limit_init(struct virtio_net *net, const struct rate_limit_config *config); /* [setup] */
void net_limit_reset(struct virtio_net *net);                                        /* nothing is held */

/* May a packet of the pair go out now? False: the pairs wait; they are served again. */
bool net_limit_tx(struct virtio_net *net, unsigned pair, uint32_t packet_bytes);
void net_limit_forget_tx(struct virtio_net *net, unsigned pair);
/* May it come in now? False: it is held, and net_rx_release comes. */
bool net_limit_rx(struct net_receive *receive, uint32_t packet_bytes);
void net_limit_forget_rx(struct net_rx *rx); /* what this queue holds is discarded */

/* --- the device (net.c) ---------------------------------------------------------------------------------------------
 */

struct virtio_net {
	struct virtio_device dev;
	struct netif *netif;
	struct log_limit log_limit;
	uint8_t mac[NETIF_MAC_BYTES]; /* at first */
	unsigned pairs_max;
	uint16_t mtu; /* 0: not known */
	struct net_tx tx[NETIF_QUEUES_MAX];
	struct net_rx rx[NETIF_QUEUES_MAX];

	/* What the driver has asked for. */
	bool zero_flags;        /* 5.1.6.4.1: without GUEST_CSUM */
	uint32_t receive_bytes; /* a receive has as many, in several buffers; without MRG_RXBUF 0: one buffer, as it is
				 */
	uint32_t frame_max_bytes; /* a larger one that is received whole is dropped */
	unsigned control_queue;   /* 5.1.2: where it is, depends on MQ */
	unsigned pairs;           /* in use */
	unsigned offloads;        /* NETIF_OFFLOAD_*, of received packets */
	struct net_filter filter;

	bool plugged; /* the owner's part of the link's state */
	struct loop_task link_task;

	struct loop_timer starved_timer;
	bool starved; /* it is armed */

	struct net_limit tx_limit, rx_limit;
	unsigned tx_first;                     /* the pair that was refused */
	struct net_receive *held, **held_tail; /* in the order in which the packets came */
};

/* Which of NETIF_OFFLOAD_* a set of VIRTIO_NET_F_GUEST_* means, as far as their dependencies hold (5.1.3.1). */
unsigned net_guest_offloads(uint64_t features);
/* The features, of all that can be switched by CTRL_GUEST_OFFLOADS_SET, that the driver accepted. */
uint64_t net_accepted_guest_features(const struct virtio_net *net);
void net_set_offloads(struct virtio_net *net, unsigned offloads);
void net_set_pairs(struct virtio_net *net, unsigned pairs);
void net_set_mac(struct virtio_net *net, const uint8_t *mac);
void net_acknowledge_announce(struct virtio_net *net);
/* No receive of the queue is posted: net_rx_starved comes in a while. */
void net_watch(struct virtio_net *net);

/* --- commands (net_control.c) -- */

void net_control_serve(struct virtio_net *net, unsigned queue);
