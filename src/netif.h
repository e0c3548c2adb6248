/*
 * A network back end, as frames: what a virtio-net device stands on. It knows no rings.
 *
 * Theory of operation. As with block.h: a `struct netif_packet` is embedded in the object that owns it, and from
 * netif_send or netif_receive to `done` it belongs to the back end, with its iov array and the memory behind it. `done`
 * comes exactly once, also after netif_cancel, on the loop thread, and never from inside netif_send, netif_receive or
 * netif_cancel. A back end serves one loop; everything here is for that loop's thread, or set-up before it runs.
 *
 * A packet begins with a struct virtio_net_hdr_v1 (12 bytes, virtio 1.3, 5.1.6; <linux/virtio_net.h>), which a tap
 * takes and gives as it is; its num_buffers is the device's business. A back end without offloads ignores it on the way
 * out and gives zeroes on the way in. After it comes an Ethernet frame without its checksum.
 *
 * Order. Packets that are sent on one queue go out in order. Receives of one queue are given packets in the order in
 * which their `done` is called, whatever order they were submitted in. A packet that does not fit a receive is dropped
 * and counted; so is one that is sent while the link is down.
 *
 * Back ends: a tap interface (netif_tap), a stream socket with QEMU's framing (netif_stream), and passt over the
 * latter, as a process of our own (netif_passt).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "err.h"
#include "log.h"
#include "loop.h"

enum {
	NETIF_HEADER_BYTES = 12,
	NETIF_QUEUES_MAX = 8,               /* pairs */
	NETIF_FRAME_MIN_BYTES = 14,         /* an Ethernet header */
	NETIF_FRAME_MAX_BYTES = 65535 + 18, /* the largest IP packet, with a VLAN tag */
	NETIF_PACKET_MAX_BYTES = NETIF_HEADER_BYTES + NETIF_FRAME_MAX_BYTES,
	NETIF_IOV_MAX = 64, /* spans of a packet; what has more is gathered by the device */
	NETIF_MAC_BYTES = 6,
};

/* What may be left to the other side: in info, what the back end can do (for packets of both directions). */
enum {
	NETIF_OFFLOAD_CSUM = 1 << 0, /* partial checksums */
	NETIF_OFFLOAD_TSO4 = 1 << 1,
	NETIF_OFFLOAD_TSO6 = 1 << 2,
	NETIF_OFFLOAD_TSO_ECN = 1 << 3,
	NETIF_OFFLOAD_USO = 1 << 4, /* UDP segmentation, IPv4 and IPv6 */
};

struct netif;

struct netif_packet {
	unsigned queue; /* pair, below info.queues */
	const struct iovec
		*iov; /* iov_count spans (at most NETIF_IOV_MAX), size_bytes in all; never changed by the back end */
	unsigned iov_count;
	uint32_t size_bytes; /* header included; to send: NETIF_HEADER_BYTES + NETIF_FRAME_MIN_BYTES or more */
	/* Sent (or dropped): 0; received: how many bytes; -ECANCELED; -EINVAL: a packet that cannot be. [loop] */
	void (*done)(struct netif_packet *packet, int res);

	/* For the door and the back end alone, while they have the packet; zeroes before the first submit. */
	struct loop_op loop_op;
	struct netif *netif; /* NULL when nobody has it */
	struct netif_packet *next;
	uint32_t progress_bytes;
	bool receiving, cancelled, dropped;
	bool ended; /* decided: `done` comes at the end of the round, with... */
	int result;
};

struct netif_info {
	unsigned queues;   /* pairs: 1 to NETIF_QUEUES_MAX */
	unsigned offloads; /* NETIF_OFFLOAD_*; 0: complete frames only */
	uint16_t mtu;      /* of the link's other end; 0: not known */
	bool link_up;      /* changes: see netif_client */
};

struct netif_counters {
	uint64_t sent, sent_bytes; /* packets, and bytes without the header */
	uint64_t received, received_bytes;
	uint64_t dropped; /* of both ways; also by the device, without a cable */
};

/* The device's side. */
struct netif_client {
	void (*link)(void *ctx, bool up); /* info.link_up has changed. [loop] */
	void *ctx;
};

struct netif_ops {
	const char *name;
	void (*send)(struct netif *netif, struct netif_packet *packet); /* checked by the door */
	void (*receive)(struct netif *netif, struct netif_packet *packet);
	void (*cancel)(struct netif *netif, struct netif_packet *packet);
	/* What the guest can take of NETIF_OFFLOAD_* (a part of info.offloads). NULL: there are none. */
	void (*set_offloads)(struct netif *netif, unsigned offloads);
	/* The first `pairs` queues are in use (at first: one): packets come to these only. NULL: there is one. */
	void (*set_queues)(struct netif *netif, unsigned pairs);
	void (*destroy)(struct netif *netif); /* nothing of a device's is in flight */
};

struct netif {
	const struct netif_ops *ops;
	struct loop *loop;
	struct netif_info info;
	struct netif_client client;
	struct netif_counters counters;
	unsigned in_flight;         /* packets */
	struct netif_packet *ended; /* private to the door: to be ended at the end of the round */
	struct netif_packet **ended_tail;
	struct loop_task ended_task;
};

/* --- the door (netif.c) --------------------------------------------------------------------------------------------
 */

void netif_send(struct netif *netif, struct netif_packet *packet);
void netif_receive(struct netif *netif, struct netif_packet *packet);
/* Ask for the packet's end soon; `done` still comes. */
void netif_cancel(struct netif *netif, struct netif_packet *packet);

/* The device that stands on it now; NULL: none. A restart of the guest connects another. [setup, loop] */
void netif_set_client(struct netif *netif, const struct netif_client *client);
void netif_set_offloads(struct netif *netif, unsigned offloads);
void netif_set_queues(struct netif *netif, unsigned pairs);

/* NULL is accepted. Nothing of a device's is in flight; runs the loop until its own operations have ended. */
void netif_free(struct netif *netif);

/* For back ends: `info` is filled by them before the first packet. */
void netif_init(struct netif *netif, const struct netif_ops *ops, struct loop *loop);
/* Once per packet, from the loop: the only caller of `done`; counts. `res` as for `done`. */
void netif_complete(struct netif_packet *packet, int res);
void netif_complete_later(struct netif_packet *packet,
			  int res); /* at the end of the loop's round: from inside `send` */
/* The same for a packet to send that goes nowhere: counted as dropped. One that came and fits nowhere is only counted.
 */
void netif_drop(struct netif_packet *packet);
void netif_set_link(struct netif *netif, bool up); /* tells the client when that is a change */

/* --- back ends: NULL with `err` set; the sentence names the object. `log` is borrowed. [setup]
 * ------------------------ */

struct netif_tap_config {
	const char *interface; /* an existing tap's name, or of one to be made; NULL: a new one, named by the kernel
				  ("vmlet%d") */
	unsigned queues;       /* pairs */
	uint16_t mtu; /* to set on a tap that is made here; 0: leave it. An existing one's is told in info.mtu */
	int fd;       /* a tap that was opened and set up by others (IFF_TAP, IFF_NO_PI), one queue; dup'ed; -1: none */
};

/*
 * With virtio-net headers (IFF_VNET_HDR) and every offload that the kernel has. One that is made here is brought up;
 * one that exists and is down gets a warning, and the guest's link is down until somebody brings it up. So it is when
 * the interface is set down or deleted later; of the latter, the name is looked for once a second, and taken again when
 * somebody has made it. A packet that the kernel refuses is dropped. Refused with the sentence that says what to do: no
 * /dev/net/tun, no permission (which `ip tuntap add` makes one that this user may use), busy, not a tap, another number
 * of queues.
 */
struct netif *netif_tap_open(struct loop *loop, const struct log *log, const struct netif_tap_config *config,
			     struct err *err);
const char *netif_tap_interface(const struct netif *netif); /* its name; valid until netif_free */

enum { NETIF_STREAM_FRAME_MAX_BYTES = 65535 }; /* to send: the peer may be a passt, which leaves at a larger one */

struct netif_stream_config {
	const char *path; /* a Unix stream socket */
	bool listen;      /* make it and wait for one peer at a time; else connect, and again when the peer was lost */
	int fd;           /* a connected stream socket instead; dup'ed; -1: none */
};

/*
 * QEMU's framing (-netdev stream): each frame after its length, 32 bits, big-endian; one that is larger than
 * NETIF_STREAM_FRAME_MAX_BYTES is not sent. A peer that breaks it is disconnected, with a line in the log
 * (rate-limited), and the link goes down until there is another. Who connects: fails when nobody listens at first;
 * later it is tried again, forever, in growing steps up to a second.
 */
struct netif *netif_stream_open(struct loop *loop, const struct log *log, const struct netif_stream_config *config,
				struct err *err);

struct netif_passt_config {
	const char *program; /* passt's path; the caller has looked for it */
	const char *const
		*publish; /* publish_count of "[ADDRESS/]HOSTPORT[:GUESTPORT][/udp]": forwarded into the guest */
	unsigned publish_count;
	uint16_t mtu; /* told to the guest by DHCP and NDP; 0: passt's own choice */
};

/*
 * Starts passt on a socket pair (nothing has to be waited for, no file can be left behind), in the foreground, and ends
 * it with the back end; if we are killed it sees the socket close. Returns when it has begun to read (some tens of
 * milliseconds; three seconds at most). What it says goes to the log at debug level, its last line into the error when
 * it ends before that. When it ends later it is started again, in growing steps; the link is
 * down meanwhile.
 */
struct netif *netif_passt_open(struct loop *loop, const struct log *log, const struct netif_passt_config *config,
			       struct err *err);
