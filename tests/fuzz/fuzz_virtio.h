/*
 * What the fuzz targets of the two virtio transports share: a device that echoes or holds chains, guest memory, and the
 * steps that an input is made of. One input is one device's life; the loop and the memory stay.
 *
 * Whatever the driver does: the status obeys its rules, what is in flight is what the model holds, and an idle device
 * has nothing in flight and no ring.
 */
#pragma once

#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "bus.h"
#include "gmem.h"
#include "loop.h"
#include "util.h"
#include "virtio/virtio.h"

enum {
	FZ_QUEUES = 2,
	FZ_QUEUE_SIZE = 8,
	FZ_RAM_BYTES = 0x10000,
	FZ_QUEUE_STEP = 0x4000, /* a queue's rings: descriptors, then the driver's area, then the device's */
	FZ_DRIVER_AREA = 0x1000,
	FZ_DEVICE_AREA = 0x2000,
	FZ_DATA = 0xc000,
	FZ_STEPS_MAX = 512,
	FZ_FOUND = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER,
};

struct fz;

/* One transport: its accesses, and what a driver would do there. */
struct fz_transport {
	void (*create)(struct fz *fz);
	void (*destroy)(struct fz *fz);
	uint64_t (*place)(uint8_t area, uint8_t offset);                             /* an address on the bus */
	void (*config)(struct fz *fz, uint8_t offset, uint8_t size, uint32_t value); /* NULL: none */
	void (*write_status)(struct fz *fz, uint8_t status);
	void (*write_features)(struct fz *fz, unsigned half, uint32_t value);
	void (*set_up_queue)(struct fz *fz, unsigned queue, gpa_t base);
	void (*notify)(struct fz *fz, unsigned queue);
};

struct fz {
	const struct fz_transport *transport;
	struct loop *loop;
	struct gmem *gmem;
	struct bus bus;
	void *ctx; /* the transport's */

	struct virtio_device dev;
	bool holds, is_destroyed;
	struct virtq_chain held[FZ_QUEUES][FZ_QUEUE_SIZE];
	unsigned held_count[FZ_QUEUES];
	struct loop_task cancel_task;

	const uint8_t *data;
	size_t left;
};

/* --- the model ------------------------------------------------------------------------------------------------ */

static inline struct fz *to_fz(struct virtio_device *dev)
{
	return container_of(dev, struct fz, dev);
}

static inline void fz_serve(struct virtio_device *dev, unsigned queue)
{
	struct fz *fz = to_fz(dev);
	struct virtq_chain chain;
	while (virtio_pop(dev, queue, &chain) == 1) {
		uint8_t bytes[32];
		size_t size = iov_read(chain.iov, chain.out_count, 0, bytes, sizeof(bytes));
		size = iov_write(chain.iov + chain.out_count, chain.in_count, 0, bytes, size);
		if (fz->holds && fz->held_count[queue] < FZ_QUEUE_SIZE)
			fz->held[queue][fz->held_count[queue]++] = chain;
		else
			virtio_push(dev, queue, &chain, (uint32_t)size);
	}
}

/* The lock is held. */
static inline void fz_release(struct fz *fz, unsigned queue, unsigned count)
{
	for (; count && fz->held_count[queue]; count--)
		virtio_push(&fz->dev, queue, &fz->held[queue][--fz->held_count[queue]], 0);
}

static inline void fz_cancelled(struct loop_task *task)
{
	struct fz *fz = container_of(task, struct fz, cancel_task);
	virtio_lock(&fz->dev);
	for (unsigned i = 0; i < FZ_QUEUES; i++) {
		if (fz->dev.queues[i].stopping)
			fz_release(fz, i, UINT32_MAX);
	}
	virtio_unlock(&fz->dev);
}

static inline void fz_cancel(struct virtio_device *dev, unsigned queue)
{
	(void)queue;
	loop_post(dev->loop, &to_fz(dev)->cancel_task);
}

static inline void fz_write_config(struct virtio_device *dev, unsigned offset, const uint8_t *data, unsigned size_bytes)
{
	assert(offset + size_bytes <= dev->config_size_bytes);
	memcpy(dev->config + offset, data, size_bytes);
}

static inline void fz_destroy(struct virtio_device *dev)
{
	to_fz(dev)->is_destroyed = true;
}

static const struct virtio_model FZ_MODEL = {
	.id = 4,
	.name = "fuzzed",
	.pci_class = 0x00ff00,
	.serve = fz_serve,
	.cancel = fz_cancel,
	.write_config = fz_write_config,
	.destroy = fz_destroy,
};

/* --- input ----------------------------------------------------------------------------------------------------------
 */

static inline uint8_t fz_take8(struct fz *fz)
{
	if (fz->left == 0)
		return 0;
	fz->left--;
	return *fz->data++;
}

static inline uint16_t fz_take16(struct fz *fz)
{
	uint8_t low = fz_take8(fz);
	return (uint16_t)(low | fz_take8(fz) << 8);
}

static inline uint64_t fz_take64(struct fz *fz)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < 4; i++)
		value = value << 16 | fz_take16(fz);
	return value;
}

/* --- what must hold --------------------------------------------------------------------------------------------------
 */

static inline void fz_check(struct fz *fz)
{
	const struct virtio_device *dev = &fz->dev;
	uint8_t status = dev->status;
	if (status & VIRTIO_CONFIG_S_FEATURES_OK) {
		assert((status & FZ_FOUND) == FZ_FOUND);
		assert((dev->driver_features & ~dev->features) == 0);
		assert(dev->driver_features & 1ULL << VIRTIO_F_VERSION_1);
	}
	assert(!(status & VIRTIO_CONFIG_S_DRIVER_OK) || (status & VIRTIO_CONFIG_S_FEATURES_OK));
	assert(!(status & VIRTIO_CONFIG_S_NEEDS_RESET) == !dev->broken);
	assert((dev->state == VIRTIO_RUNNING) == !!(status & VIRTIO_CONFIG_S_DRIVER_OK));
	for (unsigned i = 0; i < FZ_QUEUES; i++) {
		const struct virtio_queue *queue = &dev->queues[i];
		assert(queue->in_flight == fz->held_count[i]);
		assert(queue->ring || (queue->in_flight == 0 && queue->doorbell_op.state == LOOP_OP_IDLE));
		assert(!queue->ring || (dev->state == VIRTIO_RUNNING && queue->enabled));
		assert(!queue->stopping);
		const struct virtio_counters *count = &queue->counters;
		assert(count->chains ==
		       count->interrupts + count->interrupts_spared + queue->pushed + queue->in_flight);
	}
}

/* --- steps
 * ------------------------------------------------------------------------------------------------------------- */

static inline void fz_access(struct fz *fz, bool is_write)
{
	uint8_t area = fz_take8(fz), offset = fz_take8(fz);
	unsigned size_bytes = 1U << (area >> 6);
	uint64_t at = fz->transport->place(area & 0x3f, offset);
	if (is_write)
		bus_write(&fz->bus, at, size_bytes, fz_take64(fz));
	else
		bus_read(&fz->bus, at, size_bytes);
}

static inline void fz_config(struct fz *fz)
{
	uint8_t offset = fz_take8(fz), size = fz_take8(fz);
	uint32_t value = (uint32_t)fz_take64(fz);
	if (fz->transport->config)
		fz->transport->config(fz, offset, size, value);
}

/* As a good driver would, with any features. */
static inline void fz_start(struct fz *fz)
{
	uint8_t features = fz_take8(fz);
	uint64_t all = (uint64_t)(features & 1) << VIRTIO_RING_F_INDIRECT_DESC |
		       (uint64_t)(features >> 1 & 1) << VIRTIO_RING_F_EVENT_IDX | 1ULL << VIRTIO_F_VERSION_1 |
		       (uint64_t)(features >> 2 & 1) << VIRTIO_F_RING_PACKED |
		       (uint64_t)(features >> 3 & 1) << VIRTIO_F_RING_RESET;
	fz->transport->write_status(fz, FZ_FOUND);
	fz->transport->write_features(fz, 0, (uint32_t)all);
	fz->transport->write_features(fz, 1, (uint32_t)(all >> 32));
	fz->transport->write_status(fz, FZ_FOUND | VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < FZ_QUEUES; i++)
		fz->transport->set_up_queue(fz, i, i * FZ_QUEUE_STEP);
	if (!(features & 0x80))
		fz->transport->write_status(fz, FZ_FOUND | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

static inline void fz_mutate(struct fz *fz)
{
	uint16_t at = fz_take16(fz);
	uint64_t value = fz_take64(fz);
	(void)gmem_write(fz->gmem, at, &value, 1U << (at & 3));
}

/* A chain on a split ring: one buffer out, one in. */
static inline void fz_add(struct fz *fz)
{
	uint8_t what = fz_take8(fz), count = fz_take8(fz) & 7;
	unsigned queue = what & 1;
	gpa_t base = queue * FZ_QUEUE_STEP, driver = base + FZ_DRIVER_AREA;
	uint16_t idx = 0;
	struct vring_desc desc[2] = {
		{FZ_DATA, 16, VRING_DESC_F_NEXT, 1},
		{FZ_DATA + 64, 16, VRING_DESC_F_WRITE, 0},
	};
	if (what & 0x80)
		desc[1].next = 0, desc[1].flags |= VRING_DESC_F_NEXT; /* a circle */
	(void)gmem_write(fz->gmem, base, desc, sizeof(desc));
	(void)gmem_read(fz->gmem, driver + 2, &idx, sizeof(idx));
	for (unsigned i = 0; i < count; i++, idx++) {
		uint16_t head = 0;
		(void)gmem_write(fz->gmem, driver + 4 + 2 * (idx % FZ_QUEUE_SIZE), &head, sizeof(head));
	}
	(void)gmem_write(fz->gmem, driver + 2, &idx, sizeof(idx));
	fz->transport->notify(fz, queue);
}

static inline void fz_dispatch(struct fz *fz)
{
	int r = loop_dispatch(fz->loop);
	assert(r == 0);
}

/* What the model and its back end do. */
static inline void fz_model(struct fz *fz)
{
	uint8_t what = fz_take8(fz);
	unsigned queue = what >> 7;
	virtio_lock(&fz->dev);
	switch (what & 7) {
	case 0:
		fz_release(fz, queue, what >> 3 & 7);
		break;
	case 1:
		virtio_kick(&fz->dev, queue);
		break;
	case 2:
		virtio_config_changed(&fz->dev);
		break;
	case 3:
		virtio_break(&fz->dev, "the fuzzer says so");
		break;
	default:
		fz->holds = what & 8;
		break;
	}
	virtio_unlock(&fz->dev);
}

static inline void fz_reset(struct fz *fz)
{
	fz->transport->write_status(fz, 0);
	assert(fz->dev.status == 0 && fz->dev.state == VIRTIO_IDLE);
}

static inline void fz_step(struct fz *fz)
{
	static void (*const steps[])(struct fz * fz) = {fz_start,    fz_mutate, fz_add,   fz_dispatch,
							fz_dispatch, fz_model,  fz_reset, fz_config};
	uint8_t op = fz_take8(fz);
	if (op & 0x80)
		fz_access(fz, op & 1);
	else
		steps[op % ARRAY_SIZE(steps)](fz);
	fz_check(fz);
}

/* --- a life
 * -------------------------------------------------------------------------------------------------------------- */

static inline void fz_init(struct fz *fz)
{
	struct virtio_init init = {
		.model = &FZ_MODEL,
		.loop = fz->loop,
		.gmem = fz->gmem,
		.packed = true,
		.queue_count = FZ_QUEUES,
		.queue_size_max = FZ_QUEUE_SIZE,
		.config_size_bytes = 20,
	};
	fz->dev = (struct virtio_device){0};
	fz->cancel_task = (struct loop_task){.fn = fz_cancelled};
	if (virtio_init(&fz->dev, &init, NULL) < 0)
		abort();
	bus_init(&fz->bus, "mmio", UINT64_MAX);
	fz->transport->create(fz);
}

static inline void fz_run(struct fz *fz, const uint8_t *data, size_t size_bytes)
{
	const struct gmem_region region = {0, FZ_RAM_BYTES, NULL};
	if (!fz->loop) {
		fz->loop = loop_new(NULL);
		fz->gmem = gmem_new(&region, 1, NULL);
	}
	if (!fz->loop || !fz->gmem || gmem_fill(fz->gmem, 0, 0, FZ_RAM_BYTES) < 0)
		abort();
	fz->data = data;
	fz->left = size_bytes;
	fz->holds = fz->is_destroyed = false;
	fz_init(fz);
	for (unsigned i = 0; fz->left && i < FZ_STEPS_MAX; i++)
		fz_step(fz);
	fz->transport->destroy(fz);
	bus_fini(&fz->bus);
	assert(fz->is_destroyed && fz->held_count[0] == 0 && fz->held_count[1] == 0);
	loop_unpost(fz->loop, &fz->cancel_task);
}
