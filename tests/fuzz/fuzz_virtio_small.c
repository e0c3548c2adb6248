/*
 * virtio-rng and virtio-balloon under a hostile driver; the first byte says which. An input's bytes fill ring memory,
 * make chains of every shape, ring doorbells and reset the device and its queues; the host asks for statistics and sets
 * targets in between.
 *
 * Whatever they do: each popped chain is pushed once, but for the one that the balloon keeps; nothing is in flight
 * after a reset; and memory that nobody gave up or offered stays as it is.
 */
#include <assert.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "gmem.h"
#include "util.h"
#include "virtio/balloon.h"
#include "virtio/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	QUEUES_MAX = 5,
	QUEUE_SIZE = 8,
	PAGE = 4096,
	RINGS_STEP = 0x1000, /* a queue's: descriptors, driver's area at 0x400, device's at 0x800 */
	DRIVER_AREA = 0x400,
	DEVICE_AREA = 0x800,
	DATA = 0x6000,
	DATA_BYTES = 0x8000,
	PAGES = 0x10000, /* for the balloon */
	GUARD = 0x1e000, /* two pages that no well-formed chain names; the second is another region */
	PAGES_COUNT = (GUARD - PAGES) / PAGE,
	RAM_BYTES = 0x20000,
	STATSQ = 2,
	STEPS_MAX = 400,
};

struct fz {
	struct loop *loop;
	struct gmem *gmem;
	struct device door;
	struct virtio_device *dev;
	bool is_balloon, hostile; /* hostile: bytes went into memory as they are, or name any memory */

	const uint8_t *data;
	size_t left;
};

/* --- input ---------------------------------------------------------------------------------------------------- */

static uint8_t take8(struct fz *fz)
{
	if (fz->left == 0)
		return 0;
	fz->left--;
	return *fz->data++;
}

static uint32_t take32(struct fz *fz)
{
	uint32_t value = 0;
	for (unsigned i = 0; i < 4; i++)
		value = value << 8 | take8(fz);
	return value;
}

static unsigned take_queue(struct fz *fz)
{
	return take8(fz) % fz->dev->queue_count;
}

/* --- the transport ----------------------------------------------------------------------------------------------- */

static void no_interrupt(void *ctx, unsigned queue)
{
	assert(queue < ((struct fz *)ctx)->dev->queue_count);
}

static void no_config_interrupt(void *ctx)
{
	(void)ctx;
}

static void no_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

static const struct virtio_transport TRANSPORT = {no_interrupt, no_config_interrupt, no_doorbells};
static const struct device_ops DOOR = {.name = "door"};

static void write_status(struct fz *fz, uint8_t status)
{
	virtio_lock(fz->dev);
	virtio_write_status(fz->dev, status);
	virtio_unlock(fz->dev);
}

static void set_up_queue(struct fz *fz, unsigned index)
{
	gpa_t base = index * RINGS_STEP;
	virtio_lock(fz->dev);
	struct virtio_queue *queue = virtio_get_queue(fz->dev, index);
	virtio_set_queue_size(fz->dev, queue, QUEUE_SIZE);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)base);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)base + DRIVER_AREA);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)base + DEVICE_AREA);
	virtio_enable_queue(fz->dev, queue);
	virtio_unlock(fz->dev);
}

/* --- steps ----------------------------------------------------------------------------------------------------------
 */

static void step_reset(struct fz *fz)
{
	write_status(fz, 0);
	assert(fz->dev->status == 0);
	for (unsigned i = 0; i < fz->dev->queue_count; i++)
		assert(fz->dev->queues[i].in_flight == 0 && !fz->dev->queues[i].ring);
}

/* Packed, EVENT_IDX, INDIRECT, STATS_VQ, REPORTING: a bit each. */
static void step_start(struct fz *fz)
{
	static const unsigned bits[] = {VIRTIO_F_RING_PACKED, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
					VIRTIO_BALLOON_F_STATS_VQ, VIRTIO_BALLOON_F_REPORTING};
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, which = take8(fz);
	uint64_t features = fz->dev->features;
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
		features &= which >> i & 1 ? UINT64_MAX : ~(1ULL << bits[i]);
	step_reset(fz);
	(void)gmem_fill(fz->gmem, 0, 0, DATA);
	write_status(fz, status);
	virtio_lock(fz->dev);
	virtio_write_driver_features(fz->dev, 0, (uint32_t)features);
	virtio_write_driver_features(fz->dev, 1, (uint32_t)(features >> 32));
	virtio_unlock(fz->dev);
	write_status(fz, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < fz->dev->queue_count; i++)
		set_up_queue(fz, i);
	write_status(fz, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void step_reset_queue(struct fz *fz)
{
	unsigned index = take_queue(fz);
	virtio_lock(fz->dev);
	virtio_reset_queue(fz->dev, virtio_get_queue(fz->dev, index));
	virtio_unlock(fz->dev);
	(void)gmem_fill(fz->gmem, index * RINGS_STEP, 0, RINGS_STEP);
	set_up_queue(fz, index);
}

static void step_mutate(struct fz *fz)
{
	gpa_t at = take32(fz) % RAM_BYTES;
	for (unsigned count = take8(fz) % 32 + 1; count; count--, at++) {
		uint8_t byte = take8(fz);
		(void)gmem_write(fz->gmem, at, &byte, 1);
	}
	fz->hostile = true;
}

/* What a chain may be made of: lists of pages near each other, statistics, anything. */
static void step_data(struct fz *fz)
{
	static const unsigned strides[] = {0, 1, 3, PAGES_COUNT - 1}; /* the last: downwards */
	uint8_t what = take8(fz);
	unsigned page = take8(fz);
	for (unsigned i = 0; i < (what & 31U); i++, page += strides[what >> 5 & 3]) {
		uint8_t bytes[4];
		le32_store(bytes, PAGES / PAGE + page % PAGES_COUNT);
		(void)gmem_write(fz->gmem, DATA + i * 4, bytes, sizeof(bytes));
	}
	if (!(what & 128))
		return;
	uint32_t pfn = take32(fz); /* a page that may be anywhere */
	(void)gmem_write(fz->gmem, DATA, &pfn, sizeof(pfn));
	fz->hostile = true;
}

/* A chain of one or two buffers on a split ring, by rules that its bytes may break; several times. */
static void step_chain(struct fz *fz)
{
	unsigned queue = take_queue(fz);
	uint8_t shape = take8(fz), size = take8(fz);
	bool writable = shape & 1;
	bool pages = writable && fz->is_balloon;
	gpa_t base = queue * RINGS_STEP;
	struct vring_desc desc[2] = {
		{DATA, size * 4U + 4U, (uint16_t)(writable ? VRING_DESC_F_WRITE : 0), 1},
		{DATA + 0x1000, 64, VRING_DESC_F_WRITE, 0},
	};
	if (pages) {
		desc[0].addr = PAGES + size % 6 * (uint64_t)PAGE;
		desc[0].len = (size >> 4) % 6 * PAGE + PAGE;
		desc[1].addr = PAGES + 13 * (uint64_t)PAGE;
		desc[1].len = PAGE;
	}
	if (shape & 2)
		desc[0].flags |= VRING_DESC_F_NEXT;
	if (shape & 4)
		desc[0].len = take32(fz) % (DATA_BYTES + (pages ? 1U : 0U));
	(void)gmem_write(fz->gmem, base, desc, sizeof(desc));
	uint16_t idx = 0, head = 0;
	(void)gmem_read(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	for (unsigned count = (shape >> 4) % 8 + 1; count; count--, idx++)
		(void)gmem_write(fz->gmem, base + DRIVER_AREA + 4 + 2 * (idx % QUEUE_SIZE), &head, sizeof(head));
	(void)gmem_write(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	virtio_ring(fz->dev, queue);
}

static void step_ring(struct fz *fz)
{
	virtio_ring(fz->dev, take8(fz) % (QUEUES_MAX + 1));
}

static void step_dispatch(struct fz *fz)
{
	for (unsigned count = take8(fz) % 4 + 1; count; count--) {
		int r = loop_dispatch(fz->loop);
		assert(r == 0);
	}
}

static void step_config(struct fz *fz)
{
	uint8_t at = take8(fz), size = take8(fz) % 8 + 1, bytes[8];
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = take8(fz);
	virtio_lock(fz->dev);
	virtio_write_config(fz->dev, at % 20, bytes, size);
	virtio_read_config(fz->dev, at % 24, bytes, size);
	virtio_unlock(fz->dev);
}

static void check_info(struct fz *fz, uint64_t target_bytes)
{
	struct virtio_balloon_info info;
	virtio_balloon_get_info(fz->dev, &info);
	assert(info.actual_bytes <= RAM_BYTES && info.target_bytes == target_bytes / PAGE * PAGE);
}

/* The host's side. */
static void step_host(struct fz *fz)
{
	uint8_t what = take8(fz);
	if (!fz->is_balloon)
		return;
	if (what & 1)
		virtio_balloon_request_stats(fz->dev);
	if (!(what & 2))
		return;
	uint64_t target_bytes = take32(fz);
	virtio_balloon_set_target(fz->dev, target_bytes);
	check_info(fz, min_u64(target_bytes, RAM_BYTES));
}

/* --- what must hold ----------------------------------------------------------------------------------------------- */

static bool may_keep(const struct fz *fz, unsigned queue)
{
	return fz->is_balloon && queue == STATSQ;
}

static void check(const struct fz *fz)
{
	for (unsigned i = 0; i < fz->dev->queue_count; i++) {
		const struct virtio_queue *queue = &fz->dev->queues[i];
		const struct virtio_counters *count = &queue->counters;
		assert(queue->in_flight <= (may_keep(fz, i) ? 1U : 0U));
		assert(count->chains ==
		       count->interrupts + count->interrupts_spared + queue->pushed + queue->in_flight);
	}
	uint8_t bytes[2 * PAGE];
	int r = gmem_read(fz->gmem, GUARD, bytes, sizeof(bytes));
	assert(r == 0);
	for (unsigned i = 0; i < sizeof(bytes) && !fz->hostile; i++)
		assert(bytes[i] == 0x5a);
}

static void step(struct fz *fz)
{
	static void (*const steps[])(struct fz *) = {step_start,       step_mutate,   step_data,   step_chain,
						     step_ring,        step_dispatch, step_config, step_host,
						     step_reset_queue, step_reset,    step_chain,  step_dispatch};
	steps[take8(fz) % ARRAY_SIZE(steps)](fz);
	check(fz);
}

/* --- a life ----------------------------------------------------------------------------------------------------------
 */

static void init(struct fz *fz)
{
	const struct gmem_region regions[] = {{0, GUARD + PAGE, NULL}, {GUARD + PAGE, PAGE, NULL}};
	fz->loop = loop_new(NULL);
	fz->gmem = gmem_new(regions, ARRAY_SIZE(regions), NULL);
	if (!fz->loop || !fz->gmem)
		abort();
	device_init(&fz->door, &DOOR);
}

static struct virtio_device *new_device(struct fz *fz, uint8_t kind)
{
	const struct virtio_balloon_init balloon = {
		.reporting = kind & 2, .deflate_on_oom = true, .packed = true, .target_bytes = PAGE};
	struct virtio_rng_init rng = {.packed = true};
	if (kind & 2)
		rng.limit = (struct rate_limit_config){.ops_per_s = 100000, .ops_burst = 2, .bytes_per_s = 1 << 24};
	return fz->is_balloon ? virtio_balloon_new(fz->loop, fz->gmem, NULL, &balloon, NULL)
			      : virtio_rng_new(fz->loop, fz->gmem, NULL, &rng, NULL);
}

static void create(struct fz *fz)
{
	uint8_t kind = take8(fz);
	(void)gmem_fill(fz->gmem, 0, 0, GUARD);
	(void)gmem_fill(fz->gmem, GUARD, 0x5a, 2 * PAGE);
	fz->is_balloon = kind & 1;
	fz->hostile = false;
	fz->dev = new_device(fz, kind);
	if (!fz->dev)
		abort();
	virtio_attach(fz->dev, &fz->door, &TRANSPORT, fz);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static struct fz fz;
	if (!fz.loop)
		init(&fz);
	fz.data = data;
	fz.left = size_bytes;
	create(&fz);
	for (unsigned i = 0; fz.left && i < STEPS_MAX; i++)
		step(&fz);
	virtio_free(fz.dev);
	return 0;
}
