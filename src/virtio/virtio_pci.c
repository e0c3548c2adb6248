#include "virtio/virtio_pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>

#include "util.h"

enum {
	VENDOR_ID = 0x1af4,
	DEVICE_ID_BASE = 0x1040,
	SUBSYSTEM_ID = 0x1100,
	REVISION_ID = 1, /* 4.1.2.1: not transitional */
};

/* The one BAR. */
enum {
	BAR = 0,
	BAR_SIZE = 0x8000,
	COMMON = 0x0000,
	ISR = 0x1000,
	DEVICE = 0x2000,
	NOTIFY = 0x3000,
	MSIX_TABLE = 0x4000,
	MSIX_PBA = 0x5000,

	COMMON_SIZE = 64, /* with the administration queue's fields, of which we have none */
	NOTIFY_MULTIPLIER = 4,
};

/* 4.1.4.5 */
enum { ISR_QUEUE = 1 << 0, ISR_CONFIG = 1 << 1 };

struct virtio_pci {
	struct pci_function pci;
	struct virtio_device *virtio;
	unsigned cfg_cap; /* the offset of the PCI configuration access capability */

	uint32_t features_select, driver_features_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint16_t queue_vectors[VIRTIO_QUEUES_MAX];
	uint8_t isr;
};

static struct virtio_pci *to_virtio_pci(struct pci_function *pci)
{
	return container_of(pci, struct virtio_pci, pci);
}

/* --- interrupts (4.1.5.3, 4.1.5.4) --------------------------------------------------------------------------- */

static void interrupt(struct virtio_pci *p, uint8_t isr, uint16_t vector)
{
	if (pci_msix_is_enabled(&p->pci)) {
		if (vector != VIRTIO_MSI_NO_VECTOR)
			pci_msix_raise(&p->pci, vector);
		return;
	}
	p->isr |= isr;
	pci_set_intx(&p->pci, true);
}

static void interrupt_queue(void *ctx, unsigned queue)
{
	struct virtio_pci *p = ctx;
	interrupt(p, ISR_QUEUE, p->queue_vectors[queue]);
}

static void interrupt_config(void *ctx)
{
	struct virtio_pci *p = ctx;
	p->isr |= ISR_CONFIG; /* with MSI-X too */
	interrupt(p, ISR_CONFIG, p->config_vector);
}

static uint8_t take_isr(struct virtio_pci *p)
{
	uint8_t isr = p->isr;
	p->isr = 0;
	pci_set_intx(&p->pci, false);
	return isr;
}

/* --- doorbells (4.1.4.4) --------------------------------------------------------------------------------------- */

static void set_doorbells(void *ctx, bool on)
{
	struct virtio_pci *p = ctx;
	if (!on) {
		pci_remove_doorbells(&p->pci);
		return;
	}
	for (unsigned i = 0; i < p->virtio->queue_count; i++) {
		const struct virtio_queue *queue = &p->virtio->queues[i];
		if (queue->enabled)
			pci_add_doorbell(&p->pci, BAR, NOTIFY + i * NOTIFY_MULTIPLIER, queue->doorbell_fd);
	}
}

static const struct virtio_transport PCI_TRANSPORT = {
	.interrupt_queue = interrupt_queue,
	.interrupt_config = interrupt_config,
	.set_doorbells = set_doorbells,
};

/* --- common configuration, read (4.1.4.3) ------------------------------------------------------------------------ */

static void render_queue(const struct virtio_pci *p, const struct virtio_queue *queue, uint8_t *image)
{
	le16_store(image + VIRTIO_PCI_COMMON_Q_SIZE, queue->size);
	le16_store(image + VIRTIO_PCI_COMMON_Q_MSIX, p->queue_vectors[queue->index]);
	le16_store(image + VIRTIO_PCI_COMMON_Q_ENABLE, queue->enabled);
	le16_store(image + VIRTIO_PCI_COMMON_Q_NOFF, (uint16_t)queue->index);
	le64_store(image + VIRTIO_PCI_COMMON_Q_DESCLO, queue->desc);
	le64_store(image + VIRTIO_PCI_COMMON_Q_AVAILLO, queue->driver);
	le64_store(image + VIRTIO_PCI_COMMON_Q_USEDLO, queue->device);
	le16_store(image + VIRTIO_PCI_COMMON_Q_NDATA, (uint16_t)queue->index);
	le16_store(image + VIRTIO_PCI_COMMON_Q_RESET, queue->stopping);
}

/* Reading has no side effects, so that a read of any size at any place is a piece of the whole. */
static void render_common(struct virtio_pci *p, uint8_t image[COMMON_SIZE])
{
	struct virtio_device *virtio = p->virtio;
	memset(image, 0, COMMON_SIZE);
	le32_store(image + VIRTIO_PCI_COMMON_DFSELECT, p->features_select);
	le32_store(image + VIRTIO_PCI_COMMON_DF, virtio_read_features(virtio, p->features_select));
	le32_store(image + VIRTIO_PCI_COMMON_GFSELECT, p->driver_features_select);
	le32_store(image + VIRTIO_PCI_COMMON_GF, virtio_read_driver_features(virtio, p->driver_features_select));
	le16_store(image + VIRTIO_PCI_COMMON_MSIX, p->config_vector);
	le16_store(image + VIRTIO_PCI_COMMON_NUMQ, (uint16_t)virtio->queue_count);
	image[VIRTIO_PCI_COMMON_STATUS] = virtio_read_status(virtio);
	image[VIRTIO_PCI_COMMON_CFGGENERATION] = virtio->config_generation;
	le16_store(image + VIRTIO_PCI_COMMON_Q_SELECT, p->queue_select);
	le16_store(image + VIRTIO_PCI_COMMON_Q_MSIX, VIRTIO_MSI_NO_VECTOR);

	const struct virtio_queue *queue = virtio_get_queue(virtio, p->queue_select);
	if (queue)
		render_queue(p, queue, image);
}

static uint64_t read_common(struct virtio_pci *p, uint64_t offset, unsigned size_bytes)
{
	uint8_t image[COMMON_SIZE + 8] = {0}, bytes[8] = {0};
	render_common(p, image);
	if (offset < COMMON_SIZE)
		memcpy(bytes, image + offset, size_bytes);
	return le64_load(bytes);
}

/* --- common configuration, written ------------------------------------------------------------------------------- */

/* 4.1.5.1.2: a vector that is not there reads back as none. */
static uint16_t accept_vector(const struct virtio_pci *p, uint32_t vector)
{
	return vector < p->pci.msix.vectors ? (uint16_t)vector : VIRTIO_MSI_NO_VECTOR;
}

static void reset_registers(struct virtio_pci *p)
{
	p->features_select = p->driver_features_select = 0;
	p->queue_select = 0;
	p->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		p->queue_vectors[i] = VIRTIO_MSI_NO_VECTOR;
	(void)take_isr(p);
}

/* Ours first: when the core's reset is through, another vCPU may have set them again. */
static void write_status(struct virtio_pci *p, uint8_t status)
{
	if (status == 0)
		reset_registers(p);
	virtio_write_status(p->virtio, status);
}

static void write8(struct virtio_pci *p, uint64_t offset, uint8_t value)
{
	if (offset == VIRTIO_PCI_COMMON_STATUS)
		write_status(p, value);
}

static void write_queue16(struct virtio_pci *p, struct virtio_queue *queue, uint64_t offset, uint16_t value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		virtio_set_queue_size(p->virtio, queue, value);
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		p->queue_vectors[queue->index] = accept_vector(p, value);
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			virtio_enable_queue(p->virtio, queue);
		break;
	case VIRTIO_PCI_COMMON_Q_RESET:
		if (value == 1)
			virtio_reset_queue(p->virtio, queue);
		break;
	default:
		break;
	}
}

static void write16(struct virtio_pci *p, uint64_t offset, uint16_t value)
{
	struct virtio_queue *queue = virtio_get_queue(p->virtio, p->queue_select);
	if (offset == VIRTIO_PCI_COMMON_MSIX)
		p->config_vector = accept_vector(p, value);
	else if (offset == VIRTIO_PCI_COMMON_Q_SELECT)
		p->queue_select = value;
	else if (queue)
		write_queue16(p, queue, offset, value);
}

static void write_area32(struct virtio_queue *queue, uint64_t offset, uint32_t value)
{
	unsigned half = offset % 8 == 4;
	switch (offset - 4 * half) {
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		virtio_set_queue_area(queue, &queue->desc, half, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		virtio_set_queue_area(queue, &queue->driver, half, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		virtio_set_queue_area(queue, &queue->device, half, value);
		break;
	default:
		break;
	}
}

static void write32(struct virtio_pci *p, uint64_t offset, uint32_t value)
{
	struct virtio_queue *queue = virtio_get_queue(p->virtio, p->queue_select);
	if (offset == VIRTIO_PCI_COMMON_DFSELECT)
		p->features_select = value;
	else if (offset == VIRTIO_PCI_COMMON_GFSELECT)
		p->driver_features_select = value;
	else if (offset == VIRTIO_PCI_COMMON_GF)
		virtio_write_driver_features(p->virtio, p->driver_features_select, value);
	else if (queue)
		write_area32(queue, offset, value);
}

/* A field is written by its own size only; 64 bits are two halves (4.1.3.1), also at once. */
static void write_common(struct virtio_pci *p, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	switch (size_bytes) {
	case 1:
		write8(p, offset, (uint8_t)value);
		break;
	case 2:
		write16(p, offset, (uint16_t)value);
		break;
	case 4:
		write32(p, offset, (uint32_t)value);
		break;
	default:
		if (offset < VIRTIO_PCI_COMMON_Q_DESCLO)
			return;
		write32(p, offset, (uint32_t)value);
		write32(p, offset + 4, (uint32_t)(value >> 32));
		break;
	}
}

/* --- the BAR --------------------------------------------------------------------------------------------------------
 */

static uint64_t bar_read(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes)
{
	struct virtio_pci *p = to_virtio_pci(pci);
	(void)bar;
	if (offset < ISR)
		return read_common(p, offset - COMMON, size_bytes);
	if (offset == ISR)
		return take_isr(p);
	if (offset < DEVICE || offset >= NOTIFY)
		return 0;
	uint8_t bytes[8] = {0};
	virtio_read_config(p->virtio, (uint32_t)(offset - DEVICE), bytes, size_bytes);
	return le64_load(bytes);
}

static void bar_write(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct virtio_pci *p = to_virtio_pci(pci);
	(void)bar;
	if (offset < ISR) {
		write_common(p, offset - COMMON, size_bytes, value);
	} else if (offset >= DEVICE && offset < NOTIFY) {
		uint8_t bytes[8];
		le64_store(bytes, value);
		virtio_write_config(p->virtio, (uint32_t)(offset - DEVICE), bytes, size_bytes);
	} else if (offset >= NOTIFY && offset < MSIX_TABLE && offset % NOTIFY_MULTIPLIER == 0) {
		virtio_ring(p->virtio, (uint32_t)(offset - NOTIFY) / NOTIFY_MULTIPLIER);
	}
}

/* --- PCI configuration access capability (4.1.4.9)
 * ---------------------------------------------------------------------- */

/* Does the access touch pci_cfg_data, and does the capability name registers of ours? */
static bool is_window_access(const struct virtio_pci *p, unsigned offset, unsigned size_bytes)
{
	unsigned data = p->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
	if (offset >= data + 4 || offset + size_bytes <= data)
		return false;
	const uint8_t *cap = p->pci.config + p->cfg_cap;
	uint32_t at = le32_load(cap + VIRTIO_PCI_CAP_OFFSET), length = le32_load(cap + VIRTIO_PCI_CAP_LENGTH);
	bool is_size = length == 1 || length == 2 || length == 4;
	return is_size && cap[VIRTIO_PCI_CAP_BAR] == BAR && at < MSIX_TABLE && at % length == 0;
}

static void config_reads(struct pci_function *pci, unsigned offset, unsigned size_bytes)
{
	struct virtio_pci *p = to_virtio_pci(pci);
	if (!is_window_access(p, offset, size_bytes))
		return;
	uint8_t *cap = pci->config + p->cfg_cap;
	unsigned length = cap[VIRTIO_PCI_CAP_LENGTH];
	uint8_t bytes[8];
	le64_store(bytes, bar_read(pci, BAR, le32_load(cap + VIRTIO_PCI_CAP_OFFSET), length));
	memcpy(cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data), bytes, length);
}

static void config_written(struct pci_function *pci, unsigned offset, unsigned size_bytes)
{
	struct virtio_pci *p = to_virtio_pci(pci);
	if (!is_window_access(p, offset, size_bytes))
		return;
	const uint8_t *cap = pci->config + p->cfg_cap;
	unsigned length = cap[VIRTIO_PCI_CAP_LENGTH];
	uint64_t value = le32_load(cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data));
	value &= (1ULL << (8 * length)) - 1;
	bar_write(pci, BAR, le32_load(cap + VIRTIO_PCI_CAP_OFFSET), length, value);
}

/* --- life
 * ------------------------------------------------------------------------------------------------------------------ */

static void pci_destroy(struct pci_function *pci)
{
	struct virtio_pci *p = to_virtio_pci(pci);
	virtio_free(p->virtio); /* it may still need the lock, and the doorbells */
	pci_function_fini(pci);
	free(p);
}

static const struct pci_function_ops PCI_OPS = {
	.name = "virtio-pci",
	.access_sizes = 1 | 2 | 4 | 8,
	.bar_read = bar_read,
	.bar_write = bar_write,
	.config_reads = config_reads,
	.config_written = config_written,
	.destroy = pci_destroy,
};

static struct virtio_pci_cap make_cap(uint8_t type, uint8_t size_bytes, uint32_t offset, uint32_t length)
{
	struct virtio_pci_cap cap = {
		.cap_vndr = PCI_CAP_ID_VNDR,
		.cap_len = size_bytes,
		.cfg_type = type,
		.bar = BAR,
	};
	le32_store((uint8_t *)&cap.offset, offset);
	le32_store((uint8_t *)&cap.length, length);
	return cap;
}

static void add_area(struct virtio_pci *p, uint8_t type, uint32_t offset, uint32_t length)
{
	struct virtio_pci_cap cap = make_cap(type, sizeof(cap), offset, length);
	pci_add_capability(&p->pci, &cap, NULL, sizeof(cap));
}

static void add_notify_area(struct virtio_pci *p)
{
	uint32_t length = p->virtio->queue_count * NOTIFY_MULTIPLIER;
	struct virtio_pci_notify_cap cap = {
		.cap = make_cap(VIRTIO_PCI_CAP_NOTIFY_CFG, sizeof(cap), NOTIFY, length),
	};
	le32_store((uint8_t *)&cap.notify_off_multiplier, NOTIFY_MULTIPLIER);
	pci_add_capability(&p->pci, &cap, NULL, sizeof(cap));
}

static void add_window(struct virtio_pci *p)
{
	struct virtio_pci_cfg_cap cap = {.cap = make_cap(VIRTIO_PCI_CAP_PCI_CFG, sizeof(cap), 0, 0)};
	struct virtio_pci_cfg_cap writable = {
		.cap = {.bar = UINT8_MAX, .offset = UINT32_MAX, .length = UINT32_MAX},
		.pci_cfg_data = {UINT8_MAX, UINT8_MAX, UINT8_MAX, UINT8_MAX},
	};
	p->cfg_cap = pci_add_capability(&p->pci, &cap, &writable, sizeof(cap));
}

static void describe(struct virtio_pci *p)
{
	struct virtio_device *virtio = p->virtio;
	pci_add_bar(&p->pci, BAR, BAR_SIZE);
	pci_add_msix(&p->pci, virtio->queue_count + 1, BAR, MSIX_TABLE, MSIX_PBA);
	pci_add_intx(&p->pci);
	add_area(p, VIRTIO_PCI_CAP_COMMON_CFG, COMMON, COMMON_SIZE);
	add_notify_area(p);
	add_area(p, VIRTIO_PCI_CAP_ISR_CFG, ISR, 1);
	if (virtio->config_size_bytes)
		add_area(p, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE, virtio->config_size_bytes);
	add_window(p);
}

struct pci_function *virtio_pci_new(struct virtio_device *dev, struct err *err)
{
	struct virtio_pci *p = calloc(1, sizeof(*p));
	if (!p) {
		err_set(err, -ENOMEM, "%s: %s", dev->model->name, err_name(ENOMEM));
		virtio_free(dev);
		return NULL;
	}
	struct pci_ids ids = {
		.vendor = VENDOR_ID,
		.device = (uint16_t)(DEVICE_ID_BASE + dev->model->id),
		.subsystem_vendor = VENDOR_ID,
		.subsystem = SUBSYSTEM_ID,
		.class_code = dev->model->pci_class,
		.revision = REVISION_ID,
	};
	p->virtio = dev;
	pci_function_init(&p->pci, &PCI_OPS, &ids);
	describe(p);
	reset_registers(p);
	virtio_attach(dev, &p->pci.dev, &PCI_TRANSPORT, p);
	return &p->pci;
}
