/*
 * Ports and their bytes.
 *
 * Output goes from the driver's chains straight into the back end's queue. What that does not take stays in the ring,
 * so that a slow reader holds up the guest, and only the port that it reads.
 *
 * But not for ever, if that port is a console: Linux waits for the end of each piece of a console's output, in a loop,
 * with a lock held and interrupts off (drivers/char/virtio_console.c, put_chars). A reader that has stopped would stop
 * one virtual CPU after the other, and a panic would not get to its reboot. So when nothing has gone to the reader for
 * a second, what there is no room for is dropped, until something goes again. A second of ours, step by step: time in
 * which the loop did not run (a stopped process, an owner that was busy) is not the reader's fault.
 *
 * Input goes from the back end straight into the driver's buffers; where there are none, or nobody has opened the port,
 * it stays in the back end. Nothing is kept here.
 */
#include "virtio/console.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_console.h>
#include <stddef.h>
#include <stdlib.h>

#include "iovc.h"
#include "util.h"
#include "virtio/console_impl.h"

static const uint64_t PATIENCE_STEP_NS = 250000000;

enum {
	PATIENCE_STEPS = 4,
	QUEUE_SIZE = 64, /* Linux fills a port's receive queue with pages */
	SERVE_BYTES_MAX = 65536,
	STATUS_BLOCK_BYTES = 256,
	PCI_CLASS_COMMUNICATION_OTHER = 0x078000,
};

static const char STATUS_PORT_NAME[] = "org.vmlet.status";

static struct virtio_console *to_console(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_console, dev);
}

static bool is_multiport(const struct virtio_console *console)
{
	return virtio_has_feature(&console->dev, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* 5.3.2: the control queues lie between port 0's and port 1's. */
static unsigned input_queue(const struct console_port *port)
{
	return port->index == 0 ? 0 : 2 * port->index + 2;
}

static unsigned output_queue(const struct console_port *port)
{
	return input_queue(port) + 1;
}

static struct console_port *port_of(struct virtio_console *console, unsigned queue)
{
	return &console->ports[queue < 2 ? 0 : queue / 2 - 1];
}

/* --- output ------------------------------------------------------------------------------------------------------ */

static void serve_output(struct console_port *port);

/*
 * As with the debug-exit port, what was written to other ports before has come out when the VM ends. Once: a guest that
 * goes on writing numbers must not have us do so for each.
 */
static void end_vm(struct virtio_console *console, unsigned value)
{
	if (console->has_ended)
		return;
	console->has_ended = true;
	for (unsigned i = 0; i + 1 < console->port_count; i++)
		serve_output(&console->ports[i]);
	guest_event_raise(console->events, GUEST_EVENT_DEBUG_EXIT, value);
}

static void take_status(struct virtio_console *console, const uint8_t *data, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i++) {
		enum console_status_line line = console_status_next(&console->status, data[i]);
		if (line == CONSOLE_STATUS_IS_VALUE)
			end_vm(console, console->status.value);
		else if (line == CONSOLE_STATUS_IS_WRONG)
			(void)log_guest(console->dev.log, &console->dev.log_limit,
					"virtio-console: the guest wrote a line to %s that is no number from 0 to 255",
					STATUS_PORT_NAME);
	}
}

static size_t write_status(struct virtio_console *console, const void *data, size_t size_bytes)
{
	uint8_t block[STATUS_BLOCK_BYTES];
	size_t size = (size_t)min_u64(size_bytes, sizeof(block));
	memcpy(block, data, size); /* once: it is the guest's memory */
	take_status(console, block, size);
	return size;
}

/*
 * A driver that knows one port takes it for a console. Where it is none, what the driver prints there is for nobody.
 * Returns how many bytes were taken.
 */
static size_t write_port(struct console_port *port, const void *data, size_t size_bytes)
{
	if (!console_port_is_console(port) && !is_multiport(port->console))
		return size_bytes;
	if (!port->chr)
		return write_status(port->console, data, size_bytes);
	size_t taken = chr_write(port->chr, data, size_bytes);
	return port->drops ? size_bytes : taken;
}

/* Go on with the chain, for at most *budget bytes. False: some of it is left. */
static bool write_chain(struct console_port *port, const struct virtq_chain *chain, size_t *budget)
{
	struct iovc rest = {chain->iov, chain->out_count, 0};
	struct iovec run;
	iovc_skip(&rest, port->sent);
	while (*budget && iovc_peek(&rest, *budget, &run, 1)) {
		size_t taken = write_port(port, run.iov_base, run.iov_len);
		iovc_skip(&rest, taken);
		port->sent += taken;
		*budget -= taken;
		if (taken == 0)
			return false;
	}
	return port->sent >= chain->out_bytes;
}

static void wait_a_step(struct console_port *port)
{
	loop_timer_arm(port->console->dev.loop, &port->patience_timer, loop_now_ns() + PATIENCE_STEP_NS);
}

static void be_patient(struct console_port *port)
{
	if (port->patience || !console_port_is_console(port))
		return;
	port->patience = PATIENCE_STEPS;
	wait_a_step(port);
}

static void end_patience(struct console_port *port)
{
	port->patience = 0;
	port->drops = false;
	loop_timer_disarm(port->console->dev.loop, &port->patience_timer);
}

/* The rest waits for the back end (port_writable), or, when the budget is used up, for the next round. */
static void serve_output(struct console_port *port)
{
	struct virtio_device *dev = &port->console->dev;
	unsigned queue = output_queue(port);
	size_t budget = SERVE_BYTES_MAX;
	struct virtq_chain chain;
	bool goes_on = true;
	while (goes_on && virtio_pop(dev, queue, &chain) == 1) {
		goes_on = write_chain(port, &chain, &budget);
		if (goes_on) {
			port->sent = 0;
			virtio_push(dev, queue, &chain, 0);
		} else {
			virtio_unpop(dev, queue, &chain);
		}
	}
	if (budget == 0)
		virtio_kick(dev, queue);
	else if (!goes_on)
		be_patient(port);
}

static void drop_from_now_on(struct console_port *port)
{
	struct virtio_device *dev = &port->console->dev;
	port->patience = 0;
	port->drops = true;
	(void)log_guest(dev->log, &dev->log_limit,
			"virtio-console: nobody reads console %u; what is printed is dropped until somebody does",
			port->index);
	virtio_kick(dev, output_queue(port));
}

static void step_is_over(struct loop_timer *timer)
{
	struct console_port *port = container_of(timer, struct console_port, patience_timer);
	struct virtio_device *dev = &port->console->dev;
	virtio_lock(dev);
	if (port->patience == 1) {
		drop_from_now_on(port);
	} else if (port->patience) { /* else it was reset meanwhile */
		port->patience--;
		wait_a_step(port);
	}
	virtio_unlock(dev);
}

static void port_writable(void *ctx)
{
	struct console_port *port = ctx;
	struct virtio_device *dev = &port->console->dev;
	virtio_lock(dev);
	end_patience(port);
	virtio_kick(dev, output_queue(port));
	virtio_unlock(dev);
}

/* --- input ------------------------------------------------------------------------------------------------------- */

/*
 * Linux throws away what comes to a port, a console too, before it has opened it (5.3.6.2: a driver answers
 * CONSOLE_PORT with PORT_OPEN).
 */
static bool takes_input(const struct console_port *port)
{
	return is_multiport(port->console) ? port->is_open : port->index == 0 && console_port_is_console(port);
}

static size_t fill_buffers(struct console_port *port, const uint8_t *data, size_t size_bytes)
{
	struct virtio_device *dev = &port->console->dev;
	unsigned queue = input_queue(port);
	struct virtq_chain chain;
	size_t taken = 0;
	while (taken < size_bytes && virtio_pop(dev, queue, &chain) == 1) {
		size_t put =
			iov_write(chain.iov + chain.out_count, chain.in_count, 0, data + taken, size_bytes - taken);
		virtio_push(dev, queue, &chain, (uint32_t)put);
		taken += put;
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

void console_port_opened(struct console_port *port)
{
	if (port->chr)
		chr_accept_input(port->chr);
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
	if (queue >= CONSOLE_CONTROL_IN && !is_multiport(console))
		return;
	if (queue == CONSOLE_CONTROL_IN || queue == CONSOLE_CONTROL_OUT)
		console_control_serve(console, queue);
	else if (queue == output_queue(port))
		serve_output(port);
	else
		console_port_opened(port);
}

/* No chain is kept. The next one of this queue will be another. */
static void console_cancel(struct virtio_device *dev, unsigned queue)
{
	struct console_port *port = port_of(to_console(dev), queue);
	if (queue == output_queue(port))
		port->sent = 0;
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
		port->sent = 0;
		end_patience(port);
	}
}

/* 5.3.4: one character, at any time, in the lowest byte. It is lost when there is no room: nobody may wait here. */
static void console_write_config(struct virtio_device *dev, unsigned offset, const uint8_t *data, unsigned size_bytes)
{
	struct console_port *port = &to_console(dev)->ports[0];
	(void)size_bytes;
	if (offset == offsetof(struct virtio_console_config, emerg_wr) && console_port_is_console(port))
		(void)chr_write(port->chr, data, 1);
}

static void console_destroy(struct virtio_device *dev)
{
	struct virtio_console *console = to_console(dev);
	for (unsigned i = 0; i < console->port_count; i++) {
		end_patience(&console->ports[i]);
		if (console->ports[i].chr)
			chr_set_client(console->ports[i].chr, NULL);
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
	if (strcmp(name, STATUS_PORT_NAME) == 0)
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
	port->patience_timer.fn = step_is_over;
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
	}
	add_port(console, STATUS_PORT_NAME);
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
