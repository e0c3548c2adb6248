/* The virtio core through the PCI transport: see fuzz_virtio.h. */
#include "fuzz_virtio.h"

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>

#include "virtio/virtio_pci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static const uint64_t BAR = 0x40000000;
enum { NOTIFY = 0x3000 };

static void set_intx(void *ctx, unsigned line, bool level)
{
	(void)ctx, (void)level;
	assert(line == 11);
}

static void send_message(void *ctx, uint64_t address, uint32_t data)
{
	(void)ctx, (void)address, (void)data;
}

static void create(struct fz *fz)
{
	const struct pci_wires wires = {&fz->bus, {set_intx, NULL, 11}, {send_message, NULL}};
	struct pci_function *pci = virtio_pci_new(&fz->dev, NULL);
	if (!pci)
		abort();
	pci_plug(pci, &wires);
	pci_config_write(pci, PCI_BASE_ADDRESS_0, 4, (uint32_t)BAR);
	pci_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	fz->ctx = pci;
}

static void destroy(struct fz *fz)
{
	struct pci_function *pci = fz->ctx;
	device_free(&pci->dev);
}

/* The areas of the BAR, one page each. */
static uint64_t place(uint8_t area, uint8_t offset)
{
	uint64_t page = area < 0x20 ? 0 : area & 7;
	return BAR + page * GMEM_PAGE_SIZE + offset;
}

static void config(struct fz *fz, uint8_t offset, uint8_t size, uint32_t value)
{
	unsigned size_bytes = 1U << (size & 3);
	if (size_bytes == 8)
		size_bytes = 4;
	unsigned at = offset & ~(size_bytes - 1);
	if (size & 0x80)
		pci_config_write(fz->ctx, at, size_bytes, value);
	else
		pci_config_read(fz->ctx, at, size_bytes);
}

/* Not through the BAR, which the input may have moved: through the door of the function. */
static void put(struct fz *fz, unsigned offset, unsigned size_bytes, uint64_t value)
{
	struct pci_function *pci = fz->ctx;
	device_write(&pci->dev, offset, size_bytes, value);
}

static void write_status(struct fz *fz, uint8_t status)
{
	put(fz, VIRTIO_PCI_COMMON_STATUS, 1, status);
}

static void write_features(struct fz *fz, unsigned half, uint32_t value)
{
	put(fz, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
	put(fz, VIRTIO_PCI_COMMON_GF, 4, value);
}

static void set_up_queue(struct fz *fz, unsigned queue, gpa_t base)
{
	put(fz, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
	put(fz, VIRTIO_PCI_COMMON_Q_DESCLO, 8, base);
	put(fz, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, base + FZ_DRIVER_AREA);
	put(fz, VIRTIO_PCI_COMMON_Q_USEDLO, 8, base + FZ_DEVICE_AREA);
	put(fz, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void notify(struct fz *fz, unsigned queue)
{
	put(fz, NOTIFY + 4 * queue, 2, queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static const struct fz_transport transport = {
		.create = create,
		.destroy = destroy,
		.place = place,
		.config = config,
		.write_status = write_status,
		.write_features = write_features,
		.set_up_queue = set_up_queue,
		.notify = notify,
	};
	static struct fz fz = {.transport = &transport};
	fz_run(&fz, data, size_bytes);
	return 0;
}
