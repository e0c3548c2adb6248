/* The NBD client's connection: made with poll() at set-up, lost, and made again on the loop. */
#include "block_nbd_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "fd.h"
#include "util.h"

static const uint64_t NS_PER_MS = 1000000;
static const uint64_t SETUP_NS = 5000000000;     /* connecting and the handshake, in all */
static const uint64_t RETRY_MIN_NS = 10000000;   /* between two attempts: doubles from here */
static const uint64_t RETRY_MAX_NS = 2000000000; /* up to here */
static const uint64_t STABLE_NS = 1000000000;    /* a connection that lived so long is made again at once */
enum { BACKLOG_RETRY_MS = 10 };

/* --- sockets ------------------------------------------------------------------------------------------------ */

static void set_option(int fd, int level, int name, int value)
{
	(void)setsockopt(fd, level, name, &value, sizeof(value)); /* what fails only makes it slower */
}

/* A host that died says nothing; find it out within half a minute. Blocking, or io_uring would not wait for it. */
static int open_socket(const struct nbd_endpoint *endpoint)
{
	int family = endpoint->addr.ss_family;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (family != AF_INET && family != AF_INET6)
		return fd;
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
	return fd;
}

/* --- at set-up, with poll() ----------------------------------------------------------------------------------- */

static int wait_for(int fd, short events, uint64_t deadline_ns, struct err *err)
{
	uint64_t now = loop_now_ns();
	struct pollfd pollfd = {.fd = fd, .events = events};
	int left_ms = now < deadline_ns ? (int)((deadline_ns - now) / NS_PER_MS) + 1 : 0;
	int r = left_ms ? poll(&pollfd, 1, left_ms) : 0;
	if (r < 0 && errno != EINTR)
		return err_set(err, -errno, "poll: %s", err_name(errno));
	if (r == 0)
		return err_config(err, -ETIMEDOUT, "the server does not answer");
	return 0;
}

static int connect_failed(int code, struct err *err)
{
	bool absent = code == -ENOENT || code == -ECONNREFUSED;
	return err_config(err, code, "connect: %s%s", err_name(code), absent ? "; is the server running?" : "");
}

static int wait_connected(int fd, uint64_t deadline_ns, struct err *err)
{
	int r = wait_for(fd, POLLOUT, deadline_ns, err);
	if (r < 0)
		return r;
	int code = 0;
	socklen_t size = sizeof(code);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
		code = errno;
	return code ? connect_failed(-code, err) : 0;
}

static int connect_socket(int fd, const struct nbd_endpoint *endpoint, uint64_t deadline_ns, struct err *err)
{
	const struct sockaddr *addr = (const struct sockaddr *)&endpoint->addr;
	while (connect(fd, addr, endpoint->size_bytes) < 0) {
		if (errno == EINPROGRESS)
			return wait_connected(fd, deadline_ns, err);
		/* A Unix socket whose listener has too many waiting already. */
		if (errno != EAGAIN && errno != EINTR)
			return connect_failed(-errno, err);
		if (loop_now_ns() >= deadline_ns)
			return err_config(err, -ETIMEDOUT, "the server does not answer");
		(void)poll(NULL, 0, BACKLOG_RETRY_MS);
	}
	return 0;
}

static bool is_transient(int code)
{
	return code == EAGAIN || code == EWOULDBLOCK || code == EINTR;
}

/* One step: 0 to go on, 1 at the end. */
static int exchange(int fd, struct nbd_handshake *hs, uint64_t deadline_ns, struct err *err)
{
	size_t size;
	const void *out = nbd_handshake_output(hs, &size);
	bool sends = size > 0;
	int r = wait_for(fd, sends ? POLLOUT : POLLIN, deadline_ns, err);
	if (r < 0)
		return r;

	void *in = sends ? NULL : nbd_handshake_room(hs, &size);
	ssize_t n = sends ? send(fd, out, size, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, in, size, MSG_DONTWAIT);
	if (n < 0 && is_transient(errno))
		return 0;
	if (n < 0 && errno != EPIPE && errno != ECONNRESET)
		return err_set(err, -errno, "%s: %s", sends ? "send" : "receive", err_name(errno));
	if (n <= 0)
		return nbd_handshake_closed(hs, err);
	if (!sends)
		return nbd_handshake_feed(hs, (size_t)n, err);
	nbd_handshake_sent(hs, (size_t)n);
	return 0;
}

static int connect_endpoint(struct nbd *nbd, uint64_t deadline_ns, struct err *err)
{
	const struct nbd_endpoint *endpoint = &nbd->address.endpoints[nbd->endpoint];
	nbd->fd = open_socket(endpoint);
	if (nbd->fd < 0)
		return err_set(err, nbd->fd, "socket: %s", err_name(nbd->fd));
	(void)fcntl(nbd->fd, F_SETFL, O_NONBLOCK);
	int r = connect_socket(nbd->fd, endpoint, deadline_ns, err);
	(void)fcntl(nbd->fd, F_SETFL, 0);

	nbd_handshake_init(&nbd->handshake, nbd->address.export_name);
	while (r == 0)
		r = exchange(nbd->fd, &nbd->handshake, deadline_ns, err);
	if (r < 0)
		fd_close(&nbd->fd);
	return r;
}

int nbd_connect_now(struct nbd *nbd, struct err *err)
{
	uint64_t deadline_ns = loop_now_ns() + SETUP_NS;
	int r = -ENOENT;
	for (nbd->endpoint = 0; nbd->endpoint < nbd->address.count; nbd->endpoint++) {
		/* The rest of the time is shared, so that the first address cannot use it all up. */
		uint64_t now = loop_now_ns(), left = nbd->address.count - nbd->endpoint;
		uint64_t share = now < deadline_ns ? (deadline_ns - now) / left : 0;
		r = connect_endpoint(nbd, now + share, err);
		if (r > 0)
			break;
	}
	if (r < 0)
		return r;
	nbd->export = nbd->handshake.export;
	nbd->link = NBD_LINK_UP;
	nbd->up_since_ns = loop_now_ns();
	return 0;
}

/* --- losing it -----------------------------------------------------------------------------------------------------
 */

static void plan_retry(struct nbd *nbd)
{
	uint64_t now = loop_now_ns();
	if (nbd->up_since_ns && now - nbd->up_since_ns >= STABLE_NS)
		nbd->backoff_ns = 0;
	else if (nbd->has_answered)
		nbd->backoff_ns = RETRY_MIN_NS;
	else
		nbd->backoff_ns = min_u64(max_u64(2 * nbd->backoff_ns, RETRY_MIN_NS), RETRY_MAX_NS);
	nbd->up_since_ns = 0;
	nbd->has_answered = false;
	nbd->retry_at_ns = now + nbd->backoff_ns;
}

/* Nothing of a slot is with the kernel any more. */
static void take_back(struct nbd *nbd, struct nbd_slot *slot)
{
	struct block_request *request = slot->request;
	bool cancelled = slot->cancelled;
	nbd_slot_free(nbd, slot);
	if (request && cancelled)
		nbd_end(nbd, request, -ECANCELED);
	else if (request)
		nbd_requeue(nbd, request);
}

void nbd_settle(struct nbd *nbd)
{
	if (nbd->freeing || nbd->setup_op.state != LOOP_OP_IDLE || nbd->send.op.state != LOOP_OP_IDLE ||
	    nbd->receive.op.state != LOOP_OP_IDLE)
		return;
	fd_close(&nbd->fd);
	nbd->link = NBD_LINK_DOWN;
	nbd_send_reset(nbd);
	nbd_receive_reset(nbd);
	for (unsigned i = NBD_SLOTS; i > 0; i--) {
		if (nbd->slots[i - 1].cookie)
			take_back(nbd, &nbd->slots[i - 1]);
	}
	plan_retry(nbd);
	if (nbd->queue_head)
		nbd_reconnect(nbd);
}

void nbd_lose(struct nbd *nbd, const char *why)
{
	if (nbd->link == NBD_LINK_DOWN || nbd->link == NBD_LINK_CLOSING)
		return;
	if (why)
		log_guest(nbd->log, &nbd->limit, "disk 'nbd=%s': %s", nbd->text, why);
	nbd->link = NBD_LINK_CLOSING;
	loop_timer_disarm(nbd->block.loop, &nbd->link_timer);
	(void)shutdown(nbd->fd, SHUT_RDWR);
	loop_cancel(nbd->block.loop, &nbd->setup_op);
	loop_cancel(nbd->block.loop, &nbd->send.op);
	loop_cancel(nbd->block.loop, &nbd->receive.op);
	nbd_settle(nbd);
}

/* --- making it again, on the loop
 * -------------------------------------------------------------------------------------- */

/* The next attempt goes to the next of the host's addresses. The first failure of an outage is told, and no more. */
static void attempt_failed(struct nbd *nbd, const struct err *err)
{
	if (!nbd->failure_told)
		log_guest(nbd->log, &nbd->limit, "disk 'nbd=%s': reconnect: %s", nbd->text, err->text);
	nbd->failure_told = true;
	nbd->endpoint = (nbd->endpoint + 1) % nbd->address.count;
	nbd_lose(nbd, NULL);
}

static void attempt(struct nbd *nbd)
{
	const struct nbd_endpoint *endpoint = &nbd->address.endpoints[nbd->endpoint];
	struct loop *loop = nbd->block.loop;
	int r = open_socket(endpoint);
	if (r >= 0) {
		nbd->fd = r;
		nbd->link = NBD_LINK_CONNECTING;
		loop_timer_arm(loop, &nbd->link_timer, loop_now_ns() + SETUP_NS);
		const struct sockaddr *addr = (const struct sockaddr *)&endpoint->addr;
		r = loop_connect(loop, &nbd->setup_op, nbd->fd, addr, endpoint->size_bytes);
	}
	if (r == 0)
		return;
	/* Out of descriptors, memory or ring: passing troubles of this host. */
	fd_close(&nbd->fd);
	nbd->link = NBD_LINK_DOWN;
	plan_retry(nbd);
	loop_timer_arm(loop, &nbd->link_timer, nbd->retry_at_ns);
}

void nbd_reconnect(struct nbd *nbd)
{
	nbd_expire(nbd);
	if (!nbd->queue_head)
		return;
	if (nbd->retry_at_ns <= loop_now_ns())
		attempt(nbd);
	else
		loop_timer_arm(nbd->block.loop, &nbd->link_timer, nbd->retry_at_ns);
}

void nbd_link_timer(struct loop_timer *timer)
{
	struct nbd *nbd = container_of(timer, struct nbd, link_timer);
	struct err err = {0};
	if (nbd->link == NBD_LINK_DOWN && nbd->queue_head)
		nbd_reconnect(nbd);
	else if (nbd->link == NBD_LINK_CONNECTING || nbd->link == NBD_LINK_HANDSHAKE) {
		err_set(&err, -ETIMEDOUT, "the server does not answer");
		attempt_failed(nbd, &err);
	}
}

/* What the guest was told of the disk must stay true. */
static int check_same_export(const struct nbd *nbd, const struct nbd_export *now, struct err *err)
{
	const struct nbd_export *then = &nbd->export;
	const unsigned promised = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
	if (now->size_bytes != then->size_bytes)
		return err_config(err, -EPROTO, "the export had %llu bytes and has %llu now",
				  (unsigned long long)then->size_bytes, (unsigned long long)now->size_bytes);
	if ((now->flags & NBD_FLAG_READ_ONLY) && !nbd->block.info.read_only)
		return err_config(err, -EPROTO, "the export is read-only now");
	if (now->min_block > nbd->block.info.block_size_bytes || now->max_block < nbd->block.info.block_size_bytes)
		return err_config(err, -EPROTO, "the export's block size is another now");
	if (then->flags & promised & ~(unsigned)now->flags)
		return err_config(err, -EPROTO, "the export can no longer do what it could");
	return 0;
}

/* Another disk: whatever waits for the old one fails at once. */
static void refuse_export(struct nbd *nbd, const struct err *err)
{
	for (struct block_request *request = nbd->queue_head; request; request = request->next)
		*nbd_deadline(request) = 1;
	attempt_failed(nbd, err);
}

static void handshake_done(struct nbd *nbd)
{
	struct err err = {0};
	if (check_same_export(nbd, &nbd->handshake.export, &err) < 0) {
		refuse_export(nbd, &err);
		return;
	}
	nbd->export = nbd->handshake.export;
	nbd_set_limits(nbd);
	nbd->link = NBD_LINK_UP;
	nbd->failure_told = false;
	nbd->up_since_ns = loop_now_ns();
	loop_timer_disarm(nbd->block.loop, &nbd->link_timer);
	log_info(nbd->log, "disk 'nbd=%s': connected again", nbd->text);
	loop_defer(nbd->block.loop, &nbd->work_task);
}

static void handshake_step(struct nbd *nbd)
{
	struct msghdr *message = &nbd->setup_message;
	*message = (struct msghdr){.msg_iov = &nbd->setup_iov, .msg_iovlen = 1};
	size_t size;
	nbd->setup_iov.iov_base = (void *)nbd_handshake_output(&nbd->handshake, &size); /* sendmsg only reads it */
	int r;
	if (size > 0) {
		nbd->setup_iov.iov_len = size;
		r = loop_sendmsg(nbd->block.loop, &nbd->setup_op, nbd->fd, message);
	} else {
		nbd->setup_iov.iov_base = nbd_handshake_room(&nbd->handshake, &nbd->setup_iov.iov_len);
		r = loop_recvmsg(nbd->block.loop, &nbd->setup_op, nbd->fd, message);
	}
	if (r < 0)
		nbd_lose(nbd, "reconnect: the event loop is full");
}

/* What was sent or received in the handshake. 0 to go on, 1 at the end, or -errno. */
static int handshake_moved(struct nbd *nbd, int res, struct err *err)
{
	size_t size;
	(void)nbd_handshake_output(&nbd->handshake, &size);
	if (res < 0 && res != -EPIPE && res != -ECONNRESET)
		return err_set(err, res, "%s: %s", size ? "send" : "receive", err_name(res));
	if (res <= 0)
		return nbd_handshake_closed(&nbd->handshake, err);
	if (!size)
		return nbd_handshake_feed(&nbd->handshake, (size_t)res, err);
	nbd_handshake_sent(&nbd->handshake, (size_t)res);
	return 0;
}

void nbd_setup_done(struct loop_op *op, int res)
{
	struct nbd *nbd = container_of(op, struct nbd, setup_op);
	struct err err = {0};
	if (nbd->link == NBD_LINK_CLOSING) {
		nbd_settle(nbd);
		return;
	}
	int r;
	if (nbd->link == NBD_LINK_CONNECTING) {
		r = res < 0 ? connect_failed(res, &err) : 0;
		nbd->link = NBD_LINK_HANDSHAKE;
		nbd_handshake_init(&nbd->handshake, nbd->address.export_name);
	} else {
		r = handshake_moved(nbd, res, &err);
	}
	if (r < 0)
		attempt_failed(nbd, &err);
	else if (r > 0)
		handshake_done(nbd);
	else
		handshake_step(nbd);
}
