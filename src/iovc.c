#include "iovc.h"

#include <stdint.h>

#include "util.h"

unsigned iovc_spans(const struct iovc *c, size_t size_bytes)
{
	unsigned spans = 0;
	size_t skip_bytes = c->skip_bytes;
	for (unsigned i = 0; i < c->count && size_bytes; i++) {
		size_t take = min_u64(c->iov[i].iov_len - skip_bytes, size_bytes);
		spans += take > 0;
		size_bytes -= take;
		skip_bytes = 0;
	}
	return spans;
}

unsigned iovc_peek(const struct iovc *c, size_t size_bytes, struct iovec *ret_iov, unsigned max)
{
	unsigned spans = 0;
	size_t skip_bytes = c->skip_bytes;
	for (unsigned i = 0; i < c->count && size_bytes && spans < max; i++) {
		size_t take = min_u64(c->iov[i].iov_len - skip_bytes, size_bytes);
		if (take)
			ret_iov[spans++] = (struct iovec){(uint8_t *)c->iov[i].iov_base + skip_bytes, take};
		size_bytes -= take;
		skip_bytes = 0;
	}
	return spans;
}

void iovc_skip(struct iovc *c, size_t size_bytes)
{
	while (c->count && size_bytes >= c->iov->iov_len - c->skip_bytes) {
		size_bytes -= c->iov->iov_len - c->skip_bytes;
		c->iov++;
		c->count--;
		c->skip_bytes = 0;
	}
	if (c->count)
		c->skip_bytes += size_bytes;
}
