/*
 * Theory of operation. One accept is in flight while there is a free place among `callers`: programs that have
 * connected and have not said their line yet. Each has LINE_NS for it and LINE_BYTES_MAX bytes; who says anything else
 * is disconnected. When all places are taken, the others wait in the socket's backlog.
 *
 * What follows the line is not ours: a program may send it in one go with its data. So bytes are looked at with
 * MSG_PEEK, and taken up to the end of the line only.
 */
#include "vsock_host.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fd.h"
#include "unix_socket.h"
#include "util.h"

enum {
	BACKLOG = 128,
	CALLERS_MAX = 64,
	LINE_BYTES_MAX = 32,
	PORT_SUFFIX_MAX = 11, /* _4294967295 */
	PATH_MAX_BYTES = UNIX_SOCKET_PATH_MAX - PORT_SUFFIX_MAX,
};
static const uint64_t LINE_NS = 5000000000;
static const uint64_t RETRY_NS = 100000000;

struct caller {
	struct vsock_host *host;
	struct loop_op op;
	int fd; /* -1: nobody */
	uint64_t deadline_ns;
	char line[LINE_BYTES_MAX];
	unsigned line_bytes;
};

struct vsock_host {
	struct loop *loop;
	const struct log *log;
	struct log_limit limit;
	struct vsock_host_client client;
	struct unix_listener listener;
	bool closing;
	struct loop_op accept_op;
	struct loop_timer retry_timer; /* to accept again */
	struct loop_timer line_timer;
	struct caller callers[CALLERS_MAX];
};

static void accept_next(struct vsock_host *host);

/* --- the line ------------------------------------------------------------------------------------------------------
 */

/* "CONNECT <port>\n"; as with Firecracker the word may be in small letters, and a CR may stand before the LF. */
static bool parse_line(const char *line, unsigned size_bytes, uint32_t *ret_port)
{
	static const char word[] = "CONNECT ";
	unsigned at = sizeof(word) - 1, first = at;
	if (size_bytes < at || strncasecmp(line, word, at) != 0)
		return false;
	uint64_t port = 0;
	for (; at < size_bytes && isdigit((unsigned char)line[at]) && port <= UINT32_MAX; at++)
		port = 10 * port + (unsigned)(line[at] - '0');
	if (at == first || port > UINT32_MAX)
		return false;
	at += at < size_bytes && line[at] == '\r';
	*ret_port = (uint32_t)port;
	return at + 1 == size_bytes && line[at] == '\n';
}

/* Take bytes up to the end of the line. 1: it is whole; 0: more has to come; -errno: no line will come. */
static int take_line(struct caller *caller)
{
	char *at = caller->line + caller->line_bytes;
	size_t room = sizeof(caller->line) - caller->line_bytes;
	ssize_t got = recv(caller->fd, at, room, MSG_PEEK | MSG_DONTWAIT);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (got == 0)
		return -ENODATA;
	const char *end = memchr(at, '\n', (size_t)got);
	size_t take = end ? (size_t)(end - at) + 1 : (size_t)got;
	if (recv(caller->fd, at, take, MSG_DONTWAIT) != (ssize_t)take)
		return -EIO;
	caller->line_bytes += (unsigned)take;
	if (end)
		return 1;
	return take == room ? -E2BIG : 0;
}

/* --- callers -------------------------------------------------------------------------------------------------------
 */

static struct caller *free_place(struct vsock_host *host)
{
	for (unsigned i = 0; i < CALLERS_MAX; i++) {
		struct caller *caller = &host->callers[i];
		if (caller->fd < 0 && caller->op.state == LOOP_OP_IDLE)
			return caller;
	}
	return NULL;
}

/* The earliest of all, so that one timer does. */
static void arm_line_timer(struct vsock_host *host)
{
	uint64_t first_ns = UINT64_MAX;
	for (unsigned i = 0; i < CALLERS_MAX; i++) {
		if (host->callers[i].fd >= 0)
			first_ns = min_u64(first_ns, host->callers[i].deadline_ns);
	}
	if (first_ns != UINT64_MAX)
		loop_timer_arm(host->loop, &host->line_timer, first_ns);
	else
		loop_timer_disarm(host->loop, &host->line_timer);
}

/* Its socket is closed, or another's by now: the place is free. */
static void leave(struct caller *caller, bool close_it)
{
	struct vsock_host *host = caller->host;
	if (close_it)
		close(caller->fd);
	caller->fd = -1;
	arm_line_timer(host);
	if (!host->closing)
		accept_next(host);
}

static void connect_caller(struct caller *caller)
{
	struct vsock_host *host = caller->host;
	struct vsock_host_client client = host->client;
	uint32_t port;
	int fd = caller->fd;
	bool is_asked = parse_line(caller->line, caller->line_bytes, &port);
	if (!is_asked || !client.connect) {
		leave(caller, true);
		return;
	}
	leave(caller, false);
	client.connect(client.ctx, fd, port);
}

static void listen_to(struct caller *caller)
{
	if (loop_poll(caller->host->loop, &caller->op, caller->fd, POLLIN) < 0)
		leave(caller, true);
}

static void caller_speaks(struct loop_op *op, int res)
{
	struct caller *caller = container_of(op, struct caller, op);
	struct vsock_host *host = caller->host;
	if (caller->fd < 0) { /* it was too late, and the place is free now */
		if (!host->closing)
			accept_next(host);
		return;
	}
	int r = res < 0 ? res : take_line(caller);
	if (r > 0)
		connect_caller(caller);
	else if (r < 0)
		leave(caller, true);
	else
		listen_to(caller);
}

static void callers_are_late(struct loop_timer *timer)
{
	struct vsock_host *host = container_of(timer, struct vsock_host, line_timer);
	uint64_t now_ns = loop_now_ns();
	for (unsigned i = 0; i < CALLERS_MAX; i++) {
		struct caller *caller = &host->callers[i];
		if (caller->fd < 0 || caller->deadline_ns > now_ns)
			continue;
		loop_cancel(host->loop, &caller->op);
		leave(caller, true);
	}
	arm_line_timer(host);
}

/* --- listening -----------------------------------------------------------------------------------------------------
 */

static void retry_later(struct vsock_host *host)
{
	loop_timer_arm(host->loop, &host->retry_timer, loop_now_ns() + RETRY_NS);
}

static void accept_next(struct vsock_host *host)
{
	if (host->accept_op.state != LOOP_OP_IDLE || !free_place(host))
		return;
	if (loop_accept(host->loop, &host->accept_op, host->listener.fd) < 0)
		retry_later(host);
}

static void retry(struct loop_timer *timer)
{
	accept_next(container_of(timer, struct vsock_host, retry_timer));
}

static void welcome(struct vsock_host *host, int fd)
{
	struct caller *caller = free_place(host);
	if (!caller || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		close(fd);
		return;
	}
	caller->fd = fd;
	caller->line_bytes = 0;
	caller->deadline_ns = loop_now_ns() + LINE_NS;
	arm_line_timer(host);
	listen_to(caller);
}

static void accepted(struct loop_op *op, int res)
{
	struct vsock_host *host = container_of(op, struct vsock_host, accept_op);
	if (host->closing) {
		if (res >= 0)
			close(res);
		return;
	}
	if (res >= 0)
		welcome(host, res);
	if (res >= 0 || res == -ECONNABORTED || res == -EINTR) {
		accept_next(host);
		return;
	}
	/* EMFILE and its like pass. */
	log_guest(host->log, &host->limit, "vsock socket '%s': accept: %s", host->listener.path, err_name(res));
	retry_later(host);
}

/* --- life ----------------------------------------------------------------------------------------------------------
 */

static void init(struct vsock_host *host, struct loop *loop, const struct log *log)
{
	host->loop = loop;
	host->log = log;
	host->accept_op.done = accepted;
	host->retry_timer.fn = retry;
	host->line_timer.fn = callers_are_late;
	for (unsigned i = 0; i < CALLERS_MAX; i++) {
		host->callers[i].host = host;
		host->callers[i].fd = -1;
		host->callers[i].op.done = caller_speaks;
	}
}

struct vsock_host *vsock_host_new(struct loop *loop, const struct log *log, const char *path, struct err *err)
{
	if (strlen(path) > PATH_MAX_BYTES) {
		err_config(err, -ENAMETOOLONG,
			   "vsock socket '%s': its path has at most %d characters, as '_' and a port come behind it",
			   path, PATH_MAX_BYTES);
		return NULL;
	}
	struct vsock_host *host = calloc(1, sizeof(*host));
	if (!host) {
		err_set(err, -ENOMEM, "vsock socket '%s': %s", path, err_name(ENOMEM));
		return NULL;
	}
	init(host, loop, log);
	if (unix_listener_open(&host->listener, path, BACKLOG, err) < 0) {
		err_wrap(err, "vsock socket '%s'", path);
		free(host);
		return NULL;
	}
	accept_next(host);
	return host;
}

void vsock_host_free(struct vsock_host *host)
{
	if (!host)
		return;
	host->closing = true;
	loop_timer_disarm(host->loop, &host->retry_timer);
	loop_timer_disarm(host->loop, &host->line_timer);
	loop_cancel(host->loop, &host->accept_op);
	for (unsigned i = 0; i < CALLERS_MAX; i++) {
		loop_cancel(host->loop, &host->callers[i].op);
		fd_close(&host->callers[i].fd);
	}
	loop_drain(host->loop, &host->accept_op);
	for (unsigned i = 0; i < CALLERS_MAX; i++)
		loop_drain(host->loop, &host->callers[i].op);
	unix_listener_close(&host->listener);
	free(host);
}

void vsock_host_set_client(struct vsock_host *host, const struct vsock_host_client *client)
{
	host->client = client ? *client : (struct vsock_host_client){0};
}

int vsock_host_connect(struct vsock_host *host, uint32_t port)
{
	char path[UNIX_SOCKET_PATH_MAX + 1];
	(void)snprintf(path, sizeof(path), "%.*s_%u", PATH_MAX_BYTES, host->listener.path, port);
	return unix_socket_connect(path);
}
