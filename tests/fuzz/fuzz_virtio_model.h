/*
 * What the fuzz targets of device models have in common: a transport that hears the device and does nothing, the
 * registers as a driver writes them, and where the rings of a queue lie.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "virtio/virtio.h"

enum {
	RINGS_STEP = 0x1000, /* a queue's, from address 0 on: descriptors, and in there: */
	DRIVER_AREA = 0x400,
	DEVICE_AREA = 0x800,
};

static inline void no_interrupt(void *ctx, unsigned queue)
{
	assert(queue < ((struct virtio_device *)ctx)->queue_count);
}

static inline void no_config_interrupt(void *ctx)
{
	(void)ctx;
}

static inline void no_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

/* Its ctx is the device. */
static const struct virtio_transport TRANSPORT = {no_interrupt, no_config_interrupt, no_doorbells};
static const struct device_ops DOOR = {.name = "door"};

static inline void write_status(struct virtio_device *dev, uint8_t status)
{
	virtio_lock(dev);
	virtio_write_status(dev, status);
	virtio_unlock(dev);
}

static inline void set_up_queue(struct virtio_device *dev, unsigned index, unsigned size)
{
	uint32_t base = index * RINGS_STEP;
	virtio_lock(dev);
	struct virtio_queue *queue = virtio_get_queue(dev, index);
	virtio_set_queue_size(dev, queue, size);
	virtio_set_queue_area(queue, &queue->desc, 0, base);
	virtio_set_queue_area(queue, &queue->driver, 0, base + DRIVER_AREA);
	virtio_set_queue_area(queue, &queue->device, 0, base + DEVICE_AREA);
	virtio_enable_queue(dev, queue);
	virtio_unlock(dev);
}
