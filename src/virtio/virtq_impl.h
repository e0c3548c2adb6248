/*
 * What the two kinds of virtqueue share behind virtq.h: the state, the chain under construction, and how a ring breaks.
 *
 * Ring fields are little-endian, and so is every host that vmlet runs on. They are read and written with atomics only:
 * the guest changes them at any time, and the compiler must not read twice what was checked once.
 */
#pragma once

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtio/virtq.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ring fields are used as they are");

struct virtq_ops {
	int (*map)(struct virtq *q, struct err *err); /* 0 or -EFAULT */
	int (*pop)(struct virtq *q, struct virtq_chain *chain);
	void (*unpop)(struct virtq *q, const struct virtq_chain *chain);
	void (*push)(struct virtq *q, const struct virtq_used *used, unsigned count); /* not 0 */
	bool (*wants_interrupt)(const struct virtq *q); /* something was pushed; a full fence came before */
	void (*enable_doorbell)(struct virtq *q);
	void (*disable_doorbell)(struct virtq *q);
	bool (*has_chains)(const struct virtq *q); /* looks at the ring anew */
};

extern const struct virtq_ops virtq_split_ops, virtq_packed_ops;

enum { VIRTQ_DESC_BYTES = 16 }; /* of either kind */

/* 2.7. Indices run freely and wrap at 65536. */
struct virtq_split {
	const struct vring_desc *desc;
	const struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next;      /* the available index to pop */
	uint16_t avail_idx; /* the driver's, as last read: up to here the entries may be read */
	uint16_t used_idx;
};

/* A position in a packed ring and the wrap counter that belongs to it. */
struct virtq_cursor {
	uint16_t offset; /* below size */
	bool wrap;
};

/* 2.8 */
struct virtq_packed {
	struct vring_packed_desc *ring;
	const uint32_t *driver_event; /* struct vring_packed_desc_event, as one word */
	uint32_t *device_event;
	struct virtq_cursor next, used;
	uint16_t in_flight; /* descriptors */
};

struct virtq {
	const struct virtq_ops *ops;
	const struct gmem *gmem;
	struct virtq_config config;
	union {
		struct virtq_split split;
		struct virtq_packed packed;
	};

	uint64_t unasked;   /* split: chains, packed: descriptors pushed since virtq_wants_interrupt was asked */
	unsigned in_flight; /* chains popped and not pushed */
	bool can_unpop;

	struct iovec *iov; /* enough for the longest legal chain, wherever it lies in RAM */
	unsigned iov_max;
	void *table; /* private copy of an indirect table, in the ring's kind; NULL without the feature */

	bool broken;
	char error[128];
};

/* The ring is broken from now on. Returns -EPROTO. */
int virtq_break(struct virtq *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Add a buffer of the driver to the chain: 0 or -EPROTO. */
int virtq_add(struct virtq *q, struct virtq_chain *chain, gpa_t gpa, uint32_t size_bytes, bool writable);

/* Copy an indirect table of at most max_count descriptors to q->table: their count, not 0, or -EPROTO. */
int virtq_load_table(struct virtq *q, gpa_t gpa, uint32_t size_bytes, unsigned max_count);

/* gmem_view for the area `name`. NULL with `err` set to -EFAULT. */
void *virtq_map_area(const struct virtq *q, const char *name, gpa_t gpa, size_t size_bytes, size_t align_bytes,
		     struct err *err);
