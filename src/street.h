/* A VM's character back ends: its serial port, its debug console, its virtio consoles and ports, and the streams of its
 * stream port. They outlive a guest's restart. */
#pragma once

#include "vmlet.h"

#include "chr.h"
#include "err.h"
#include "log.h"
#include "loop.h"
#include "virtio/console.h"

struct street {
	struct chr *serial, *debugcon;
	struct chr *in, *out, *err; /* NULL: no stream port */
	unsigned console_count;
	struct virtio_console_port *consoles; /* as the board wants them: consoles first, then ports */
	unsigned *console_ports;              /* by the numbers of the configuration: where in `consoles` */
};

/*
 * Open what `config`, which is checked, asks for. `started` is called once for each console when it has output, the
 * serial port's too. 0, or -errno with a sentence; street_close is due either way. [setup]
 */
int street_open(struct street *street, const struct vmlet_config *config, struct loop *loop, const struct log *log,
		void (*started)(void *ctx), void *ctx, struct err *err);
void street_close(struct street *street); /* no device uses them any more */

/* The back end of config.consoles[console], or of the serial port (VMLET_SERIAL_PORT); NULL: there is none. */
struct chr *street_console(const struct street *street, int console);

/* When the first byte of output of the serial port or a console was written (0: none was), and how many were. [any] */
uint64_t street_first_output_ns(const struct street *street);
uint64_t street_output_bytes(const struct street *street);

/* Bytes of output that are on their way: all, and those of the streams. [any] */
size_t street_pending(const struct street *street);
size_t street_streams_pending(const struct street *street);
