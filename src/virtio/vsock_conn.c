/*
 * One connection: a stream in each direction between the guest's packets and a Unix socket.
 *
 *     guest -> host   straight from the packet into the socket; what that does not take goes to a buffer, and from
 *                     there when the socket can be written to. Credit says that it fits.
 *     host -> guest   read from the socket straight into the guest's buffer, when it is this connection's turn. What
 *                     the guest has no room for stays in the socket, and its writer waits.
 *
 * The socket is waited for with one poll, armed for what would change something: readable, unless we know that it is;
 * writable, if there is something in the buffer. Whatever happens ends in `settle`, which does what follows from the
 * new state: poll, get in line for a turn, or be freed.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "util.h"
#include "virtio/vsock_impl.h"

static const uint64_t ANSWER_NS = 8000000000; /* for a guest, to a request or an end: Linux's own */

/* --- what its state says ---------------------------------------------------------------------------------- */

static bool reads_host(const struct vsock_conn *conn)
{
	return conn->fd >= 0 && conn->is_open && !conn->is_over && !(conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) &&
	       !(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

static bool has_data(const struct vsock_conn *conn)
{
	return conn->is_readable && reads_host(conn);
}

static bool has_credit_news(const struct vsock_conn *conn)
{
	return !(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) && vsock_credit_has_news(&conn->credit);
}

static bool has_packet(const struct vsock_conn *conn)
{
	if (!conn->is_known)
		return false;
	if (conn->owes)
		return true;
	if (conn->is_over || !conn->is_open)
		return false;
	if (has_data(conn) && (vsock_credit_left(&conn->credit) || !conn->has_asked_credit))
		return true;
	return (conn->host_shut & ~conn->told_shut) || has_credit_news(conn);
}

/* Nothing flows any more in either direction. When it was the host that ended both, the guest has a word to say. */
static bool is_finished(const struct vsock_conn *conn)
{
	bool to_host = !(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) || vsock_credit_held(&conn->credit);
	to_host = to_host && !(conn->told_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
	bool to_guest =
		!(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) && !(conn->told_shut & VIRTIO_VSOCK_SHUTDOWN_SEND);
	return !to_host && !to_guest && (conn->told_shut != VSOCK_SHUTDOWN_BOTH || conn->guest_shut);
}

/* --- what follows from its state ---------------------------------------------------------------------------- */

static void poll_host(struct vsock_conn *conn)
{
	struct loop *loop = conn->vsock->dev.loop;
	uint32_t events = 0;
	if (reads_host(conn) && !conn->is_readable)
		events |= POLLIN;
	if (vsock_credit_held(&conn->credit))
		events |= POLLOUT;
	if (conn->poll_op.state != LOOP_OP_IDLE) {
		if (events & ~conn->poll_events)
			loop_cancel(loop, &conn->poll_op); /* and then again, for all */
		return;
	}
	conn->poll_events = events;
	if (events && loop_poll(loop, &conn->poll_op, conn->fd, events) < 0)
		vsock_set_deadline(conn, 1); /* out of everything: it cannot go on */
}

/* It may be freed. */
static void settle(struct vsock_conn *conn)
{
	if (conn->is_known && !conn->is_over && is_finished(conn)) {
		vsock_conn_end(conn);
		return;
	}
	if (conn->fd >= 0)
		poll_host(conn);
	if (has_packet(conn))
		vsock_make_ready(conn);
	if (!conn->is_known && conn->fd < 0 && conn->poll_op.state == LOOP_OP_IDLE)
		vsock_free_conn(conn);
}

void vsock_conn_polled(struct loop_op *op, int res)
{
	struct vsock_conn *conn = container_of(op, struct vsock_conn, poll_op);
	struct virtio_device *dev = &conn->vsock->dev;
	virtio_lock(dev);
	if (res > 0 && res & ~POLLOUT && conn->poll_events & POLLIN)
		conn->is_readable = true; /* or it has ended: a read will tell */
	if (res > 0 && res & ~POLLIN && conn->poll_events & POLLOUT)
		vsock_socket_flush(conn);
	conn->poll_events = 0;
	settle(conn);
	virtio_unlock(dev);
}

/* --- beginning and end -------------------------------------------------------------------------------------- */

void vsock_conn_accept(struct vsock_conn *conn, const struct virtio_vsock_hdr *header)
{
	conn->is_open = true;
	conn->owes = VSOCK_OWES_RESPONSE;
	(void)vsock_credit_hear(&conn->credit, header->buf_alloc, 0);
	settle(conn);
}

void vsock_conn_request(struct vsock_conn *conn)
{
	conn->owes = VSOCK_OWES_REQUEST;
	vsock_set_deadline(conn, loop_now_ns() + ANSWER_NS);
	settle(conn);
}

void vsock_conn_end(struct vsock_conn *conn)
{
	if (conn->owes & VSOCK_OWES_REQUEST)
		vsock_make_unknown(conn); /* the guest has never heard of it */
	conn->owes = conn->is_over ? conn->owes : VSOCK_OWES_RST;
	conn->is_over = true;
	vsock_set_deadline(conn, 0);
	vsock_socket_close(conn);
	settle(conn);
}

void vsock_conn_drop(struct vsock_conn *conn)
{
	if (conn->is_known)
		vsock_make_unknown(conn);
	conn->is_over = true;
	vsock_set_deadline(conn, 0);
	vsock_socket_close(conn);
	settle(conn);
}

static void end_for_lie(struct vsock_conn *conn, const char *what)
{
	struct virtio_vsock *vsock = conn->vsock;
	log_guest(vsock->dev.log, &vsock->log_limit, "virtio-vsock: ports %u (host) and %u (guest): %s; it is reset",
		  conn->host_port, conn->guest_port, what);
	vsock_conn_end(conn);
}

/* --- packets of the guest ------------------------------------------------------------------------------------- */

/* The guest's port has accepted: the program of the host is told, and may send. False: it is gone. */
static bool open_host(struct vsock_conn *conn)
{
	char line[32];
	int size = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);
	vsock_set_deadline(conn, 0);
	conn->is_open = true;
	return vsock_socket_say(conn, line, (size_t)size);
}

/* `size_bytes` are in the chain behind the header. Returns what is wrong, or NULL. */
static const char *take_data(struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t size_bytes)
{
	struct iovc data = {chain->iov, chain->out_count, 0};
	if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		return "data after its end";
	if (size_bytes > VIRTIO_VSOCK_BUFFER_BYTES - vsock_credit_held(&conn->credit))
		return "more data than there is room for";
	iovc_skip(&data, VSOCK_HEADER_BYTES);
	return vsock_socket_write(conn, &data, size_bytes) ? NULL : "no memory";
}

/* The guest reads no more, or writes no more, or both: then it is over for the guest at once. */
static void guest_shuts(struct vsock_conn *conn, uint32_t flags)
{
	conn->guest_shut |= flags & VSOCK_SHUTDOWN_BOTH;
	if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)
		(void)shutdown(conn->fd, SHUT_RD);
	if (conn->guest_shut == VSOCK_SHUTDOWN_BOTH) {
		conn->is_over = true;
		conn->owes = VSOCK_OWES_RST;
		vsock_set_deadline(conn, loop_now_ns() + VSOCK_DRAIN_NS);
	}
	if (!vsock_credit_held(&conn->credit))
		vsock_socket_finish_writing(conn);
}

/* What only a connection that is open can be told. Returns what is wrong, or NULL. */
static const char *receive_open(struct vsock_conn *conn, const struct virtio_vsock_hdr *header,
				const struct virtq_chain *chain)
{
	switch (header->op) {
	case VIRTIO_VSOCK_OP_RW:
		return take_data(conn, chain, header->len);
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		guest_shuts(conn, header->flags);
		return NULL;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		conn->owes |= VSOCK_OWES_CREDIT;
		return NULL;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		return NULL;
	default:
		return "a packet that does not belong there";
	}
}

/* The first packet for a connection that we asked for. Returns what is wrong, or NULL. */
static const char *receive_answer(struct vsock_conn *conn, const struct virtio_vsock_hdr *header)
{
	if (header->op != VIRTIO_VSOCK_OP_RESPONSE || conn->owes & VSOCK_OWES_REQUEST)
		return "an answer that is none";
	if (!open_host(conn))
		vsock_conn_end(conn);
	return NULL;
}

void vsock_conn_receive(struct vsock_conn *conn, const struct virtio_vsock_hdr *header, const struct virtq_chain *chain)
{
	const char *wrong = NULL;
	if (header->op == VIRTIO_VSOCK_OP_RST && !conn->is_over) {
		vsock_conn_drop(conn);
		return;
	}
	if (conn->is_over) {
		/* A RST is on its way, and what is buffered goes on to the host. */
		if (header->op == VIRTIO_VSOCK_OP_RST)
			vsock_make_unknown(conn);
		settle(conn);
		return;
	}
	if (!vsock_credit_hear(&conn->credit, header->buf_alloc, header->fwd_cnt))
		wrong = "the guest has taken more than it was sent";
	else if (conn->is_open)
		wrong = receive_open(conn, header, chain);
	else
		wrong = receive_answer(conn, header);
	if (vsock_credit_left(&conn->credit))
		conn->has_asked_credit = false;
	if (wrong)
		end_for_lie(conn, wrong);
	else
		settle(conn);
}

/* --- packets for the guest ------------------------------------------------------------------------------------ */

static uint32_t send_header(struct vsock_conn *conn, const struct virtq_chain *chain, uint16_t op, uint32_t flags,
			    uint32_t size_bytes)
{
	struct virtio_vsock_hdr header = {
		.src_cid = VSOCK_CID_HOST,
		.dst_cid = conn->vsock->guest_cid,
		.src_port = conn->host_port,
		.dst_port = conn->guest_port,
		.len = size_bytes,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = VIRTIO_VSOCK_BUFFER_BYTES,
		.fwd_cnt = conn->credit.forwarded,
	};
	conn->credit.told = header.fwd_cnt;
	conn->owes &= ~(unsigned)VSOCK_OWES_CREDIT; /* every packet says it */
	return vsock_write_header(chain, &header);
}

static uint32_t send_shutdown(struct vsock_conn *conn, const struct virtq_chain *chain)
{
	conn->told_shut = conn->host_shut;
	if (conn->told_shut == VSOCK_SHUTDOWN_BOTH)
		vsock_set_deadline(conn, loop_now_ns() + ANSWER_NS);
	return send_header(conn, chain, VIRTIO_VSOCK_OP_SHUTDOWN, conn->told_shut, 0);
}

static uint32_t send_data(struct vsock_conn *conn, const struct virtq_chain *chain)
{
	if (!vsock_credit_left(&conn->credit)) {
		if (conn->has_asked_credit)
			return 0;
		conn->has_asked_credit = true;
		return send_header(conn, chain, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, 0);
	}
	uint32_t size = vsock_socket_read(conn, chain);
	return size ? send_header(conn, chain, VIRTIO_VSOCK_OP_RW, 0, size) : 0;
}

static uint32_t send_reset(struct vsock_conn *conn, const struct virtq_chain *chain)
{
	uint32_t size = send_header(conn, chain, VIRTIO_VSOCK_OP_RST, 0, 0);
	conn->owes = 0;
	vsock_make_unknown(conn);
	return size;
}

static uint32_t send_packet(struct vsock_conn *conn, const struct virtq_chain *chain)
{
	uint32_t size = 0;
	if (conn->owes & VSOCK_OWES_RST)
		return send_reset(conn, chain);
	if (conn->owes & (VSOCK_OWES_REQUEST | VSOCK_OWES_RESPONSE)) {
		bool asks = conn->owes & VSOCK_OWES_REQUEST;
		conn->owes = 0;
		return send_header(conn, chain, asks ? VIRTIO_VSOCK_OP_REQUEST : VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
	}
	if (has_data(conn))
		size = send_data(conn, chain);
	if (!size && conn->host_shut & ~conn->told_shut)
		size = send_shutdown(conn, chain);
	if (!size && (conn->owes & VSOCK_OWES_CREDIT || has_credit_news(conn)))
		size = send_header(conn, chain, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
	return size;
}

uint32_t vsock_conn_send(struct vsock_conn *conn, const struct virtq_chain *chain)
{
	uint32_t size = send_packet(conn, chain);
	settle(conn);
	return size;
}
