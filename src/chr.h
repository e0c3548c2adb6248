/*
 * A character back end: a stream of bytes out to the host and in from it, behind a serial port or console.
 *
 * Output. chr_write copies into a bounded queue and returns at once with what it took; the loop writes it
 * out. When it took less than all, the device keeps the rest and `writable` is called once there is room.
 * Input. The loop reads a block and offers it with `receive`; the device takes what fits and the rest waits
 * in the back end (which reads ahead until its block is full, so that a peer that leaves and the owner's escape
 * keys are seen also when a guest does not read) until the device calls chr_accept_input.
 * So neither side loses a byte, and neither grows without bound.
 * A tap sees all output too, also what has nowhere to go; what it has not seen stays in the queue.
 *
 * Lock order: the device's lock, then the back end's. Callbacks come on the loop thread with no lock held.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "log.h"
#include "loop.h"

struct chr;

/* The device's side. */
struct chr_client {
	size_t (*receive)(void *ctx, const uint8_t *data, size_t size_bytes); /* bytes taken, 0..size. [loop] */
	void (*writable)(void *ctx);                                          /* [loop] */
	void (*peer)(void *ctx, bool is_there); /* it came or went (chr_has_peer); may be NULL. [loop] */
	void *ctx;
};

/*
 * The owner's look at input before the guest sees it: may shorten or change `data` in place and returns the
 * new size (0..size_bytes). Used for escape keys. [loop]
 */
struct chr_filter {
	size_t (*input)(void *ctx, uint8_t *data, size_t size_bytes);
	void *ctx;
};

/* The owner's look at output: all of it, in order and once, before it is written; it may run the loop. [loop] */
struct chr_tap {
	void (*output)(void *ctx, const uint8_t *data, size_t size_bytes);
	void *ctx;
};

/* Constructors: NULL with `err` set. Descriptors passed in stay the caller's. `log` is borrowed. [setup] */
struct chr *chr_null_new(struct loop *loop, const struct log *log, struct err *err);
struct chr *chr_fd_new(struct loop *loop, const struct log *log, int in_fd, int out_fd, struct chr_filter filter,
		       struct err *err); /* -1: none */
/* The same for a program's standard streams: a reader that leaves early is not worth a line in the log. */
struct chr *chr_stream_new(struct loop *loop, const struct log *log, int in_fd, int out_fd, struct chr_filter filter,
			   struct err *err);
struct chr *chr_file_new(struct loop *loop, const struct log *log, const char *path,
			 struct err *err); /* created, truncated */
struct chr *chr_pty_new(struct loop *loop, const struct log *log, struct err *err);
struct chr *chr_unix_new(struct loop *loop, const struct log *log, const char *path,
			 struct err *err); /* listens; one peer at a time */

/* Stops and frees; waits for operations in flight by running the loop. [loop, or setup before it runs] */
void chr_free(struct chr *chr);

/* What a user needs to reach it ("/dev/pts/3", the socket's path), or NULL. */
const char *chr_path(const struct chr *chr);

/* Connect a device (NULL disconnects; input then waits, output is still written). [setup, loop] */
void chr_set_client(struct chr *chr, const struct chr_client *client);

/*
 * Is there somebody: a reader of the pseudo-terminal, a peer of the socket? Given descriptors are, until both their
 * ways have ended. Where output is simply discarded, or goes to a file (even a full one), there always is. One that has
 * left is there until the last of its input was received. The client is told of each change; how it is when it
 * connects, it asks. [any]
 */
bool chr_has_peer(const struct chr *chr);

/* Before the first output; `started` is called once when there is some (chr_first_output_ns). [setup; started: loop] */
void chr_set_tap(struct chr *chr, struct chr_tap tap);
void chr_on_output(struct chr *chr, void (*started)(void *ctx), void *ctx);

/* Queue up to size_bytes; returns how many were taken. [any] */
size_t chr_write(struct chr *chr, const uint8_t *data, size_t size_bytes);

/* How many bytes chr_write would take now; SIZE_MAX: any number, as they are discarded. [any] */
size_t chr_room(struct chr *chr);

/* When the first byte was written (CLOCK_MONOTONIC, 0: none was), and how many since. [any] */
uint64_t chr_first_output_ns(struct chr *chr);
uint64_t chr_output_bytes(struct chr *chr);

/* There is room again for input that `receive` refused. [any] */
void chr_accept_input(struct chr *chr);

/*
 * Input as if it had come from the back end, to be received before what comes from there. Returns how many bytes were
 * taken: at most 64 KiB wait. [loop, or setup before it runs]
 */
size_t chr_type(struct chr *chr, const uint8_t *data, size_t size_bytes);

/* The last byte of input was received, and no more can come. [any] */
bool chr_input_has_ended(struct chr *chr);

/*
 * Bytes taken by chr_write that are not out yet or that the tap has not seen; 0 also when they cannot go out any more.
 * [any]
 */
size_t chr_pending(struct chr *chr);
