/*
 * Inside virtio-console: the device and the ports' input (console.c), their output (console_output.c), the control
 * queues (console_control.c). The device's lock is held, where nothing else is said.
 */
#pragma once

#include <linux/virtio_console.h>

#include "rate_limit.h"
#include "virtio/console.h"
#include "virtio/console_status.h"

enum { CONSOLE_PORTS_MAX = VIRTIO_CONSOLE_PORTS_MAX + 1 };

/* What a port still has to tell its driver, in this order: one bit each, so that nothing ever queues up. */
enum console_message {
	CONSOLE_SAYS_ADD = 1 << 0,
	CONSOLE_SAYS_CONSOLE = 1 << 1,
	CONSOLE_SAYS_NAME = 1 << 2,
	CONSOLE_SAYS_SIZE = 1 << 3,
	CONSOLE_SAYS_CLOSED = 1 << 4, /* and then perhaps open again: the driver is to see that it was closed */
	CONSOLE_SAYS_OPEN = 1 << 5,
};

/* One direction of a port, and its rate. */
struct console_way {
	struct rate_limit limit;
	struct loop_timer timer; /* until what was too much may pass */
};

struct console_port {
	struct virtio_console *console;
	unsigned index;
	char name[VIRTIO_CONSOLE_NAME_MAX]; /* "": a console */
	struct chr *chr;                    /* NULL: the status port */
	uint16_t rows, columns;
	struct console_way input, output;

	/* Since the last reset. */
	bool is_ready; /* the driver knows it */
	bool is_open;  /* somebody in the guest takes its input */
	uint8_t says;  /* enum console_message */
	size_t sent;   /* bytes of the chain that is next in its transmit queue */
	bool paid;     /* that chain has been counted in the rate */

	/* A console whose back end is full. */
	struct loop_timer patience_timer;
	unsigned patience; /* steps until what there is no room for is dropped; 0: patience_timer is not armed */
	bool drops;
};

struct virtio_console {
	struct virtio_device dev;
	struct guest_event_sink events;
	struct console_status status;
	bool has_ended;      /* the guest has said so on the status port, since the last reset */
	unsigned port_count; /* the status port, which is the last one, included */
	struct console_port ports[CONSOLE_PORTS_MAX];
};

static inline bool console_port_is_console(const struct console_port *port)
{
	return port->name[0] == '\0';
}

static inline bool console_is_multiport(const struct virtio_console *console)
{
	return virtio_has_feature(&console->dev, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* 5.3.2: the control queues lie between port 0's and port 1's. */
static inline unsigned console_input_queue(const struct console_port *port)
{
	return port->index == 0 ? 0 : 2 * port->index + 2;
}

static inline unsigned console_output_queue(const struct console_port *port)
{
	return console_input_queue(port) + 1;
}

/* May so many bytes pass now? Yes, and they are counted; or else the way's timer fires when they may. */
bool console_way_passes(struct console_port *port, struct console_way *way, size_t size_bytes);

void console_output_init(struct console_port *port);
void console_output_serve(struct console_port *port);

/* The back end takes output again. [loop; takes the lock] */
void console_output_writable(struct console_port *port);

/* The chain that is next in the transmit queue will be another. */
void console_output_forget(struct console_port *port);

void console_output_end_patience(struct console_port *port);

/* The driver serves its control queues: they are the ones behind those of port 0 (5.3.2). */
enum { CONSOLE_CONTROL_IN = 2, CONSOLE_CONTROL_OUT = 3 };

void console_control_serve(struct virtio_console *console, unsigned queue);

/* This is to be told, as soon as the driver gives a buffer. */
void console_control_tell(struct console_port *port, uint8_t says);

/* Input may be offered to it again. */
void console_port_opened(struct console_port *port);
