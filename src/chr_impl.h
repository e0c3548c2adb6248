/*
 * Inside the chr family: the byte pump (chr.c), the queue of its output (chr_queue.c) and the ways to get connected
 * (chr_open.c).
 *
 * A chr is connected while it has descriptors to move bytes through. While it is not, output is discarded,
 * as it is by a serial port with no cable. chr.c calls `lost` (on the loop, nothing in flight any more) when
 * the peer goes away; the policy then waits for another and calls chr_connect.
 */
#pragma once

#include <pthread.h>

#include "chr.h"
#include "fd.h"

enum {
	CHR_QUEUE_SIZE = 1 << 20, /* output; touched only as far as it fills */
	CHR_TYPED_SIZE = 1 << 16, /* the same */
	CHR_INPUT_SIZE = 4096,
	CHR_MEMORY_SIZE = CHR_QUEUE_SIZE + CHR_TYPED_SIZE + CHR_INPUT_SIZE,
};

struct chr_policy {
	void (*lost)(struct chr *chr);  /* NULL: the end is final. [loop] */
	void (*close)(struct chr *chr); /* free what the policy holds; NULL: nothing. [loop] */
	bool closes_fds;                /* in_fd and out_fd are ours */
	bool is_sink;                   /* takes output whatever becomes of it: a peer that never leaves */
	bool is_stream;                 /* a program's: a reader that leaves early is nothing to talk about */
};

struct chr {
	const struct chr_policy *policy;
	struct loop *loop;
	const struct log *log;
	struct log_limit limit;
	char *path;
	struct chr_filter filter;
	struct chr_client client;
	struct chr_tap tap; /* these are set before anything is written */
	void (*started)(void *ctx);
	void *started_ctx;

	/* The street. [loop] */
	int in_fd, out_fd; /* -1: that way is closed */
	bool closing, losing;
	struct loop_op read_op, write_op;
	bool read_polls, write_polls; /* the op is a poll: the descriptor is O_NONBLOCK and said EAGAIN */
	struct loop_task write_task, input_task;
	uint8_t *input;
	size_t input_from, input_to; /* [from, to): read, not yet taken by the device; a read in flight appends */
	uint8_t *typed;
	size_t typed_from, typed_to; /* [from, to): by chr_type, goes before the input */
	_Atomic bool input_waits, input_ended;
	_Atomic bool has_peer; /* as the device was told */
	bool tapping, announced;

	/* The queue. */
	pthread_mutex_t mutex;
	uint8_t *queue;
	size_t queue_head, queue_used;
	size_t queue_tapped; /* of these, from the head, the tap has seen so many */
	uint64_t first_output_ns, output_bytes;
	bool connected; /* output has somewhere to go */
	bool starved;   /* the device was refused room */

	/* Policy state. */
	int listen_fd;
	struct loop_op accept_op;
	struct loop_timer retry_timer;
};

/* Both take descriptors that the policy owns or borrowed; -1 for a missing way. [setup, loop] */
void chr_connect(struct chr *chr, int in_fd, int out_fd);

struct chr *chr_alloc(struct loop *loop, const struct log *log, const struct chr_policy *policy, struct err *err);

/* --- the queue (chr_queue.c) [loop] ------------------------------------------------------------------------------ */

/* Does output have somewhere to go? */
bool chr_has_output(struct chr *chr);

/*
 * The first contiguous run of what the tap has not seen yet (tapped: of what may be written out), counted from the
 * queue's head; it stays put. Returns its size in bytes.
 */
size_t chr_first_run(struct chr *chr, bool tapped, const uint8_t **ret_run);

/* So many bytes are out (drop: all that may be dropped): a device that was refused room is told. */
void chr_dequeue(struct chr *chr, size_t size_bytes);
void chr_drop_output(struct chr *chr);
