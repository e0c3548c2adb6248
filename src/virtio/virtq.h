/*
 * A virtqueue, from the device's side: split (virtio 1.3, 2.7) and packed (2.8) rings behind one interface.
 *
 * The guest's half is hostile. virtq_pop returns a wholly validated private copy of a chain: every address inside RAM,
 * readable parts before writable ones, no loop, no part of zero bytes, at most 4 GiB - 1 in each direction. What is not
 * so breaks the ring (-EPROTO), for good. A device never sees a descriptor, a flag or a guest address.
 *
 * Everything here is for one thread at a time: the device's lock is held.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "err.h"
#include "gmem.h"
#include "iov.h"

enum { VIRTQ_SIZE_MAX = 1024 };

struct virtq_config {
	bool packed, indirect, event_idx; /* negotiated */
	uint16_t size;                    /* descriptors; split: a power of two; 1 to VIRTQ_SIZE_MAX */
	gpa_t desc, driver, device;       /* the three areas */
};

/* One request of the driver. */
struct virtq_chain {
	uint16_t id;          /* for virtq_push; any value on a packed ring: never an index */
	uint16_t descriptors; /* how many ring entries it takes (packed) */
	unsigned out_count;   /* device-readable spans: iov[0] and on */
	unsigned in_count;    /* device-writable spans: iov[out_count] and on */
	uint32_t out_bytes, in_bytes;
	struct iovec *iov; /* the virtq's; valid until the next virtq_pop of this queue: copy what must live longer */
};

/* A chain that goes back. */
struct virtq_used {
	uint16_t id, descriptors; /* the chain's */
	uint32_t written_bytes;   /* of its writable part */
};

struct virtq; /* opaque: split or packed */

/*
 * Map the rings. NULL with `err` set: -EINVAL for a size that cannot be, -EFAULT for an area that is misaligned or not
 * RAM (each inside one region), -ENOMEM. `gmem` is borrowed.
 */
struct virtq *virtq_new(const struct gmem *gmem, const struct virtq_config *config, struct err *err);
void virtq_free(struct virtq *q);

/* Take the next chain: 1; 0: there is none; -EPROTO: the ring is broken (and stays so), virtq_error says how. */
int virtq_pop(struct virtq *q, struct virtq_chain *ret_chain);
const char *virtq_error(const struct virtq *q); /* "" while it is whole */

/* Take the chain back that was popped last (a device that cannot start it now); only before any other call. */
void virtq_unpop(struct virtq *q, const struct virtq_chain *chain);

/*
 * Give a chain back, `written_bytes` of its writable part filled. In any order; each popped chain once, also when the
 * ring has broken since. The driver sees it at once.
 */
void virtq_push(struct virtq *q, uint16_t id, uint16_t descriptors, uint32_t written_bytes);

/* The same for several that belong together, in their order: the driver sees either none of them or all. */
void virtq_push_many(struct virtq *q, const struct virtq_used *used, unsigned count);

/* Does the driver want an interrupt for what was pushed since this was asked last? */
bool virtq_wants_interrupt(struct virtq *q);

/*
 * Ask the driver for doorbells, or not to ring (it may all the same). Enabling returns true when chains came in
 * between: pop again, no doorbell will tell of them. A new queue has them as the driver's zeroed memory says: enabled.
 */
bool virtq_enable_doorbell(struct virtq *q);
void virtq_disable_doorbell(struct virtq *q);

/* Is there a chain to pop, or a broken ring to find out about? One load. */
bool virtq_has_chains(const struct virtq *q);
