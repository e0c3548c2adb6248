/*
 * A cursor over scattered memory: what of an iovec array has not been used yet.
 *
 * It borrows the array and never changes it. Where it ends is its user's business: no function goes past the array, and
 * none needs more than it holds.
 */
#pragma once

#include <stddef.h>
#include <sys/uio.h>

struct iovc {
	const struct iovec *iov; /* the first span that is not used up */
	unsigned count;          /* spans from there on */
	size_t skip_bytes;       /* used of the first one */
};

/* How many spans the next size_bytes lie in (fewer when there are fewer). [any] */
unsigned iovc_spans(const struct iovc *c, size_t size_bytes);

/* The next size_bytes as spans: fills at most `max` of them and returns how many. Empty spans are left out. [any] */
unsigned iovc_peek(const struct iovc *c, size_t size_bytes, struct iovec *ret_iov, unsigned max);

/* Go on by size_bytes, at most to the end. [any] */
void iovc_skip(struct iovc *c, size_t size_bytes);
