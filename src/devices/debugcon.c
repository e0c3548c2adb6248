#include "devices/debugcon.h"

#include <errno.h>
#include <stdlib.h>

#include "util.h"

struct debugcon {
	struct device dev;
	struct chr *chr;
};

static uint64_t debugcon_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return DEBUGCON_PRESENT;
}

static void debugcon_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);
	uint8_t byte = (uint8_t)value;

	(void)offset, (void)size_bytes;
	(void)chr_write(d->chr, &byte, 1);
}

static void debugcon_destroy(struct device *dev)
{
	device_fini(dev);
	free(container_of(dev, struct debugcon, dev));
}

static const struct device_ops debugcon_ops = {
	.name = "debugcon",
	.access_sizes = 1,
	.read = debugcon_read,
	.write = debugcon_write,
	.destroy = debugcon_destroy,
};

struct device *debugcon_new(struct chr *chr, struct err *err)
{
	struct debugcon *d = calloc(1, sizeof(*d));

	if (!d) {
		err_set(err, -ENOMEM, "debug console: out of memory");
		return NULL;
	}
	device_init(&d->dev, &debugcon_ops);
	d->chr = chr;
	return &d->dev;
}
