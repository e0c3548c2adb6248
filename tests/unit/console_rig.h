/*
 * For tests of virtio-console: the device over sockets, and a driver as Linux's, step by step. The transport only
 * counts.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h> /* cmocka wants these before it */

#include <cmocka.h>

#include "util.h"
#include "virtio/console.h"
#include "virtq_driver.h"

enum {
	CR_PORTS = 3, /* a console, a named port, the status port */
	CR_CONSOLE = 0,
	CR_NAMED = 1,
	CR_STATUS = 2,
	CR_QUEUES = 2 * (CR_PORTS + 1),
	CR_CONTROL_IN = 2,
	CR_CONTROL_OUT = 3,
	CR_QUEUE_SIZE = 64,
	CR_RAM_BYTES = 0x800000,
	CR_RINGS = 0x10000,
	CR_RINGS_STEP = 0x20000,
	CR_DATA = 0x200000, /* what a driver sends */
	CR_DATA_BYTES = 0x200000,
	CR_BUFFERS = 0x400000, /* receive buffers: a page for each descriptor of each queue */
	CR_BUFFER_BYTES = 4096,
};
static const uint64_t CR_MS = 1000000;

struct cr {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct log log;
	unsigned log_lines;
	struct device door;
	struct virtio_device *dev;
	struct chr *chr[CR_PORTS]; /* the status port's: NULL */
	int peer[CR_PORTS];        /* the other end of its socket */
	struct virtio_console_port ports[CR_PORTS - 1];
	unsigned port_count;
	unsigned queue_interrupts[CR_QUEUES], config_interrupts;
	unsigned events, value; /* of the status port */
	struct virtq_driver drivers[CR_QUEUES];
	gpa_t buffer_of[CR_QUEUES][CR_QUEUE_SIZE]; /* by the chain's id */
	unsigned given[CR_QUEUES];                 /* buffers, ever */
	bool packed, event_idx;
};

/* --- what stands around the device ----------------------------------------------------------------------------- */

static inline void cr_log(void *ctx, enum log_level level, const char *line)
{
	(void)level, (void)line;
	((struct cr *)ctx)->log_lines++;
}

static inline void cr_interrupt_queue(void *ctx, unsigned queue)
{
	((struct cr *)ctx)->queue_interrupts[queue]++;
}

static inline void cr_interrupt_config(void *ctx)
{
	((struct cr *)ctx)->config_interrupts++;
}

static inline void cr_set_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

static const struct virtio_transport CR_TRANSPORT = {cr_interrupt_queue, cr_interrupt_config, cr_set_doorbells};
static const struct device_ops CR_DOOR = {.name = "door"};

static inline void cr_event(void *ctx, enum guest_event event, uint32_t value)
{
	struct cr *c = ctx;
	assert_int_equal(event, GUEST_EVENT_DEBUG_EXIT);
	c->events++;
	c->value = value;
}

/* A chr over a socket whose other end is *ret_peer. */
static inline struct chr *cr_socket_chr(struct cr *c, int *ret_peer)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	struct chr *chr = chr_fd_new(c->loop, &c->log, fds[0], fds[0], (struct chr_filter){0}, NULL);
	assert_non_null(chr);
	*ret_peer = fds[1];
	return chr;
}

static inline struct virtio_device *cr_try_new(struct cr *c, struct err *err)
{
	struct virtio_console_init init = {
		.ports = c->ports, .port_count = c->port_count, .packed = true, .events = {cr_event, c}};
	return virtio_console_new(c->loop, c->gmem, &c->log, &init, err);
}

static inline void cr_new_device(struct cr *c)
{
	struct err err = {0};
	c->dev = cr_try_new(c, &err);
	if (!c->dev)
		fail_msg("%s", err.text);
	virtio_attach(c->dev, &c->door, &CR_TRANSPORT, c);
}

static inline void cr_free_device(struct cr *c)
{
	virtio_free(c->dev);
	c->dev = NULL;
}

static inline void cr_renew_device(struct cr *c)
{
	cr_free_device(c);
	cr_new_device(c);
}

static inline int cr_setup(void **state)
{
	struct cr *c = calloc(1, sizeof(*c));
	const struct gmem_region region = {0, CR_RAM_BYTES, NULL};
	assert_non_null(c);
	alarm(60); /* a test that hangs has failed */
	c->log = (struct log){LOG_LEVEL_DEBUG, cr_log, c};
	c->loop = loop_new(NULL);
	c->gmem = gmem_new(&region, 1, NULL);
	assert_non_null(c->loop);
	assert_non_null(c->gmem);
	c->ram = gmem_view(c->gmem, 0, CR_RAM_BYTES, 1);
	for (unsigned i = 0; i < CR_STATUS; i++)
		c->chr[i] = cr_socket_chr(c, &c->peer[i]);
	c->ports[CR_CONSOLE] = (struct virtio_console_port){.chr = c->chr[0], .rows = 25, .columns = 80};
	c->ports[CR_NAMED] = (struct virtio_console_port){.name = "org.test.port", .chr = c->chr[1]};
	c->port_count = CR_PORTS - 1;
	device_init(&c->door, &CR_DOOR);
	cr_new_device(c);
	*state = c;
	return 0;
}

static inline int cr_teardown(void **state)
{
	struct cr *c = *state;
	cr_free_device(c);
	device_fini(&c->door);
	for (unsigned i = 0; i < CR_STATUS; i++) {
		close(c->peer[i]);
		chr_free(c->chr[i]);
	}
	loop_free(c->loop);
	gmem_free(c->gmem);
	free(c);
	return 0;
}

/* --- the driver's registers ------------------------------------------------------------------------------------ */

static inline void cr_write_status(struct cr *c, uint8_t status)
{
	virtio_lock(c->dev);
	virtio_write_status(c->dev, status);
	virtio_unlock(c->dev);
}

static inline uint8_t cr_status(struct cr *c)
{
	virtio_lock(c->dev);
	uint8_t status = virtio_read_status(c->dev);
	virtio_unlock(c->dev);
	return status;
}

static inline void cr_set_up_queue(struct cr *c, unsigned index)
{
	struct virtq_config config = {
		.packed = c->packed, .event_idx = c->event_idx, .indirect = true, .size = CR_QUEUE_SIZE};
	struct virtq_driver *d = &c->drivers[index];
	virtq_driver_init(d, c->gmem, CR_RINGS + index * CR_RINGS_STEP, &config);
	c->given[index] = 0;
	virtio_lock(c->dev);
	struct virtio_queue *queue = virtio_get_queue(c->dev, index);
	assert_non_null(queue);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)d->config.desc);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)d->config.driver);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)d->config.device);
	virtio_enable_queue(c->dev, queue);
	virtio_unlock(c->dev);
}

static inline uint64_t cr_features(const struct cr *c, bool multiport)
{
	uint64_t features = c->dev->features;
	features &= c->packed ? UINT64_MAX : ~(1ULL << VIRTIO_F_RING_PACKED);
	features &= c->event_idx ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	return features & (multiport ? UINT64_MAX : ~(1ULL << VIRTIO_CONSOLE_F_MULTIPORT));
}

/* Reset, negotiation, queues, DRIVER_OK. */
static inline void cr_start(struct cr *c, bool multiport)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	uint64_t features = cr_features(c, multiport);
	cr_write_status(c, 0);
	cr_write_status(c, status);
	virtio_lock(c->dev);
	virtio_write_driver_features(c->dev, 0, (uint32_t)features);
	virtio_write_driver_features(c->dev, 1, (uint32_t)(features >> 32));
	virtio_unlock(c->dev);
	cr_write_status(c, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < (multiport ? c->dev->queue_count : 2); i++)
		cr_set_up_queue(c, i);
	cr_write_status(c, status |= VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(cr_status(c), status);
}

static inline void cr_pump(struct cr *c)
{
	assert_int_equal(loop_wait(c->loop, 10 * CR_MS), 0);
}

/* What should not happen has time to. */
static inline void cr_settle(struct cr *c)
{
	for (int i = 0; i < 6; i++)
		assert_int_equal(loop_wait(c->loop, CR_MS / 2), 0);
}

/* --- chains ---------------------------------------------------------------------------------------------------- */

static inline unsigned cr_in(unsigned port)
{
	return port == 0 ? 0 : 2 * port + 2;
}

static inline unsigned cr_out(unsigned port)
{
	return cr_in(port) + 1;
}

static inline void cr_ring(struct cr *c, unsigned queue)
{
	if (virtq_driver_rings(&c->drivers[queue]))
		virtio_ring(c->dev, queue);
}

static inline void cr_add(struct cr *c, unsigned queue, gpa_t at, uint32_t size, bool writable)
{
	const struct virtq_buffer buffer = {at, size, writable};
	int id = virtq_driver_add(&c->drivers[queue], &buffer, 1);
	assert_true(id >= 0);
	c->buffer_of[queue][id] = at;
	cr_ring(c, queue);
}

/* Receive buffers, of `size` bytes each. */
static inline void cr_give(struct cr *c, unsigned queue, unsigned count, uint32_t size)
{
	for (unsigned i = 0; i < count; i++) {
		unsigned slot = queue * CR_QUEUE_SIZE + c->given[queue]++ % CR_QUEUE_SIZE;
		cr_add(c, queue, CR_BUFFERS + slot * CR_BUFFER_BYTES, size, true);
	}
}

/* One used chain of the queue, if there is one: what is in its buffer. */
static inline bool cr_take(struct cr *c, unsigned queue, const uint8_t **ret_data, uint32_t *ret_size)
{
	uint16_t id;
	if (!virtq_driver_take(&c->drivers[queue], &id, ret_size))
		return false;
	*ret_data = c->ram + c->buffer_of[queue][id];
	return true;
}

static inline unsigned cr_take_all(struct cr *c, unsigned queue)
{
	const uint8_t *data;
	uint32_t size;
	unsigned count = 0;
	while (cr_take(c, queue, &data, &size)) {
		assert_int_equal(size, 0);
		count++;
	}
	return count;
}

static inline void cr_send_bytes(struct cr *c, unsigned queue, const void *data, uint32_t size)
{
	gpa_t at = CR_DATA + queue * 0x1000;
	assert_int_equal(gmem_write(c->gmem, at, data, size), 0);
	cr_add(c, queue, at, size, false);
}

/* And wait until the device has it. */
static inline void cr_send(struct cr *c, unsigned port, const char *text)
{
	cr_send_bytes(c, cr_out(port), text, (uint32_t)strlen(text));
	while (!cr_take_all(c, cr_out(port)))
		cr_pump(c);
}

static inline void cr_say(struct cr *c, uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control message = {.id = id, .event = event, .value = value};
	cr_send_bytes(c, CR_CONTROL_OUT, &message, sizeof(message));
	while (!cr_take_all(c, CR_CONTROL_OUT))
		cr_pump(c);
}

/* The next message of the device is this one, with this behind it; its buffer goes back. */
static inline void cr_expect_with(struct cr *c, uint32_t id, uint16_t event, uint16_t value, const void *body,
				  size_t body_size)
{
	struct virtio_console_control message;
	const uint8_t *data;
	uint32_t size;
	while (!cr_take(c, CR_CONTROL_IN, &data, &size))
		cr_pump(c);
	assert_true(size >= sizeof(message));
	memcpy(&message, data, sizeof(message));
	if (message.id != id || message.event != event || message.value != value)
		fail_msg("port %u event %u value %u instead of %u %u %u", message.id, message.event, message.value, id,
			 event, value);
	assert_int_equal(size, sizeof(message) + body_size);
	assert_memory_equal(data + sizeof(message), body, body_size);
	cr_give(c, CR_CONTROL_IN, 1, CR_BUFFER_BYTES);
}

static inline void cr_expect(struct cr *c, uint32_t id, uint16_t event, uint16_t value)
{
	cr_expect_with(c, id, event, value, "", 0);
}

static inline void cr_expect_silence(struct cr *c)
{
	cr_settle(c);
	assert_false(virtq_driver_has_used(&c->drivers[CR_CONTROL_IN]));
}

/* As Linux: buffers first, then DEVICE_READY; the ports are added. */
static inline void cr_start_linux(struct cr *c)
{
	cr_start(c, true);
	cr_give(c, CR_CONTROL_IN, 8, CR_BUFFER_BYTES);
	cr_say(c, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i <= c->port_count; i++)
		cr_expect(c, i, VIRTIO_CONSOLE_PORT_ADD, 1);
}

static inline void cr_port_ready(struct cr *c, unsigned port)
{
	static const uint16_t size[] = {80, 25};
	cr_say(c, port, VIRTIO_CONSOLE_PORT_READY, 1);
	if (port == CR_CONSOLE) {
		cr_expect(c, port, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
		cr_expect_with(c, port, VIRTIO_CONSOLE_RESIZE, 1, size, sizeof(size));
	} else {
		const char *name = port == CR_NAMED ? "org.test.port" : "org.vmlet.status";
		cr_expect_with(c, port, VIRTIO_CONSOLE_PORT_NAME, 1, name, strlen(name));
	}
	cr_expect(c, port, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

/* Everything is up, and the ports are open on both sides. */
static inline void cr_start_all(struct cr *c)
{
	cr_start_linux(c);
	for (unsigned i = 0; i < CR_PORTS; i++) {
		cr_port_ready(c, i);
		cr_say(c, i, VIRTIO_CONSOLE_PORT_OPEN, 1);
	}
}

/* --- the host's end -------------------------------------------------------------------------------------------- */

static inline void cr_expect_output(struct cr *c, unsigned port, const char *text)
{
	char got[256] = "";
	size_t size = 0;
	assert_true(strlen(text) < sizeof(got));
	while (size < strlen(text)) {
		ssize_t n = read(c->peer[port], got + size, sizeof(got) - 1 - size);
		size += n > 0 ? (size_t)n : 0;
		if (n < 0)
			cr_pump(c);
	}
	assert_string_equal(got, text);
}

static inline void cr_type(struct cr *c, unsigned port, const char *text)
{
	assert_int_equal(write(c->peer[port], text, strlen(text)), strlen(text));
}

static inline void cr_expect_input(struct cr *c, unsigned port, const char *text)
{
	char got[256] = "";
	size_t size = 0;
	const uint8_t *data;
	uint32_t n;
	while (size < strlen(text)) {
		if (!cr_take(c, cr_in(port), &data, &n)) {
			cr_pump(c);
			continue;
		}
		assert_true(size + n < sizeof(got));
		memcpy(got + size, data, n);
		size += n;
	}
	assert_string_equal(got, text);
}
