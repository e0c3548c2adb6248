/* The core under a transport that only counts. */
#pragma once

#include "virtio_fake.h"

struct core {
	struct rig rig;
	struct device door;
	unsigned queue_interrupts[FAKE_QUEUES], config_interrupts, doorbell_changes;
	bool doorbells_on;
	bool packed, event_idx;
};

static inline uint64_t core_no_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return 0;
}

static inline void core_no_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	(void)dev, (void)offset, (void)size_bytes, (void)value;
}

static inline void core_no_destroy(struct device *dev)
{
	(void)dev;
}

static const struct device_ops CORE_DOOR = {"door", 1, core_no_read, core_no_write, core_no_destroy};

static inline void core_interrupt_queue(void *ctx, unsigned queue)
{
	((struct core *)ctx)->queue_interrupts[queue]++;
}

static inline void core_interrupt_config(void *ctx)
{
	((struct core *)ctx)->config_interrupts++;
}

static inline void core_set_doorbells(void *ctx, bool on)
{
	struct core *c = ctx;
	c->doorbells_on = on;
	c->doorbell_changes++;
}

static const struct virtio_transport CORE_TRANSPORT = {
	.interrupt_queue = core_interrupt_queue,
	.interrupt_config = core_interrupt_config,
	.set_doorbells = core_set_doorbells,
};

static inline void core_attach(struct core *c)
{
	device_init(&c->door, &CORE_DOOR);
	virtio_attach(c->rig.dev, &c->door, &CORE_TRANSPORT, c);
}

static inline int core_setup(void **state)
{
	struct core *c = calloc(1, sizeof(*c));
	assert_non_null(c);
	rig_init(&c->rig);
	core_attach(c);
	*state = c;
	return 0;
}

static inline void core_free_device(struct core *c)
{
	virtio_free(c->rig.dev);
	device_fini(&c->door);
}

static inline int core_teardown(void **state)
{
	struct core *c = *state;
	core_free_device(c);
	rig_fini(&c->rig);
	free(c);
	return 0;
}

static inline struct core *to_core(struct rig *rig)
{
	return container_of(rig, struct core, rig);
}

/* --- what a driver does, register by register ------------------------------------------------------------------- */

static inline void core_write_status(struct rig *rig, uint8_t status)
{
	virtio_lock(rig->dev);
	virtio_write_status(rig->dev, status);
	virtio_unlock(rig->dev);
}

static inline uint8_t core_add_status(struct core *c, uint8_t bits)
{
	core_write_status(&c->rig, virtio_read_status(c->rig.dev) | bits);
	return virtio_read_status(c->rig.dev);
}

static inline void core_write_features(struct core *c, uint64_t features)
{
	virtio_write_driver_features(c->rig.dev, 0, (uint32_t)features);
	virtio_write_driver_features(c->rig.dev, 1, (uint32_t)(features >> 32));
}

static inline uint64_t core_features(const struct core *c)
{
	uint64_t features =
		1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_F_RING_RESET;
	features |= c->event_idx ? 1ULL << VIRTIO_RING_F_EVENT_IDX : 0;
	return features | (c->packed ? 1ULL << VIRTIO_F_RING_PACKED : 0);
}

static inline void core_negotiate(struct core *c)
{
	core_add_status(c, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	core_add_status(c, VIRTIO_CONFIG_S_DRIVER);
	core_write_features(c, core_features(c));
	assert_true(core_add_status(c, VIRTIO_CONFIG_S_FEATURES_OK) & VIRTIO_CONFIG_S_FEATURES_OK);
}

static inline void core_set_up_queue(struct core *c, unsigned index)
{
	struct virtq_driver *d = rig_lay_ring(&c->rig, index, c->packed, c->event_idx);
	struct virtio_queue *queue = virtio_get_queue(c->rig.dev, index);
	virtio_lock(c->rig.dev);
	virtio_set_queue_size(c->rig.dev, queue, d->config.size);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)d->config.desc);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)d->config.driver);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)d->config.device);
	virtio_enable_queue(c->rig.dev, queue);
	virtio_unlock(c->rig.dev);
	assert_true(queue->enabled);
}

/* Up to, and without, DRIVER_OK. */
static inline void core_prepare(struct core *c)
{
	core_negotiate(c);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		core_set_up_queue(c, i);
}

static inline void core_start(struct core *c)
{
	core_prepare(c);
	assert_true(core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK) & VIRTIO_CONFIG_S_DRIVER_OK);
	rig_settle(&c->rig);
}

/* Ring if the device wants it. */
static inline bool core_ring(struct core *c, unsigned queue)
{
	bool rings = virtq_driver_rings(&c->rig.drivers[queue]);
	if (rings)
		virtio_ring(c->rig.dev, queue);
	return rings;
}

static inline void core_add(struct core *c, unsigned queue, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_true(rig_add(&c->rig, queue) >= 0);
}
