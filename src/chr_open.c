/* The ways in which a chr gets connected: given descriptors, a file, a pseudo-terminal, a Unix socket. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "chr.h"
#include "chr_impl.h"
#include "util.h"

static const uint64_t PTY_RETRY_NS = 100 * 1000000ULL;

/* --- nothing ------------------------------------------------------------------------------------------- */

static const struct chr_policy NULL_POLICY = {.is_sink = true};

struct chr *chr_null_new(struct loop *loop, const struct log *log, struct err *err)
{
	return chr_alloc(loop, log, &NULL_POLICY, err);
}

/* --- given descriptors --------------------------------------------------------------------------------- */

static const struct chr_policy FD_POLICY = {0};

struct chr *chr_fd_new(struct loop *loop, const struct log *log, int in_fd, int out_fd, struct chr_filter filter,
		       struct err *err)
{
	struct chr *chr = chr_alloc(loop, log, &FD_POLICY, err);
	if (!chr)
		return NULL;
	chr->filter = filter;
	chr_connect(chr, in_fd, out_fd);
	return chr;
}

static const struct chr_policy STREAM_POLICY = {.is_stream = true};

struct chr *chr_stream_new(struct loop *loop, const struct log *log, int in_fd, int out_fd, struct chr_filter filter,
			   struct err *err)
{
	struct chr *chr = chr_alloc(loop, log, &STREAM_POLICY, err);
	if (!chr)
		return NULL;
	chr->filter = filter;
	chr_connect(chr, in_fd, out_fd);
	return chr;
}

/* --- a file -------------------------------------------------------------------------------------------- */

static const struct chr_policy FILE_POLICY = {.closes_fds = true, .is_sink = true};

static bool set_path(struct chr *chr, const char *path, struct err *err)
{
	chr->path = strdup(path);
	if (!chr->path)
		err_set(err, -ENOMEM, "console: %s", err_name(ENOMEM));
	return chr->path;
}

struct chr *chr_file_new(struct loop *loop, const struct log *log, const char *path, struct err *err)
{
	struct chr *chr = chr_alloc(loop, log, &FILE_POLICY, err);
	if (!chr)
		return NULL;
	/* O_NONBLOCK: opening a FIFO that nobody reads is an error, not a wait. */
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
	if (fd < 0) {
		err_config(err, -errno, "console output '%s': %s", path, err_name(errno));
		goto fail;
	}
	/* From here on writes may wait. */
	(void)fcntl(fd, F_SETFL, 0);
	chr_connect(chr, -1, fd);
	if (!set_path(chr, path, err))
		goto fail;
	return chr;
fail:
	chr_free(chr);
	return NULL;
}

/* --- a pseudo-terminal ----------------------------------------------------------------------------------- */

/*
 * The master says POLLHUP while nobody has the slave open, and nothing tells when somebody opens it; so it is
 * looked at ten times a second until then. listen_fd holds the master, in_fd and out_fd borrow it.
 */
static void pty_retry(struct loop_timer *timer)
{
	struct chr *chr = container_of(timer, struct chr, retry_timer);
	struct pollfd master = {.fd = chr->listen_fd};
	if (poll(&master, 1, 0) >= 0 && !(master.revents & POLLHUP))
		chr_connect(chr, chr->listen_fd, chr->listen_fd);
	else
		loop_timer_arm(chr->loop, timer, loop_now_ns() + PTY_RETRY_NS);
}

static void pty_lost(struct chr *chr)
{
	loop_timer_arm(chr->loop, &chr->retry_timer, loop_now_ns() + PTY_RETRY_NS);
}

static void close_listen_fd(struct chr *chr)
{
	fd_close(&chr->listen_fd);
}

static const struct chr_policy PTY_POLICY = {.lost = pty_lost, .close = close_listen_fd};

/* Opening and closing the slave once makes the master say POLLHUP until a real reader comes. */
static int open_pty(struct chr *chr, char *ret_name, size_t name_size)
{
	chr->listen_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (chr->listen_fd < 0 || grantpt(chr->listen_fd) < 0 || unlockpt(chr->listen_fd) < 0)
		return -errno;
	int r = ptsname_r(chr->listen_fd, ret_name, name_size);
	if (r)
		return r > 0 ? -r : -errno;
	int slave = open(ret_name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	/* Bytes as they are: no echo of the guest's output back at it, no line discipline. */
	struct termios raw;
	r = tcgetattr(slave, &raw);
	if (r == 0) {
		cfmakeraw(&raw);
		r = tcsetattr(slave, TCSANOW, &raw);
	}
	int code = r < 0 ? -errno : 0;
	close(slave);
	return code;
}

struct chr *chr_pty_new(struct loop *loop, const struct log *log, struct err *err)
{
	struct chr *chr = chr_alloc(loop, log, &PTY_POLICY, err);
	if (!chr)
		return NULL;
	chr->retry_timer.fn = pty_retry;

	char name[64];
	int r = open_pty(chr, name, sizeof(name));
	if (r < 0) {
		err_set(err, r, "console: open a pseudo-terminal: %s", err_name(r));
		goto fail;
	}
	if (!set_path(chr, name, err))
		goto fail;
	pty_lost(chr);
	return chr;
fail:
	chr_free(chr);
	return NULL;
}

/* --- a listening Unix socket ------------------------------------------------------------------------------ */

static void unix_listen_again(struct chr *chr)
{
	if (loop_accept(chr->loop, &chr->accept_op, chr->listen_fd) < 0)
		loop_timer_arm(chr->loop, &chr->retry_timer, loop_now_ns() + PTY_RETRY_NS);
}

static void unix_retry(struct loop_timer *timer)
{
	unix_listen_again(container_of(timer, struct chr, retry_timer));
}

static void unix_accepted(struct loop_op *op, int res)
{
	struct chr *chr = container_of(op, struct chr, accept_op);
	if (res >= 0 && chr->closing)
		close(res);
	else if (res >= 0)
		chr_connect(chr, res, res);
	else if (!chr->closing) /* EMFILE and its like pass */
		loop_timer_arm(chr->loop, &chr->retry_timer, loop_now_ns() + PTY_RETRY_NS);
}

static void unix_close(struct chr *chr)
{
	if (chr->path)
		unlink(chr->path);
	fd_close(&chr->listen_fd);
}

static const struct chr_policy UNIX_POLICY = {
	.lost = unix_listen_again,
	.close = unix_close,
	.closes_fds = true,
};

static int unix_listen(struct chr *chr, const struct sockaddr_un *addr)
{
	chr->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (chr->listen_fd < 0)
		return -errno;
	if (bind(chr->listen_fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		return -errno;
	return 0;
}

struct chr *chr_unix_new(struct loop *loop, const struct log *log, const char *path, struct err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(addr.sun_path)) {
		err_config(err, -ENAMETOOLONG, "console socket '%s': a socket's path has at most %zu characters", path,
			   sizeof(addr.sun_path) - 1);
		return NULL;
	}
	memcpy(addr.sun_path, path, strlen(path));

	struct chr *chr = chr_alloc(loop, log, &UNIX_POLICY, err);
	if (!chr)
		return NULL;
	chr->accept_op.done = unix_accepted;
	chr->retry_timer.fn = unix_retry;
	int r = unix_listen(chr, &addr);
	if (r < 0) {
		err_config(err, r, "console socket '%s': %s%s", path, err_name(r),
			   r == -EADDRINUSE ? " (a file is there already; remove it if no other VM uses it)" : "");
		goto fail;
	}
	/* From here on the socket file is ours, and chr_free removes it. */
	if (!set_path(chr, path, err)) {
		unlink(path);
		goto fail;
	}
	if (listen(chr->listen_fd, 1) < 0) {
		err_set(err, -errno, "console socket '%s': listen: %s", path, err_name(errno));
		goto fail;
	}
	unix_listen_again(chr);
	return chr;
fail:
	chr_free(chr);
	return NULL;
}
