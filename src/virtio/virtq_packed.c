/*
 * Packed virtqueues (virtio 1.3, 2.8): one ring of descriptors, which both sides write.
 *
 *          used          next
 *     ------|--in flight---|--available, or the driver's--
 *
 * We read descriptors at `next` and write used ones at `used`, where the private copies of those in flight make room.
 * A chain that comes back out of order is still written at `used`: the driver knows by its id how far to skip. So the
 * space between the two is always the sum of what is in flight.
 */
#include <assert.h>
#include <errno.h>

#include "virtio/virtq_impl.h"

/* 2.8.10.1 */
enum { DESC_ALIGN = 16, EVENT_ALIGN = 4 };

/* struct vring_packed_desc_event, read and written as one word: its halves belong together. */
enum { EVENT_OFFSET_MASK = 0x7fff, EVENT_FLAGS_SHIFT = 16, EVENT_FLAGS_MASK = 3 };

static int packed_map(struct virtq *q, struct err *err)
{
	struct virtq_packed *p = &q->packed;
	size_t ring_bytes = q->config.size * sizeof(*p->ring), event_bytes = sizeof(*p->driver_event);

	p->ring = virtq_map_area(q, "descriptor", q->config.desc, ring_bytes, DESC_ALIGN, err);
	if (!p->ring)
		return -EFAULT;
	p->driver_event = virtq_map_area(q, "driver", q->config.driver, event_bytes, EVENT_ALIGN, err);
	if (!p->driver_event)
		return -EFAULT;
	p->device_event = virtq_map_area(q, "device", q->config.device, event_bytes, EVENT_ALIGN, err);
	if (!p->device_event)
		return -EFAULT;
	p->next.wrap = p->used.wrap = true;
	return 0;
}

static void advance(const struct virtq *q, struct virtq_cursor *c, unsigned count)
{
	unsigned offset = c->offset + count, size = q->config.size;
	c->wrap ^= offset >= size;
	c->offset = (uint16_t)(offset >= size ? offset - size : offset);
}

static void retreat(const struct virtq *q, struct virtq_cursor *c, unsigned count)
{
	bool wraps = c->offset < count;
	c->wrap ^= wraps;
	c->offset = (uint16_t)(c->offset + (wraps ? q->config.size : 0) - count);
}

/* --- available --------------------------------------------------------------------------------------------- */

static bool packed_has_chains(const struct virtq *q)
{
	const struct virtq_packed *p = &q->packed;
	/* Acquire: the driver writes the flags of the first descriptor last, and all else is read after them. */
	uint16_t flags = __atomic_load_n(&p->ring[p->next.offset].flags, __ATOMIC_ACQUIRE);
	bool avail = flags >> VRING_PACKED_DESC_F_AVAIL & 1, used = flags >> VRING_PACKED_DESC_F_USED & 1;
	return avail == p->next.wrap && used != p->next.wrap;
}

static struct vring_packed_desc load_desc(const struct vring_packed_desc *desc)
{
	return (struct vring_packed_desc){
		.addr = __atomic_load_n(&desc->addr, __ATOMIC_RELAXED),
		.len = __atomic_load_n(&desc->len, __ATOMIC_RELAXED),
		.id = __atomic_load_n(&desc->id, __ATOMIC_RELAXED),
		.flags = __atomic_load_n(&desc->flags, __ATOMIC_RELAXED),
	};
}

/* 2.8.7: the whole table is the chain; of a table's flags only WRITE is looked at. */
static int add_table(struct virtq *q, struct virtq_chain *chain, const struct vring_packed_desc *desc)
{
	int count = virtq_load_table(q, desc->addr, desc->len, VIRTQ_SIZE_MAX);
	const struct vring_packed_desc *table = q->table;
	for (int i = 0; i < count; i++) {
		int r = virtq_add(q, chain, table[i].addr, table[i].len, table[i].flags & VRING_DESC_F_WRITE);
		if (r < 0)
			return r;
	}
	return count;
}

static int add_desc(struct virtq *q, struct virtq_chain *chain, const struct vring_packed_desc *desc)
{
	if (!(desc->flags & VRING_DESC_F_INDIRECT))
		return virtq_add(q, chain, desc->addr, desc->len, desc->flags & VRING_DESC_F_WRITE);
	if ((desc->flags & VRING_DESC_F_NEXT) || chain->out_count || chain->in_count)
		return virtq_break(q, "a descriptor that is INDIRECT in a chain linked by NEXT");
	return add_table(q, chain, desc);
}

static int packed_pop(struct virtq *q, struct virtq_chain *chain)
{
	struct virtq_packed *p = &q->packed;
	if (!packed_has_chains(q))
		return 0;

	struct virtq_cursor at = p->next;
	unsigned room = q->config.size - p->in_flight;
	for (unsigned count = 1; count <= room; count++) {
		struct vring_packed_desc desc = load_desc(&p->ring[at.offset]);
		int r = add_desc(q, chain, &desc);
		if (r < 0)
			return r;
		advance(q, &at, 1);
		if (desc.flags & VRING_DESC_F_NEXT)
			continue;
		chain->id = desc.id; /* the last one's */
		chain->descriptors = (uint16_t)count;
		p->in_flight = (uint16_t)(p->in_flight + count);
		p->next = at;
		return 1;
	}
	return virtq_break(q, "a chain longer than the %u free descriptors of the ring", room);
}

static void packed_unpop(struct virtq *q, const struct virtq_chain *chain)
{
	struct virtq_packed *p = &q->packed;
	assert(chain->descriptors <= p->in_flight);
	p->in_flight = (uint16_t)(p->in_flight - chain->descriptors);
	retreat(q, &p->next, chain->descriptors);
}

/* --- used -------------------------------------------------------------------------------------------------- */

static void write_used(struct virtq *q, const struct virtq_cursor *at, const struct virtq_used *used)
{
	/* 2.8.4: without WRITE the length says nothing. */
	unsigned flags = used->written_bytes ? VRING_DESC_F_WRITE : 0;
	if (at->wrap)
		flags |= 1U << VRING_PACKED_DESC_F_AVAIL | 1U << VRING_PACKED_DESC_F_USED;

	struct vring_packed_desc *desc = &q->packed.ring[at->offset];
	__atomic_store_n(&desc->id, used->id, __ATOMIC_RELAXED);
	__atomic_store_n(&desc->len, used->written_bytes, __ATOMIC_RELAXED);
	/* Release: whoever sees the flags sees the rest, and what the device wrote into the buffers. */
	__atomic_store_n(&desc->flags, (uint16_t)flags, __ATOMIC_RELEASE);
}

/* The first one last: a driver that does not see it does not look at the others. */
static void packed_push(struct virtq *q, const struct virtq_used *used, unsigned count)
{
	struct virtq_packed *p = &q->packed;
	struct virtq_cursor first = p->used;
	for (unsigned i = 0; i < count; i++) {
		assert(used[i].descriptors > 0 && used[i].descriptors <= p->in_flight);
		if (i > 0)
			write_used(q, &p->used, &used[i]);
		p->in_flight = (uint16_t)(p->in_flight - used[i].descriptors);
		advance(q, &p->used, used[i].descriptors);
		q->unasked += used[i].descriptors;
	}
	write_used(q, &first, used);
}

/* 2.8.14. Was the descriptor that the driver waits for among those passed since this was asked? */
static bool packed_wants_interrupt(const struct virtq *q)
{
	const struct virtq_packed *p = &q->packed;
	uint32_t event = __atomic_load_n(p->driver_event, __ATOMIC_RELAXED);
	unsigned flags = event >> EVENT_FLAGS_SHIFT & EVENT_FLAGS_MASK;
	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	/* 3 is reserved, DESC needs the feature: an interrupt too many is the safe answer. */
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !q->config.event_idx)
		return true;

	int offset = event & EVENT_OFFSET_MASK;
	bool wrap = event >> VRING_PACKED_EVENT_F_WRAP_CTR & 1;
	int behind = p->used.offset - offset + (wrap == p->used.wrap ? 0 : q->config.size);
	return behind > 0 && (uint64_t)behind <= q->unasked;
}

/* --- doorbells --------------------------------------------------------------------------------------------- */

static void packed_enable_doorbell(struct virtq *q)
{
	const struct virtq_cursor *next = &q->packed.next;
	uint32_t event = (uint32_t)VRING_PACKED_EVENT_FLAG_ENABLE << EVENT_FLAGS_SHIFT;
	if (q->config.event_idx)
		event = next->offset | (uint32_t)next->wrap << VRING_PACKED_EVENT_F_WRAP_CTR |
			(uint32_t)VRING_PACKED_EVENT_FLAG_DESC << EVENT_FLAGS_SHIFT;
	__atomic_store_n(q->packed.device_event, event, __ATOMIC_RELAXED);
}

static void packed_disable_doorbell(struct virtq *q)
{
	uint32_t event = (uint32_t)VRING_PACKED_EVENT_FLAG_DISABLE << EVENT_FLAGS_SHIFT;
	__atomic_store_n(q->packed.device_event, event, __ATOMIC_RELAXED);
}

const struct virtq_ops virtq_packed_ops = {
	.map = packed_map,
	.pop = packed_pop,
	.unpop = packed_unpop,
	.push = packed_push,
	.wants_interrupt = packed_wants_interrupt,
	.enable_doorbell = packed_enable_doorbell,
	.disable_doorbell = packed_disable_doorbell,
	.has_chains = packed_has_chains,
};
