/* The ways in which a stream gets connected: by a given socket, to a path, on a path. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fd.h"
#include "netif_stream_impl.h"
#include "unix_socket.h"
#include "util.h"

static const uint64_t ACCEPT_RETRY_NS = 100 * 1000000ULL;
static const uint64_t BUSY_NS = 1000 * 1000000ULL;
enum { BUSY_RETRY_MS = 10 };

struct opened {
	struct netif_stream stream;
	char *path;
	struct unix_listener listener;
	struct loop_op accept_op;
	struct loop_timer retry_timer;
	int next_fd; /* a peer that came before the last one's socket was let go of; -1: none */
	bool failure_told;
};

static struct opened *opened_of(struct netif_stream *stream)
{
	return container_of(stream, struct opened, stream);
}

static void retry_after(struct opened *opened, uint64_t ns)
{
	loop_timer_arm(opened->stream.netif.loop, &opened->retry_timer, loop_now_ns() + ns);
}

static void opened_free(struct netif_stream *stream)
{
	struct opened *opened = opened_of(stream);
	loop_timer_disarm(stream->netif.loop, &opened->retry_timer);
	loop_cancel(stream->netif.loop, &opened->accept_op);
	loop_drain(stream->netif.loop, &opened->accept_op);
	unix_listener_close(&opened->listener);
	fd_close(&opened->next_fd);
	free(opened->path);
	free(opened);
}

/* --- a given socket ---------------------------------------------------------------------------------------------- */

static void fd_lost(struct netif_stream *stream)
{
	log_warn(stream->log, "net '%s': the peer has left, and the link stays down", stream->text);
}

static const struct netif_stream_policy FD_POLICY = {.lost = fd_lost, .free = opened_free};

static int attach_given(struct opened *opened, int given_fd, struct err *err)
{
	int type = 0;
	socklen_t size = sizeof(type);
	if (getsockopt(given_fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return err_config(err, -errno, "%s", err_name(errno));
	if (type != SOCK_STREAM)
		return err_config(err, -EPROTOTYPE, "it is no stream socket");
	int fd = fcntl(given_fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "dup: %s", err_name(errno));
	netif_stream_attach(&opened->stream, fd);
	return 0;
}

/* --- to a path --------------------------------------------------------------------------------------------------- */

static void connect_lost(struct netif_stream *stream)
{
	log_info(stream->log, "net '%s': the link is down", stream->text);
	retry_after(opened_of(stream), netif_stream_backoff_ns(stream));
}

/* To connect to a Unix socket never takes time. The first failure of an outage is told, and no more. */
static void connect_again(struct loop_timer *timer)
{
	struct opened *opened = container_of(timer, struct opened, retry_timer);
	struct netif_stream *stream = &opened->stream;
	int fd = unix_socket_connect(opened->path);
	if (fd < 0) {
		if (!opened->failure_told)
			log_guest(stream->log, &stream->limit, "net '%s': reconnect: %s", stream->text, err_name(fd));
		opened->failure_told = true;
		retry_after(opened, netif_stream_backoff_ns(stream));
		return;
	}
	opened->failure_told = false;
	log_info(stream->log, "net '%s': connected again", stream->text);
	netif_stream_attach(stream, fd);
}

static const struct netif_stream_policy CONNECT_POLICY = {.lost = connect_lost, .free = opened_free};

/* A listener that has many waiting already may take them yet. */
static int connect_now(struct opened *opened, struct err *err)
{
	uint64_t deadline_ns = loop_now_ns() + BUSY_NS;
	int fd = unix_socket_connect(opened->path);
	while (fd == -EAGAIN && loop_now_ns() < deadline_ns) {
		(void)poll(NULL, 0, BUSY_RETRY_MS);
		fd = unix_socket_connect(opened->path);
	}
	if (fd == -ENOENT || fd == -ECONNREFUSED)
		return err_config(err, fd, "connect: %s; does anybody listen there?", err_name(fd));
	if (fd < 0)
		return err_config(err, fd, "connect: %s", err_name(fd));
	netif_stream_attach(&opened->stream, fd);
	return 0;
}

/* --- on a path ---------------------------------------------------------------------------------------------------- */

static void accept_next(struct opened *opened)
{
	if (loop_accept(opened->stream.netif.loop, &opened->accept_op, opened->listener.fd) < 0)
		retry_after(opened, ACCEPT_RETRY_NS);
}

static void accept_again(struct loop_timer *timer)
{
	accept_next(container_of(timer, struct opened, retry_timer));
}

/* One peer at a time: another is told by the end of its connection. */
static void take_peer(struct opened *opened, int fd)
{
	struct netif_stream *stream = &opened->stream;
	if (stream->link == STREAM_DOWN) {
		log_info(stream->log, "net '%s': a peer has connected", stream->text);
		netif_stream_attach(stream, fd);
	} else if (stream->link == STREAM_CLOSING && opened->next_fd < 0) {
		opened->next_fd = fd;
	} else {
		log_info(stream->log, "net '%s': another peer was turned away", stream->text);
		close(fd);
	}
}

static void accepted(struct loop_op *op, int res)
{
	struct opened *opened = container_of(op, struct opened, accept_op);
	if (opened->stream.freeing) {
		if (res >= 0)
			close(res);
		return;
	}
	if (res >= 0) {
		take_peer(opened, res);
		accept_next(opened);
	} else {
		retry_after(opened, ACCEPT_RETRY_NS); /* EMFILE and its like pass */
	}
}

static void listen_lost(struct netif_stream *stream)
{
	struct opened *opened = opened_of(stream);
	int fd = opened->next_fd;
	log_info(stream->log, "net '%s': the peer has left", stream->text);
	opened->next_fd = -1;
	if (fd >= 0)
		netif_stream_attach(stream, fd);
}

static const struct netif_stream_policy LISTEN_POLICY = {.lost = listen_lost, .free = opened_free};

static int listen_now(struct opened *opened, struct err *err)
{
	int r = unix_listener_open(&opened->listener, opened->path, 4, err);
	if (r < 0)
		return err_wrap(err, "listen");
	accept_next(opened);
	return 0;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static struct opened *opened_alloc(struct loop *loop, const struct log *log, const struct netif_stream_config *config)
{
	struct opened *opened = calloc(1, sizeof(*opened));
	char *path = strdup(config->path ? config->path : "");
	if (!opened || !path) {
		free(opened);
		free(path);
		return NULL;
	}
	bool given = config->fd >= 0;
	const struct netif_stream_policy *policy = given            ? &FD_POLICY
						   : config->listen ? &LISTEN_POLICY
								    : &CONNECT_POLICY;
	netif_stream_init(&opened->stream, loop, log, policy,
			  given            ? "fd"
			  : config->listen ? "listen="
					   : "stream=",
			  path);
	opened->path = path;
	opened->listener.fd = opened->next_fd = -1;
	opened->accept_op.done = accepted;
	opened->retry_timer.fn = config->listen ? accept_again : connect_again;
	return opened;
}

struct netif *netif_stream_open(struct loop *loop, const struct log *log, const struct netif_stream_config *config,
				struct err *err)
{
	struct opened *opened = opened_alloc(loop, log, config);
	if (!opened) {
		err_set(err, -ENOMEM, "net: %s", err_name(ENOMEM));
		return NULL;
	}
	struct netif_stream *stream = &opened->stream;
	int r;
	if (config->fd >= 0)
		r = attach_given(opened, config->fd, err);
	else if (config->listen)
		r = listen_now(opened, err);
	else
		r = connect_now(opened, err);
	if (r < 0) {
		err_wrap(err, "net '%s'", stream->text);
		netif_free(&stream->netif);
		return NULL;
	}
	return &stream->netif;
}
