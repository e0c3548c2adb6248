#include "nbd_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block_nbd_proto.h"
#include "util.h"

bool nbd_server_send(int fd, const void *data, size_t size_bytes)
{
	const uint8_t *p = data;
	while (size_bytes) {
		ssize_t n = send(fd, p, size_bytes, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		p += n;
		size_bytes -= (size_t)n;
	}
	return true;
}

bool nbd_server_receive(int fd, void *data, size_t size_bytes)
{
	return size_bytes == 0 || recv(fd, data, size_bytes, MSG_WAITALL) == (ssize_t)size_bytes;
}

/* --- handshake -------------------------------------------------------------------------------------------- */

static bool reply(int fd, uint32_t option, uint32_t type, const void *data, size_t size)
{
	uint8_t header[NBD_OPTION_REPLY_SIZE];
	uint8_t *p = nbd_put32(nbd_put32(nbd_put64(header, NBD_REP_MAGIC), option), type);
	nbd_put32(p, (uint32_t)size);
	return nbd_server_send(fd, header, sizeof(header)) && nbd_server_send(fd, data, size);
}

static bool answer_go(const struct nbd_server *server, int fd)
{
	uint8_t info[12], sizes[14];
	nbd_put16(nbd_put64(nbd_put16(info, NBD_INFO_EXPORT), server->size_bytes), server->flags);
	uint8_t *p = nbd_put32(nbd_put16(sizes, NBD_INFO_BLOCK_SIZE), server->min_block);
	nbd_put32(nbd_put32(p, server->preferred_block), server->max_block);
	static const uint8_t description[] = {0, 2, 'a', ' ', 'd', 'i', 's', 'k'};
	return reply(fd, NBD_OPT_GO, NBD_REP_INFO, info, sizeof(info)) &&
	       reply(fd, NBD_OPT_GO, NBD_REP_INFO, description, sizeof(description)) &&
	       (server->no_block_size || reply(fd, NBD_OPT_GO, NBD_REP_INFO, sizes, sizeof(sizes))) &&
	       reply(fd, NBD_OPT_GO, NBD_REP_ACK, NULL, 0);
}

static bool answer_export_name(const struct nbd_server *server, int fd, bool zeroes)
{
	uint8_t data[NBD_OLD_EXPORT_SIZE + NBD_OLD_EXPORT_ZEROES] = {0};
	nbd_put16(nbd_put64(data, server->size_bytes), server->flags);
	return nbd_server_send(fd, data, zeroes ? sizeof(data) : NBD_OLD_EXPORT_SIZE);
}

/* 1: done, 0: another option, -1: an end. */
static int option(struct nbd_server *server, int fd, bool zeroes)
{
	uint8_t header[NBD_OPTION_SIZE], data[2048];
	if (!nbd_server_receive(fd, header, sizeof(header)))
		return -1;
	uint32_t what = nbd_load32(header + 8), size = nbd_load32(header + 12);
	if (nbd_load64(header) != NBD_OPTS_MAGIC || size > sizeof(data) || !nbd_server_receive(fd, data, size))
		return -1;
	if (what == NBD_OPT_EXPORT_NAME)
		return answer_export_name(server, fd, zeroes) ? 1 : -1;
	if (what == NBD_OPT_GO && !server->no_go)
		return answer_go(server, fd) ? 1 : -1;
	bool agreed = what == NBD_OPT_STRUCTURED_REPLY && !server->no_structured;
	return reply(fd, what, agreed ? NBD_REP_ACK : NBD_REP_ERR_UNSUP, "no!", agreed ? 0 : 3) ? 0 : -1;
}

bool nbd_server_handshake(struct nbd_server *server, int fd)
{
	uint8_t greeting[NBD_GREETING_SIZE], flags[4];
	unsigned offered =
		(server->no_fixed ? 0 : NBD_FLAG_FIXED_NEWSTYLE) | (server->no_zeroes ? NBD_FLAG_NO_ZEROES : 0);
	nbd_put16(nbd_put64(nbd_put64(greeting, NBD_MAGIC), NBD_OPTS_MAGIC), (uint16_t)offered);
	if (!nbd_server_send(fd, greeting, sizeof(greeting)) || !nbd_server_receive(fd, flags, sizeof(flags)) ||
	    (nbd_load32(flags) & ~offered))
		return false;
	int r;
	do
		r = option(server, fd, !(nbd_load32(flags) & NBD_FLAG_NO_ZEROES));
	while (r == 0);
	return r > 0;
}

/* --- requests ----------------------------------------------------------------------------------------------- */

bool nbd_server_take(struct nbd_server *server, int fd, struct nbd_server_request *request)
{
	uint8_t header[NBD_REQUEST_SIZE];
	if (!nbd_server_receive(fd, header, sizeof(header)) || nbd_load32(header) != NBD_REQUEST_MAGIC)
		return false;
	request->flags = nbd_load16(header + 4);
	request->type = nbd_load16(header + 6);
	request->cookie = nbd_load64(header + 8);
	request->offset = nbd_load64(header + 16);
	request->length = nbd_load32(header + 24);
	if (request->type == NBD_CMD_DISC) {
		server->disconnects++;
		return false;
	}
	if (request->offset > NBD_SERVER_DISK || request->length > NBD_SERVER_DISK - request->offset)
		return false;
	server->requests++;
	server->last_flags = request->flags;
	if (request->length > server->largest)
		server->largest = request->length;
	return request->type != NBD_CMD_WRITE || nbd_server_receive(fd, request->payload, request->length);
}

bool nbd_server_simple(int fd, const struct nbd_server_request *request, uint32_t error)
{
	uint8_t header[NBD_SIMPLE_REPLY_SIZE];
	nbd_put64(nbd_put32(nbd_put32(header, NBD_SIMPLE_REPLY_MAGIC), error), request->cookie);
	return nbd_server_send(fd, header, sizeof(header));
}

bool nbd_server_chunk(int fd, const struct nbd_server_request *request, bool last, uint16_t type, const void *data,
		      uint32_t size_bytes)
{
	uint8_t header[NBD_CHUNK_SIZE];
	uint8_t *p = nbd_put16(nbd_put32(header, NBD_STRUCTURED_REPLY_MAGIC), last ? NBD_REPLY_FLAG_DONE : 0);
	nbd_put32(nbd_put64(nbd_put16(p, type), request->cookie), size_bytes);
	return nbd_server_send(fd, header, sizeof(header)) && nbd_server_send(fd, data, size_bytes);
}

static bool is_zero(const uint8_t *p, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (p[i])
			return false;
	}
	return true;
}

static bool piece(const struct nbd_server *server, int fd, const struct nbd_server_request *request, uint64_t offset,
		  uint32_t size, bool last)
{
	bool is_hole = server->fragment_bytes && is_zero(server->disk + offset, size);
	uint8_t *data = malloc(size + 12); /* not in the thread's static storage: it would be in every thread's stack */
	if (!data)
		return false;
	nbd_put64(data, offset);
	if (is_hole)
		nbd_put32(data + 8, size);
	else
		memcpy(data + 8, server->disk + offset, size);
	uint16_t type = is_hole ? NBD_REPLY_TYPE_OFFSET_HOLE : NBD_REPLY_TYPE_OFFSET_DATA;
	bool sent = nbd_server_chunk(fd, request, last, type, data, is_hole ? 12 : size + 8);
	free(data);
	return sent;
}

static bool answer_read(struct nbd_server *server, int fd, const struct nbd_server_request *request)
{
	if (server->no_structured || server->no_fixed)
		return nbd_server_simple(fd, request, 0) &&
		       nbd_server_send(fd, server->disk + request->offset, request->length);
	uint32_t step = server->fragment_bytes ? server->fragment_bytes : request->length;
	for (uint32_t end = request->length; end; end -= (uint32_t)min_u64(step, end)) {
		uint32_t size = (uint32_t)min_u64(step, end);
		if (!piece(server, fd, request, request->offset + end - size, size, !server->fragment_bytes))
			return false;
	}
	return !server->fragment_bytes || nbd_server_chunk(fd, request, true, NBD_REPLY_TYPE_NONE, NULL, 0);
}

bool nbd_server_answer(struct nbd_server *server, int fd, const struct nbd_server_request *request)
{
	if (server->error)
		return nbd_server_simple(fd, request, server->error);
	if (request->type == NBD_CMD_READ)
		return answer_read(server, fd, request);
	if (request->type == NBD_CMD_WRITE)
		memcpy(server->disk + request->offset, request->payload, request->length);
	if (request->type == NBD_CMD_WRITE_ZEROES || request->type == NBD_CMD_TRIM)
		memset(server->disk + request->offset, 0, request->length);
	server->flushes += request->type == NBD_CMD_FLUSH;
	return nbd_server_simple(fd, request, 0);
}

void nbd_server_serve(struct nbd_server *server, int fd)
{
	struct nbd_server_request *request = malloc(sizeof(*request));
	if (request && nbd_server_handshake(server, fd)) {
		while (nbd_server_take(server, fd, request) && nbd_server_answer(server, fd, request))
			;
	}
	free(request);
}

/* --- life ----------------------------------------------------------------------------------------------------- */

static void *run(void *arg)
{
	struct nbd_server *server = arg;
	int fd;
	while (!server->stopping && (fd = accept(server->listen_fd, NULL, NULL)) >= 0) {
		/* A test that went wrong ends all the same. */
		struct timeval limit = {.tv_sec = 10};
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		server->connection_fd = fd;
		unsigned number = server->connections++;
		if (server->script)
			server->script(server, fd, number);
		else
			nbd_server_serve(server, fd);
		server->connection_fd = -1;
		close(fd);
	}
	return NULL;
}

struct nbd_server *nbd_server_new(void)
{
	static unsigned count;
	struct nbd_server *server = calloc(1, sizeof(*server));
	if (!server)
		abort();
	server->size_bytes = NBD_SERVER_DISK;
	server->flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
	server->no_zeroes = true;
	server->min_block = 1;
	server->preferred_block = 4096;
	server->max_block = 1 << 25;
	server->connection_fd = -1;
	(void)snprintf(server->path, sizeof(server->path), "/tmp/vmlet-nbd-%d-%u", (int)getpid(), count++);
	(void)snprintf(server->address, sizeof(server->address), "unix:%s:disk", server->path);
	for (size_t i = 0; i < NBD_SERVER_DISK; i++)
		server->disk[i] = (uint8_t)(i / 512 % 5 ? i * 31 / 7 + i / 4096 : 0);
	return server;
}

void nbd_server_start(struct nbd_server *server)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, server->path, sizeof(addr.sun_path));
	unlink(server->path);
	server->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server->listen_fd < 0 || bind(server->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(server->listen_fd, 4) < 0 || pthread_create(&server->thread, NULL, run, server))
		abort();
}

void nbd_server_stop(struct nbd_server *server)
{
	server->stopping = true;
	shutdown(server->listen_fd, SHUT_RDWR);
	int fd = server->connection_fd;
	if (fd >= 0)
		shutdown(fd, SHUT_RDWR);
	pthread_join(server->thread, NULL);
	close(server->listen_fd);
	unlink(server->path);
	free(server);
}
