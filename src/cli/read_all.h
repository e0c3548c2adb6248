/* Reading a file to its end, or as far as a limit. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* At most `max` bytes, fewer at the end of the file: how many, or -errno. */
ssize_t read_all(int fd, char *ret_data, size_t max);
