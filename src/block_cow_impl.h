/*
 * Inside a copy-on-write overlay; block_cow.c says how it works. A request (cow_io) has parts (cow_part): operations on
 * the overlay's file, and reads of the base. Everything here is for the block's loop thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "block.h"
#include "block_cow_flush.h"
#include "block_cow_lock.h"
#include "block_cow_map.h"
#include "iovc.h"
#include "log.h"
#include "loop.h"

enum cow_part_kind {
	COW_PART_BASE, /* read the base */
	COW_PART_FILL, /* read the base, then write that to the file: becomes a COW_PART_WRITE */
	COW_PART_READ,
	COW_PART_WRITE,
	COW_PART_PUNCH, /* a hole, which reads as zeroes */
};

enum { COW_REST_SPANS = 8 };

struct cow_part {
	struct cow_io *io;
	struct cow_part *next; /* of its io's */
	struct cow_part *next_stalled;
	enum cow_part_kind kind;
	unsigned retries;
	uint64_t offset_bytes; /* on the disk; it and size_bytes are what is left of the part */
	uint64_t size_bytes;
	const struct iovec *iov;
	unsigned iov_count;
	struct iovc rest; /* READ, WRITE: what is left of the spans */
	struct iovec rest_iov[COW_REST_SPANS];
	struct loop_op op;
	struct block_request base;
	struct iovec own[]; /* when the spans are not the request's; and behind them a fill's buffer */
};

struct cow_io {
	struct cow *cow;
	struct block_request *request;
	struct cow_io *next; /* idle, or ended */
	struct cow_lock lock;
	bool locked;
	bool cancelled;
	bool ending;         /* nothing is left to wait for */
	int error;           /* the first, or 0 */
	unsigned part_count; /* those under way, and one for who still looks at it */
	struct cow_part *parts;
	uint64_t at_bytes; /* READ: from here on there are no parts yet */
	struct iovc at;
	struct cow_part whole; /* for what is as long as the request; last, because of its flexible array */
};

struct cow {
	struct block block;
	struct block *base;
	struct cow_map map;
	struct cow_flush flush;
	struct cow_locks locks;
	int file; /* the map's descriptor, for loop operations; -1: none yet */
	struct cow_io *idle;
	struct cow_io *ended; /* those that ended where `done` must not be called */
	struct loop_task ended_task;
	struct cow_part *stalled; /* waiting for room in the ring */
	struct loop_task stalled_task;
	const struct log *log;
	struct log_limit error_limit;
	char *name; /* for messages */
};

/* The part that is the whole request: uses the request's own spans. */
struct cow_part *cow_part_whole(struct cow_io *io, enum cow_part_kind kind);

/* Another, with room for `spans` iovecs and extra_bytes behind them; the caller fills it. NULL: no memory. */
struct cow_part *cow_part_new(struct cow_io *io, unsigned spans, size_t extra_bytes);

/* Takes it; cow_io_part_done comes later. NULL (no memory) makes the io fail. */
void cow_part_start(struct cow_io *io, struct cow_part *part);

/* Ask for the end of all that is under way. The caller holds one of the io's part_count. */
void cow_part_cancel_all(struct cow_io *io);

/* stalled_task: try again. */
void cow_part_run_stalled(struct loop_task *task);

/* The io fails, unless it has already. */
void cow_io_fail(struct cow_io *io, int error);

/* A part has ended, and is gone; part_count still counts it. The io may end by this, and the block after it. */
void cow_io_part_done(struct cow_io *io, int res);
