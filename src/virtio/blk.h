/* virtio-blk (virtio 1.3, 5.2): a disk over a block. */
#pragma once

#include "block.h"
#include "err.h"
#include "gmem.h"
#include "log.h"
#include "loop.h"
#include "rate_limit.h"
#include "virtio/virtio.h"

enum { VIRTIO_BLK_QUEUES_MAX = 16 };

struct virtio_blk_init {
	const char *serial; /* the guest sees its first VIRTIO_BLK_ID_BYTES (20) bytes; NULL: none */
	unsigned queues;    /* 1 to VIRTIO_BLK_QUEUES_MAX */
	bool packed;        /* offer packed rings */
	struct rate_limit_config limit;
};

/*
 * `block` is borrowed and outlives the device (a guest's restart makes the device anew over the same block), and it is
 * on the same loop. NULL with `err` set. [setup]
 */
struct virtio_device *virtio_blk_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     struct block *block, const struct virtio_blk_init *init, struct err *err);

/* The block was resized (block_resize): tell the driver. [loop] */
void virtio_blk_resized(struct virtio_device *dev);
