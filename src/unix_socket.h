/* Unix stream sockets by path: what every back end that listens on one, or connects to one, does the same way. */
#pragma once

#include <sys/types.h>

#include "err.h"

enum { UNIX_SOCKET_PATH_MAX = 107 /* characters: what the kernel takes */ };

/*
 * A listening socket (CLOEXEC) for loop_accept at `path`, which only this user may connect to, whatever the umask. A
 * socket file that nobody listens on any more is replaced; one that is in use (which is found out without disturbing
 * who uses it), and any other file, is refused. Returns the descriptor, or -errno with `err` set: a sentence that does
 * not name the path. The caller removes the file. [setup]
 */
int unix_socket_listen(const char *path, int backlog, struct err *err);

/*
 * A socket (CLOEXEC, O_NONBLOCK) that is connected to `path`, or -errno: -ENOENT, -ECONNREFUSED (nobody listens),
 * -EAGAIN (who listens has as many waiting as he wants). Never waits. [any]
 */
int unix_socket_connect(const char *path);

/* The same listening, with a file that goes with it, unless it is another's by then. */
struct unix_listener {
	int fd;     /* -1: closed */
	char *path; /* NULL: closed */
	dev_t dev;
	ino_t ino;
};

/* 0, or as above; `ret_listener` may be closed either way. [setup] */
int unix_listener_open(struct unix_listener *ret_listener, const char *path, int backlog, struct err *err);
void unix_listener_close(struct unix_listener *listener); /* a closed one is fine. [any] */
