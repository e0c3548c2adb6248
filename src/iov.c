#include "iov.h"

#include <stdint.h>
#include <string.h>

#include "iovc.h"

static struct iovc cursor_at(const struct iovec *iov, unsigned count, size_t skip_bytes)
{
	struct iovc c = {iov, count, 0};
	iovc_skip(&c, skip_bytes);
	return c;
}

size_t iov_read(const struct iovec *iov, unsigned count, size_t skip_bytes, void *ret_data, size_t size_bytes)
{
	struct iovc c = cursor_at(iov, count, skip_bytes);
	size_t done = 0;
	for (struct iovec from; iovc_peek(&c, size_bytes - done, &from, 1); iovc_skip(&c, from.iov_len)) {
		memcpy((uint8_t *)ret_data + done, from.iov_base, from.iov_len);
		done += from.iov_len;
	}
	return done;
}

size_t iov_write(const struct iovec *iov, unsigned count, size_t skip_bytes, const void *data, size_t size_bytes)
{
	struct iovc c = cursor_at(iov, count, skip_bytes);
	size_t done = 0;
	for (struct iovec to; iovc_peek(&c, size_bytes - done, &to, 1); iovc_skip(&c, to.iov_len)) {
		memcpy(to.iov_base, (const uint8_t *)data + done, to.iov_len);
		done += to.iov_len;
	}
	return done;
}

unsigned iov_slice(const struct iovec *iov, unsigned count, size_t skip_bytes, size_t size_bytes, struct iovec *ret_iov,
		   unsigned max)
{
	struct iovc c = cursor_at(iov, count, skip_bytes);
	return iovc_peek(&c, size_bytes, ret_iov, max);
}
