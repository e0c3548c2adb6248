/*
 * An NBD server in a thread, for tests: honest by default, and a script may do anything else with a connection. It
 * never fails a test by itself (cmocka's assertions belong to the main thread); it says what it saw.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NBD_SERVER_DISK = 256 * 1024 };

struct nbd_server_request {
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
	uint8_t payload[NBD_SERVER_DISK];
};

struct nbd_server {
	/* how it is; set before nbd_server_start */
	uint64_t size_bytes; /* what it tells; NBD_SERVER_DISK of it exist */
	uint16_t flags;
	bool no_fixed, no_go, no_structured, no_zeroes, no_block_size;
	uint32_t min_block, preferred_block, max_block;
	unsigned fragment_bytes; /* structured reads in pieces of so many bytes, the last first; zeroes as holes */
	_Atomic uint32_t error;  /* answer everything with it */
	/* A connection, from its first byte: NULL means nbd_server_serve. `number` counts from 0. */
	void (*script)(struct nbd_server *server, int fd, unsigned number);
	_Atomic(void *) script_data;

	/* what it saw */
	_Atomic unsigned connections, requests, disconnects, flushes;
	_Atomic uint32_t largest;
	_Atomic uint16_t last_flags;
	uint8_t disk[NBD_SERVER_DISK];

	/* private */
	char path[108];
	char address[128];
	int listen_fd;
	_Atomic int connection_fd;
	_Atomic bool stopping;
	pthread_t thread;
};

/* Defaults for all; heap, freed by nbd_server_stop. */
struct nbd_server *nbd_server_new(void);
void nbd_server_start(struct nbd_server *server);
void nbd_server_stop(struct nbd_server *server);

/* For scripts. False: the other side is gone, or said what it must not. */
bool nbd_server_handshake(struct nbd_server *server, int fd);
bool nbd_server_take(struct nbd_server *server, int fd, struct nbd_server_request *ret_request);
bool nbd_server_answer(struct nbd_server *server, int fd, const struct nbd_server_request *request);
void nbd_server_serve(struct nbd_server *server, int fd); /* all of it, to the end of the connection */
bool nbd_server_send(int fd, const void *data, size_t size_bytes);
bool nbd_server_receive(int fd, void *data, size_t size_bytes);
bool nbd_server_chunk(int fd, const struct nbd_server_request *request, bool last, uint16_t type, const void *data,
		      uint32_t size_bytes);
bool nbd_server_simple(int fd, const struct nbd_server_request *request, uint32_t error);
