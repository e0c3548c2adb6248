/* Split virtqueues (virtio 1.3, 2.7). */
#include <assert.h>
#include <errno.h>

#include "virtio/virtq_impl.h"

/* 2.7: the areas' alignments. */
enum { DESC_ALIGN = 16, AVAIL_ALIGN = 2, USED_ALIGN = 4 };

static int split_map(struct virtq *q, struct err *err)
{
	struct virtq_split *s = &q->split;
	size_t size = q->config.size, event_bytes = q->config.event_idx ? sizeof(uint16_t) : 0;
	size_t avail_bytes = sizeof(*s->avail) + size * sizeof(s->avail->ring[0]) + event_bytes;
	size_t used_bytes = sizeof(*s->used) + size * sizeof(s->used->ring[0]) + event_bytes;

	s->desc = virtq_map_area(q, "descriptor", q->config.desc, size * VIRTQ_DESC_BYTES, DESC_ALIGN, err);
	if (!s->desc)
		return -EFAULT;
	s->avail = virtq_map_area(q, "driver", q->config.driver, avail_bytes, AVAIL_ALIGN, err);
	if (!s->avail)
		return -EFAULT;
	s->used = virtq_map_area(q, "device", q->config.device, used_bytes, USED_ALIGN, err);
	return s->used ? 0 : -EFAULT;
}

static unsigned ring_index(const struct virtq *q, uint16_t idx)
{
	return idx & (q->config.size - 1U);
}

/* --- available --------------------------------------------------------------------------------------------- */

/* Look how far the driver has come: 1 when there is something to pop, 0, or -EPROTO. */
static int look_at_avail(struct virtq *q)
{
	struct virtq_split *s = &q->split;
	/* Acquire: the entries and descriptors below idx are read after it. */
	uint16_t idx = __atomic_load_n(&s->avail->idx, __ATOMIC_ACQUIRE);
	unsigned pending = (uint16_t)(idx - s->next);
	/* A chain takes a descriptor at least, until it comes back through the used ring. */
	if (pending > q->config.size - q->in_flight)
		return virtq_break(q, "the available index jumped from %u to %u, in a ring of %u", s->avail_idx, idx,
				   q->config.size);
	s->avail_idx = idx;
	return pending > 0;
}

/* A walk through linked descriptors: first those of the ring, then maybe those of an indirect table. */
struct walk {
	const struct vring_desc *table;
	unsigned count, index;
	unsigned left; /* more than these are a loop */
};

static struct vring_desc load_desc(const struct vring_desc *desc)
{
	return (struct vring_desc){
		.addr = __atomic_load_n(&desc->addr, __ATOMIC_RELAXED),
		.len = __atomic_load_n(&desc->len, __ATOMIC_RELAXED),
		.flags = __atomic_load_n(&desc->flags, __ATOMIC_RELAXED),
		.next = __atomic_load_n(&desc->next, __ATOMIC_RELAXED),
	};
}

/* 2.7.5.3: buffers of the ring may come before a table, never after it; its WRITE flag says nothing. */
static int enter_table(struct virtq *q, struct walk *w, const struct vring_desc *desc)
{
	if (w->table == q->table)
		return virtq_break(q, "an indirect table inside an indirect table");
	if (desc->flags & VRING_DESC_F_NEXT)
		return virtq_break(q, "a descriptor that is INDIRECT and has a NEXT");

	unsigned before = w->count - w->left - 1;
	int count = virtq_load_table(q, desc->addr, desc->len, VIRTQ_SIZE_MAX - before);
	if (count < 0)
		return count;
	*w = (struct walk){.table = q->table, .count = (unsigned)count, .left = (unsigned)count};
	return 0;
}

static int walk_chain(struct virtq *q, struct virtq_chain *chain, unsigned head)
{
	unsigned size = q->config.size;
	struct walk w = {.table = q->split.desc, .count = size, .index = head, .left = size};
	while (w.left-- > 0) {
		if (w.index >= w.count)
			return virtq_break(q, "descriptor %u of a table of %u", w.index, w.count);
		struct vring_desc desc = load_desc(&w.table[w.index]);
		bool is_table = desc.flags & VRING_DESC_F_INDIRECT;
		int r = is_table ? enter_table(q, &w, &desc)
				 : virtq_add(q, chain, desc.addr, desc.len, desc.flags & VRING_DESC_F_WRITE);
		if (r < 0)
			return r;
		if (is_table)
			continue;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return 1;
		w.index = desc.next;
	}
	return virtq_break(q, "a chain that loops, or is longer than its table");
}

static int split_pop(struct virtq *q, struct virtq_chain *chain)
{
	struct virtq_split *s = &q->split;
	if (s->next == s->avail_idx) {
		int r = look_at_avail(q);
		if (r <= 0)
			return r;
	}

	uint16_t head = __atomic_load_n(&s->avail->ring[ring_index(q, s->next)], __ATOMIC_RELAXED);
	int r = walk_chain(q, chain, head);
	if (r < 0)
		return r;
	chain->id = head;
	s->next++;
	return 1;
}

static void split_unpop(struct virtq *q, const struct virtq_chain *chain)
{
	(void)chain;
	q->split.next--;
}

/* --- used -------------------------------------------------------------------------------------------------- */

static void split_push(struct virtq *q, const struct virtq_used *used, unsigned count)
{
	struct virtq_split *s = &q->split;
	for (unsigned i = 0; i < count; i++) {
		assert(used[i].id < q->config.size);
		vring_used_elem_t *elem = &s->used->ring[ring_index(q, s->used_idx++)];
		__atomic_store_n(&elem->id, used[i].id, __ATOMIC_RELAXED);
		__atomic_store_n(&elem->len, used[i].written_bytes, __ATOMIC_RELAXED);
	}
	/* Release: whoever sees the index sees the entries, and what the device wrote into the buffers. */
	__atomic_store_n(&s->used->idx, s->used_idx, __ATOMIC_RELEASE);
	q->unasked += count;
}

/* 2.7.7.2. vring_need_event, with a count of pushes that does not wrap. */
static bool split_wants_interrupt(const struct virtq *q)
{
	const struct virtq_split *s = &q->split;
	if (!q->config.event_idx)
		return !(__atomic_load_n(&s->avail->flags, __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT);

	uint16_t used_event = __atomic_load_n(&s->avail->ring[q->config.size], __ATOMIC_RELAXED);
	return (uint16_t)(s->used_idx - used_event - 1) < q->unasked;
}

/* --- doorbells --------------------------------------------------------------------------------------------- */

static uint16_t *avail_event(struct virtq *q)
{
	return (uint16_t *)(void *)&q->split.used->ring[q->config.size];
}

static void split_enable_doorbell(struct virtq *q)
{
	if (q->config.event_idx)
		__atomic_store_n(avail_event(q), q->split.next, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&q->split.used->flags, 0, __ATOMIC_RELAXED);
}

/* 2.7.10: with EVENT_IDX the flags stay 0. An avail_event that the driver has passed keeps it silent. */
static void split_disable_doorbell(struct virtq *q)
{
	if (!q->config.event_idx)
		__atomic_store_n(&q->split.used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

static bool split_has_chains(const struct virtq *q)
{
	return __atomic_load_n(&q->split.avail->idx, __ATOMIC_RELAXED) != q->split.next;
}

const struct virtq_ops virtq_split_ops = {
	.map = split_map,
	.pop = split_pop,
	.unpop = split_unpop,
	.push = split_push,
	.wants_interrupt = split_wants_interrupt,
	.enable_doorbell = split_enable_doorbell,
	.disable_doorbell = split_disable_doorbell,
	.has_chains = split_has_chains,
};
