/*
 * The ports' output.
 *
 * It goes from the driver's chains straight into the back end's queue. What that does not take, or what is over the
 * port's rate, stays in the ring, so that a slow reader holds up the guest, and only the port that it reads.
 *
 * But not for ever, if that port is a console: Linux waits for the end of each piece of a console's output, in a loop,
 * with a lock held and interrupts off (drivers/char/virtio_console.c, put_chars). A reader that has stopped would stop
 * one virtual CPU after the other, and a panic would not get to its reboot. So when nothing has gone to the reader for
 * a second, what there is no room for is dropped, until something goes again. A second of ours, step by step: time in
 * which the loop did not run (a stopped process, an owner that was busy) is not the reader's fault.
 */
#include "iovc.h"
#include "util.h"
#include "virtio/console_impl.h"

static const uint64_t PATIENCE_STEP_NS = 250000000;

enum {
	PATIENCE_STEPS = 4,
	SERVE_BYTES_MAX = 65536,
	STATUS_BLOCK_BYTES = 256,
};

/* --- the status port ---------------------------------------------------------------------------------------------- */

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
		console_output_serve(&console->ports[i]);
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
					VIRTIO_CONSOLE_STATUS_PORT);
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

/* --- to the back end --------------------------------------------------------------------------------------------- */

/*
 * A driver that knows one port takes it for a console. Where it is none, what the driver prints there is for nobody.
 * Returns how many bytes were taken.
 */
static size_t write_port(struct console_port *port, const void *data, size_t size_bytes)
{
	if (!console_port_is_console(port) && !console_is_multiport(port->console))
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

/* --- a console that nobody reads ------------------------------------------------------------------------------------
 */

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

void console_output_end_patience(struct console_port *port)
{
	port->patience = 0;
	port->drops = false;
	loop_timer_disarm(port->console->dev.loop, &port->patience_timer);
}

static void drop_from_now_on(struct console_port *port)
{
	struct virtio_device *dev = &port->console->dev;
	port->patience = 0;
	port->drops = true;
	(void)log_guest(dev->log, &dev->log_limit,
			"virtio-console: nobody reads console %u; what is printed is dropped until somebody does",
			port->index);
	virtio_kick(dev, console_output_queue(port));
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

/* --- serving ----------------------------------------------------------------------------------------------------- */

/* A chain counts once, when it begins. False: it is over the rate, and comes again when it is not. */
static bool pay(struct console_port *port, const struct virtq_chain *chain)
{
	if (!port->paid && !port->console->has_ended)
		port->paid = console_way_passes(port, &port->output, chain->out_bytes);
	return port->paid || port->console->has_ended;
}

void console_output_forget(struct console_port *port)
{
	port->sent = 0;
	port->paid = false;
}

/*
 * The rest waits for the back end (console_output_writable), for its rate, or, when the budget is used up, for the next
 * round.
 */
void console_output_serve(struct console_port *port)
{
	struct virtio_device *dev = &port->console->dev;
	unsigned queue = console_output_queue(port);
	size_t budget = SERVE_BYTES_MAX;
	struct virtq_chain chain;
	bool goes_on = true, in_rate = true;
	while (goes_on && virtio_pop(dev, queue, &chain) == 1) {
		in_rate = pay(port, &chain);
		goes_on = in_rate && write_chain(port, &chain, &budget);
		if (goes_on) {
			console_output_forget(port);
			virtio_push(dev, queue, &chain, 0);
		} else {
			virtio_unpop(dev, queue, &chain);
		}
	}
	if (budget == 0)
		virtio_kick(dev, queue);
	else if (!goes_on && in_rate)
		be_patient(port);
}

void console_output_writable(struct console_port *port)
{
	struct virtio_device *dev = &port->console->dev;
	virtio_lock(dev);
	console_output_end_patience(port);
	virtio_kick(dev, console_output_queue(port));
	virtio_unlock(dev);
}

static void rate_allows(struct loop_timer *timer)
{
	struct console_port *port = container_of(timer, struct console_port, output.timer);
	struct virtio_device *dev = &port->console->dev;
	virtio_lock(dev);
	virtio_kick(dev, console_output_queue(port));
	virtio_unlock(dev);
}

void console_output_init(struct console_port *port)
{
	port->patience_timer.fn = step_is_over;
	port->output.timer.fn = rate_allows;
}
