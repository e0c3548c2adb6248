/* The virtio core through the MMIO transport: see fuzz_virtio.h. */
#include "fuzz_virtio.h"

#include <linux/virtio_mmio.h>

#include "virtio/virtio_mmio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static const uint64_t BASE = 0x10000000;

static void check_line(void *ctx, unsigned line, bool level)
{
	bool *now = ctx;
	assert(line == 5 && level != *now);
	*now = level;
}

static void create(struct fz *fz)
{
	static bool level;
	level = false;
	struct device *dev = virtio_mmio_new(&fz->dev, &fz->bus, BASE, (struct irq_line){check_line, &level, 5}, NULL);
	if (!dev || bus_map(&fz->bus, BASE, BASE + VIRTIO_MMIO_SIZE - 1, dev, 0, NULL) < 0)
		abort();
	fz->ctx = dev;
}

static void destroy(struct fz *fz)
{
	bus_unmap(&fz->bus, fz->ctx);
	device_free(fz->ctx);
}

/* Mostly registers, sometimes between them, sometimes far behind. */
static uint64_t place(uint8_t area, uint8_t offset)
{
	if (area < 0x30)
		return BASE + (offset & 0x7f) * 4U;
	return BASE + (area < 0x38 ? 0 : 0xf00) + offset;
}

static void put(struct fz *fz, unsigned offset, uint32_t value)
{
	bus_write(&fz->bus, BASE + offset, 4, value);
}

static void write_status(struct fz *fz, uint8_t status)
{
	put(fz, VIRTIO_MMIO_STATUS, status);
}

static void write_features(struct fz *fz, unsigned half, uint32_t value)
{
	put(fz, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
	put(fz, VIRTIO_MMIO_DRIVER_FEATURES, value);
}

static void set_up_queue(struct fz *fz, unsigned queue, gpa_t base)
{
	put(fz, VIRTIO_MMIO_QUEUE_SEL, queue);
	put(fz, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)base);
	put(fz, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)base + FZ_DRIVER_AREA);
	put(fz, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)base + FZ_DEVICE_AREA);
	put(fz, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void notify(struct fz *fz, unsigned queue)
{
	put(fz, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static const struct fz_transport transport = {
		.create = create,
		.destroy = destroy,
		.place = place,
		.write_status = write_status,
		.write_features = write_features,
		.set_up_queue = set_up_queue,
		.notify = notify,
	};
	static struct fz fz = {.transport = &transport};
	fz_run(&fz, data, size_bytes);
	return 0;
}
