#include "virtio/iov.h"

#include <stdint.h>
#include <string.h>

#include "util.h"

/* A place in the spans: the next step is at most what is left of the span it stands in. */
struct cursor {
	const struct iovec *span;
	unsigned left; /* spans, with this one */
	size_t offset_bytes;
};

static struct cursor cursor_at(const struct iovec *iov, unsigned count, size_t skip_bytes)
{
	struct cursor c = {iov, count, skip_bytes};
	while (c.left && c.offset_bytes >= c.span->iov_len) {
		c.offset_bytes -= c.span->iov_len;
		c.span++;
		c.left--;
	}
	return c;
}

/* The next piece, at most max_bytes; empty only at the end (or for max_bytes 0). */
static struct iovec cursor_take(struct cursor *c, size_t max_bytes)
{
	if (!c->left)
		return (struct iovec){NULL, 0};

	size_t size = (size_t)min_u64(max_bytes, c->span->iov_len - c->offset_bytes);
	struct iovec piece = {(uint8_t *)c->span->iov_base + c->offset_bytes, size};
	*c = cursor_at(c->span, c->left, c->offset_bytes + size);
	return piece;
}

size_t iov_read(const struct iovec *iov, unsigned count, size_t skip_bytes, void *ret_data, size_t size_bytes)
{
	struct cursor c = cursor_at(iov, count, skip_bytes);
	size_t done = 0;
	while (done < size_bytes && c.left) {
		struct iovec from = cursor_take(&c, size_bytes - done);
		memcpy((uint8_t *)ret_data + done, from.iov_base, from.iov_len);
		done += from.iov_len;
	}
	return done;
}

size_t iov_write(const struct iovec *iov, unsigned count, size_t skip_bytes, const void *data, size_t size_bytes)
{
	struct cursor c = cursor_at(iov, count, skip_bytes);
	size_t done = 0;
	while (done < size_bytes && c.left) {
		struct iovec to = cursor_take(&c, size_bytes - done);
		memcpy(to.iov_base, (const uint8_t *)data + done, to.iov_len);
		done += to.iov_len;
	}
	return done;
}

unsigned iov_slice(const struct iovec *iov, unsigned count, size_t skip_bytes, size_t size_bytes, struct iovec *ret_iov)
{
	struct cursor c = cursor_at(iov, count, skip_bytes);
	unsigned slices = 0;
	while (size_bytes && c.left) {
		struct iovec piece = cursor_take(&c, size_bytes);
		ret_iov[slices++] = piece;
		size_bytes -= piece.iov_len;
	}
	return slices;
}
