/* Bytes in scattered memory: what a chain of a virtqueue, or a request to a back end, is made of. Pure. [any] */
#pragma once

#include <stddef.h>
#include <sys/uio.h>

/* Copy up to size_bytes from (to) the spans, beginning `skip_bytes` into them; returns how many were copied. */
size_t iov_read(const struct iovec *iov, unsigned count, size_t skip_bytes, void *ret_data, size_t size_bytes);
size_t iov_write(const struct iovec *iov, unsigned count, size_t skip_bytes, const void *data, size_t size_bytes);

/*
 * The part [skip, skip + size) of the spans, as spans: fills at most `max` of `ret_iov`, and returns how many.
 * What lies beyond their end is left out. `ret_iov` may be `iov`.
 */
unsigned iov_slice(const struct iovec *iov, unsigned count, size_t skip_bytes, size_t size_bytes, struct iovec *ret_iov,
		   unsigned max);
