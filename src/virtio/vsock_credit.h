/*
 * The credit of one connection (virtio 1.3, 5.10.6.3). All counters are bytes since it was opened, free-running in 32
 * bits as in the packets; differences are what counts. Pure. [any]
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "virtio/vsock.h"

struct vsock_credit {
	/* Towards the guest. */
	uint32_t sent;
	uint32_t guest_buf_alloc, guest_fwd_cnt; /* as it last told */

	/* From the guest. */
	uint32_t received;
	uint32_t forwarded; /* of these, what has left to the host: fwd_cnt */
	uint32_t told;      /* the fwd_cnt that the guest was last told */
};

/* What a packet of the guest says of its side. False: it says that more has come than was sent. */
bool vsock_credit_hear(struct vsock_credit *credit, uint32_t buf_alloc, uint32_t fwd_cnt);

/* How many bytes the guest takes now. */
uint32_t vsock_credit_left(const struct vsock_credit *credit);

/* What came and has not left yet: at most VIRTIO_VSOCK_BUFFER_BYTES. */
uint32_t vsock_credit_held(const struct vsock_credit *credit);

/* There is more room than the guest knows of, and it knows of less than half. */
bool vsock_credit_has_news(const struct vsock_credit *credit);
