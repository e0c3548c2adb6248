/* A VM's character back ends: its serial port, its debug console, and the streams of its stream port. They outlive a
 * guest's restart. */
#pragma once

#include "vmlet.h"

#include "chr.h"
#include "err.h"
#include "log.h"
#include "loop.h"

struct street {
	struct chr *serial, *debugcon;
	struct chr *in, *out, *err; /* NULL: no stream port */
};

/*
 * Open what `config`, which is checked, asks for. `serial_started` is called once when the serial port has output. 0,
 * or -errno with a sentence; street_close is due either way. [setup]
 */
int street_open(struct street *street, const struct vmlet_config *config, struct loop *loop, const struct log *log,
		void (*serial_started)(void *ctx), void *ctx, struct err *err);
void street_close(struct street *street); /* no device uses them any more */

/* Bytes of output that are on their way: all, and those of the streams. [any] */
size_t street_pending(const struct street *street);
size_t street_streams_pending(const struct street *street);
