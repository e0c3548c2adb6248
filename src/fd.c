#include "fd.h"

#include <errno.h>
#include <unistd.h>

void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int fd_pread_all(int fd, void *ret_data, size_t size_bytes, uint64_t offset)
{
	uint8_t *data = ret_data;
	while (size_bytes) {
		ssize_t got = pread(fd, data, size_bytes, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ENODATA;
		data += got;
		offset += (uint64_t)got;
		size_bytes -= (size_t)got;
	}
	return 0;
}
