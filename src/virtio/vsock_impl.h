/*
 * Inside virtio-vsock: the device (vsock.c: queues, packets that are for nobody, new connections), one connection
 * (vsock_conn.c: what it is told and has to say) and its host's side (vsock_socket.c: the socket and the buffer).
 *
 * Everything is [loop] with the device's lock held.
 */
#pragma once

#include <linux/virtio_vsock.h>

#include "iovc.h"
#include "virtio/vsock.h"
#include "virtio/vsock_credit.h"

enum {
	VSOCK_CID_HOST = 2,
	VSOCK_HEADER_BYTES = sizeof(struct virtio_vsock_hdr),
	VSOCK_PACKET_MAX_BYTES = 64 << 10, /* of data, in what we send: Linux's own limit */
	VSOCK_SHUTDOWN_BOTH = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND,
};

/* How long a reader of the host may take no byte after the guest has ended the connection. */
static const uint64_t VSOCK_DRAIN_NS = 60000000000;

/* A place in a circular list; its head is one too. */
struct vsock_link {
	struct vsock_link *prev, *next;
};

/* Packets that a connection owes the guest, in the order in which they are sent. */
enum vsock_owed {
	VSOCK_OWES_RST = 1 << 0,
	VSOCK_OWES_REQUEST = 1 << 1,
	VSOCK_OWES_RESPONSE = 1 << 2,
	VSOCK_OWES_CREDIT = 1 << 3, /* it was asked for */
};

struct vsock_conn {
	struct virtio_vsock *vsock;
	uint32_t host_port, guest_port;
	struct vsock_conn *hash_next; /* while is_known */
	struct vsock_link all;        /* in vsock->conns */
	struct vsock_link ready;      /* in vsock->ready, while is_ready */
	bool is_ready;

	/*
	 * For the guest it begins with is_known (it is in the table), is_open (data may flow), ends with is_over (a RST
	 * is owed, and then it is unknown). For the host it lasts while there is a socket: what the guest sent before
	 * an orderly end still goes there. When both are over it is freed.
	 */
	bool is_known, is_open, is_over;
	int fd; /* -1: the host's side is over */

	unsigned owes; /* VSOCK_OWES_* */
	unsigned guest_shut, host_shut,
		told_shut;     /* VIRTIO_VSOCK_SHUTDOWN_*: who does no more what; told to the guest */
	bool has_asked_credit; /* since the guest last had room */
	struct vsock_credit credit;

	struct loop_op poll_op;
	uint32_t poll_events; /* what it waits for */
	bool is_readable;     /* the socket has something to read, or has ended */
	uint8_t *buffer;      /* VIRTIO_VSOCK_BUFFER_BYTES, a ring: byte n of the stream is at n % size; NULL: empty */
	uint64_t deadline_ns; /* 0: none */
};

/* A packet to nobody is answered with a RST; so many wait for buffers of the guest, then it is not listened to. */
enum { VSOCK_RESETS_MAX = 64 };

struct vsock_reset {
	uint64_t cid; /* whom the guest spoke to */
	uint32_t host_port, guest_port;
	uint16_t type;
};

/* A direction of the device, for the rate limit. */
struct vsock_way {
	struct virtio_vsock *vsock;
	unsigned queue;
	struct rate_limit limit;
	struct loop_timer timer;
	uint64_t unpaid_bytes; /* of the last packet to the guest, whose size was not known before */
	bool is_throttled;
};

enum { VSOCK_QUEUE_RX, VSOCK_QUEUE_TX, VSOCK_QUEUE_EVENT, VSOCK_QUEUES };
enum { VSOCK_BUCKETS = 256 };

struct virtio_vsock {
	struct virtio_device dev;
	struct vsock_host *host;
	uint32_t guest_cid;
	struct log_limit log_limit;
	struct vsock_way ways[2]; /* by queue */
	bool is_started;          /* there is a driver */

	struct vsock_link conns; /* all */
	unsigned conn_count, conn_max;
	struct vsock_link ready; /* those with a packet for the guest, in turns */
	struct vsock_conn *buckets[VSOCK_BUCKETS];
	uint32_t last_port;      /* that was given to a program of the host */
	uint8_t *spare_buffer;   /* of a connection that needs none now; NULL */
	bool is_being_destroyed; /* connections are freed by destroy alone */

	struct vsock_reset resets[VSOCK_RESETS_MAX]; /* a ring */
	unsigned reset_head, reset_count;

	struct loop_timer deadline_timer;
	uint64_t deadline_ns; /* when it fires; 0: it is not armed */
};

/* --- lists ------------------------------------------------------------------------------------------------ */

static inline void vsock_link_init(struct vsock_link *head)
{
	head->prev = head->next = head;
}

static inline void vsock_link_append(struct vsock_link *head, struct vsock_link *link)
{
	*link = (struct vsock_link){head->prev, head};
	head->prev->next = link;
	head->prev = link;
}

static inline void vsock_link_remove(struct vsock_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
}

/* --- vsock.c ---------------------------------------------------------------------------------------------- */

/* It has something to send: it gets its turn. */
void vsock_make_ready(struct vsock_conn *conn);

/* It leaves the table: the guest has been told, or has told us. */
void vsock_make_unknown(struct vsock_conn *conn);

/* vsock_conn_end at this time, 0: not any more. */
void vsock_set_deadline(struct vsock_conn *conn, uint64_t deadline_ns);

/* Write a packet's header into a chain of the rx queue; returns the packet's length, for virtio_push. */
uint32_t vsock_write_header(const struct virtq_chain *chain, const struct virtio_vsock_hdr *header);

/* Free it; nothing of it is in flight. */
void vsock_free_conn(struct vsock_conn *conn);

/* --- vsock_conn.c ------------------------------------------------------------------------------------------ */

/* A connection of the guest to `fd`, or of `fd` to the guest; takes the socket. It answers, or asks, by itself. */
void vsock_conn_accept(struct vsock_conn *conn, const struct virtio_vsock_hdr *header);
void vsock_conn_request(struct vsock_conn *conn);

/* A packet of the guest for it, whole in the chain (header included). It may be freed. */
void vsock_conn_receive(struct vsock_conn *conn, const struct virtio_vsock_hdr *header,
			const struct virtq_chain *chain);

/*
 * Its turn: put a packet into a chain of the rx queue, which has room for a header and a byte. Returns the packet's
 * length, 0 when it has nothing to say after all. It may be freed.
 */
uint32_t vsock_conn_send(struct vsock_conn *conn, const struct virtq_chain *chain);

/* End both sides at once: a RST for the guest, if it knows of the connection. It may be freed. */
void vsock_conn_end(struct vsock_conn *conn);

/* The same without a word, for a guest that is gone. It may be freed. */
void vsock_conn_drop(struct vsock_conn *conn);

void vsock_conn_polled(struct loop_op *op, int res);

/* --- vsock_socket.c ---------------------------------------------------------------------------------------- */

void vsock_socket_close(struct vsock_conn *conn);

/*
 * What the guest has sent, size_bytes of it behind the cursor: into the socket, or the buffer (there is room, by the
 * credit); counted as received. False: no memory.
 */
bool vsock_socket_write(struct vsock_conn *conn, struct iovc *data, uint32_t size_bytes);

/* The socket can be written to: what is in the buffer. */
void vsock_socket_flush(struct vsock_conn *conn);

/* Everything that the guest has sent is out: pass its end on, if it has said so. */
void vsock_socket_finish_writing(struct vsock_conn *conn);

/* The first words, of ours. False: there is no reader. */
bool vsock_socket_say(struct vsock_conn *conn, const void *text, size_t size_bytes);

/* Read into a chain behind its header, as much as the guest takes; bytes, counted as sent. 0: nothing now, or the end.
 */
uint32_t vsock_socket_read(struct vsock_conn *conn, const struct virtq_chain *chain);
