/*
 * In place of guests/exec-init/port.c, for the benchmark `exec`: the same init under a VMM without a stream port.
 * Output goes to the console, there is no input, and the status goes to the debug-exit port by /dev/port.
 */
#include "port.h"

#include <asm/fcntl.h>

#include "sys.h"

enum { DEBUG_EXIT_PORT = 0xf4 };

long port_open(void)
{
	return 0;
}

void port_renounce(void)
{
}

long port_write(enum port_stream stream, const void *data, size_t size_bytes)
{
	return SYS_3(write, stream, data, size_bytes);
}

void port_write_all(enum port_stream stream, const char *data, size_t size_bytes)
{
	(void)port_write(stream, data, size_bytes);
}

size_t port_read(void *data, size_t size_bytes)
{
	(void)data;
	(void)size_bytes;
	return 0;
}

struct port_status port_status(void)
{
	return (struct port_status){.input_ended = true};
}

uint32_t port_size(void)
{
	return 0;
}

void port_exit(uint8_t status)
{
	long fd = SYS_3(open, "/dev/port", O_RDWR | O_CLOEXEC, 0);

	SYS_4(pwrite64, fd, &status, 1, DEBUG_EXIT_PORT);
}
