#include "blk.h"

enum { WAIT_TICKS = 2000000000 }; /* of the TSC, ten times over: a few seconds on any machine */

static struct {
	struct virtio_blk_outhdr header;
	volatile uint8_t status;
} requests[BLK_TAGS];

static uint16_t tag_of[VIRTQ_SIZE_MAX]; /* by the chain's head */

static uint64_t bit(unsigned feature)
{
	return (uint64_t)1 << feature;
}

uint64_t blk_features(void)
{
	uint64_t v = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_BLK_F_SIZE_MAX) | bit(VIRTIO_BLK_F_SEG_MAX) |
		     bit(VIRTIO_BLK_F_RO) | bit(VIRTIO_BLK_F_BLK_SIZE) | bit(VIRTIO_BLK_F_FLUSH) |
		     bit(VIRTIO_BLK_F_TOPOLOGY) | bit(VIRTIO_BLK_F_CONFIG_WCE) | bit(VIRTIO_BLK_F_MQ) |
		     bit(VIRTIO_BLK_F_DISCARD) | bit(VIRTIO_BLK_F_WRITE_ZEROES);

	if (arg_u64("event-idx", 1))
		v |= bit(VIRTIO_RING_F_EVENT_IDX);
	if (arg_u64("indirect", 1))
		v |= bit(VIRTIO_RING_F_INDIRECT_DESC);
	return v;
}

bool blk_open(struct blk *b)
{
	return virtio_open(&b->dev, VIRTIO_ID_BLOCK, (unsigned)arg_u64("disk", 0));
}

bool blk_start(struct blk *b, uint64_t features, unsigned queue_size, uint16_t vector)
{
	unsigned max;

	if (!virtio_reset(&b->dev) || !virtio_negotiate(&b->dev, features))
		return false;
	max = virtq_size_max(&b->dev, 0);
	if (max > VIRTQ_SIZE_MAX)
		max = VIRTQ_SIZE_MAX;
	if (!queue_size || queue_size > max)
		queue_size = max;
	if (!queue_size || !virtq_setup(&b->dev, &b->q, 0, queue_size, vector))
		return false;
	if (virtio_has(&b->dev, VIRTIO_RING_F_INDIRECT_DESC))
		virtq_use_indirect(&b->q);
	b->sectors = virtio_config(&b->dev, offsetof(struct virtio_blk_config, capacity), 8);
	virtio_driver_ok(&b->dev);
	return true;
}

bool blk_push_pieces(struct blk *b, unsigned tag, uint32_t type, uint64_t sector, const struct virtio_buf *data,
		     unsigned pieces)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct virtio_buf bufs[BLK_PIECES_MAX + 2];
	unsigned out = in ? 1 : 1 + pieces;
	int head;

	requests[tag].header = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	requests[tag].status = BLK_NO_ANSWER;
	bufs[0] = (struct virtio_buf){&requests[tag].header, sizeof(requests[tag].header)};
	for (unsigned i = 0; i < pieces; i++)
		bufs[1 + i] = data[i];
	bufs[1 + pieces] = (struct virtio_buf){(const void *)&requests[tag].status, 1};
	head = virtq_add(&b->q, bufs, out, pieces + 2 - out);
	if (head < 0)
		return false;
	tag_of[head] = (uint16_t)tag;
	virtq_push(&b->q, (uint16_t)head);
	return true;
}

bool blk_push(struct blk *b, unsigned tag, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
	struct virtio_buf piece = {data, len};

	return blk_push_pieces(b, tag, type, sector, &piece, len ? 1 : 0);
}

bool blk_take(struct blk *b, unsigned *ret_tag, uint32_t *ret_len)
{
	int head = virtq_take(&b->q, ret_len);

	if (head < 0)
		return false;
	*ret_tag = tag_of[head];
	return true;
}

uint8_t blk_status(unsigned tag)
{
	return requests[tag].status;
}

bool blk_drain(struct blk *b, unsigned count)
{
	uint64_t end = rdtsc() + 10ull * WAIT_TICKS;
	unsigned tag;
	uint32_t len;

	while (count) {
		if (blk_take(b, &tag, &len))
			count--;
		else if (rdtsc() > end)
			return false;
		else
			cpu_pause();
	}
	return true;
}

uint8_t blk_do(struct blk *b, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
	if (!blk_push(b, 0, type, sector, data, len))
		return BLK_NO_ANSWER;
	blk_kick(b);
	return blk_drain(b, 1) ? blk_status(0) : BLK_NO_ANSWER;
}
