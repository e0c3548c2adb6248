#include "virtio/blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "util.h"

enum {
	QUEUE_SIZE = 256,
	HEADER_SIZE = sizeof(struct virtio_blk_outhdr),
	STATUS_SIZE = 1,
	SEG_MAX = QUEUE_SIZE - 2, /* header and status take a descriptor each */
	INLINE_SPANS = 4,         /* what most requests need; more are allocated for the request */
	PCI_CLASS_MASS_STORAGE_OTHER = 0x018000,
};

/* One range per request; a driver splits what is longer. */
static const uint32_t MAX_DISCARD_SECTORS = UINT32_MAX / BLOCK_SECTOR_BYTES;

struct virtio_blk;

/* A chain of the driver on its way through the block. */
struct blk_request {
	struct block_request block;
	struct virtio_blk *blk;
	struct virtq_chain chain; /* without its spans */
	unsigned queue;
	bool active;
	struct iovec status;              /* one byte */
	struct iovec spans[INLINE_SPANS]; /* the data's, or: */
	struct iovec *many_spans;         /* allocated; NULL */
	struct blk_request *next_free;
};

struct virtio_blk {
	struct virtio_device dev;
	struct block *block;
	char serial[VIRTIO_BLK_ID_BYTES];

	struct rate_limit limit;
	struct loop_timer limit_timer;
	uint64_t limit_timer_ns; /* when it fires; 0: it is not armed */
	uint32_t throttled;      /* bit per queue */
	int head;                /* the throttled queue whose turn it is to take bytes; -1: none waits for bytes */
	unsigned first;          /* of those that wait for other things: the one that goes on first */

	/* As many as all rings hold. Their memory is touched as far as it has been needed at once. */
	struct blk_request *requests;
	unsigned used_count; /* ever used */
	struct blk_request *free;
};

static struct virtio_blk *to_blk(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

/* --- requests -------------------------------------------------------------------------------------------- */

/* There is always one: a ring gives out no more chains than it has descriptors. */
static struct blk_request *take_request(struct virtio_blk *blk)
{
	struct blk_request *request = blk->free;
	if (request)
		blk->free = request->next_free;
	else
		request = &blk->requests[blk->used_count++];
	request->active = true;
	return request;
}

static void put_request(struct virtio_blk *blk, struct blk_request *request)
{
	free(request->many_spans);
	request->many_spans = NULL;
	request->active = false;
	request->next_free = blk->free;
	blk->free = request;
}

static void finish(struct blk_request *request, uint8_t status, uint32_t data_bytes)
{
	struct virtio_blk *blk = request->blk;
	iov_write(&request->status, 1, 0, &status, sizeof(status));
	virtio_push(&blk->dev, request->queue, &request->chain, data_bytes + STATUS_SIZE);
	put_request(blk, request);
}

static uint8_t status_of(int res)
{
	if (res == 0)
		return VIRTIO_BLK_S_OK;
	return res == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void block_done(struct block_request *block_request, int res)
{
	struct blk_request *request = container_of(block_request, struct blk_request, block);
	struct virtio_device *dev = &request->blk->dev;
	bool has_read = block_request->op == BLOCK_READ && res == 0;

	virtio_lock(dev);
	finish(request, status_of(res), has_read ? (uint32_t)block_request->size_bytes : 0);
	virtio_unlock(dev);
}

/* The chain's bytes [skip, skip + size) of one direction become the request's data. False: no memory for the list. */
static bool take_data(struct blk_request *request, const struct iovec *iov, unsigned count, size_t skip, size_t size)
{
	struct iovec *spans = request->spans;
	if (count > INLINE_SPANS)
		spans = request->many_spans = malloc(count * sizeof(*spans));
	if (!spans)
		return false;
	request->block.iov = spans;
	request->block.iov_count = iov_slice(iov, count, skip, size, spans, count);
	request->block.size_bytes = size;
	return true;
}

static void start_transfer(struct blk_request *request, const struct virtq_chain *chain, uint64_t sector, bool is_write)
{
	struct block_request *block = &request->block;
	block->op = is_write ? BLOCK_WRITE : BLOCK_READ;
	/* A sector beyond 2^55 would wrap; this one is beyond every disk. */
	block->offset_bytes = min_u64(sector, UINT64_MAX / BLOCK_SECTOR_BYTES) * BLOCK_SECTOR_BYTES;
	bool has_data =
		is_write ? take_data(request, chain->iov, chain->out_count, HEADER_SIZE, chain->out_bytes - HEADER_SIZE)
			 : take_data(request, chain->iov + chain->out_count, chain->in_count, 0,
				     chain->in_bytes - STATUS_SIZE);
	if (has_data)
		block_submit(request->blk->block, block);
	else
		finish(request, VIRTIO_BLK_S_IOERR, 0);
}

/* 5.2.6.2: exactly one range of at most MAX_DISCARD_SECTORS, and only flags that the operation knows. */
static void start_range(struct blk_request *request, const struct virtq_chain *chain, enum block_op op)
{
	struct virtio_blk_discard_write_zeroes range;
	size_t size = chain->out_bytes - HEADER_SIZE;
	if (size != sizeof(range)) {
		finish(request, size % sizeof(range) ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_UNSUPP, 0);
		return;
	}
	iov_read(chain->iov, chain->out_count, HEADER_SIZE, &range, sizeof(range));
	uint32_t known = op == BLOCK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	if (range.flags & ~known) {
		finish(request, VIRTIO_BLK_S_UNSUPP, 0);
		return;
	}
	if (range.num_sectors > MAX_DISCARD_SECTORS) {
		finish(request, VIRTIO_BLK_S_IOERR, 0);
		return;
	}
	struct block_request *block = &request->block;
	block->op = op;
	block->may_unmap = range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	block->offset_bytes = min_u64(range.sector, UINT64_MAX / BLOCK_SECTOR_BYTES) * BLOCK_SECTOR_BYTES;
	block->size_bytes = (uint64_t)range.num_sectors * BLOCK_SECTOR_BYTES;
	block_submit(request->blk->block, block);
}

static void get_id(struct blk_request *request, const struct virtq_chain *chain)
{
	size_t room = min_u64(chain->in_bytes - STATUS_SIZE, VIRTIO_BLK_ID_BYTES);
	size_t written = iov_write(chain->iov + chain->out_count, chain->in_count, 0, request->blk->serial, room);
	finish(request, VIRTIO_BLK_S_OK, (uint32_t)written);
}

static void start(struct blk_request *request, const struct virtq_chain *chain, const struct virtio_blk_outhdr *header)
{
	switch (header->type) {
	case VIRTIO_BLK_T_IN:
		start_transfer(request, chain, header->sector, false);
		break;
	case VIRTIO_BLK_T_OUT:
		start_transfer(request, chain, header->sector, true);
		break;
	case VIRTIO_BLK_T_FLUSH:
		request->block.op = BLOCK_FLUSH;
		block_submit(request->blk->block, &request->block);
		break;
	case VIRTIO_BLK_T_GET_ID:
		get_id(request, chain);
		break;
	case VIRTIO_BLK_T_DISCARD:
		start_range(request, chain, BLOCK_DISCARD);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		start_range(request, chain, BLOCK_WRITE_ZEROES);
		break;
	default:
		finish(request, VIRTIO_BLK_S_UNSUPP, 0);
	}
}

/* --- serving --------------------------------------------------------------------------------------------- */

/* Queues wait for different things (a flush needs no bytes): the first that may go on is woken for. */
static void wake_at(struct virtio_blk *blk, uint64_t time_ns)
{
	if (blk->limit_timer_ns && blk->limit_timer_ns <= time_ns)
		return;
	blk->limit_timer_ns = time_ns;
	loop_timer_arm(blk->dev.loop, &blk->limit_timer, time_ns);
}

/* The head has had its turn: the next that waits. */
static void pass_turn(struct virtio_blk *blk)
{
	unsigned last = (unsigned)blk->head, count = blk->dev.queue_count;
	blk->head = -1;
	for (unsigned i = 1; i <= count && blk->head < 0; i++) {
		if (blk->throttled & 1U << (last + i) % count)
			blk->head = (int)((last + i) % count);
	}
	if (blk->head >= 0)
		wake_at(blk, loop_now_ns());
}

/*
 * A chain's data counts, whatever its type says. False: the queue waits until the timer says that it may go on. While
 * one waits for bytes no other takes any: small requests would keep the bucket from ever filling up for a large one.
 */
static bool passes_limit(struct virtio_blk *blk, unsigned queue, const struct virtq_chain *chain)
{
	if (!rate_limit_is_set(&blk->limit))
		return true;
	uint64_t bytes = (uint64_t)chain->out_bytes + chain->in_bytes - HEADER_SIZE - STATUS_SIZE;
	bool overtakes = bytes && blk->head >= 0 && blk->head != (int)queue;
	uint64_t again_ns = overtakes ? 0 : rate_limit_take(&blk->limit, 1, bytes, loop_now_ns());
	if (!again_ns && !overtakes) {
		if (blk->head == (int)queue)
			pass_turn(blk);
		return true;
	}
	blk->throttled |= 1U << queue;
	if (overtakes)
		return false; /* the head's timer will do */
	if (bytes && blk->head < 0)
		blk->head = (int)queue;
	wake_at(blk, again_ns);
	return false;
}

static void start_chain(struct virtio_blk *blk, unsigned queue, const struct virtq_chain *chain)
{
	struct virtio_blk_outhdr header;
	struct blk_request *request = take_request(blk);
	request->block = (struct block_request){.done = block_done};
	request->blk = blk;
	request->queue = queue;
	request->chain = *chain;
	request->chain.iov = NULL; /* valid until the next pop only */
	iov_read(chain->iov, chain->out_count, 0, &header, sizeof(header));
	iov_slice(chain->iov + chain->out_count, chain->in_count, chain->in_bytes - STATUS_SIZE, STATUS_SIZE,
		  &request->status, 1);
	start(request, chain, &header);
}

static void blk_serve(struct virtio_device *dev, unsigned queue)
{
	struct virtio_blk *blk = to_blk(dev);
	struct virtq_chain chain;
	while (!(blk->throttled & 1U << queue) && virtio_pop(dev, queue, &chain) == 1) {
		if (chain.out_bytes < HEADER_SIZE || chain.in_bytes < STATUS_SIZE) {
			virtio_break(dev, "queue %u: a request without room for its header or status", queue);
			virtio_push(dev, queue, &chain, 0);
		} else if (passes_limit(blk, queue, &chain)) {
			start_chain(blk, queue, &chain);
		} else {
			virtio_unpop(dev, queue, &chain);
		}
	}
}

/* In turns: a queue that always has requests would take every token, and the others never got one. */
static void limit_passed(struct loop_timer *timer)
{
	struct virtio_blk *blk = container_of(timer, struct virtio_blk, limit_timer);
	unsigned count = blk->dev.queue_count;
	virtio_lock(&blk->dev);
	blk->limit_timer_ns = 0;
	blk->first = blk->head >= 0 ? (unsigned)blk->head : (blk->first + 1) % count;
	for (unsigned i = 0, first = blk->first; i < count; i++) {
		unsigned queue = (first + i) % count;
		if (!(blk->throttled & 1U << queue))
			continue;
		blk->throttled &= ~(1U << queue);
		blk_serve(&blk->dev, queue);
		if (blk->head == (int)queue && !(blk->throttled & 1U << queue))
			pass_turn(blk); /* its chain is gone */
	}
	virtio_unlock(&blk->dev);
}

static void blk_cancel(struct virtio_device *dev, unsigned queue)
{
	struct virtio_blk *blk = to_blk(dev);
	blk->throttled &= ~(1U << queue);
	if (blk->head == (int)queue)
		pass_turn(blk);
	for (unsigned i = 0; i < blk->used_count; i++) {
		struct blk_request *request = &blk->requests[i];
		if (request->active && request->queue == queue)
			block_cancel(blk->block, &request->block);
	}
}

static void blk_reset(struct virtio_device *dev)
{
	struct virtio_blk *blk = to_blk(dev);
	blk->throttled = 0;
	blk->head = -1;
	blk->limit_timer_ns = 0;
	loop_timer_disarm(dev->loop, &blk->limit_timer);
}

static void blk_destroy(struct virtio_device *dev)
{
	struct virtio_blk *blk = to_blk(dev);
	loop_timer_disarm(dev->loop, &blk->limit_timer);
	free(blk->requests);
	free(blk);
}

static const struct virtio_model blk_model = {
	.id = VIRTIO_ID_BLOCK,
	.name = "virtio-blk",
	.pci_class = PCI_CLASS_MASS_STORAGE_OTHER,
	.serve = blk_serve,
	.cancel = blk_cancel,
	.reset = blk_reset,
	.destroy = blk_destroy,
	.look_us = 64,
};

/* --- what it is ---------------------------------------------------------------------------------------------- */

static uint64_t features_of(const struct block_info *info, const struct virtio_blk_init *init)
{
	uint64_t features = 1ULL << VIRTIO_BLK_F_SEG_MAX | 1ULL << VIRTIO_BLK_F_BLK_SIZE |
			    1ULL << VIRTIO_BLK_F_TOPOLOGY | 1ULL << VIRTIO_BLK_F_FLUSH;
	if (info->read_only)
		features |= 1ULL << VIRTIO_BLK_F_RO;
	if (init->queues > 1)
		features |= 1ULL << VIRTIO_BLK_F_MQ;
	if (info->discard_granularity_bytes && !info->read_only)
		features |= 1ULL << VIRTIO_BLK_F_DISCARD;
	if (info->can_write_zeroes && !info->read_only)
		features |= 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
	return features;
}

static uint16_t blocks_of(uint32_t bytes, uint32_t block_size_bytes)
{
	return (uint16_t)min_u64(bytes / block_size_bytes, UINT16_MAX);
}

static struct virtio_blk_config config_of(const struct block_info *info, unsigned queues)
{
	uint32_t block_size = info->block_size_bytes;
	struct virtio_blk_config config = {
		.capacity = info->size_bytes / BLOCK_SECTOR_BYTES,
		.seg_max = SEG_MAX,
		.blk_size = block_size,
		.physical_block_exp = (uint8_t)__builtin_ctz(info->physical_block_bytes / block_size),
		.min_io_size = blocks_of(info->physical_block_bytes, block_size),
		.opt_io_size = info->optimal_io_bytes / block_size,
		.num_queues = (uint16_t)queues,
		.max_discard_sectors = MAX_DISCARD_SECTORS,
		.max_discard_seg = 1,
		.discard_sector_alignment = info->discard_granularity_bytes / BLOCK_SECTOR_BYTES,
		.max_write_zeroes_sectors = MAX_DISCARD_SECTORS,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = 1,
	};
	return config;
}

static int init_device(struct virtio_blk *blk, struct loop *loop, const struct gmem *gmem, const struct log *log,
		       const struct virtio_blk_init *init, struct err *err)
{
	struct virtio_blk_config config = config_of(&blk->block->info, init->queues);
	struct virtio_init virtio = {
		.model = &blk_model,
		.loop = loop,
		.gmem = gmem,
		.log = log,
		.features = features_of(&blk->block->info, init),
		.packed = init->packed,
		.queue_count = init->queues,
		.queue_size_max = QUEUE_SIZE,
		.config_size_bytes = sizeof(config),
	};
	int r = virtio_init(&blk->dev, &virtio, err);
	if (r == 0)
		memcpy(blk->dev.config, &config, sizeof(config));
	return r;
}

struct virtio_device *virtio_blk_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     struct block *block, const struct virtio_blk_init *init, struct err *err)
{
	struct virtio_blk *blk = calloc(1, sizeof(*blk));
	if (!blk)
		goto no_memory;
	blk->block = block;
	blk->head = -1;
	blk->limit_timer.fn = limit_passed;
	rate_limit_init(&blk->limit, &init->limit, loop_now_ns());
	if (init->serial)
		memcpy(blk->serial, init->serial, min_u64(strlen(init->serial), sizeof(blk->serial)));

	blk->requests = calloc(init->queues * QUEUE_SIZE, sizeof(*blk->requests));
	if (!blk->requests)
		goto no_memory;
	if (init_device(blk, loop, gmem, log, init, err) < 0) {
		blk_destroy(&blk->dev);
		return NULL;
	}
	return &blk->dev;

no_memory:
	if (blk)
		free(blk->requests);
	free(blk);
	err_set(err, -ENOMEM, "virtio-blk: %s", err_name(ENOMEM));
	return NULL;
}

void virtio_blk_resized(struct virtio_device *dev)
{
	struct virtio_blk *blk = to_blk(dev);
	uint64_t capacity = blk->block->info.size_bytes / BLOCK_SECTOR_BYTES;
	virtio_lock(dev);
	memcpy(dev->config + offsetof(struct virtio_blk_config, capacity), &capacity, sizeof(capacity));
	virtio_config_changed(dev);
	virtio_unlock(dev);
}
