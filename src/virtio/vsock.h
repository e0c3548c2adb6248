/*
 * virtio-vsock (virtio 1.3, 5.10): stream connections between the guest and Unix sockets of the host, by Firecracker's
 * convention (vsock_host.h).
 *
 * Both sides of a connection have a buffer that the other is told of (credit). What the guest sends beyond ours, or on
 * no connection, resets that connection; only what cannot be a packet at all breaks the device. Per connection at most
 * VIRTIO_VSOCK_BUFFER_BYTES wait here, and there are at most VIRTIO_VSOCK_CONNECTIONS_MAX.
 */
#pragma once

#include "err.h"
#include "gmem.h"
#include "log.h"
#include "loop.h"
#include "rate_limit.h"
#include "virtio/virtio.h"
#include "vsock_host.h"

enum {
	VIRTIO_VSOCK_CID_MIN = 3, /* 0 to 2 are reserved; 2 is the host */
	VIRTIO_VSOCK_CONNECTIONS_MAX = 1024,
	VIRTIO_VSOCK_BUFFER_BYTES = 256 << 10,
};

struct virtio_vsock_init {
	uint32_t guest_cid;
	bool packed;
	struct rate_limit_config limit; /* operations: packets; of each way */
};

/* `host` is borrowed and outlives the device (a guest's restart ends its connections). NULL with `err` set. [setup] */
struct virtio_device *virtio_vsock_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				       struct vsock_host *host, const struct virtio_vsock_init *init, struct err *err);
