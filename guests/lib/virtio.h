/*
 * A virtio driver's half of VIRTIO 1.2: the transports virtio-pci (modern) and virtio-mmio (version 2), split rings
 * with EVENT_IDX and indirect descriptors. It shares no code with vmlet's devices. Works in ring 0 and in ring 3.
 */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#include "pci.h"

enum { VIRTQ_SIZE_MAX = 1024, VIRTQ_SEGMENTS_MAX = 64, VIRTQ_QUEUES_MAX = 8, VIRTIO_NO_VECTOR = 0xffff };

struct virtio_dev {
	bool is_pci;
	unsigned devfn;                       /* PCI */
	uint64_t common, notify, isr, config; /* PCI: addresses of the four structures (4.1.4) */
	uint32_t notify_multiplier;           /* PCI */
	uint64_t base;                        /* MMIO; `config` is set as well */
	uint64_t offered, features;           /* features: as negotiated */
};

struct virtq {
	unsigned size; /* entries */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	struct vring_desc (*indirect)[VIRTQ_SEGMENTS_MAX]; /* one table for each head; NULL: not in use */
	uint64_t doorbell;
	bool doorbell_16;                 /* its width is 16 bits (PCI), else 32 */
	uint16_t index;                   /* what the doorbell is told */
	uint16_t next_avail, next_used;   /* free running: entries made available, used entries taken */
	uint16_t kicked;                  /* next_avail at the last decision about a notification */
	uint16_t free_head, free_count;   /* a list through desc[].next */
	bool event_idx, wants_interrupts; /* EVENT_IDX; set wants_interrupts by virtq_interrupts */
	uint32_t kicks;
};

struct virtio_buf {
	const void *addr;
	uint32_t len;
};

/*
 * Finds the index-th device of this type on the transport that the argument `transport=pci` (default) or `mmio`
 * names; `mmio=BASE:COUNT[:STRIDE]` says where to look (STRIDE is 0x200; one, if there is no COUNT). Enables the PCI
 * function. False: none.
 */
bool virtio_open(struct virtio_dev *dev, uint32_t type, unsigned index);
/* Reads a PCI function's structures, again after a BAR has moved; false: not all are there. */
bool virtio_pci_locate(struct virtio_dev *dev);

uint8_t virtio_status(const struct virtio_dev *dev);
void virtio_set_status(const struct virtio_dev *dev, uint8_t status);
/* Writes 0 and waits until it reads as 0; false after a second or so. Forgets all queue memory. */
bool virtio_reset(const struct virtio_dev *dev);
/* From reset to FEATURES_OK with what of `wanted` is offered; false: the device refused. */
bool virtio_negotiate(struct virtio_dev *dev, uint64_t wanted);
void virtio_driver_ok(const struct virtio_dev *dev);
bool virtio_has(const struct virtio_dev *dev, unsigned feature);
/* Device configuration, 1, 2, 4 or 8 bytes; 8 are read again until the generation is steady. */
uint64_t virtio_config(const struct virtio_dev *dev, unsigned offset, unsigned size);
/* Reads, and on virtio-pci thereby clears, the interrupt status; on virtio-mmio acknowledges it. */
uint8_t virtio_isr(const struct virtio_dev *dev);
/* PCI: the vector of configuration changes; returns what the device says that it is. */
uint16_t virtio_config_vector(const struct virtio_dev *dev, uint16_t vector);

/* The largest size that the device allows; 0: no such queue. */
unsigned virtq_size_max(const struct virtio_dev *dev, unsigned index);
/*
 * Makes a queue of `size` entries, index below VIRTQ_QUEUES_MAX, and enables it; false: refused (the vector too, if it
 * is not VIRTIO_NO_VECTOR).
 */
bool virtq_setup(struct virtio_dev *dev, struct virtq *q, unsigned index, unsigned size, uint16_t vector);
void virtq_use_indirect(struct virtq *q);
/* After virtq_setup interrupts are off. On: after the next used entry. */
void virtq_interrupts(struct virtq *q, bool on);

/*
 * Makes a chain of `out` buffers that the device reads and `in` that it writes. Returns its head, or -1 if the ring
 * has no room. The device sees it after virtq_publish.
 */
int virtq_add(struct virtq *q, const struct virtio_buf *bufs, unsigned out, unsigned in);
/* Makes it available without a notification. `head` need not be one of virtq_add's. */
void virtq_push(struct virtq *q, uint16_t head);
/* Tells the device of all that was pushed, if it wants to be told. Returns whether it did. */
bool virtq_kick(struct virtq *q);
/* Takes the next used entry and frees its chain; returns its head, or -1 if there is none. */
int virtq_take(struct virtq *q, uint32_t *ret_len);
/* The same, without freeing: for chains that virtq_add did not make. */
int virtq_take_raw(struct virtq *q, uint32_t *ret_len);

#endif
