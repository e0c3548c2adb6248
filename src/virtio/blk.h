/* virtio-blk (virtio 1.3, 5.2): a disk over a block. */
#pragma once

#include "block.h"
#include "err.h"
#include "gmem.h"
#include "log.h"
#include "loop.h"
#include "rate_limit.h"
#include "virtio/virtio.h"

enum { VIRTIO_BLK_SERIAL_MAX = 20 };

struct virtio_blk_config {
	const char *name;   /* for log lines */
	const char *serial; /* up to VIRTIO_BLK_SERIAL_MAX bytes; NULL: none */
	unsigned queues;    /* 1 to 16 */
	bool packed;
	bool write_cache; /* offer FLUSH (and WCE); false only for a block that ignores flushes */
	struct rate_limit_config limit;
};

/* `block` is borrowed and outlives the device (a guest's restart makes the device anew over the same block). NULL with
 * `err` set. [setup] */
struct virtio_device *virtio_blk_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     struct block *block, const struct virtio_blk_config *config, struct err *err);

/* The block was resized (block_resize): tell the driver. [loop] */
void virtio_blk_resized(struct virtio_device *dev);
