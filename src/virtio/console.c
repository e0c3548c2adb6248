/*
 * The ports' input, and the device.
 *
 * Input goes from the back end straight into the driver's buffers; where there are none, or nobody has opened the port,
 * or it is over its rate, it stays in the back end. Nothing is kept here.
 */
#include "virtio/console.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_console.h>
#include <stddef.h>
#include <stdlib.h>

#include "util.h"
#include "virtio/console_impl.h"

enum {
	QUEUE_SIZE = 64, /* Linux fills a port's receive queue with pages */
	PCI_CLASS_COMMUNICATION_OTHER = 0x078000,
};

static struct virtio_console *to_console(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_console, dev);
}

static struct console_port *port_of(struct virtio_console *console, unsigned queue)
{
	return &console->ports[queue < 2 ? 0 : queue / 2 - 1];
}

/* --- rates ------------------------------------------------------------------------------------------------------- */

bool console_way_passes(struct console_port *port, struct console_way *way, size_t size_bytes)
{
	if (!rate_limit_is_set(&way->limit))
		return true;
	uint64_t again_ns = rate_limit_take(&way->limit, 0, size_bytes, loop_now_ns());
	if (again_ns)
		loop_timer_arm(port->console->dev.loop, &way->timer, again_ns);
	return again_ns == 0;
}

/* --- input ------------------------------------------------------------------------------------------------------- */

/*
 * Linux throws away what comes to a port, a console too, before it has opened it (5.3.6.2: a driver answers
 * CONSOLE_PORT with PORT_OPEN).
 */
static bool takes_input(const struct console_port *port)
{
	return console_is_multiport(port->console) ? port->is_open : port->index == 0 && console_port_is_console(port);
}

static size_t fill_buffers(struct console_port *port, const uint8_t *data, size_t size_bytes)
{
	struct virtio_device *dev = &port->console->dev;
	unsigned queue = console_input_queue(port);
	struct virtq_chain chain;
	size_t taken = 0;
	while (taken < size_bytes && virtio_pop(dev, queue, &chain) == 1) {
		size_t size = (size_t)min_u64(chain.in_bytes, size_bytes - taken);
		if (!console_way_passes(port, &port->input, size)) {
			virtio_unpop(dev, queue, &chain);
			break;
		}
		(void)iov_write(chain.iov + chain.out_count, chain.in_count, 0, data + taken, size);
		virtio_push(dev, queue, &chain, (uint32_t)size);
		taken += size;
	}
	return taken;
}

static size_t port_receive(void *ctx, const uint8_t *data, size_t size_bytes)
{
	struct console_port *port = ctx;
	struct virtio_device *dev = &port->console->dev;
	virtio_lock(dev);
	size_t taken = takes_input(port) ? fill_buffers(port, data, size_bytes) : 0;
	virtio_unlock(dev);
	return taken;
}

static void input_may_pass(struct loop_timer *timer)
{
	console_port_opened(container_of(timer, struct console_port, input.timer));
}

void console_port_opened(struct console_port *port)
{
	if (port->chr)
		chr_accept_input(port->chr);
}

static void port_writable(void *ctx)
{
	console_output_writable(ctx);
}

/* A peer came or went; a driver that does not know the port yet is told when it does. */
static void port_peer(void *ctx, bool is_there)
{
	struct console_port *port = ctx;
	struct virtio_device *dev = &port->console->dev;
	if (console_port_is_console(port))
		return;
	virtio_lock(dev);
	if (!is_there)
		port->says &= (uint8_t)~CONSOLE_SAYS_OPEN;
	if (port->is_ready)
		console_control_tell(port, is_there ? CONSOLE_SAYS_OPEN : CONSOLE_SAYS_CLOSED);
	virtio_unlock(dev);
}

/* --- the device -------------------------------------------------------------------------------------------------- */

static void console_serve(struct virtio_device *dev, unsigned queue)
{
	struct virtio_console *console = to_console(dev);
	struct console_port *port = port_of(console, queue);
	if (queue >= CONSOLE_CONTROL_IN && !console_is_multiport(console))
		return;
	if (queue == CONSOLE_CONTROL_IN || queue == CONSOLE_CONTROL_OUT)
		console_control_serve(console, queue);
	else if (queue == console_output_queue(port))
		console_output_serve(port);
	else
		console_port_opened(port);
}

/* No chain is kept. The next one of this queue will be another. */
static void console_cancel(struct virtio_device *dev, unsigned queue)
{
	struct console_port *port = port_of(to_console(dev), queue);
	if (queue == console_output_queue(port))
		console_output_forget(port);
}

static void console_reset(struct virtio_device *dev)
{
	struct virtio_console *console = to_console(dev);
	console->status = (struct console_status){0};
	console->has_ended = false;
	for (unsigned i = 0; i < console->port_count; i++) {
		struct console_port *port = &console->ports[i];
		port->is_ready = port->is_open = false;
		port->says = 0;
		console_output_forget(port);
		console_output_end_patience(port);
	}
}

/* 5.3.4: one character, at any time, in the lowest byte. It is lost when there is no room: nobody may wait here. */
static void console_write_config(struct virtio_device *dev, unsigned offset, const uint8_t *data, unsigned size_bytes)
{
	struct console_port *port = &to_console(dev)->ports[0];
	(void)size_bytes;
	if (offset == offsetof(struct virtio_console_config, emerg_wr) && console_port_is_console(port) &&
	    console_way_passes(port, &port->output, 1))
		(void)chr_write(port->chr, data, 1);
}

static void console_destroy(struct virtio_device *dev)
{
	struct virtio_console *console = to_console(dev);
	for (unsigned i = 0; i < console->port_count; i++) {
		struct console_port *port = &console->ports[i];
		console_output_end_patience(port);
		loop_timer_disarm(dev->loop, &port->input.timer);
		loop_timer_disarm(dev->loop, &port->output.timer);
		if (port->chr)
			chr_set_client(port->chr, NULL);
	}
	free(console);
}

static const struct virtio_model console_model = {
	.id = VIRTIO_ID_CONSOLE,
	.name = "virtio-console",
	.pci_class = PCI_CLASS_COMMUNICATION_OTHER,
	.serve = console_serve,
	.cancel = console_cancel,
	.reset = console_reset,
	.write_config = console_write_config,
	.destroy = console_destroy,
};

/* --- what it is --------------------------------------------------------------------------------------------------- */

/* The fields are at even offsets of an aligned array; bytes of the guest's order, which is ours. */
static void set_config(struct virtio_console *console)
{
	const struct console_port *port = &console->ports[0];
	struct virtio_console_config config = {
		.cols = port->columns,
		.rows = port->rows,
		.max_nr_ports = console->port_count,
	};
	memcpy(console->dev.config, &config, sizeof(config));
}

static int check_name(const char *name, struct err *err)
{
	if (strcmp(name, VIRTIO_CONSOLE_STATUS_PORT) == 0)
		return err_config(err, -EINVAL, "port '%s': this port is there already", name);
	if (name[0] == '\0' || strlen(name) >= VIRTIO_CONSOLE_NAME_MAX)
		return err_config(err, -EINVAL, "port '%s': a port's name has 1 to %d characters", name,
				  VIRTIO_CONSOLE_NAME_MAX - 1);
	return 0;
}

static struct console_port *add_port(struct virtio_console *console, const char *name)
{
	struct console_port *port = &console->ports[console->port_count];
	port->console = console;
	port->index = console->port_count++;
	port->input.timer.fn = input_may_pass;
	console_output_init(port);
	if (name)
		memcpy(port->name, name, strlen(name));
	return port;
}

static int add_ports(struct virtio_console *console, const struct virtio_console_init *init, struct err *err)
{
	assert(init->port_count <= VIRTIO_CONSOLE_PORTS_MAX);
	for (unsigned i = 0; i < init->port_count; i++) {
		const struct virtio_console_port *given = &init->ports[i];
		assert(given->name || i == 0 || !init->ports[i - 1].name); /* consoles come first */
		if (given->name && check_name(given->name, err) < 0)
			return -EINVAL;
		struct console_port *port = add_port(console, given->name);
		port->chr = given->chr;
		port->rows = given->rows;
		port->columns = given->columns;
		rate_limit_init(&port->input.limit, &given->limit, loop_now_ns());
		rate_limit_init(&port->output.limit, &given->limit, loop_now_ns());
	}
	add_port(console, VIRTIO_CONSOLE_STATUS_PORT);
	return 0;
}

static int init_device(struct virtio_console *console, struct loop *loop, const struct gmem *gmem,
		       const struct log *log, bool packed, struct err *err)
{
	bool has_console = console_port_is_console(&console->ports[0]);
	struct virtio_init virtio = {
		.model = &console_model,
		.loop = loop,
		.gmem = gmem,
		.log = log,
		.features = 1ULL << VIRTIO_CONSOLE_F_MULTIPORT | (uint64_t)has_console << VIRTIO_CONSOLE_F_SIZE |
			    (uint64_t)has_console << VIRTIO_CONSOLE_F_EMERG_WRITE,
		.packed = packed,
		.queue_count = 2 * (console->port_count + 1),
		.queue_size_max = QUEUE_SIZE,
		.config_size_bytes = sizeof(struct virtio_console_config),
	};
	return virtio_init(&console->dev, &virtio, err);
}

static void connect_ports(struct virtio_console *console)
{
	for (unsigned i = 0; i < console->port_count; i++) {
		struct console_port *port = &console->ports[i];
		struct chr_client client = {
			.receive = port_receive, .writable = port_writable, .peer = port_peer, .ctx = port};
		if (port->chr)
			chr_set_client(port->chr, &client);
	}
}

struct virtio_device *virtio_console_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
					 const struct virtio_console_init *init, struct err *err)
{
	struct virtio_console *console = calloc(1, sizeof(*console));
	if (!console) {
		err_set(err, -ENOMEM, "virtio-console: %s", err_name(ENOMEM));
		return NULL;
	}
	console->events = init->events;
	if (add_ports(console, init, err) < 0 || init_device(console, loop, gmem, log, init->packed, err) < 0) {
		free(console);
		return NULL;
	}
	set_config(console);
	connect_ports(console);
	return &console->dev;
}

void virtio_console_set_size(struct virtio_device *dev, unsigned index, uint16_t rows, uint16_t columns)
{
	struct virtio_console *console = to_console(dev);
	struct console_port *port = &console->ports[index];
	assert(index < console->port_count && console_port_is_console(port));
	virtio_lock(dev);
	bool is_new = port->rows != rows || port->columns != columns;
	port->rows = rows;
	port->columns = columns;
	if (is_new && index == 0) {
		set_config(console);
		virtio_config_changed(dev);
	}
	if (is_new && port->is_ready && virtio_has_feature(dev, VIRTIO_CONSOLE_F_SIZE))
		console_control_tell(port, CONSOLE_SAYS_SIZE);
	virtio_unlock(dev);
}
