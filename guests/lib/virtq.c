/* Split virtqueues (VIRTIO 1.2, 2.7), the driver's side. */
#include "virtio.h"

#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>

/* Queue memory by queue: a guest has one device, and its queues are made after a reset. */
static struct queue_memory {
	struct vring_desc desc[VIRTQ_SIZE_MAX] __attribute__((aligned(4096)));
	uint8_t avail[4 + 2 * VIRTQ_SIZE_MAX + 2] __attribute__((aligned(4096)));
	uint8_t used[4 + 8 * VIRTQ_SIZE_MAX + 2] __attribute__((aligned(4096)));
	struct vring_desc indirect[VIRTQ_SIZE_MAX][VIRTQ_SEGMENTS_MAX];
} memories[VIRTQ_QUEUES_MAX];

unsigned virtq_size_max(const struct virtio_dev *dev, unsigned index)
{
	if (dev->is_pci) {
		mmio_write16(dev->common + VIRTIO_PCI_COMMON_Q_SELECT, (uint16_t)index);
		return mmio_read16(dev->common + VIRTIO_PCI_COMMON_Q_SIZE);
	}
	mmio_write32(dev->base + VIRTIO_MMIO_QUEUE_SEL, index);
	return mmio_read32(dev->base + VIRTIO_MMIO_QUEUE_NUM_MAX);
}

static bool setup_pci(const struct virtio_dev *dev, struct virtq *q, uint16_t vector)
{
	uint64_t common = dev->common;

	mmio_write16(common + VIRTIO_PCI_COMMON_Q_SIZE, (uint16_t)q->size);
	if (mmio_read16(common + VIRTIO_PCI_COMMON_Q_SIZE) != q->size)
		return false;
	mmio_write16(common + VIRTIO_PCI_COMMON_Q_MSIX, vector);
	if (mmio_read16(common + VIRTIO_PCI_COMMON_Q_MSIX) != vector)
		return false;
	mmio_write32(common + VIRTIO_PCI_COMMON_Q_DESCLO, (uint32_t)(uintptr_t)q->desc);
	mmio_write32(common + VIRTIO_PCI_COMMON_Q_DESCHI, 0);
	mmio_write32(common + VIRTIO_PCI_COMMON_Q_AVAILLO, (uint32_t)(uintptr_t)q->avail);
	mmio_write32(common + VIRTIO_PCI_COMMON_Q_AVAILHI, 0);
	mmio_write32(common + VIRTIO_PCI_COMMON_Q_USEDLO, (uint32_t)(uintptr_t)q->used);
	mmio_write32(common + VIRTIO_PCI_COMMON_Q_USEDHI, 0);
	q->doorbell = dev->notify + (uint64_t)dev->notify_multiplier * mmio_read16(common + VIRTIO_PCI_COMMON_Q_NOFF);
	q->doorbell_16 = true;
	mmio_write16(common + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
	return mmio_read16(common + VIRTIO_PCI_COMMON_Q_ENABLE) == 1;
}

static bool setup_mmio(const struct virtio_dev *dev, struct virtq *q)
{
	uint64_t base = dev->base;

	mmio_write32(base + VIRTIO_MMIO_QUEUE_NUM, q->size);
	mmio_write32(base + VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)(uintptr_t)q->desc);
	mmio_write32(base + VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
	mmio_write32(base + VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)(uintptr_t)q->avail);
	mmio_write32(base + VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0);
	mmio_write32(base + VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)(uintptr_t)q->used);
	mmio_write32(base + VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
	q->doorbell = base + VIRTIO_MMIO_QUEUE_NOTIFY;
	mmio_write32(base + VIRTIO_MMIO_QUEUE_READY, 1);
	return mmio_read32(base + VIRTIO_MMIO_QUEUE_READY) == 1;
}

bool virtq_setup(struct virtio_dev *dev, struct virtq *q, unsigned index, unsigned size, uint16_t vector)
{
	struct queue_memory *memory = &memories[index];

	if (index >= VIRTQ_QUEUES_MAX)
		return false;
	memset(memory, 0, offsetof(struct queue_memory, indirect));
	*q = (struct virtq){.size = size,
			    .index = (uint16_t)index,
			    .desc = memory->desc,
			    .avail = (struct vring_avail *)memory->avail,
			    .used = (struct vring_used *)memory->used,
			    .free_count = (uint16_t)size,
			    .event_idx = virtio_has(dev, VIRTIO_RING_F_EVENT_IDX)};
	for (unsigned i = 0; i < size; i++)
		q->desc[i].next = (uint16_t)(i + 1);
	virtq_interrupts(q, false);
	if (size > virtq_size_max(dev, index)) /* selects the queue as well */
		return false;
	return dev->is_pci ? setup_pci(dev, q, vector) : setup_mmio(dev, q);
}

void virtq_use_indirect(struct virtq *q)
{
	q->indirect = memories[q->index].indirect;
}

static volatile uint16_t *used_event(struct virtq *q)
{
	return &q->avail->ring[q->size];
}

static uint16_t avail_event(struct virtq *q)
{
	return *(volatile uint16_t *)&q->used->ring[q->size];
}

/* With EVENT_IDX, "off" is an event that has just passed: 65535 entries away. */
static void set_used_event(struct virtq *q)
{
	*used_event(q) = (uint16_t)(q->wants_interrupts ? q->next_used : q->next_used - 1);
}

void virtq_interrupts(struct virtq *q, bool on)
{
	q->wants_interrupts = on;
	*(volatile uint16_t *)&q->avail->flags = on || q->event_idx ? 0 : VRING_AVAIL_F_NO_INTERRUPT;
	if (q->event_idx)
		set_used_event(q);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void fill(struct vring_desc *desc, const struct virtio_buf *buf, bool in, bool last, uint16_t next)
{
	desc->addr = (uintptr_t)buf->addr;
	desc->len = buf->len;
	desc->flags = (uint16_t)((in ? VRING_DESC_F_WRITE : 0) | (last ? 0 : VRING_DESC_F_NEXT));
	desc->next = next;
}

static int add_indirect(struct virtq *q, const struct virtio_buf *bufs, unsigned out, unsigned in)
{
	uint16_t head = q->free_head;
	struct vring_desc *table = q->indirect[head];
	struct virtio_buf whole = {table, (out + in) * (uint32_t)sizeof(*table)};

	if (!q->free_count || out + in > VIRTQ_SEGMENTS_MAX)
		return -1;
	for (unsigned i = 0; i < out + in; i++)
		fill(&table[i], &bufs[i], i >= out, i + 1 == out + in, (uint16_t)(i + 1));
	q->free_head = q->desc[head].next;
	q->free_count--;
	fill(&q->desc[head], &whole, false, true, 0);
	q->desc[head].flags = VRING_DESC_F_INDIRECT;
	return head;
}

int virtq_add(struct virtq *q, const struct virtio_buf *bufs, unsigned out, unsigned in)
{
	uint16_t head = q->free_head, at = head;

	if (q->indirect)
		return add_indirect(q, bufs, out, in);
	if (q->free_count < out + in)
		return -1;
	for (unsigned i = 0; i < out + in; i++) {
		uint16_t next = q->desc[at].next;

		fill(&q->desc[at], &bufs[i], i >= out, i + 1 == out + in, next);
		at = next;
	}
	q->free_head = at;
	q->free_count = (uint16_t)(q->free_count - out - in);
	return head;
}

void virtq_push(struct virtq *q, uint16_t head)
{
	q->avail->ring[q->next_avail % q->size] = head;
	q->next_avail++;
	__atomic_store_n(&q->avail->idx, q->next_avail, __ATOMIC_RELEASE);
}

bool virtq_kick(struct virtq *q)
{
	uint16_t from = q->kicked, to = q->next_avail;
	bool wanted;

	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* idx is out before we look whether the device wants to know */
	wanted = q->event_idx ? vring_need_event(avail_event(q), to, from)
			      : !(*(volatile uint16_t *)&q->used->flags & VRING_USED_F_NO_NOTIFY);
	q->kicked = to;
	if (from == to || !wanted)
		return false;
	q->kicks++;
	if (q->doorbell_16)
		mmio_write16(q->doorbell, q->index);
	else
		mmio_write32(q->doorbell, q->index);
	return true;
}

int virtq_take_raw(struct virtq *q, uint32_t *ret_len)
{
	const struct vring_used_elem *e = &q->used->ring[q->next_used % q->size];
	int head;

	if (__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE) == q->next_used)
		return -1;
	head = (int)e->id;
	*ret_len = e->len;
	q->next_used++;
	if (q->event_idx)
		set_used_event(q);
	return head;
}

static void free_chain(struct virtq *q, uint16_t head)
{
	uint16_t at = head, count = 1;

	for (; q->desc[at].flags & VRING_DESC_F_NEXT && count < q->size; count++)
		at = q->desc[at].next;
	q->desc[at].next = q->free_head;
	q->free_head = head;
	q->free_count = (uint16_t)(q->free_count + count);
}

int virtq_take(struct virtq *q, uint32_t *ret_len)
{
	int head = virtq_take_raw(q, ret_len);

	if (head >= 0)
		free_chain(q, (uint16_t)head);
	return head;
}
