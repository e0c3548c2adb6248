/*
 * The host's side of a connection: its socket, and the buffer of what that does not take.
 *
 * The buffer is a ring of VIRTIO_VSOCK_BUFFER_BYTES: byte n of the guest's stream is at n % size, and in it are the
 * bytes [forwarded, received) of the connection's credit. It is there only while there are any; the device keeps one
 * that is free, because a reader that is a little slower than the guest needs one again and again.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fd.h"
#include "util.h"
#include "virtio/vsock_impl.h"

enum { SPANS_MAX = 64 };

/* --- the buffer ------------------------------------------------------------------------------------------- */

static uint8_t *take_buffer(struct virtio_vsock *vsock)
{
	uint8_t *buffer = vsock->spare_buffer;
	vsock->spare_buffer = NULL;
	return buffer ? buffer : malloc(VIRTIO_VSOCK_BUFFER_BYTES);
}

static void put_buffer(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;
	if (vsock->spare_buffer)
		free(conn->buffer);
	else
		vsock->spare_buffer = conn->buffer;
	conn->buffer = NULL;
}

/* The ring's bytes [from, to) as one span or two. */
static unsigned ring_spans(const struct vsock_conn *conn, uint32_t from, uint32_t to, struct iovec ret_iov[2])
{
	uint32_t at = from % VIRTIO_VSOCK_BUFFER_BYTES, size = to - from;
	uint32_t first = (uint32_t)min_u64(size, VIRTIO_VSOCK_BUFFER_BYTES - at);
	ret_iov[0] = (struct iovec){conn->buffer + at, first};
	ret_iov[1] = (struct iovec){conn->buffer, size - first};
	return size > first ? 2 : 1;
}

static bool keep(struct vsock_conn *conn, struct iovc *data, uint32_t size_bytes)
{
	struct iovec to[2];
	if (!conn->buffer)
		conn->buffer = take_buffer(conn->vsock);
	if (!conn->buffer)
		return false;
	unsigned count = ring_spans(conn, conn->credit.received - size_bytes, conn->credit.received, to);
	for (unsigned i = 0; i < count; i++) {
		uint8_t *at = to[i].iov_base;
		size_t left = to[i].iov_len;
		for (struct iovec from; left && iovc_peek(data, left, &from, 1); iovc_skip(data, from.iov_len)) {
			memcpy(at, from.iov_base, from.iov_len);
			at += from.iov_len;
			left -= from.iov_len;
		}
	}
	return true;
}

/* --- the socket ------------------------------------------------------------------------------------------- */

void vsock_socket_close(struct vsock_conn *conn)
{
	if (conn->fd < 0)
		return;
	/* A poll in flight would hold it open a little longer. */
	(void)shutdown(conn->fd, SHUT_RDWR);
	loop_cancel(conn->vsock->dev.loop, &conn->poll_op);
	fd_close(&conn->fd);
	conn->credit.forwarded = conn->credit.received;
	if (conn->buffer)
		put_buffer(conn);
}

/* Nobody reads there any more: what the guest has sent is lost, as it would be in any network. */
static void host_reads_no_more(struct vsock_conn *conn)
{
	conn->host_shut |= VIRTIO_VSOCK_SHUTDOWN_RCV;
	conn->credit.forwarded = conn->credit.received;
	if (conn->buffer)
		put_buffer(conn);
	if (conn->is_over)
		vsock_socket_close(conn);
}

/* The bytes sent, 0 when it takes none now or ever. */
static size_t send_spans(struct vsock_conn *conn, struct iovec *iov, unsigned count)
{
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
	ssize_t sent = sendmsg(conn->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent >= 0)
		return (size_t)sent;
	if (errno != EAGAIN)
		host_reads_no_more(conn);
	return 0;
}

/* Everything that the guest has sent is out: pass its end on. */
void vsock_socket_finish_writing(struct vsock_conn *conn)
{
	if (conn->is_over)
		vsock_socket_close(conn);
	else if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		(void)shutdown(conn->fd, SHUT_WR);
}

/* The socket can be written to. */
void vsock_socket_flush(struct vsock_conn *conn)
{
	struct vsock_credit *credit = &conn->credit;
	struct iovec iov[2];
	if (conn->fd < 0 || !vsock_credit_held(credit))
		return;
	unsigned count = ring_spans(conn, credit->forwarded, credit->received, iov);
	uint32_t sent = (uint32_t)send_spans(conn, iov, count);
	if (!conn->buffer)
		return; /* there is no reader */
	credit->forwarded += sent;
	if (sent && conn->is_over)
		vsock_set_deadline(conn, loop_now_ns() + VSOCK_DRAIN_NS);
	if (vsock_credit_held(credit))
		return;
	put_buffer(conn);
	vsock_socket_finish_writing(conn);
}

/* As much of the cursor as the socket takes now. */
static void send_directly(struct vsock_conn *conn, struct iovc *data, uint32_t size_bytes)
{
	struct iovec iov[SPANS_MAX];
	uint32_t left = size_bytes;
	while (left) {
		unsigned count = iovc_peek(data, left, iov, SPANS_MAX);
		size_t asked = 0;
		for (unsigned i = 0; i < count; i++)
			asked += iov[i].iov_len;
		size_t sent = send_spans(conn, iov, count);
		conn->credit.forwarded += (uint32_t)sent;
		left -= (uint32_t)sent;
		iovc_skip(data, sent);
		if (sent < asked || conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)
			return;
	}
}

/* The socket has given its last byte. Has its program only said that it sends no more, or is it gone? */
static void host_sends_no_more(struct vsock_conn *conn)
{
	struct pollfd pollfd = {.fd = conn->fd};
	conn->host_shut |= VIRTIO_VSOCK_SHUTDOWN_SEND;
	if (poll(&pollfd, 1, 0) == 1 && pollfd.revents & (POLLHUP | POLLERR))
		host_reads_no_more(conn);
}

/* Read into the chain behind the header: bytes, or 0. */
uint32_t vsock_socket_read(struct vsock_conn *conn, const struct virtq_chain *chain)
{
	struct iovec iov[SPANS_MAX];
	size_t room = min_u64(chain->in_bytes - VSOCK_HEADER_BYTES, VSOCK_PACKET_MAX_BYTES);
	room = min_u64(room, vsock_credit_left(&conn->credit));
	unsigned count =
		iov_slice(chain->iov + chain->out_count, chain->in_count, VSOCK_HEADER_BYTES, room, iov, SPANS_MAX);
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
	ssize_t got = recvmsg(conn->fd, &message, MSG_DONTWAIT);
	if (got < 0 && errno == EAGAIN) {
		conn->is_readable = false;
		return 0;
	}
	if (got <= 0) {
		host_sends_no_more(conn);
		return 0;
	}
	if ((size_t)got < room && count < SPANS_MAX)
		conn->is_readable = false; /* that was all */
	conn->credit.sent += (uint32_t)got;
	return (uint32_t)got;
}

bool vsock_socket_write(struct vsock_conn *conn, struct iovc *data, uint32_t size_bytes)
{
	struct vsock_credit *credit = &conn->credit;
	bool is_first = !vsock_credit_held(credit);
	credit->received += size_bytes;
	if (conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		credit->forwarded = credit->received;
		return true;
	}
	if (is_first)
		send_directly(conn, data, size_bytes);
	uint32_t left = is_first ? vsock_credit_held(credit) : size_bytes;
	return left == 0 || keep(conn, data, left);
}

bool vsock_socket_say(struct vsock_conn *conn, const void *text, size_t size_bytes)
{
	return send(conn->fd, text, size_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size_bytes;
}
