#include "virtio/virtio_mmio.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>

#include "util.h"

enum {
	VERSION = 2,
	CONTROL_SIZE_BYTES = 4, /* the only size of the registers before CONFIG */
	/* Newer than the header. */
	VIRTIO_MMIO_QUEUE_RESET = 0x0c0,
};
static const uint32_t MAGIC = 0x74726976;  /* "virt" */
static const uint32_t VENDOR = 0x544c4d56; /* "VMLT" */

struct virtio_mmio {
	struct device dev;
	struct virtio_device *virtio;
	struct bus *bus;
	uint64_t base;
	struct irq_line irq;

	uint32_t features_select, driver_features_select, queue_select;
	uint32_t interrupt_status;
	uint32_t doorbell_queues; /* a bit for each queue whose doorbell is on the bus */
};

static struct virtio_mmio *to_mmio(struct device *dev)
{
	return container_of(dev, struct virtio_mmio, dev);
}

/* --- interrupts ---------------------------------------------------------------------------------------------- */

static void set_interrupt_status(struct virtio_mmio *m, uint32_t status)
{
	bool was = m->interrupt_status != 0, is = status != 0;
	m->interrupt_status = status;
	if (was != is)
		irq_set(m->irq, is);
}

static void interrupt_queue(void *ctx, unsigned queue)
{
	struct virtio_mmio *m = ctx;
	(void)queue;
	set_interrupt_status(m, m->interrupt_status | VIRTIO_MMIO_INT_VRING);
}

static void interrupt_config(void *ctx)
{
	struct virtio_mmio *m = ctx;
	set_interrupt_status(m, m->interrupt_status | VIRTIO_MMIO_INT_CONFIG);
}

/* --- doorbells ------------------------------------------------------------------------------------------------- */

static struct bus_doorbell doorbell_of(const struct virtio_mmio *m, const struct virtio_queue *queue)
{
	return (struct bus_doorbell){
		.addr = m->base + VIRTIO_MMIO_QUEUE_NOTIFY,
		.size_bytes = CONTROL_SIZE_BYTES,
		.has_value = true,
		.value = queue->index,
		.eventfd = queue->doorbell_fd,
	};
}

static void add_doorbells(struct virtio_mmio *m)
{
	for (unsigned i = 0; i < m->virtio->queue_count; i++) {
		const struct virtio_queue *queue = &m->virtio->queues[i];
		if (!queue->enabled)
			continue;
		struct bus_doorbell doorbell = doorbell_of(m, queue);
		bus_add_doorbell(m->bus, &doorbell);
		m->doorbell_queues |= 1u << i;
	}
}

static void remove_doorbells(struct virtio_mmio *m)
{
	for (unsigned i = 0; i < m->virtio->queue_count; i++) {
		if (!(m->doorbell_queues & 1u << i))
			continue;
		struct bus_doorbell doorbell = doorbell_of(m, &m->virtio->queues[i]);
		bus_remove_doorbell(m->bus, &doorbell);
	}
	m->doorbell_queues = 0;
}

static void set_doorbells(void *ctx, bool on)
{
	struct virtio_mmio *m = ctx;
	if (on)
		add_doorbells(m);
	else
		remove_doorbells(m);
}

static const struct virtio_transport MMIO_TRANSPORT = {
	.interrupt_queue = interrupt_queue,
	.interrupt_config = interrupt_config,
	.set_doorbells = set_doorbells,
};

/* --- registers (4.2.2) ------------------------------------------------------------------------------------------ */

static uint32_t read_queue(const struct virtio_queue *queue, uint64_t offset)
{
	if (!queue)
		return 0;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue->size_max;
	case VIRTIO_MMIO_QUEUE_READY:
		return queue->enabled;
	default: /* VIRTIO_MMIO_QUEUE_RESET */
		return queue->stopping;
	}
}

/* What can only be written reads as 0. */
static uint32_t read_control(struct virtio_mmio *m, uint64_t offset)
{
	struct virtio_device *virtio = m->virtio;
	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return virtio->model->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return virtio_read_features(virtio, m->features_select);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
	case VIRTIO_MMIO_QUEUE_READY:
	case VIRTIO_MMIO_QUEUE_RESET:
		return read_queue(virtio_get_queue(virtio, m->queue_select), offset);
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return m->interrupt_status;
	case VIRTIO_MMIO_STATUS:
		return virtio_read_status(virtio);
	case VIRTIO_MMIO_SHM_LEN_LOW: /* no device has shared memory */
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return virtio->config_generation;
	default:
		return 0;
	}
}

static uint64_t mmio_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct virtio_mmio *m = to_mmio(dev);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		uint8_t bytes[8] = {0};
		virtio_read_config(m->virtio, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), bytes, size_bytes);
		return le64_load(bytes);
	}
	return size_bytes == CONTROL_SIZE_BYTES ? read_control(m, offset) : 0;
}

static void write_queue(struct virtio_mmio *m, struct virtio_queue *queue, uint64_t offset, uint32_t value)
{
	if (!queue)
		return;
	unsigned half = offset % 8 == 4;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		virtio_set_queue_size(m->virtio, queue, value);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		if (value == 1)
			virtio_enable_queue(m->virtio, queue);
		else if (value == 0)
			virtio_disable_queue(m->virtio, queue);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		virtio_set_queue_area(queue, &queue->desc, half, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		virtio_set_queue_area(queue, &queue->driver, half, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		virtio_set_queue_area(queue, &queue->device, half, value);
		break;
	case VIRTIO_MMIO_QUEUE_RESET:
		if (value == 1)
			virtio_reset_queue(m->virtio, queue);
		break;
	default:
		break;
	}
}

/* Ours first: when the core's reset is through, another vCPU may have set them again. */
static void write_status(struct virtio_mmio *m, uint32_t value)
{
	if (value == 0) {
		m->features_select = m->driver_features_select = m->queue_select = 0;
		set_interrupt_status(m, 0);
	}
	/* No bit above the eighth is one; but a write of 0x100 is no reset. */
	if (value <= UINT8_MAX)
		virtio_write_status(m->virtio, (uint8_t)value);
}

static void write_control(struct virtio_mmio *m, uint64_t offset, uint32_t value)
{
	struct virtio_device *virtio = m->virtio;
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		m->features_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		virtio_write_driver_features(virtio, m->driver_features_select, value);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		m->driver_features_select = value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		m->queue_select = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		virtio_ring(virtio, value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		set_interrupt_status(m, m->interrupt_status & ~value);
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(m, value);
		break;
	default:
		write_queue(m, virtio_get_queue(virtio, m->queue_select), offset, value);
		break;
	}
}

static void mmio_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct virtio_mmio *m = to_mmio(dev);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		uint8_t bytes[8];
		le64_store(bytes, value);
		virtio_write_config(m->virtio, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), bytes, size_bytes);
	} else if (size_bytes == CONTROL_SIZE_BYTES) {
		write_control(m, offset, (uint32_t)value);
	}
}

/* --- life -------------------------------------------------------------------------------------------------------- */

static void mmio_destroy(struct device *dev)
{
	struct virtio_mmio *m = to_mmio(dev);
	virtio_free(m->virtio); /* it may still need the lock, and the doorbells */
	device_fini(dev);
	free(m);
}

static const struct device_ops MMIO_OPS = {
	.name = "virtio-mmio",
	.access_sizes = 1 | 2 | 4 | 8,
	.read = mmio_read,
	.write = mmio_write,
	.destroy = mmio_destroy,
};

struct device *virtio_mmio_new(struct virtio_device *dev, struct bus *mmio, uint64_t base, struct irq_line irq,
			       struct err *err)
{
	struct virtio_mmio *m = calloc(1, sizeof(*m));
	if (!m) {
		err_set(err, -ENOMEM, "%s: %s", dev->model->name, err_name(ENOMEM));
		virtio_free(dev);
		return NULL;
	}
	m->virtio = dev;
	m->bus = mmio;
	m->base = base;
	m->irq = irq;
	device_init(&m->dev, &MMIO_OPS);
	virtio_attach(dev, &m->dev, &MMIO_TRANSPORT, m);
	return &m->dev;
}
