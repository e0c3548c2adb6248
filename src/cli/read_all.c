#include "cli/read_all.h"

#include <errno.h>
#include <unistd.h>

ssize_t read_all(int fd, char *ret_data, size_t max)
{
	size_t used = 0;

	while (used < max) {
		ssize_t n = read(fd, ret_data + used, max - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += (size_t)n;
	}
	return (ssize_t)used;
}
