/* A virtio-blk driver (VIRTIO 1.2, 5.2) with one queue. A request is known by a tag below BLK_TAGS. */
#ifndef GUEST_BLK_H
#define GUEST_BLK_H

#include <linux/virtio_blk.h>

#include "virtio.h"

enum { BLK_TAGS = VIRTQ_SIZE_MAX, BLK_SECTOR = 512, BLK_PIECES_MAX = 32, BLK_NO_ANSWER = 0xff };

struct blk {
	struct virtio_dev dev;
	struct virtq q;
	uint64_t sectors;
};

/* What a driver that knows everything asks for, less EVENT_IDX (argument `event-idx=0`) and INDIRECT (`indirect=0`). */
uint64_t blk_features(void);
/* Finds the disk number `disk=N` (0). */
bool blk_open(struct blk *b);
/*
 * Reset, negotiation, one queue of `queue_size` entries or, if fewer or if it is 0, as many as the device has,
 * DRIVER_OK. Uses indirect descriptors if negotiated. False: refused.
 */
bool blk_start(struct blk *b, uint64_t features, unsigned queue_size, uint16_t vector);

/* Makes a request available; blk_kick follows. False: no room. */
bool blk_push(struct blk *b, unsigned tag, uint32_t type, uint64_t sector, void *data, uint32_t len);
/* The same with the data in pieces, at most BLK_PIECES_MAX. */
bool blk_push_pieces(struct blk *b, unsigned tag, uint32_t type, uint64_t sector, const struct virtio_buf *data,
		     unsigned pieces);
static inline bool blk_kick(struct blk *b)
{
	return virtq_kick(&b->q);
}
/* Takes a request that has ended; false: none has. `ret_len` is what the device says that it has written. */
bool blk_take(struct blk *b, unsigned *ret_tag, uint32_t *ret_len);
uint8_t blk_status(unsigned tag); /* VIRTIO_BLK_S_*; BLK_NO_ANSWER: the device has not written it */

/* One request from beginning to end, by polling, with tag 0 and nothing else under way. Returns its status. */
uint8_t blk_do(struct blk *b, uint32_t type, uint64_t sector, void *data, uint32_t len);
/* Waits for `count` requests; false: they did not all come within some seconds. */
bool blk_drain(struct blk *b, unsigned count);

#endif
