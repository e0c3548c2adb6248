/*
 * A driver for tests: the other side of a virtqueue, of either kind, in a piece of guest memory.
 *
 * It follows the rules. A test that breaks them writes to the rings through the pointers.
 */
#pragma once

#include <assert.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "gmem.h"
#include "util.h"
#include "virtio/virtq.h"

enum {
	VIRTQ_DRIVER_BYTES = 0x18000, /* the memory it takes, from `base` on */
	VIRTQ_DRIVER_DRIVER_AREA = 0x4000,
	VIRTQ_DRIVER_DEVICE_AREA = 0x5000,
	VIRTQ_DRIVER_TABLES = 0x8000,    /* one for each of the first ids */
	VIRTQ_DRIVER_TABLE_BYTES = 1024, /* 64 descriptors */
	VIRTQ_DRIVER_TABLE_COUNT = 64,
};

struct virtq_buffer {
	gpa_t gpa;
	uint32_t size_bytes;
	bool writable;
};

struct virtq_driver {
	struct gmem *gmem;
	gpa_t base;
	struct virtq_config config; /* complete: for virtq_new */

	/* split */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;

	/* packed */
	struct vring_packed_desc *ring;
	struct vring_packed_desc_event *driver_event, *device_event;
	bool avail_wrap, used_wrap;

	uint16_t free[VIRTQ_SIZE_MAX]; /* a stack: split: descriptors, packed: ids */
	unsigned free_count;
	unsigned free_slots;           /* packed: descriptors of the ring */
	uint16_t link[VIRTQ_SIZE_MAX]; /* split: the next descriptor of a chain; what is in `desc` may be spoilt */
	uint16_t taken_count[VIRTQ_SIZE_MAX]; /* by id: descriptors of the chain */
	uint16_t next_avail, next_used;       /* split: free-running; packed: positions */
	unsigned unrung;                      /* made available since virtq_driver_rings was asked */
};

/* Lay the rings out at `base` (page aligned), zeroed. */
static inline void virtq_driver_init(struct virtq_driver *d, struct gmem *gmem, gpa_t base,
				     const struct virtq_config *config)
{
	*d = (struct virtq_driver){.gmem = gmem, .base = base, .config = *config};
	d->config.desc = base;
	d->config.driver = base + VIRTQ_DRIVER_DRIVER_AREA;
	d->config.device = base + VIRTQ_DRIVER_DEVICE_AREA;
	int r = gmem_fill(gmem, base, 0, VIRTQ_DRIVER_BYTES);
	assert(r == 0);
	(void)r;
	uint8_t *at = gmem_view(gmem, base, VIRTQ_DRIVER_BYTES, GMEM_PAGE_SIZE);
	assert(at);
	void *driver_area = at + VIRTQ_DRIVER_DRIVER_AREA, *device_area = at + VIRTQ_DRIVER_DEVICE_AREA;
	d->desc = (void *)at;
	d->avail = driver_area;
	d->used = device_area;
	d->ring = (void *)at;
	d->driver_event = driver_area;
	d->device_event = device_area;
	d->avail_wrap = d->used_wrap = true;
	d->free_slots = config->size;
	while (d->free_count < config->size) {
		d->free[d->free_count] = (uint16_t)(config->size - 1U - d->free_count);
		d->free_count++;
	}
}

static inline unsigned virtq_driver_mask(const struct virtq_driver *d)
{
	return d->config.size - 1U;
}

/* --- make available ---------------------------------------------------------------------------------------- */

static inline uint16_t virtq_buffer_flags(const struct virtq_buffer *b)
{
	return b->writable ? VRING_DESC_F_WRITE : 0;
}

/* Split: free descriptors in some order, linked. */
static inline int virtq_driver_add_split(struct virtq_driver *d, const struct virtq_buffer *buffers, unsigned count,
					 uint16_t extra_flags)
{
	if (count > d->free_count)
		return -1;
	const uint16_t *indices = &d->free[d->free_count - count];
	uint16_t head = indices[count - 1];
	for (unsigned i = 0; i < count; i++) {
		bool last = i == count - 1;
		d->link[indices[count - 1 - i]] = last ? 0 : indices[count - 2 - i];
		d->desc[indices[count - 1 - i]] = (struct vring_desc){
			.addr = buffers[i].gpa,
			.len = buffers[i].size_bytes,
			.flags = (uint16_t)(virtq_buffer_flags(&buffers[i]) | extra_flags |
					    (last ? 0 : VRING_DESC_F_NEXT)),
			.next = last ? 0xffff : indices[count - 2 - i],
		};
	}
	d->taken_count[head] = (uint16_t)count;
	d->free_count -= count;
	d->avail->ring[d->next_avail & virtq_driver_mask(d)] = head;
	__atomic_store_n(&d->avail->idx, ++d->next_avail, __ATOMIC_RELEASE);
	d->unrung++;
	return head;
}

static inline uint16_t virtq_packed_flags(bool wrap, bool used)
{
	return (uint16_t)(wrap << VRING_PACKED_DESC_F_AVAIL | (wrap == used) << VRING_PACKED_DESC_F_USED);
}

static inline int virtq_driver_add_packed(struct virtq_driver *d, const struct virtq_buffer *buffers, unsigned count,
					  uint16_t extra_flags)
{
	if (count > d->free_slots || d->free_count == 0)
		return -1;
	uint16_t id = d->free[--d->free_count];
	struct vring_packed_desc *first = &d->ring[d->next_avail];
	uint16_t first_flags = 0;
	for (unsigned i = 0; i < count; i++) {
		struct vring_packed_desc *desc = &d->ring[d->next_avail];
		bool last = i == count - 1;
		uint16_t flags = (uint16_t)(virtq_buffer_flags(&buffers[i]) | extra_flags |
					    (last ? 0 : VRING_DESC_F_NEXT) | virtq_packed_flags(d->avail_wrap, false));
		desc->addr = buffers[i].gpa;
		desc->len = buffers[i].size_bytes;
		desc->id = last ? id : 0xdead;
		if (desc == first)
			first_flags = flags;
		else
			desc->flags = flags;
		if (++d->next_avail == d->config.size) {
			d->next_avail = 0;
			d->avail_wrap = !d->avail_wrap;
		}
	}
	__atomic_store_n(&first->flags, first_flags, __ATOMIC_RELEASE);
	d->taken_count[id] = (uint16_t)count;
	d->free_slots -= count;
	d->unrung += count;
	return id;
}

/* A chain of `count` buffers: its id, or -1 when there is no room. */
static inline int virtq_driver_add(struct virtq_driver *d, const struct virtq_buffer *buffers, unsigned count)
{
	assert(count > 0);
	return d->config.packed ? virtq_driver_add_packed(d, buffers, count, 0)
				: virtq_driver_add_split(d, buffers, count, 0);
}

/* The id that the next chain gets. */
static inline uint16_t virtq_driver_next_id(const struct virtq_driver *d)
{
	assert(d->free_count > 0);
	return d->free[d->free_count - 1];
}

static inline gpa_t virtq_driver_table(const struct virtq_driver *d, unsigned id)
{
	assert(id < VIRTQ_DRIVER_TABLE_COUNT);
	return d->base + VIRTQ_DRIVER_TABLES + id * VIRTQ_DRIVER_TABLE_BYTES;
}

/* The same through an indirect table (of the ids below VIRTQ_DRIVER_TABLE_COUNT, at most 64 buffers). */
static inline int virtq_driver_add_indirect(struct virtq_driver *d, const struct virtq_buffer *buffers, unsigned count)
{
	if (d->free_count == 0 || (d->config.packed && d->free_slots == 0))
		return -1;
	gpa_t table = virtq_driver_table(d, virtq_driver_next_id(d));
	assert(count * sizeof(struct vring_desc) <= VIRTQ_DRIVER_TABLE_BYTES);
	for (unsigned i = 0; i < count; i++) {
		uint16_t flags = virtq_buffer_flags(&buffers[i]);
		bool last = i == count - 1;
		struct vring_desc split = {buffers[i].gpa, buffers[i].size_bytes,
					   (uint16_t)(flags | (last ? 0 : VRING_DESC_F_NEXT)),
					   (uint16_t)(last ? 0 : i + 1)};
		struct vring_packed_desc packed = {buffers[i].gpa, buffers[i].size_bytes, 0, flags};
		gmem_write(d->gmem, table + i * sizeof(split), d->config.packed ? (void *)&packed : (void *)&split,
			   sizeof(split));
	}
	struct virtq_buffer whole = {table, (uint32_t)(count * sizeof(struct vring_desc)), false};
	return d->config.packed ? virtq_driver_add_packed(d, &whole, 1, VRING_DESC_F_INDIRECT)
				: virtq_driver_add_split(d, &whole, 1, VRING_DESC_F_INDIRECT);
}

/* --- doorbells --------------------------------------------------------------------------------------------- */

static inline bool virtq_driver_rings_packed(const struct virtq_driver *d)
{
	/* Both halves at once: they belong together. */
	uint32_t word = __atomic_load_n((const uint32_t *)(const void *)d->device_event, __ATOMIC_RELAXED);
	uint16_t off_wrap = (uint16_t)word, flags = (uint16_t)(word >> 16);
	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC)
		return true;
	int event = off_wrap & 0x7fff;
	if ((off_wrap >> 15) != d->avail_wrap)
		event -= d->config.size;
	return vring_need_event((uint16_t)event, d->next_avail, (uint16_t)(d->next_avail - d->unrung));
}

static inline bool virtq_driver_rings_split(const struct virtq_driver *d)
{
	if (!d->config.event_idx)
		return !(__atomic_load_n(&d->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
	const uint16_t *avail_event = (const void *)&d->used->ring[d->config.size];
	return vring_need_event(__atomic_load_n(avail_event, __ATOMIC_RELAXED), d->next_avail,
				(uint16_t)(d->next_avail - d->unrung));
}

/* Does the device want a doorbell for what was made available since this was asked? (Linux's virtqueue_kick_prepare) */
static inline bool virtq_driver_rings(struct virtq_driver *d)
{
	__sync_synchronize();
	bool rings = d->config.packed ? virtq_driver_rings_packed(d) : virtq_driver_rings_split(d);
	rings = rings && d->unrung > 0;
	d->unrung = 0;
	return rings;
}

/* --- take back --------------------------------------------------------------------------------------------- */

static inline bool virtq_driver_has_used(const struct virtq_driver *d)
{
	if (!d->config.packed)
		return __atomic_load_n(&d->used->idx, __ATOMIC_ACQUIRE) != d->next_used;
	uint16_t flags = __atomic_load_n(&d->ring[d->next_used].flags, __ATOMIC_ACQUIRE);
	bool avail = flags >> VRING_PACKED_DESC_F_AVAIL & 1, used = flags >> VRING_PACKED_DESC_F_USED & 1;
	return avail == used && used == d->used_wrap;
}

/* The next chain that the device has used: its id and what it says it wrote. False: there is none. */
static inline bool virtq_driver_take(struct virtq_driver *d, uint16_t *ret_id, uint32_t *ret_written_bytes)
{
	if (!virtq_driver_has_used(d))
		return false;
	uint16_t id;
	if (!d->config.packed) {
		struct vring_used_elem elem = d->used->ring[d->next_used++ & virtq_driver_mask(d)];
		id = (uint16_t)elem.id;
		*ret_written_bytes = elem.len;
		for (unsigned i = 0, at = id; i < d->taken_count[id]; i++, at = d->link[at])
			d->free[d->free_count++] = (uint16_t)at;
	} else {
		struct vring_packed_desc *desc = &d->ring[d->next_used];
		id = desc->id;
		*ret_written_bytes = desc->flags & VRING_DESC_F_WRITE ? desc->len : 0;
		d->free[d->free_count++] = id;
		d->free_slots += d->taken_count[id];
		d->next_used = (uint16_t)(d->next_used + d->taken_count[id]);
		if (d->next_used >= d->config.size) {
			d->next_used = (uint16_t)(d->next_used - d->config.size);
			d->used_wrap = !d->used_wrap;
		}
	}
	*ret_id = id;
	return true;
}

/* --- interrupts -------------------------------------------------------------------------------------------- */

/* What the device may read at any time. */
static inline void virtq_driver_store(uint16_t *field, uint16_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELAXED);
}

static inline void virtq_driver_disable_interrupts(struct virtq_driver *d)
{
	if (d->config.packed)
		virtq_driver_store(&d->driver_event->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
	else if (!d->config.event_idx)
		virtq_driver_store(&d->avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
}

/* Ask for one at the next used chain. True: there is one already, and maybe no interrupt for it. */
static inline bool virtq_driver_enable_interrupts(struct virtq_driver *d)
{
	if (d->config.packed && d->config.event_idx) {
		virtq_driver_store(&d->driver_event->off_wrap, (uint16_t)(d->next_used | d->used_wrap << 15));
		__atomic_store_n(&d->driver_event->flags, VRING_PACKED_EVENT_FLAG_DESC, __ATOMIC_RELEASE);
	} else if (d->config.packed) {
		virtq_driver_store(&d->driver_event->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
	} else if (d->config.event_idx) {
		virtq_driver_store(&d->avail->ring[d->config.size], d->next_used);
	} else {
		virtq_driver_store(&d->avail->flags, 0);
	}
	__sync_synchronize();
	return virtq_driver_has_used(d);
}
