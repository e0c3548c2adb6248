/*
 * The stream port (docs/stream-port.md): standard input and two outputs for a program in the guest that needs no
 * driver, only the right to use I/O ports. Everything is polled.
 */
#pragma once

#include "chr.h"
#include "device.h"
#include "err.h"

enum {
	STREAM_PORT_SIZE = 16,
	STREAM_PORT_COLLECTED = 4,    /* writes to the first so many may come late, but in order and before any read */
	STREAM_PORT_BUFFER = 1 << 16, /* input read ahead, and the most that ROOM says */
};

/* Where the bytes go and come from; borrowed, they outlive the device. */
struct stream_port_config {
	struct chr *in, *out, *err;
	uint16_t rows, columns; /* 0: not a terminal */
};

/* NULL with `err` set. [setup] */
struct device *stream_port_new(const struct stream_port_config *config, struct err *err);

/* The terminal has another size. [any] */
void stream_port_set_size(struct device *dev, uint16_t rows, uint16_t columns);
