/*
 * The host's side of virtio-vsock, by Firecracker's convention: we listen on a Unix stream socket at `path`. A program
 * of the host connects to it and sends "CONNECT <port>\n"; when the guest has accepted, it gets "OK <its host port>\n"
 * and then the stream. A connection of the guest to port P of the host (CID 2) goes to the Unix socket at `path_P`
 * (path, underscore, decimal port), where a program of the host listens.
 *
 * Here are the sockets only; connections, credit and packets are virtio/vsock's.
 */
#pragma once

#include <stdint.h>

#include "err.h"
#include "log.h"
#include "loop.h"

struct vsock_host;

struct vsock_host_client {
	/*
	 * A program of the host has asked for a guest's port: `fd` is its socket (non-blocking, CLOEXEC, the client's
	 * from now on), with nothing read of it beyond the line. The client answers with "OK ...\n" or closes. [loop]
	 */
	void (*connect)(void *ctx, int fd, uint32_t guest_port);
	void *ctx;
};

/* Listens. A socket file that nobody listens on any more is replaced; any other file is refused. NULL with `err` set.
 * [setup] */
struct vsock_host *vsock_host_new(struct loop *loop, const struct log *log, const char *path, struct err *err);
/* Closes, and removes the socket's file. NULL is accepted. */
void vsock_host_free(struct vsock_host *host);

/* NULL: nobody; connections that come are closed. [setup, loop] */
void vsock_host_set_client(struct vsock_host *host, const struct vsock_host_client *client);

/* A non-blocking socket that is connected to path_PORT, or -errno (-ECONNREFUSED: nobody listens). Never waits. [loop]
 */
int vsock_host_connect(struct vsock_host *host, uint32_t port);
