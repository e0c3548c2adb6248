/*
 * The NBD protocol's numbers, named as in its specification (the reference implementation's doc/proto.md), and its
 * byte order, which is big-endian.
 */
#pragma once

#include <stdint.h>

static const uint64_t NBD_MAGIC = 0x4e42444d41474943;          /* "NBDMAGIC" */
static const uint64_t NBD_OPTS_MAGIC = 0x49484156454f5054;     /* "IHAVEOPT" */
static const uint64_t NBD_OLDSTYLE_MAGIC = 0x00420281861253;   /* "cliserv" */
static const uint64_t NBD_REP_MAGIC = 0x0003e889045565a9;      /* begins each reply to an option */
static const uint32_t NBD_REQUEST_MAGIC = 0x25609513;          /* begins each request */
static const uint32_t NBD_SIMPLE_REPLY_MAGIC = 0x67446698;     /* begins each simple reply */
static const uint32_t NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef; /* begins each chunk of a structured reply */

/* Handshake flags (server), and client flags. */
enum {
	NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_NO_ZEROES = 1 << 1,
};

enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
};

enum {
	NBD_REP_ACK = 1,
	NBD_REP_INFO = 3,
};

/* Replies that refuse an option have the highest bit. */
static const uint32_t NBD_REP_FLAG_ERROR = 1U << 31;
static const uint32_t NBD_REP_ERR_UNSUP = 1U << 31 | 1;
static const uint32_t NBD_REP_ERR_POLICY = 1U << 31 | 2;
static const uint32_t NBD_REP_ERR_INVALID = 1U << 31 | 3;
static const uint32_t NBD_REP_ERR_PLATFORM = 1U << 31 | 4;
static const uint32_t NBD_REP_ERR_TLS_REQD = 1U << 31 | 5;
static const uint32_t NBD_REP_ERR_UNKNOWN = 1U << 31 | 6;
static const uint32_t NBD_REP_ERR_SHUTDOWN = 1U << 31 | 7;
static const uint32_t NBD_REP_ERR_BLOCK_SIZE_REQD = 1U << 31 | 8;

enum {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_BLOCK_SIZE = 3,
};

/* Transmission flags: what the export can do. */
enum {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
};

enum {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_WRITE_ZEROES = 6,
};

enum { NBD_CMD_FLAG_NO_HOLE = 1 << 1 };

enum { NBD_REPLY_FLAG_DONE = 1 << 0 };

enum {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_FLAG_ERROR = 1 << 15,
	NBD_REPLY_TYPE_ERROR = NBD_REPLY_FLAG_ERROR | 1,
	NBD_REPLY_TYPE_ERROR_OFFSET = NBD_REPLY_FLAG_ERROR | 2,
};

/* Error values of replies. */
enum {
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* Sizes on the wire, in bytes. */
enum {
	NBD_GREETING_SIZE = 18,
	NBD_OPTION_SIZE = 16,
	NBD_OPTION_REPLY_SIZE = 20,
	NBD_OLD_EXPORT_SIZE = 10, /* the answer to NBD_OPT_EXPORT_NAME, and 124 zeroes if they were not waived */
	NBD_OLD_EXPORT_ZEROES = 124,
	NBD_REQUEST_SIZE = 28,
	NBD_SIMPLE_REPLY_SIZE = 16,
	NBD_CHUNK_SIZE = 20,
	NBD_NAME_MAX = 1024, /* ours; the specification allows 4096 */
};

static inline uint16_t nbd_load16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t nbd_load32(const uint8_t *p)
{
	return (uint32_t)nbd_load16(p) << 16 | nbd_load16(p + 2);
}

static inline uint64_t nbd_load64(const uint8_t *p)
{
	return (uint64_t)nbd_load32(p) << 32 | nbd_load32(p + 4);
}

static inline uint8_t *nbd_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

static inline uint8_t *nbd_put32(uint8_t *p, uint32_t v)
{
	return nbd_put16(nbd_put16(p, (uint16_t)(v >> 16)), (uint16_t)v);
}

static inline uint8_t *nbd_put64(uint8_t *p, uint64_t v)
{
	return nbd_put32(nbd_put32(p, (uint32_t)(v >> 32)), (uint32_t)v);
}
