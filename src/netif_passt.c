/*
 * passt as a process of ours, at the other end of a stream.
 *
 * How it is known to be up: nothing tells. So its socket is made small and filled with one frame that means nothing to
 * it (an Ethernet type for local experiments, from and to everybody, which is also what it takes the guest's address
 * for until it knows better). When the socket can be written again passt has read it, so it has its ports and its
 * sandbox, and runs. That takes as long as passt takes, and no longer. One that neither reads nor ends is slow, or a
 * stalled peer as any other: after three seconds the link goes up all the same.
 */
#include "netif.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "child.h"
#include "fd.h"
#include "netif_passt_args.h"
#include "netif_stream_impl.h"
#include "util.h"

static const uint64_t NS_PER_MS = 1000000;
static const uint64_t START_NS = 3000 * 1000000ULL; /* for the first frame to be read */
static const uint64_t GRACE_NS = 500 * 1000000ULL;  /* from SIGTERM to SIGKILL */
enum {
	PROBE_FRAME_BYTES = 1500,
	ETHERTYPE_EXPERIMENTAL = 0x88b5, /* IEEE 802, local experimental 1 */
	SEND_BUFFER_BYTES = 1 << 20,     /* passt sets its own for a socket that it made, not for one that it got */
};

struct passt {
	struct netif_stream stream;
	struct netif_passt_args args;
	struct child child;
	enum {
		PASST_RESTING,  /* no process; until the timer */
		PASST_STARTING, /* until the first frame is read, or the timer */
		PASST_UP,
		PASST_ENDING, /* until the process, the probe and the stream have ended; SIGKILL at the timer */
	} state;
	bool child_ended, failure_told;
	int fd; /* our end of its socket, while it starts */
	struct loop_op probe_op;
	struct loop_timer timer;
	char last_words[CHILD_LINE_MAX];
};

static void arm(struct passt *passt, uint64_t after_ns)
{
	loop_timer_arm(passt->stream.netif.loop, &passt->timer, loop_now_ns() + after_ns);
}

/* --- starting it ---------------------------------------------------------------------------------------------------
 */

/* The smallest buffer that there is holds the frame, and nothing more until it is read. */
static int send_probe(int fd)
{
	uint8_t message[STREAM_PREFIX_BYTES + PROBE_FRAME_BYTES] = {0};
	const int smallest = 1;
	message[2] = PROBE_FRAME_BYTES >> 8;
	message[3] = PROBE_FRAME_BYTES & 0xff;
	memset(message + STREAM_PREFIX_BYTES, 0xff, (size_t)2 * NETIF_MAC_BYTES);
	message[STREAM_PREFIX_BYTES + 12] = ETHERTYPE_EXPERIMENTAL >> 8;
	message[STREAM_PREFIX_BYTES + 13] = ETHERTYPE_EXPERIMENTAL & 0xff;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &smallest, sizeof(smallest)) < 0)
		return -errno;
	ssize_t n = send(fd, message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);
	return n == (ssize_t)sizeof(message) ? 0 : -EIO;
}

static void said(void *ctx, const char *line)
{
	struct passt *passt = ctx;
	size_t length = strlen(line);
	static const char NOISE[] = " bytes to syslog"; /* where there is no syslog it says so for each line */
	if (length >= strlen(NOISE) && strcmp(line + length - strlen(NOISE), NOISE) == 0)
		return;
	log_debug(passt->stream.log, "passt: %s", line);
	(void)snprintf(passt->last_words, sizeof(passt->last_words), "%s", line);
}

static void ended(void *ctx);

static int spawn(struct passt *passt, struct err *err)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "socketpair: %s", err_name(errno));
	const struct child_client client = {said, ended, passt};
	const int size = SEND_BUFFER_BYTES;
	(void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* what fails only makes it slower */
	passt->fd = pair[0];
	passt->last_words[0] = '\0';
	int r = send_probe(passt->fd);
	if (r < 0)
		err_set(err, r, "its socket: %s", err_name(r));
	else
		r = child_start(&passt->child, passt->stream.netif.loop, &client, passt->args.argv, &pair[1], 1, err);
	close(pair[1]);
	if (r < 0)
		fd_close(&passt->fd);
	passt->child_ended = r < 0;
	return r;
}

static void go_up(struct passt *passt)
{
	int fd = passt->fd;
	passt->fd = -1;
	passt->state = PASST_UP;
	loop_timer_disarm(passt->stream.netif.loop, &passt->timer);
	netif_stream_attach(&passt->stream, fd);
}

/* --- at set-up, with poll() ------------------------------------------------------------------------------------------
 */

static bool can_be_written(const struct pollfd *pollfd)
{
	return (pollfd->revents & (POLLOUT | POLLHUP | POLLERR)) == POLLOUT;
}

/* 0 when it is up, or slow. */
static int wait_until_up(struct passt *passt, struct err *err)
{
	uint64_t deadline_ns = loop_now_ns() + START_NS, now;
	struct pollfd pollfds[] = {{.fd = passt->child.pidfd, .events = POLLIN}, {.fd = passt->fd, .events = POLLOUT}};
	while ((now = loop_now_ns()) < deadline_ns) {
		int r = poll(pollfds, ARRAY_SIZE(pollfds), (int)((deadline_ns - now) / NS_PER_MS) + 1);
		if (r < 0 && errno != EINTR)
			return err_set(err, -errno, "poll: %s", err_name(errno));
		if (r <= 0)
			continue;
		if (child_look(&passt->child)) {
			const char *words = passt->last_words;
			return err_config(err, -ECHILD, "passt ended at once%s%s", words[0] ? ": " : "", words);
		}
		if (can_be_written(&pollfds[1]))
			return 0;
		if (pollfds[1].revents)
			pollfds[1].fd = -1; /* it has closed its end, and will be gone soon */
	}
	return 0;
}

static int start_now(struct passt *passt, struct err *err)
{
	int r = spawn(passt, err);
	if (r == 0)
		r = wait_until_up(passt, err);
	if (r < 0)
		return r;
	child_watch(&passt->child);
	go_up(passt);
	return 0;
}

/* --- on the loop -------------------------------------------------------------------------------------------------- */

static void tell_failure(struct passt *passt, const char *what)
{
	struct netif_stream *stream = &passt->stream;
	if (!passt->failure_told)
		log_guest(stream->log, &stream->limit, "net 'passt': %s; it is started again", what);
	passt->failure_told = true;
}

/* What it said last may be why, and may be about something long past. */
static void tell_end(struct passt *passt)
{
	char what[sizeof(passt->last_words) + 64];
	(void)snprintf(what, sizeof(what), "passt has ended, and said last: %s", passt->last_words);
	tell_failure(passt, passt->last_words[0] ? what : "passt has ended");
}

static void rest(struct passt *passt)
{
	passt->state = PASST_RESTING;
	arm(passt, netif_stream_backoff_ns(&passt->stream));
}

static void settle(struct passt *passt)
{
	if (passt->state != PASST_ENDING || !passt->child_ended || passt->stream.link != STREAM_DOWN ||
	    passt->probe_op.state != LOOP_OP_IDLE)
		return;
	child_close(&passt->child);
	fd_close(&passt->fd);
	tell_end(passt);
	rest(passt);
}

static void begin_end(struct passt *passt)
{
	passt->state = PASST_ENDING;
	if (!passt->child_ended) {
		child_signal(&passt->child, SIGTERM);
		arm(passt, GRACE_NS);
	}
	settle(passt);
}

static void ended(void *ctx)
{
	struct passt *passt = ctx;
	if (passt->stream.freeing)
		return;
	passt->child_ended = true;
	loop_timer_disarm(passt->stream.netif.loop, &passt->timer);
	if (passt->state == PASST_UP && passt->stream.link == STREAM_UP) {
		netif_stream_lose(&passt->stream, NULL); /* and from there to passt_lost */
		return;
	}
	loop_cancel(passt->stream.netif.loop, &passt->probe_op);
	begin_end(passt);
}

static void passt_lost(struct netif_stream *stream)
{
	begin_end(container_of(stream, struct passt, stream));
}

static void probe_done(struct loop_op *op, int res)
{
	struct passt *passt = container_of(op, struct passt, probe_op);
	if (passt->stream.freeing)
		return;
	const struct pollfd pollfd = {.revents = (short)(res < 0 ? 0 : res)};
	if (passt->state == PASST_ENDING) {
		settle(passt);
	} else if (res == -ECANCELED || can_be_written(&pollfd)) {
		log_info(passt->stream.log, "net 'passt': passt runs again");
		passt->failure_told = false;
		go_up(passt);
	} else {
		begin_end(passt);
	}
}

static void start_again(struct passt *passt)
{
	struct err err = {0};
	struct loop *loop = passt->stream.netif.loop;
	if (spawn(passt, &err) < 0) {
		tell_failure(passt, err.text);
		rest(passt);
		return;
	}
	passt->state = PASST_STARTING;
	arm(passt, START_NS);
	child_watch(&passt->child);
	if (loop_poll(loop, &passt->probe_op, passt->fd, POLLOUT) < 0)
		begin_end(passt);
}

static void timer_fired(struct loop_timer *timer)
{
	struct passt *passt = container_of(timer, struct passt, timer);
	if (passt->state == PASST_RESTING)
		start_again(passt);
	else if (passt->state == PASST_STARTING)
		loop_cancel(passt->stream.netif.loop, &passt->probe_op);
	else if (passt->state == PASST_ENDING)
		child_signal(&passt->child, SIGKILL);
}

/* --- opening -------------------------------------------------------------------------------------------------------
 */

static void passt_free(struct netif_stream *stream)
{
	struct passt *passt = container_of(stream, struct passt, stream);
	loop_timer_disarm(stream->netif.loop, &passt->timer);
	loop_cancel(stream->netif.loop, &passt->probe_op);
	loop_drain(stream->netif.loop, &passt->probe_op);
	fd_close(&passt->fd);
	child_close(&passt->child);
	netif_passt_args_fini(&passt->args);
	free(passt);
}

static const struct netif_stream_policy PASST_POLICY = {.lost = passt_lost, .free = passt_free};

struct netif *netif_passt_open(struct loop *loop, const struct log *log, const struct netif_passt_config *config,
			       struct err *err)
{
	struct passt *passt = calloc(1, sizeof(*passt));
	if (!passt) {
		err_set(err, -ENOMEM, "net 'passt': %s", err_name(ENOMEM));
		return NULL;
	}
	netif_stream_init(&passt->stream, loop, log, &PASST_POLICY, "passt", "");
	passt->fd = passt->child.pidfd = -1;
	passt->probe_op.done = probe_done;
	passt->timer.fn = timer_fired;
	if (netif_passt_args_init(&passt->args, config, err) < 0 || start_now(passt, err) < 0) {
		err_wrap(err, "net 'passt'");
		netif_free(&passt->stream.netif);
		return NULL;
	}
	return &passt->stream.netif;
}
