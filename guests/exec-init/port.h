/* The stream port (docs/stream-port.md) and the debug-exit port, once this process may use them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum port_stream { PORT_OUT = 1, PORT_ERR = 2 };

/* 0, or -errno: the kernel does not let us; -ENODEV: there is no such port. */
long port_open(void);

/* For a process that got our right to use them by inheritance and must not have it. */
void port_renounce(void);

/* How many of the bytes were taken, 0 to `size_bytes`, or -EPIPE: nobody will ever read them. */
long port_write(enum port_stream stream, const void *data, size_t size_bytes);

/* Waits until all of it is taken, or nobody reads. */
void port_write_all(enum port_stream stream, const char *data, size_t size_bytes);

/* How many bytes of input came, at most `size_bytes`. */
size_t port_read(void *data, size_t size_bytes);

struct port_status {
	bool input_ended;  /* and all of it was read */
	bool size_changed; /* since port_size */
};
struct port_status port_status(void);

/* Rows << 16 and columns of the terminal. */
uint32_t port_size(void);

/* Ends the VM; returns when there is no such port. */
void port_exit(uint8_t status);
