/*
 * For tests of the small virtio devices: one of them under a transport that only counts, RAM of three regions, and a
 * driver that keeps the rules, with any number of queues.
 */
#pragma once

#include <linux/virtio_config.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h> /* cmocka wants these before it */

#include <cmocka.h>

#include "loop.h"
#include "util.h"
#include "virtio/virtio.h"
#include "virtq_driver.h"

enum {
	SR_QUEUES_MAX = 5,
	SR_QUEUE_SIZE = 32,
	SR_RINGS = 0x10000,
	SR_RINGS_STEP = 0x20000,
	SR_DATA = 0x100000, /* for what is sent and received */
	SR_SEAM = 0x400000, /* two regions touch */
	SR_HOLE = 0x800000, /* no RAM from here */
	SR_HIGH = 0x1000000,
	SR_HIGH_END = 0x1400000,
};
static const uint64_t SR_MS = 1000000;

struct sr {
	struct loop *loop;
	struct gmem *gmem;
	struct log log;
	unsigned log_lines;
	char log_text[256];
	struct device door;
	struct virtio_device *dev;
	struct virtq_driver drivers[SR_QUEUES_MAX];
	unsigned interrupts[SR_QUEUES_MAX], config_interrupts;
	bool packed, event_idx;
	uint64_t refused; /* features that the driver does not take */
};

static inline void sr_log(void *ctx, enum log_level level, const char *line)
{
	struct sr *s = ctx;
	(void)level;
	s->log_lines++;
	(void)snprintf(s->log_text, sizeof(s->log_text), "%s", line);
}

static inline void sr_interrupt_queue(void *ctx, unsigned queue)
{
	((struct sr *)ctx)->interrupts[queue]++;
}

static inline void sr_interrupt_config(void *ctx)
{
	((struct sr *)ctx)->config_interrupts++;
}

static inline void sr_set_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

static const struct virtio_transport SR_TRANSPORT = {sr_interrupt_queue, sr_interrupt_config, sr_set_doorbells};
static const struct device_ops SR_DOOR = {.name = "door", .access_sizes = 1};

static inline struct sr *sr_new(void)
{
	struct sr *s = calloc(1, sizeof(*s));
	assert_non_null(s);
	const struct gmem_region regions[] = {
		{0, SR_SEAM, NULL}, {SR_SEAM, SR_HOLE - SR_SEAM, NULL}, {SR_HIGH, SR_HIGH_END - SR_HIGH, NULL}};
	alarm(30); /* a test that hangs has failed */
	s->log = (struct log){LOG_LEVEL_DEBUG, sr_log, s};
	s->loop = loop_new(NULL);
	s->gmem = gmem_new(regions, ARRAY_SIZE(regions), NULL);
	assert_non_null(s->loop);
	assert_non_null(s->gmem);
	device_init(&s->door, &SR_DOOR);
	return s;
}

static inline void sr_attach(struct sr *s, struct virtio_device *dev, const struct err *err)
{
	if (!dev)
		fail_msg("%s", err->text);
	s->dev = dev;
	virtio_attach(dev, &s->door, &SR_TRANSPORT, s);
}

static inline void sr_free(struct sr *s)
{
	virtio_free(s->dev);
	device_fini(&s->door);
	loop_free(s->loop);
	gmem_free(s->gmem);
	free(s);
}

/* --- the driver's registers ------------------------------------------------------------------------------------ */

static inline uint8_t sr_status(struct sr *s)
{
	virtio_lock(s->dev);
	uint8_t status = virtio_read_status(s->dev);
	virtio_unlock(s->dev);
	return status;
}

static inline bool sr_is_broken(struct sr *s)
{
	return sr_status(s) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static inline void sr_write_status(struct sr *s, uint8_t status)
{
	virtio_lock(s->dev);
	virtio_write_status(s->dev, status);
	virtio_unlock(s->dev);
}

static inline void sr_set_up_queue(struct sr *s, unsigned index)
{
	struct virtq_config config = {
		.packed = s->packed, .event_idx = s->event_idx, .indirect = true, .size = SR_QUEUE_SIZE};
	struct virtq_driver *d = &s->drivers[index];
	virtq_driver_init(d, s->gmem, SR_RINGS + index * SR_RINGS_STEP, &config);
	virtio_lock(s->dev);
	struct virtio_queue *queue = virtio_get_queue(s->dev, index);
	virtio_set_queue_size(s->dev, queue, SR_QUEUE_SIZE);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)d->config.desc);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)d->config.driver);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)d->config.device);
	virtio_enable_queue(s->dev, queue);
	virtio_unlock(s->dev);
}

static inline uint64_t sr_features(const struct sr *s)
{
	uint64_t features = s->dev->features & ~s->refused;
	if (!s->packed)
		features &= ~(1ULL << VIRTIO_F_RING_PACKED);
	if (!s->event_idx)
		features &= ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	return features;
}

/* Run the loop until nothing comes any more for a while. */
static inline void sr_settle(struct sr *s)
{
	for (int i = 0; i < 6; i++)
		assert_int_equal(loop_wait(s->loop, SR_MS / 2), 0);
}

static inline void sr_reset(struct sr *s)
{
	sr_write_status(s, 0);
	assert_int_equal(sr_status(s), 0);
}

/* Reset, negotiation, queues, DRIVER_OK. */
static inline void sr_start(struct sr *s)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	sr_reset(s);
	sr_write_status(s, status);
	virtio_lock(s->dev);
	virtio_write_driver_features(s->dev, 0, (uint32_t)sr_features(s));
	virtio_write_driver_features(s->dev, 1, (uint32_t)(sr_features(s) >> 32));
	virtio_unlock(s->dev);
	sr_write_status(s, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < s->dev->queue_count; i++)
		sr_set_up_queue(s, i);
	sr_write_status(s, status |= VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(sr_status(s), status);
	memset(s->interrupts, 0, sizeof(s->interrupts));
	s->config_interrupts = 0;
	s->log_text[0] = '\0';
	sr_settle(s);
}

static inline void sr_reset_queue(struct sr *s, unsigned queue)
{
	virtio_lock(s->dev);
	virtio_reset_queue(s->dev, virtio_get_queue(s->dev, queue));
	virtio_unlock(s->dev);
	assert_int_equal(s->dev->queues[queue].in_flight, 0);
	assert_null(s->dev->queues[queue].ring);
}

/* --- chains ---------------------------------------------------------------------------------------------------- */

static inline void sr_send(struct sr *s, unsigned queue, const struct virtq_buffer *buffers, unsigned count)
{
	assert_true(virtq_driver_add(&s->drivers[queue], buffers, count) >= 0);
	if (virtq_driver_rings(&s->drivers[queue]))
		virtio_ring(s->dev, queue);
}

static inline bool sr_take(struct sr *s, unsigned queue, uint32_t *ret_written)
{
	uint16_t id;
	return virtq_driver_take(&s->drivers[queue], &id, ret_written);
}

/* Wait for the next one that comes back: what the device says that it wrote. */
static inline uint32_t sr_wait(struct sr *s, unsigned queue)
{
	uint32_t written;
	while (!sr_take(s, queue, &written))
		assert_int_equal(loop_wait(s->loop, 100 * SR_MS), 0);
	return written;
}

static inline void sr_wait_until_broken(struct sr *s, const char *text)
{
	while (!sr_is_broken(s))
		assert_int_equal(loop_wait(s->loop, 100 * SR_MS), 0);
	if (!strstr(s->log_text, text))
		fail_msg("'%s' instead of '%s'", s->log_text, text);
	assert_true(s->config_interrupts > 0);
}
