/*
 * For tests of the virtio core and its transports: a device model that echoes or holds chains, a driver's memory, and a
 * vCPU thread while the main thread runs the loop.
 */
#pragma once

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <setjmp.h> /* cmocka wants these before it */

#include <cmocka.h>

#include "loop.h"
#include "util.h"
#include "virtio/virtio.h"
#include "virtq_driver.h"

enum {
	FAKE_QUEUES = 2,
	FAKE_QUEUE_SIZE = 16,
	FAKE_CONFIG_SIZE = 24,
	FAKE_FEATURE = 5, /* its own feature bit */
	FAKE_KEPT = 1,    /* the queue whose chains are said to be kept */
	FAKE_RAM_BYTES = 0x100000,
	FAKE_RINGS = 0x10000,
	FAKE_RINGS_STEP = 0x20000,
	FAKE_DATA = 0x80000,
};
static const uint64_t FAKE_MS = 1000000;

/* --- the model ------------------------------------------------------------------------------------------------ */

struct fake {
	struct virtio_device dev;
	bool holds;       /* keep chains until fake_release, or a while after a cancel */
	bool batches;     /* serve pops all, and then pushes all */
	bool refuses;     /* serve pops nothing */
	bool unpops;      /* serve gives the first chain back to the ring */
	unsigned refills; /* each echo makes one more chain available, so often */
	struct virtq_driver *refill_driver;

	struct virtq_chain held[FAKE_QUEUES][FAKE_QUEUE_SIZE];
	unsigned held_count[FAKE_QUEUES];
	bool cancelled[FAKE_QUEUES];
	struct loop_timer cancel_timer;

	unsigned starts, resets, serves, cancels, config_writes;
	unsigned config_offset, config_size;
	bool *ret_destroyed;
};

static inline struct fake *to_fake(struct virtio_device *dev)
{
	return container_of(dev, struct fake, dev);
}

static inline void fake_refill(struct fake *f)
{
	const struct virtq_buffer buffer = {FAKE_DATA, 8, false};
	if (f->refills == 0)
		return;
	f->refills--;
	assert_true(virtq_driver_add(f->refill_driver, &buffer, 1) >= 0);
}

/* What was sent comes back in the writable part. */
static inline void fake_echo(struct fake *f, unsigned queue, const struct virtq_chain *chain)
{
	uint8_t bytes[64];
	size_t size = iov_read(chain->iov, chain->out_count, 0, bytes, sizeof(bytes));
	size = iov_write(chain->iov + chain->out_count, chain->in_count, 0, bytes, size);
	virtio_push(&f->dev, queue, chain, (uint32_t)size);
	uint16_t id;
	uint32_t written;
	if (f->refills && virtq_driver_take(f->refill_driver, &id, &written))
		fake_refill(f);
}

static inline void fake_start(struct virtio_device *dev)
{
	to_fake(dev)->starts++;
}

/* The lock is held. */
static inline void fake_release_locked(struct fake *f, unsigned queue, unsigned count)
{
	for (; count && f->held_count[queue]; count--)
		virtio_push(&f->dev, queue, &f->held[queue][--f->held_count[queue]], 0);
}

static inline void fake_serve(struct virtio_device *dev, unsigned queue)
{
	struct fake *f = to_fake(dev);
	struct virtq_chain chain;
	f->serves++;
	while (!f->refuses && virtio_pop(dev, queue, &chain) == 1) {
		if (f->unpops) {
			virtio_unpop(dev, queue, &chain);
			return;
		}
		if (f->holds || f->batches)
			f->held[queue][f->held_count[queue]++] = chain;
		else
			fake_echo(f, queue, &chain);
	}
	if (f->batches)
		fake_release_locked(f, queue, UINT32_MAX);
}

static inline void fake_release(struct fake *f, unsigned queue, unsigned count)
{
	virtio_lock(&f->dev);
	fake_release_locked(f, queue, count);
	virtio_unlock(&f->dev);
}

static inline void fake_cancel_timer(struct loop_timer *timer)
{
	struct fake *f = container_of(timer, struct fake, cancel_timer);
	virtio_lock(&f->dev);
	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		if (f->cancelled[i])
			fake_release_locked(f, i, UINT32_MAX);
		f->cancelled[i] = false;
	}
	virtio_unlock(&f->dev);
}

static inline void fake_cancel(struct virtio_device *dev, unsigned queue)
{
	struct fake *f = to_fake(dev);
	f->cancels++;
	f->cancelled[queue] = true;
	loop_timer_arm(dev->loop, &f->cancel_timer, loop_now_ns() + 2 * FAKE_MS);
}

static inline void fake_reset(struct virtio_device *dev)
{
	struct fake *f = to_fake(dev);
	f->resets++;
	for (unsigned i = 0; i < dev->queue_count; i++)
		assert_int_equal(dev->queues[i].in_flight, 0);
}

static inline void fake_write_config(struct virtio_device *dev, unsigned offset, const uint8_t *data,
				     unsigned size_bytes)
{
	struct fake *f = to_fake(dev);
	assert_true(size_bytes > 0 && offset + size_bytes <= FAKE_CONFIG_SIZE);
	memcpy(dev->config + offset, data, size_bytes);
	f->config_writes++;
	f->config_offset = offset;
	f->config_size = size_bytes;
}

static inline void fake_destroy(struct virtio_device *dev)
{
	struct fake *f = to_fake(dev);
	loop_timer_disarm(dev->loop, &f->cancel_timer);
	if (f->ret_destroyed)
		*f->ret_destroyed = true;
	free(f);
}

static const struct virtio_model FAKE_MODEL = {
	.id = VIRTIO_ID_RNG,
	.name = "fake",
	.pci_class = 0x00ff00,
	.start = fake_start,
	.serve = fake_serve,
	.cancel = fake_cancel,
	.reset = fake_reset,
	.write_config = fake_write_config,
	.destroy = fake_destroy,
};

/* --- all that stands around it ----------------------------------------------------------------------------------- */

struct rig {
	struct loop *loop;
	struct gmem *gmem;
	struct log log;
	unsigned log_lines;
	char log_text[256];
	struct fake *fake;
	struct virtio_device *dev;
	struct virtq_driver drivers[FAKE_QUEUES];
	bool destroyed;
};

static inline void rig_log(void *ctx, enum log_level level, const char *line)
{
	struct rig *rig = ctx;
	(void)level;
	rig->log_lines++;
	(void)snprintf(rig->log_text, sizeof(rig->log_text), "%s", line);
}

static inline void rig_init_device(struct rig *rig, struct loop *loop)
{
	struct virtio_init init = {
		.model = &FAKE_MODEL,
		.loop = loop,
		.gmem = rig->gmem,
		.log = &rig->log,
		.features = 1ULL << FAKE_FEATURE,
		.packed = true,
		.queue_count = FAKE_QUEUES,
		.queue_size_max = FAKE_QUEUE_SIZE,
		.kept_queues = 1U << FAKE_KEPT,
		.config_size_bytes = FAKE_CONFIG_SIZE,
	};
	rig->fake = calloc(1, sizeof(*rig->fake));
	assert_non_null(rig->fake);
	rig->dev = &rig->fake->dev;
	assert_int_equal(virtio_init(rig->dev, &init, NULL), 0);
	rig->fake->cancel_timer.fn = fake_cancel_timer;
	rig->fake->ret_destroyed = &rig->destroyed;
	for (unsigned i = 0; i < FAKE_CONFIG_SIZE; i++)
		rig->dev->config[i] = (uint8_t)(i + 1);
}

static inline void rig_init(struct rig *rig)
{
	const struct gmem_region region = {0, FAKE_RAM_BYTES, NULL};
	*rig = (struct rig){.log = {LOG_LEVEL_DEBUG, rig_log, rig}};
	alarm(30); /* a test that hangs has failed */
	rig->loop = loop_new(NULL);
	rig->gmem = gmem_new(&region, 1, NULL);
	assert_non_null(rig->loop);
	assert_non_null(rig->gmem);
	rig_init_device(rig, rig->loop);
}

static inline void rig_fini(struct rig *rig)
{
	assert_true(rig->destroyed);
	loop_free(rig->loop);
	gmem_free(rig->gmem);
}

/* A driver's rings for a queue. */
static inline struct virtq_driver *rig_lay_ring(struct rig *rig, unsigned queue, bool packed, bool event_idx)
{
	struct virtq_config config = {
		.packed = packed, .indirect = true, .event_idx = event_idx, .size = FAKE_QUEUE_SIZE};
	virtq_driver_init(&rig->drivers[queue], rig->gmem, FAKE_RINGS + queue * FAKE_RINGS_STEP, &config);
	return &rig->drivers[queue];
}

/* Run the loop until nothing comes any more for a while. */
static inline void rig_settle(struct rig *rig)
{
	for (int i = 0; i < 6; i++)
		assert_int_equal(loop_wait(rig->loop, FAKE_MS / 2), 0);
}

/* 8 bytes there and, right behind them, 8 bytes back. */
static inline int rig_add(struct rig *rig, unsigned queue)
{
	const struct virtq_buffer buffers[] = {{FAKE_DATA, 8, false}, {FAKE_DATA + 8, 8, true}};
	return virtq_driver_add(&rig->drivers[queue], buffers, ARRAY_SIZE(buffers));
}

static inline unsigned rig_take_all(struct rig *rig, unsigned queue)
{
	unsigned count = 0;
	uint16_t id;
	uint32_t written;
	while (virtq_driver_take(&rig->drivers[queue], &id, &written))
		count++;
	return count;
}

/* --- a vCPU ------------------------------------------------------------------------------------------------------- */

struct vcpu {
	struct rig *rig;
	void (*fn)(struct rig *rig);
	pthread_t thread;
	atomic_bool done;
};

static inline void *vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	vcpu->fn(vcpu->rig);
	atomic_store(&vcpu->done, true);
	loop_wake(vcpu->rig->loop);
	return NULL;
}

/* fn runs on `count` threads at once while this one runs the loop. */
static inline void rig_on_vcpus(struct rig *rig, void (*fn)(struct rig *rig), unsigned count)
{
	struct vcpu vcpus[4] = {0};
	assert_true(count <= ARRAY_SIZE(vcpus));
	assert_int_equal(loop_dispatch(rig->loop), 0); /* the loop is this thread's */
	for (unsigned i = 0; i < count; i++) {
		vcpus[i].rig = rig;
		vcpus[i].fn = fn;
		assert_int_equal(pthread_create(&vcpus[i].thread, NULL, vcpu_main, &vcpus[i]), 0);
	}
	for (unsigned i = 0; i < count; i++) {
		while (!atomic_load(&vcpus[i].done))
			assert_int_equal(loop_wait(rig->loop, 10 * FAKE_MS), 0);
		pthread_join(vcpus[i].thread, NULL);
	}
}
