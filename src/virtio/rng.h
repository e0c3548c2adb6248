/*
 * virtio-rng (virtio 1.3, 5.4): the host's random numbers. A request is answered with at most VIRTIO_RNG_REQUEST_MAX
 * bytes from getrandom(2), so that a guest cannot hold the loop. While the host itself has none yet (early in its
 * boot), requests wait.
 */
#pragma once

#include "err.h"
#include "gmem.h"
#include "log.h"
#include "loop.h"
#include "rate_limit.h"
#include "virtio/virtio.h"

enum { VIRTIO_RNG_REQUEST_MAX = 4096 };

struct virtio_rng_init {
	bool packed;
	struct rate_limit_config limit; /* operations: requests; bytes: of random numbers */
};

/* NULL with `err` set. [setup] */
struct virtio_device *virtio_rng_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     const struct virtio_rng_init *init, struct err *err);
