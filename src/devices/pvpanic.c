#include "devices/pvpanic.h"

#include <errno.h>
#include <stdlib.h>

#include "util.h"

struct pvpanic {
	struct device dev;
	struct guest_event_sink sink;
};

static uint64_t pvpanic_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
}

static void pvpanic_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct pvpanic *p = container_of(dev, struct pvpanic, dev);

	(void)offset, (void)size_bytes;
	if (value & PVPANIC_PANICKED)
		guest_event_raise(p->sink, GUEST_EVENT_PANIC, 0);
}

static void pvpanic_destroy(struct device *dev)
{
	device_fini(dev);
	free(container_of(dev, struct pvpanic, dev));
}

static const struct device_ops pvpanic_ops = {
	.name = "pvpanic",
	.access_sizes = 1,
	.read = pvpanic_read,
	.write = pvpanic_write,
	.destroy = pvpanic_destroy,
};

struct device *pvpanic_new(struct guest_event_sink sink, struct err *err)
{
	struct pvpanic *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(err, -ENOMEM, "pvpanic: out of memory");
		return NULL;
	}
	device_init(&p->dev, &pvpanic_ops);
	p->sink = sink;
	return &p->dev;
}
