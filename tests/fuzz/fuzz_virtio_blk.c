/*
 * virtio-blk under a hostile driver and a disk of moods. An input's bytes fill ring memory and requests, ring
 * doorbells, and let the disk end what it has in any order, well or badly; resets of device and queues come in between.
 *
 * Whatever they do: each popped chain is pushed once; what the disk sees lies inside the disk and in RAM; nothing is in
 * flight after a reset; and a request writes its status byte and its data, and nothing beside them.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_virtio_model.h"
#include "gmem.h"
#include "util.h"
#include "virtio/blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	QUEUES = 2,
	QUEUE_SIZE = 8,
	RAM_BYTES = 0x10000,
	TABLES = 0x2000,
	HEADERS = 0x3000,
	DATA = 0x4000,
	GUARD = 0xf000, /* no well-formed request names it */
	DISK_BYTES = 0x4000,
	HELD_MAX = 1024,
	STEPS_MAX = 400,
};

struct fz {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct device door;
	struct virtio_device *dev;

	struct block block;
	uint8_t disk[DISK_BYTES];
	bool holds, hostile; /* hostile: bytes went into memory as they are */
	struct block_request *held[HELD_MAX];
	unsigned held_count;
	uint8_t features;

	const uint8_t *data;
	size_t left;
};

/* --- input ---------------------------------------------------------------------------------------------------------
 */

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

/* --- the disk ------------------------------------------------------------------------------------------------------
 */

static void check_iov(const struct fz *fz, const struct block_request *request)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < request->iov_count; i++) {
		const uint8_t *at = request->iov[i].iov_base;
		size_t size = request->iov[i].iov_len;
		assert(size && at >= fz->ram && at < fz->ram + RAM_BYTES && size <= (size_t)(fz->ram + RAM_BYTES - at));
		sum += size;
	}
	assert(sum == request->size_bytes);
}

static void move(struct fz *fz, const struct block_request *request)
{
	uint8_t *at = fz->disk + request->offset_bytes;
	if (request->op == BLOCK_READ)
		iov_write(request->iov, request->iov_count, 0, at, request->size_bytes);
	else if (request->op == BLOCK_WRITE)
		iov_read(request->iov, request->iov_count, 0, at, request->size_bytes);
	else if (request->op != BLOCK_FLUSH)
		memset(at, 0, request->size_bytes);
}

static void fz_submit(struct block *block, struct block_request *request)
{
	struct fz *fz = container_of(block, struct fz, block);
	assert(request->offset_bytes <= DISK_BYTES && request->size_bytes <= DISK_BYTES - request->offset_bytes);
	assert(!block->info.read_only || request->op == BLOCK_READ || request->op == BLOCK_FLUSH);
	if (request->op == BLOCK_READ || request->op == BLOCK_WRITE)
		check_iov(fz, request);
	if (fz->holds) {
		assert(fz->held_count < QUEUES * QUEUE_SIZE);
		fz->held[fz->held_count++] = request;
		return;
	}
	move(fz, request);
	block_complete_later(request, 0);
}

static struct block_request *take_held(struct fz *fz, unsigned index)
{
	struct block_request *request = fz->held[index];
	fz->held[index] = fz->held[--fz->held_count];
	return request;
}

static void end_held(struct fz *fz, unsigned index, int res)
{
	struct block_request *request = take_held(fz, index);
	if (res == 0)
		move(fz, request);
	block_complete(request, res);
}

static void fz_cancel(struct block *block, struct block_request *request)
{
	struct fz *fz = container_of(block, struct fz, block);
	for (unsigned i = 0; i < fz->held_count; i++) {
		if (fz->held[i] == request) {
			block_complete_later(take_held(fz, i), -ECANCELED);
			return;
		}
	}
}

static void fz_destroy(struct block *block)
{
	(void)block;
}

static const struct block_ops BLOCK_OPS = {"fuzzed", fz_submit, fz_cancel, NULL, fz_destroy};

/* --- steps -----------------------------------------------------------------------------------------------------------
 */

static void step_reset(struct fz *fz)
{
	write_status(fz->dev, 0);
	assert(fz->dev->status == 0 && fz->held_count == 0 && fz->block.in_flight == 0);
}

static void step_start(struct fz *fz)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	uint64_t features = fz->dev->features;
	fz->features = take8(fz);
	step_reset(fz);
	(void)gmem_fill(fz->gmem, 0, 0, TABLES);
	features &= fz->features & 1 ? UINT64_MAX : ~(1ULL << VIRTIO_F_RING_PACKED);
	features &= fz->features & 2 ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	features &= fz->features & 4 ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_INDIRECT_DESC);
	write_status(fz->dev, status);
	virtio_lock(fz->dev);
	virtio_write_driver_features(fz->dev, 0, (uint32_t)features);
	virtio_write_driver_features(fz->dev, 1, (uint32_t)(features >> 32));
	virtio_unlock(fz->dev);
	write_status(fz->dev, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < QUEUES; i++)
		set_up_queue(fz->dev, i, QUEUE_SIZE);
	write_status(fz->dev, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void step_reset_queue(struct fz *fz)
{
	unsigned index = take8(fz) % QUEUES;
	virtio_lock(fz->dev);
	virtio_reset_queue(fz->dev, virtio_get_queue(fz->dev, index));
	virtio_unlock(fz->dev);
	(void)gmem_fill(fz->gmem, index * RINGS_STEP, 0, RINGS_STEP);
	set_up_queue(fz->dev, index, QUEUE_SIZE);
}

static void step_mutate(struct fz *fz)
{
	gpa_t at = take32(fz) % RAM_BYTES;
	for (unsigned count = take8(fz) % 32 + 1; count && at < RAM_BYTES; count--)
		fz->ram[at++] = take8(fz);
	fz->hostile = true;
}

/* A chain of up to four buffers on a split ring, by rules that its bytes may break: lengths, sectors, directions. */
static void step_request(struct fz *fz)
{
	uint8_t what = take8(fz), shape = take8(fz);
	unsigned queue = what & 1, slot = what >> 1 & 1;
	gpa_t base = queue * RINGS_STEP, header_at = HEADERS + slot * 64U;
	uint32_t data_size = (take8(fz) & 15) * 256U + (shape & 0x80 ? take8(fz) : 0);
	struct virtio_blk_outhdr header = {.type = take8(fz) & 15, .sector = take8(fz)};
	if (shape & 0x40)
		header.sector = (uint64_t)take32(fz) << 32 | take32(fz);
	bool reads = header.type == VIRTIO_BLK_T_IN || header.type == VIRTIO_BLK_T_GET_ID;
	uint16_t write = VRING_DESC_F_WRITE, next = VRING_DESC_F_NEXT;
	struct vring_desc desc[3] = {
		{header_at, sizeof(header), next, 1},
		{DATA + slot * 0x4000U, data_size ? data_size : 1, (uint16_t)(next | (reads ? write : 0)), 2},
		{header_at + 32, 1, write, 0},
	};
	if (shape & 0x20)
		desc[0].len = shape & 31;
	if (shape & 0x10)
		desc[2].flags = 0;
	(void)gmem_write(fz->gmem, header_at, &header, sizeof(header));
	(void)gmem_write(fz->gmem, base, desc, sizeof(desc));
	uint16_t idx, head = 0;
	(void)gmem_read(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	for (unsigned count = what >> 4 & 3; count <= 3; count++, idx++)
		(void)gmem_write(fz->gmem, base + DRIVER_AREA + 4 + 2 * (idx % QUEUE_SIZE), &head, sizeof(head));
	(void)gmem_write(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	virtio_ring(fz->dev, queue);
}

static void step_ring(struct fz *fz)
{
	virtio_ring(fz->dev, take8(fz) % (QUEUES + 1));
}

static void step_dispatch(struct fz *fz)
{
	for (unsigned count = take8(fz) % 4 + 1; count; count--) {
		int r = loop_dispatch(fz->loop);
		assert(r == 0);
	}
}

static void step_end(struct fz *fz)
{
	static const int results[] = {0, 0, -EIO, -ENOTSUP, -ENOSPC};
	uint8_t which = take8(fz), result = take8(fz);
	if (fz->held_count)
		end_held(fz, which % fz->held_count, results[result % ARRAY_SIZE(results)]);
}

static void step_disk(struct fz *fz)
{
	uint8_t what = take8(fz);
	fz->holds = what & 1;
	if (!(what & 2))
		return;
	fz->block.info.size_bytes = DISK_BYTES / 512 * (what >> 4) / 16 * 512;
	virtio_blk_resized(fz->dev);
}

/* --- what must hold -------------------------------------------------------------------------------------------------
 */

static void check(const struct fz *fz)
{
	unsigned in_flight = 0;
	for (unsigned i = 0; i < QUEUES; i++) {
		const struct virtio_queue *queue = &fz->dev->queues[i];
		const struct virtio_counters *count = &queue->counters;
		in_flight += queue->in_flight;
		assert(queue->in_flight <= QUEUE_SIZE);
		assert(count->chains ==
		       count->interrupts + count->interrupts_spared + queue->pushed + queue->in_flight);
	}
	assert(in_flight == fz->block.in_flight && in_flight >= fz->held_count);
	for (unsigned i = GUARD; i < RAM_BYTES && !fz->hostile; i++)
		assert(fz->ram[i] == 0x5a);
}

static void step(struct fz *fz)
{
	static void (*const steps[])(struct fz *) = {
		step_start, step_mutate, step_request, step_request,     step_ring,    step_dispatch, step_dispatch,
		step_end,   step_disk,   step_reset,   step_reset_queue, step_request, step_dispatch};
	steps[take8(fz) % ARRAY_SIZE(steps)](fz);
	check(fz);
}

/* --- a life
 * ------------------------------------------------------------------------------------------------------------ */

static void init(struct fz *fz)
{
	const struct gmem_region region = {0, RAM_BYTES, NULL};
	fz->loop = loop_new(NULL);
	fz->gmem = gmem_new(&region, 1, NULL);
	if (!fz->loop || !fz->gmem)
		abort();
	fz->ram = gmem_view(fz->gmem, 0, RAM_BYTES, 1);
	device_init(&fz->door, &DOOR);
}

static void create(struct fz *fz)
{
	uint8_t kind = take8(fz);
	struct virtio_blk_init how = {.serial = "fuzzed", .queues = QUEUES, .packed = true};
	if (kind & 1)
		how.limit = (struct rate_limit_config){.ops_per_s = 100000, .ops_burst = 2, .bytes_per_s = 1 << 28};
	(void)gmem_fill(fz->gmem, 0, 0x5a, RAM_BYTES);
	(void)gmem_fill(fz->gmem, 0, 0, TABLES);
	fz->holds = fz->hostile = false;
	block_init(&fz->block, &BLOCK_OPS, fz->loop);
	fz->block.info = (struct block_info){
		.size_bytes = DISK_BYTES,
		.block_size_bytes = kind & 2 ? 4096 : 512,
		.physical_block_bytes = 4096,
		.discard_granularity_bytes = kind & 4 ? 0 : 4096,
		.can_write_zeroes = !(kind & 8),
		.read_only = kind & 16,
	};
	fz->dev = virtio_blk_new(fz->loop, fz->gmem, NULL, &fz->block, &how, NULL);
	if (!fz->dev)
		abort();
	virtio_attach(fz->dev, &fz->door, &TRANSPORT, fz->dev);
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
	assert(fz.held_count == 0 && fz.block.in_flight == 0);
	return 0;
}
