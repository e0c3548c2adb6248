/*
 * virtio-console (virtio 1.3, 5.3), multiport: consoles (hvc0, hvc1, ...) and named ports (/dev/virtio-ports/NAME),
 * each over a character back end.
 *
 * What a back end does not take waits in the guest, and input waits in the back end until the guest has opened the port
 * and given buffers: nothing is lost, and nothing grows. A port whose peer is away is closed for its driver (Linux then
 * holds writers up); what is written to it all the same is dropped, as is what is written to a console without a
 * reader. A driver that knows one port only (without MULTIPORT) has the first console.
 *
 * The port named org.vmlet.status is the device's own and always there: a decimal number from 0 to 255 and a newline
 * written to it end the VM with that status, as the debug-exit port does (docs/status-port.md).
 */
#pragma once

#include "chr.h"
#include "err.h"
#include "gmem.h"
#include "guest_event.h"
#include "log.h"
#include "loop.h"
#include "rate_limit.h"
#include "virtio/virtio.h"

enum {
	VIRTIO_CONSOLE_PORTS_MAX = 14, /* and the status port: two queues each, two for control */
	VIRTIO_CONSOLE_NAME_MAX = 64,  /* bytes with the NUL */
};

#define VIRTIO_CONSOLE_STATUS_PORT "org.vmlet.status"

struct virtio_console_port {
	const char *name;               /* NULL: a console; consoles come before named ports. Copied */
	struct chr *chr;                /* borrowed, outlives the device */
	uint16_t rows, columns;         /* a console's; 0: not known */
	struct rate_limit_config limit; /* each way; only its bytes count */
};

struct virtio_console_init {
	const struct virtio_console_port *ports; /* copied */
	unsigned port_count;                     /* 0 to VIRTIO_CONSOLE_PORTS_MAX; 0: the status port alone */
	bool packed;
	struct guest_event_sink events;
};

/* NULL with `err` set. [setup] */
struct virtio_device *virtio_console_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
					 const struct virtio_console_init *init, struct err *err);

/* The terminal behind console `port` has another size. [loop] */
void virtio_console_set_size(struct virtio_device *dev, unsigned port, uint16_t rows, uint16_t columns);
