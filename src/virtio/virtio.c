/*
 * The driver's side of the core: what vCPU threads do through registers. The loop's side is virtio_queue.c.
 *
 * DRIVER_OK maps the rings here, under the lock, so that a ring which cannot be is known when the register write
 * returns; the rest of the start is the loop's. A reset is begun here and ended by the loop, and waited for here,
 * unless the loop has not begun with the device: then nothing can be in flight, and it ends at once.
 */
#include "virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fd.h"
#include "iothread.h"
#include "util.h"
#include "virtio/virtio_impl.h"

enum {
	STATUS_DRIVER_BITS = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
			     VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED,
	STATUS_FOUND = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER,
};

static uint64_t feature(unsigned bit)
{
	return 1ULL << bit;
}

/* --- lock ----------------------------------------------------------------------------------------------- */

/* Without a transport yet, the device is its maker's alone. */
void virtio_lock(struct virtio_device *dev)
{
	if (dev->door)
		device_lock(dev->door);
}

void virtio_unlock(struct virtio_device *dev)
{
	if (dev->door)
		device_unlock(dev->door);
}

/* The loop has something to do for us: let it. */
static void wait_for_loop(struct virtio_device *dev)
{
	if (!loop_is_current(dev->loop)) {
		device_wait(dev->door, &dev->stopped);
		return;
	}
	virtio_unlock(dev);
	int r = loop_wait(dev->loop, UINT64_MAX);
	assert(r == 0); /* with a broken ring nobody can say that nothing is in flight */
	virtio_lock(dev);
}

/* --- trouble ---------------------------------------------------------------------------------------------- */

/* 2.1.2: once the driver runs, it is told. */
static void describe(const struct virtio_device *dev, char *ret_who, size_t size)
{
	if (dev->name)
		(void)snprintf(ret_who, size, "%s '%s'", dev->model->name, dev->name);
	else
		(void)snprintf(ret_who, size, "%s", dev->model->name);
}

static void tell_owner(const struct virtio_device *dev, const char *who, const char *what)
{
	char text[288];
	if (!dev->sink.broken)
		return;
	(void)snprintf(text, sizeof(text), "%s: %s", who, what);
	dev->sink.broken(dev->sink.ctx, text);
}

void virtio_set_owner(struct virtio_device *dev, const char *name, struct virtio_sink sink)
{
	dev->name = name;
	dev->sink = sink;
}

void virtio_break(struct virtio_device *dev, const char *fmt, ...)
{
	if (dev->broken)
		return;
	dev->broken = true;
	dev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;

	char text[160];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	char who[96];
	describe(dev, who, sizeof(who));
	if (log_guest(dev->log, &dev->log_limit, "%s: %s; it stands still until its driver resets it", who, text))
		tell_owner(dev, who, text);
	if (dev->state == VIRTIO_RUNNING)
		dev->transport->interrupt_config(dev->transport_ctx);
}

/* --- features (2.2) ----------------------------------------------------------------------------------------- */

bool virtio_has_feature(const struct virtio_device *dev, unsigned bit)
{
	return (dev->status & VIRTIO_CONFIG_S_FEATURES_OK) && (dev->driver_features & feature(bit));
}

static uint32_t half_of(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

uint32_t virtio_read_features(const struct virtio_device *dev, uint32_t select)
{
	return half_of(dev->features, select);
}

uint32_t virtio_read_driver_features(const struct virtio_device *dev, uint32_t select)
{
	return half_of(dev->driver_features, select);
}

/* What was not offered is kept until FEATURES_OK, and refused there: a driver that asks for it is to know. */
void virtio_write_driver_features(struct virtio_device *dev, uint32_t select, uint32_t value)
{
	if (dev->state != VIRTIO_IDLE || select > 1 || (dev->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	unsigned shift = 32 * select;
	dev->driver_features &= ~((uint64_t)UINT32_MAX << shift);
	dev->driver_features |= (uint64_t)value << shift;
}

static bool features_are_ok(const struct virtio_device *dev)
{
	bool is_subset = (dev->driver_features & ~dev->features) == 0;
	return is_subset && (dev->driver_features & feature(VIRTIO_F_VERSION_1));
}

/* --- status (2.1, 3.1) -------------------------------------------------------------------------------------- */

static void start(struct virtio_device *dev)
{
	dev->state = VIRTIO_RUNNING;
	for (unsigned i = 0; i < dev->queue_count && !dev->broken; i++) {
		if (dev->queues[i].enabled)
			(void)virtio_queue_start(&dev->queues[i]);
	}
	if (dev->broken)
		return;
	dev->transport->set_doorbells(dev->transport_ctx, true);
	virtio_tell_loop(dev);
}

static void begin_reset(struct virtio_device *dev)
{
	if (dev->state == VIRTIO_RUNNING)
		dev->transport->set_doorbells(dev->transport_ctx, false);
	if (!dev->started) {
		virtio_finish_reset(dev);
		return;
	}
	dev->state = VIRTIO_STOPPING;
	for (unsigned i = 0; i < dev->queue_count; i++)
		dev->queues[i].stopping = dev->queues[i].ring != NULL;
	virtio_tell_loop(dev);
}

static void reset(struct virtio_device *dev)
{
	if (dev->state != VIRTIO_STOPPING)
		begin_reset(dev);
	while (dev->state == VIRTIO_STOPPING)
		wait_for_loop(dev);
}

static void reset_queue_registers(struct virtio_queue *queue)
{
	queue->size = queue->size_max;
	queue->desc = queue->driver = queue->device = 0;
}

void virtio_finish_reset(struct virtio_device *dev)
{
	for (unsigned i = 0; i < dev->queue_count; i++) {
		virtio_queue_release(&dev->queues[i]);
		reset_queue_registers(&dev->queues[i]);
	}
	dev->driver_features = 0;
	dev->status = 0;
	dev->broken = dev->started = false;
	dev->state = VIRTIO_IDLE;
	if (dev->model->reset)
		dev->model->reset(dev);
	pthread_cond_broadcast(&dev->stopped);
}

uint8_t virtio_read_status(const struct virtio_device *dev)
{
	return dev->status;
}

/* What of the driver's new bits stands: each step needs those before it. */
static uint8_t accept_status(const struct virtio_device *dev, uint8_t status)
{
	bool is_found = (status & STATUS_FOUND) == STATUS_FOUND;
	bool was_ok = dev->status & VIRTIO_CONFIG_S_FEATURES_OK;
	if (!was_ok && (!is_found || !features_are_ok(dev)))
		status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!(status & VIRTIO_CONFIG_S_FEATURES_OK))
		status &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
	return status;
}

/* Bits are only ever added; while another vCPU's reset goes on, they are lost with the rest. */
void virtio_write_status(struct virtio_device *dev, uint8_t status)
{
	if (status == 0) {
		reset(dev);
		return;
	}
	if (dev->state == VIRTIO_STOPPING)
		return;
	bool was_running = dev->status & VIRTIO_CONFIG_S_DRIVER_OK;
	dev->status = accept_status(dev, dev->status | (status & STATUS_DRIVER_BITS));
	if (!was_running && (dev->status & VIRTIO_CONFIG_S_DRIVER_OK))
		start(dev);
}

/* --- queues' registers -------------------------------------------------------------------------------------- */

struct virtio_queue *virtio_get_queue(struct virtio_device *dev, uint32_t index)
{
	return index < dev->queue_count ? &dev->queues[index] : NULL;
}

void virtio_set_queue_size(struct virtio_device *dev, struct virtio_queue *queue, uint32_t size)
{
	bool any_size = virtio_has_feature(dev, VIRTIO_F_RING_PACKED);
	if (queue->enabled || size == 0 || size > queue->size_max || (!any_size && (size & (size - 1))))
		return;
	queue->size = (uint16_t)size;
}

void virtio_set_queue_area(struct virtio_queue *queue, gpa_t *area, unsigned half, uint32_t value)
{
	if (queue->enabled)
		return;
	unsigned shift = 32 * half;
	*area = (*area & ~((gpa_t)UINT32_MAX << shift)) | (gpa_t)value << shift;
}

/* Of a running device: the queue was reset before, and starts anew. */
void virtio_enable_queue(struct virtio_device *dev, struct virtio_queue *queue)
{
	if (queue->enabled || dev->state == VIRTIO_STOPPING)
		return;
	queue->enabled = true;
	if (dev->state != VIRTIO_RUNNING || dev->broken || virtio_queue_start(queue) < 0)
		return;
	dev->transport->set_doorbells(dev->transport_ctx, false);
	dev->transport->set_doorbells(dev->transport_ctx, true);
	virtio_tell_loop(dev);
}

void virtio_disable_queue(struct virtio_device *dev, struct virtio_queue *queue)
{
	if (!dev->started || !queue->ring) {
		virtio_queue_release(queue);
		return;
	}
	queue->stopping = true;
	virtio_tell_loop(dev);
	while (queue->stopping)
		wait_for_loop(dev);
}

/* The registers first: when the wait is over, another vCPU may have set them again. */
void virtio_reset_queue(struct virtio_device *dev, struct virtio_queue *queue)
{
	if (!virtio_has_feature(dev, VIRTIO_F_RING_RESET))
		return;
	reset_queue_registers(queue);
	virtio_disable_queue(dev, queue);
}

/* Also before DRIVER_OK: the count stays until the loop asks for it. */
void virtio_ring(struct virtio_device *dev, uint32_t queue)
{
	uint64_t one = 1;
	if (queue < dev->queue_count)
		(void)!write(dev->queues[queue].doorbell_fd, &one, sizeof(one));
}

/* --- configuration space (2.5) -------------------------------------------------------------------------------- */

/*
 * The generation has 8 bits. To change it only once between two reads of the space keeps a driver from missing 256
 * changes.
 */
void virtio_config_changed(struct virtio_device *dev)
{
	if (dev->config_was_read)
		dev->config_generation++;
	dev->config_was_read = false;
	if (dev->state == VIRTIO_RUNNING)
		dev->transport->interrupt_config(dev->transport_ctx);
}

static unsigned config_bytes(const struct virtio_device *dev, uint32_t offset, unsigned size_bytes)
{
	return offset < dev->config_size_bytes ? (unsigned)min_u64(size_bytes, dev->config_size_bytes - offset) : 0;
}

void virtio_read_config(struct virtio_device *dev, uint32_t offset, void *ret_data, unsigned size_bytes)
{
	memset(ret_data, 0, size_bytes);
	unsigned inside = config_bytes(dev, offset, size_bytes);
	if (!inside)
		return;
	memcpy(ret_data, dev->config + offset, inside);
	dev->config_was_read = true;
}

void virtio_write_config(struct virtio_device *dev, uint32_t offset, const void *data, unsigned size_bytes)
{
	unsigned inside = config_bytes(dev, offset, size_bytes);
	if (inside && dev->model->write_config)
		dev->model->write_config(dev, offset, data, inside);
}

/* --- life ----------------------------------------------------------------------------------------------------- */

static void close_doorbells(struct virtio_device *dev)
{
	for (unsigned i = 0; i < dev->queue_count; i++)
		fd_close(&dev->queues[i].doorbell_fd);
}

static int open_queues(struct virtio_device *dev, uint16_t size_max)
{
	for (unsigned i = 0; i < dev->queue_count; i++) {
		struct virtio_queue *queue = &dev->queues[i];
		*queue = (struct virtio_queue){.dev = dev, .index = i, .size_max = size_max, .doorbell_fd = -1};
		reset_queue_registers(queue);
	}
	for (unsigned i = 0; i < dev->queue_count; i++) {
		/* Not O_NONBLOCK: io_uring then waits for it, instead of failing with EAGAIN. */
		dev->queues[i].doorbell_fd = eventfd(0, EFD_CLOEXEC);
		if (dev->queues[i].doorbell_fd < 0)
			return -errno;
	}
	return 0;
}

int virtio_init(struct virtio_device *dev, const struct virtio_init *init, struct err *err)
{
	assert(init->queue_count <= VIRTIO_QUEUES_MAX && init->config_size_bytes <= VIRTIO_CONFIG_SIZE_MAX);
	assert(init->queue_size_max > 0 && init->queue_size_max <= VIRTQ_SIZE_MAX);
	assert((init->queue_size_max & (init->queue_size_max - 1)) == 0);

	dev->model = init->model;
	dev->loop = init->loop;
	dev->gmem = init->gmem;
	dev->log = init->log;
	dev->features = init->features | feature(VIRTIO_F_VERSION_1) | feature(VIRTIO_RING_F_INDIRECT_DESC) |
			feature(VIRTIO_RING_F_EVENT_IDX) | feature(VIRTIO_F_RING_RESET);
	if (init->packed)
		dev->features |= feature(VIRTIO_F_RING_PACKED);
	dev->config_size_bytes = init->config_size_bytes;
	dev->config_was_read = true;
	dev->queue_count = init->queue_count;

	int r = open_queues(dev, init->queue_size_max);
	if (r < 0) {
		close_doorbells(dev);
		return err_set(err, r, "%s: doorbells: %s", init->model->name, err_name(r));
	}
	virtio_queue_init_tasks(dev);
	pthread_cond_init(&dev->stopped, NULL);
	return 0;
}

void virtio_attach(struct virtio_device *dev, struct device *door, const struct virtio_transport *transport, void *ctx)
{
	dev->door = door;
	dev->transport = transport;
	dev->transport_ctx = ctx;
}

/* On the loop's thread, so that none of its callbacks is on its way to us when it returns. */
static void stop(void *ctx)
{
	struct virtio_device *dev = ctx;
	virtio_lock(dev);
	reset(dev);
	virtio_unlock(dev);
	loop_unpost(dev->loop, &dev->control_task);
	loop_unpost(dev->loop, &dev->interrupt_task);
	loop_timer_disarm(dev->loop, &dev->poll_timer);
	loop_stop_polling(dev->loop, &dev->poller);
}

void virtio_fini(struct virtio_device *dev)
{
	loop_call(dev->loop, stop, dev);
	close_doorbells(dev);
	pthread_cond_destroy(&dev->stopped);
}

void virtio_free(struct virtio_device *dev)
{
	if (!dev)
		return;
	virtio_fini(dev);
	dev->model->destroy(dev);
}

struct virtio_counters virtio_get_counters(struct virtio_device *dev)
{
	struct virtio_counters sum = {0};
	virtio_lock(dev);
	for (unsigned i = 0; i < dev->queue_count; i++) {
		const struct virtio_counters *counters = &dev->queues[i].counters;
		sum.doorbells += counters->doorbells;
		sum.chains += counters->chains;
		sum.interrupts += counters->interrupts;
		sum.interrupts_spared += counters->interrupts_spared;
	}
	virtio_unlock(dev);
	return sum;
}
