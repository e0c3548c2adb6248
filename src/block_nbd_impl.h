/*
 * Inside the NBD client: what block_nbd.c (requests), block_nbd_connect.c (the connection's life), block_nbd_send.c and
 * block_nbd_reply.c (the wire) share.
 *
 * Theory of operation. A request waits in `queue` until the connection is up and a slot is free. A slot is one command
 * on the wire; a request larger than the server takes is sent as one command after the other. A slot stands in the send
 * list until its last byte was handed to the kernel, and ends when it is both sent and answered. When the connection is
 * lost, the kernel first gives back what it has (LINK_CLOSING), then every slot's request goes back to the queue. All
 * requests end through the `ended` list, at the end of the loop's round, so that no `done` runs in the middle of
 * anything here.
 */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "block.h"
#include "block_nbd_address.h"
#include "block_nbd_handshake.h"

enum {
	NBD_SLOTS = 64,
	NBD_IOV_MAX = 128,
	NBD_BUFFER_SIZE = 32768,
	NBD_ISLANDS_MAX = 16, /* separate ranges of one read that may have arrived */
};

/* One command on the wire. */
struct nbd_slot {
	struct block_request *request; /* NULL: free, or cancelled and still owed an answer */
	uint64_t cookie;               /* 0: free */
	uint16_t command;
	uint64_t offset_bytes;
	uint32_t size_bytes;
	uint32_t payload_bytes; /* WRITE: goes after the header */
	uint8_t header[NBD_REQUEST_SIZE];
	uint64_t sent_bytes; /* of header and payload */
	bool in_list;        /* waits to be sent, in part at least */
	bool offered;        /* a message that was given to the kernel holds some of it */
	bool answered;
	bool cancelled; /* and to be ended as soon as the kernel does not use the request's memory */
	int error;
	unsigned error_chunks;
	unsigned island_count;
	struct nbd_island {
		uint32_t begin, end;
	} islands[NBD_ISLANDS_MAX]; /* READ: what has arrived, ascending and apart */
	struct nbd_slot *next;      /* in the send list */
};

struct nbd_send {
	struct loop_op op;
	struct msghdr message;
	struct iovec iov[NBD_IOV_MAX];
	struct nbd_slot *head, **tail;
};

struct nbd_receive {
	struct loop_op op;
	struct msghdr message;
	struct iovec iov[NBD_IOV_MAX + 1];
	uint64_t direct_bytes; /* how much of the op's room is the request's own memory */

	enum {
		NBD_IN_HEADER, /* of a reply or chunk */
		NBD_IN_CHUNK,  /* the fixed part of a chunk's payload */
		NBD_IN_DATA,
		NBD_IN_SKIP, /* what is not of interest */
	} state;
	struct nbd_slot *slot; /* whose */
	bool last;             /* this ends the reply */
	uint16_t type;
	uint32_t left_bytes;   /* of the payload */
	uint32_t at_bytes;     /* NBD_IN_DATA: where in the slot's range the next byte belongs */
	const char *complaint; /* what the server did wrong */
	size_t begin, end;     /* what is in */
	uint8_t buffer[NBD_BUFFER_SIZE];
};

enum nbd_link {
	NBD_LINK_DOWN,
	NBD_LINK_CONNECTING,
	NBD_LINK_HANDSHAKE,
	NBD_LINK_UP,
	NBD_LINK_CLOSING, /* until the kernel has given everything back */
};

struct nbd {
	struct block block;
	const struct log *log;
	struct log_limit limit;
	char *text; /* the address as it was given */
	struct nbd_address address;
	unsigned endpoint; /* of the address: the one to use */
	struct nbd_export export;
	uint32_t zeroes_max_bytes, transfer_max_bytes; /* of one command */

	enum nbd_link link;
	bool freeing;
	int fd;
	struct nbd_handshake handshake;
	struct loop_op setup_op; /* connecting, and the handshake */
	struct iovec setup_iov;
	struct msghdr setup_message;
	struct loop_timer link_timer; /* DOWN: try again; CONNECTING, HANDSHAKE: give up */
	uint64_t up_since_ns, retry_at_ns, backoff_ns;
	bool has_answered; /* something, on this connection */
	bool failure_told; /* of an attempt to reconnect */

	uint64_t patience_ns;             /* how long a request waits for a connection */
	struct loop_timer patience_timer; /* the first waiting request's deadline */
	struct loop_timer silence_timer;  /* runs since a command was sent after a pause; looks at heard_ns */
	bool silence_watched;
	uint64_t heard_ns;
	struct loop_timer stall_timer; /* a cancelled request's memory is not given back */
	struct loop_timer full_timer;  /* the ring was full */

	struct block_request *queue_head, **queue_tail;
	struct nbd_slot slots[NBD_SLOTS];
	unsigned busy_slots;
	uint64_t commands; /* that were ever made: the next cookie */
	struct nbd_send send;
	struct nbd_receive receive;

	struct loop_task work_task;   /* send what is queued, receive what is owed */
	struct loop_task ending_task; /* call `done` */
	struct block_request *ended_head, **ended_tail;
};

/* --- block_nbd.c: requests and slots ------------------------------------------------------------------------- */

/* While a request is ours, its cookie is when it fails unless it is on a living connection; 0: not set. */
static inline uint64_t *nbd_deadline(struct block_request *request)
{
	return &request->cookie;
}

/* Give it back to its owner at the end of this round. */
void nbd_end(struct nbd *nbd, struct block_request *request, int res);

/* Back into the queue, before the others. */
void nbd_requeue(struct nbd *nbd, struct block_request *request);

/* Sent and answered: the request ends, or its next part begins. */
void nbd_slot_finish(struct nbd *nbd, struct nbd_slot *slot);
void nbd_slot_free(struct nbd *nbd, struct nbd_slot *slot);

/* If it was cancelled, and the kernel does not use its memory: end it now. */
void nbd_slot_let_go(struct nbd *nbd, struct nbd_slot *slot);

/* End the requests in the queue whose deadline has come; arm the timer for the next. */
void nbd_expire(struct nbd *nbd);

/* Spans of the request's memory from `skip_bytes` (of the slot's range) on, at most `bytes`; how many went into `iov`.
 */
unsigned nbd_slot_spans(const struct nbd_slot *slot, uint64_t skip_bytes, uint64_t bytes, struct iovec *iov,
			unsigned iov_max, uint64_t *ret_bytes);

/* --- block_nbd_connect.c: the connection -------------------------------------------------------------------------- */

/* Connect and negotiate without the loop; the descriptor is in nbd->fd. 0 or -errno. [setup] */
int nbd_connect_now(struct nbd *nbd, struct err *err);

/* How much one command may carry, by what the server said last. */
void nbd_set_limits(struct nbd *nbd);

/* Somebody waits and the connection is down: see to it that it comes up. */
void nbd_reconnect(struct nbd *nbd);

/* The connection is of no more use. `why` is a sentence for the log, or NULL. */
void nbd_lose(struct nbd *nbd, const char *why);

/* An operation ended while LINK_CLOSING. */
void nbd_settle(struct nbd *nbd);

void nbd_link_timer(struct loop_timer *timer);
void nbd_setup_done(struct loop_op *op, int res);

/* --- block_nbd_send.c, block_nbd_reply.c: the wire ------------------------------------------------------------------
 */

void nbd_send_push(struct nbd *nbd, struct nbd_slot *slot);
void nbd_send_start(struct nbd *nbd); /* unless it is going on */
void nbd_send_done(struct loop_op *op, int res);
void nbd_send_reset(struct nbd *nbd);

/* A cancelled slot in the list. True: nothing of it will ever be sent, and it is free. */
bool nbd_send_cancel(struct nbd *nbd, struct nbd_slot *slot);

void nbd_receive_start(struct nbd *nbd); /* if an answer is owed */
void nbd_receive_done(struct loop_op *op, int res);
void nbd_receive_reset(struct nbd *nbd);

/* Is the kernel writing into the slot's memory? */
bool nbd_receive_touches(const struct nbd *nbd, const struct nbd_slot *slot);
