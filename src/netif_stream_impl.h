/*
 * Inside the stream family: frames over a connected Unix stream socket (netif_stream.c, _send.c, _receive.c), and the
 * ways to get connected (netif_stream_open.c, netif_passt.c).
 *
 * A stream is UP while it has a socket. When that is lost it is CLOSING until the kernel has let go of it, then DOWN;
 * `lost` is called, and whoever connects it again calls netif_stream_attach.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "netif.h"

enum {
	STREAM_PREFIX_BYTES = 4, /* a frame's length, big-endian */
	STREAM_BUFFER_BYTES = 256 << 10,
	STREAM_IOV_MAX = 1024, /* the kernel's UIO_MAXIOV */
	STREAM_BATCH_MAX = 256,
	STREAM_MESSAGE_MAX = 32 << 10, /* bytes; the kernel takes so much in one piece, see fill_message */
};

struct netif_stream;

struct netif_stream_policy {
	void (*lost)(struct netif_stream *stream); /* it is DOWN now. [loop] */
	void (*free)(struct netif_stream *stream); /* the last call: nothing is in flight. [setup, loop] */
};

struct netif_stream_queue {
	struct netif_packet *head, **tail;
};

struct netif_stream_send {
	struct loop_op op;
	struct netif_stream_queue queue; /* the head's progress_bytes have gone, prefix included */
	unsigned offered;                /* packets of the queue that the message in flight has spans of */
	uint32_t spill_begin, spill_end; /* the rest of a packet that was taken back: goes first */
	uint8_t spill[STREAM_PREFIX_BYTES + NETIF_FRAME_MAX_BYTES];
	uint32_t prefixes[STREAM_BATCH_MAX];
	struct iovec iov[STREAM_IOV_MAX];
	struct msghdr message;
};

struct netif_stream_receive {
	struct loop_op op;
	struct netif_stream_queue waiting;
	size_t begin, end; /* [begin, end) of the buffer: came, and not delivered yet; a read in flight appends */
	uint8_t buffer[STREAM_BUFFER_BYTES];
};

/* Zeroed by its owner, and large: memory that is not used is not touched. */
struct netif_stream {
	struct netif netif;
	const struct netif_stream_policy *policy;
	const struct log *log;
	struct log_limit limit;
	char text[160]; /* its name in messages: "stream=/path" */
	enum { STREAM_DOWN, STREAM_UP, STREAM_CLOSING } link;
	bool freeing;
	int fd, file;
	uint64_t up_since_ns, backoff_ns;
	struct loop_task work_task;
	struct loop_timer full_timer; /* the ring had no room */
	struct netif_stream_send send;
	struct netif_stream_receive receive;
};

void netif_stream_init(struct netif_stream *stream, struct loop *loop, const struct log *log,
		       const struct netif_stream_policy *policy, const char *kind, const char *name);

/* Takes the connected descriptor; the link is up. The stream is DOWN before. [setup, loop] */
void netif_stream_attach(struct netif_stream *stream, int fd);

/* Takes the link down if it is up. `why`: for the log; NULL: nothing worth a warning. [loop] */
void netif_stream_lose(struct netif_stream *stream, const char *why);

/* How long to wait before the next attempt: grows up to a second, from the start again after a link that lived. */
uint64_t netif_stream_backoff_ns(struct netif_stream *stream);

/* --- the family's inner calls ----------------------------------------------------------------------------------- */

void netif_stream_push(struct netif_stream_queue *queue, struct netif_packet *packet);
void netif_stream_unlink(struct netif_stream_queue *queue, struct netif_packet *packet);
void netif_stream_settle(struct netif_stream *stream);    /* after an op's end while CLOSING */
void netif_stream_ring_full(struct netif_stream *stream); /* try again a little later */

void netif_stream_send_init(struct netif_stream_send *send);
void netif_stream_send_start(struct netif_stream *stream);
void netif_stream_send_cancel(struct netif_stream *stream, struct netif_packet *packet);
void netif_stream_send_reset(struct netif_stream *stream); /* not in flight: what waits is dropped */

void netif_stream_receive_init(struct netif_stream_receive *receive);
void netif_stream_receive_start(struct netif_stream *stream); /* deliver what came, and read on */
void netif_stream_receive_reset(struct netif_stream *stream);
