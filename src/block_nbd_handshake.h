/*
 * The NBD handshake (fixed newstyle) as a machine that does no I/O: bytes in, bytes out.
 *
 * Whoever drives it sends what nbd_handshake_output holds; when that is empty it receives at most what
 * nbd_handshake_room asks for, and says with nbd_handshake_feed how much came. It never asks for a byte beyond the
 * handshake, so what follows is still in the socket. The set-up drives it with poll(), a reconnect with the loop, a
 * fuzzer with whatever it likes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block_nbd_proto.h"
#include "err.h"

/* What the server said of the export; sizes are checked against the specification. */
struct nbd_export {
	uint64_t size_bytes;
	uint16_t flags;           /* NBD_FLAG_...; 0 without NBD_FLAG_HAS_FLAGS */
	bool structured;          /* reads are answered in chunks */
	uint32_t min_block;       /* powers of two; 1 and 4096 when the server did not say */
	uint32_t preferred_block; /* at least min_block and 512 */
	uint32_t max_block;       /* UINT32_MAX: no limit */
};

struct nbd_handshake {
	struct nbd_export export; /* valid once nbd_handshake_feed returned 1 */
	const char *export_name;  /* borrowed */

	/* private */
	enum {
		NBD_EXPECT_GREETING,
		NBD_EXPECT_REPLY,
		NBD_EXPECT_PAYLOAD,
		NBD_EXPECT_OLD_EXPORT,
		NBD_EXPECT_NOTHING,
	} expects;
	uint32_t option, reply_type; /* what was asked, what is being answered */
	uint32_t payload_bytes;      /* of that answer */
	unsigned replies;
	bool no_zeroes, has_export;
	uint8_t in[512]; /* the beginning of what is expected; */
	size_t in_bytes, need_bytes;
	uint32_t skip_bytes; /* the rest of it goes here: */
	uint8_t skipped[256];
	uint8_t out[2 * NBD_OPTION_SIZE + NBD_NAME_MAX + 16];
	size_t out_begin, out_end;
};

void nbd_handshake_init(struct nbd_handshake *handshake, const char *export_name);

const void *nbd_handshake_output(const struct nbd_handshake *handshake, size_t *ret_bytes);
void nbd_handshake_sent(struct nbd_handshake *handshake, size_t bytes);

/* Where the next bytes go; at least one until the end. */
void *nbd_handshake_room(struct nbd_handshake *handshake, size_t *ret_bytes);

/* `bytes` came into the room. 1: the handshake is done; 0: it goes on; -errno with a sentence. */
int nbd_handshake_feed(struct nbd_handshake *handshake, size_t bytes, struct err *err);

/* The server closed the connection: -ECONNRESET with what that may mean here. */
int nbd_handshake_closed(const struct nbd_handshake *handshake, struct err *err);
