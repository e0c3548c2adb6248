/*
 * The control queues (virtio 1.3, 5.3.6.2): the driver learns which ports there are, what they are called, how large a
 * console is and who is there; and it says when it is ready for a port and when somebody has opened one.
 *
 * What has to be said is kept as one bit per port and message, and composed when the driver gives a buffer: its
 * contents are those of that moment. So a driver that gives no buffers costs nothing, however often a terminal changes
 * its size.
 */
#include <linux/virtio_console.h>
#include <string.h>

#include "virtio/console_impl.h"

/*
 * 5.3.6.2. Linux had it the other way round from 2.6.35 on, and has it so since 5326ab737a47 (2025; Debian's 6.1.192
 * and 6.12.95 too). Nothing in the protocol tells one from the other.
 */
struct virtio_console_resize {
	uint16_t columns, rows;
};

struct message {
	struct virtio_console_control head;
	union {
		struct virtio_console_resize size;
		char name[VIRTIO_CONSOLE_NAME_MAX];
	} body;
};

/* --- to the driver ---------------------------------------------------------------------------------------------- */

static struct console_port *find_speaker(struct virtio_console *console)
{
	for (unsigned i = 0; i < console->port_count; i++) {
		if (console->ports[i].says)
			return &console->ports[i];
	}
	return NULL;
}

/* Returns the message's size in bytes. */
static size_t compose(const struct console_port *port, uint8_t what, struct message *ret_message)
{
	struct virtio_console_control *head = &ret_message->head;
	head->id = port->index;
	head->value = 1;
	switch (what) {
	case CONSOLE_SAYS_ADD:
		head->event = VIRTIO_CONSOLE_PORT_ADD;
		break;
	case CONSOLE_SAYS_CONSOLE:
		head->event = VIRTIO_CONSOLE_CONSOLE_PORT;
		break;
	case CONSOLE_SAYS_NAME: /* without its NUL */
		head->event = VIRTIO_CONSOLE_PORT_NAME;
		memcpy(ret_message->body.name, port->name, sizeof(port->name));
		return sizeof(*head) + strlen(port->name);
	case CONSOLE_SAYS_SIZE:
		head->event = VIRTIO_CONSOLE_RESIZE;
		ret_message->body.size = (struct virtio_console_resize){port->columns, port->rows};
		return sizeof(*head) + sizeof(ret_message->body.size);
	default:
		head->event = VIRTIO_CONSOLE_PORT_OPEN;
		head->value = what == CONSOLE_SAYS_OPEN;
		break;
	}
	return sizeof(*head);
}

/* A name that the buffer has no room for is cut. */
static void say_next(struct console_port *port, const struct virtq_chain *chain)
{
	struct virtio_device *dev = &port->console->dev;
	struct message message = {0};
	uint8_t what = port->says & (uint8_t)-port->says;
	if (chain->in_bytes < sizeof(message.head)) {
		virtio_break(dev, "queue %d: a buffer without room for a message", CONSOLE_CONTROL_IN);
		virtio_push(dev, CONSOLE_CONTROL_IN, chain, 0);
		return;
	}
	size_t size = compose(port, what, &message);
	port->says &= (uint8_t)~what;
	size = iov_write(chain->iov + chain->out_count, chain->in_count, 0, &message, size);
	virtio_push(dev, CONSOLE_CONTROL_IN, chain, (uint32_t)size);
}

static void say_all(struct virtio_console *console)
{
	struct console_port *port;
	struct virtq_chain chain;
	while ((port = find_speaker(console)) && virtio_pop(&console->dev, CONSOLE_CONTROL_IN, &chain) == 1)
		say_next(port, &chain);
}

void console_control_tell(struct console_port *port, uint8_t says)
{
	port->says |= says;
	say_all(port->console);
}

/* --- from the driver -------------------------------------------------------------------------------------------- */

static void complain(struct virtio_console *console, const char *what, uint32_t id)
{
	(void)log_guest(console->dev.log, &console->dev.log_limit, "virtio-console: %s (port %d)", what, (int)id);
}

/* Also a second time: a driver that has slept asks again, and answers with PORT_READY for each. */
static void device_ready(struct virtio_console *console, uint16_t value)
{
	if (!value) {
		complain(console, "the guest's driver could not take the device", VIRTIO_CONSOLE_BAD_ID);
		return;
	}
	for (unsigned i = 0; i < console->port_count; i++)
		console->ports[i].says |= CONSOLE_SAYS_ADD;
}

/* A console is never closed: what is written to it without a peer is dropped, as by a serial port. */
static uint8_t describe(const struct console_port *port)
{
	if (!console_port_is_console(port))
		return CONSOLE_SAYS_NAME | (!port->chr || chr_has_peer(port->chr) ? CONSOLE_SAYS_OPEN : 0);
	bool has_size = port->rows && port->columns;
	bool wants_size = virtio_has_feature(&port->console->dev, VIRTIO_CONSOLE_F_SIZE);
	return CONSOLE_SAYS_CONSOLE | (has_size && wants_size ? CONSOLE_SAYS_SIZE : 0) | CONSOLE_SAYS_OPEN;
}

static void port_ready(struct console_port *port, uint16_t value)
{
	port->is_ready = value;
	if (value) {
		port->says |= describe(port);
		return;
	}
	port->is_open = false;
	complain(port->console, "the guest's driver could not take the port", port->index);
}

/* Half a line of a writer that has left is not the beginning of the next one's. */
static void port_open(struct console_port *port, uint16_t value)
{
	port->is_open = value;
	if (!value)
		return;
	if (!port->chr)
		port->console->status = (struct console_status){0};
	console_port_opened(port);
}

static void handle(struct virtio_console *console, const struct virtio_console_control *message)
{
	if (message->event == VIRTIO_CONSOLE_DEVICE_READY) {
		device_ready(console, message->value);
		return;
	}
	if (message->id >= console->port_count) {
		complain(console, "a message about a port that there is not", message->id);
		return;
	}
	struct console_port *port = &console->ports[message->id];
	if (message->event == VIRTIO_CONSOLE_PORT_READY)
		port_ready(port, message->value);
	else if (message->event == VIRTIO_CONSOLE_PORT_OPEN)
		port_open(port, message->value);
	else
		complain(console, "a message that no driver sends", message->id);
}

/* What is longer than a message may be one of a later version. */
static void listen_to_driver(struct virtio_console *console)
{
	struct virtq_chain chain;
	struct virtio_console_control message;
	while (virtio_pop(&console->dev, CONSOLE_CONTROL_OUT, &chain) == 1) {
		if (iov_read(chain.iov, chain.out_count, 0, &message, sizeof(message)) == sizeof(message))
			handle(console, &message);
		else
			complain(console, "a message that is too short", VIRTIO_CONSOLE_BAD_ID);
		virtio_push(&console->dev, CONSOLE_CONTROL_OUT, &chain, 0);
	}
	say_all(console);
}

void console_control_serve(struct virtio_console *console, unsigned queue)
{
	if (queue == CONSOLE_CONTROL_IN)
		say_all(console);
	else
		listen_to_driver(console);
}
