/* Unix stream sockets by their path: to listen on one, and to connect to one. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "err.h"

struct unix_listener {
	int fd;     /* -1: closed */
	char *path; /* of the socket file, which goes with it */
	dev_t dev;
	ino_t ino;
};

/*
 * Make the socket file and listen. One that nobody listens on any more is replaced; whatever else is there is left
 * alone. 0, or -errno with a sentence without the path. `ret_listener` is to be closed either way. [setup]
 */
int unix_listener_open(struct unix_listener *ret_listener, const char *path, int backlog, struct err *err);

/* Removes the socket file, unless it is another's by now. All-zero, or never opened with fd -1: nothing. [any] */
void unix_listener_close(struct unix_listener *listener);

/*
 * Connect without waiting: a descriptor (CLOEXEC, O_NONBLOCK), or -errno: -ECONNREFUSED or -ENOENT when nobody listens,
 * -EAGAIN when too many wait there already, -ENAMETOOLONG. [any]
 */
int unix_socket_connect(const char *path);
