#include "devices/debug_exit.h"

#include <errno.h>
#include <stdlib.h>

#include "util.h"

struct debug_exit {
	struct device dev;
	struct guest_event_sink sink;
};

static uint64_t debug_exit_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return 0;
}

/* Only at its first byte: a stray write beside it must not look like a status. */
static void debug_exit_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct debug_exit *d = container_of(dev, struct debug_exit, dev);

	(void)size_bytes;
	if (offset == 0)
		guest_event_raise(d->sink, GUEST_EVENT_DEBUG_EXIT, value & 0xff);
}

static void debug_exit_destroy(struct device *dev)
{
	device_fini(dev);
	free(container_of(dev, struct debug_exit, dev));
}

static const struct device_ops debug_exit_ops = {
	.name = "debug_exit",
	.access_sizes = 1 | 2 | 4,
	.read = debug_exit_read,
	.write = debug_exit_write,
	.destroy = debug_exit_destroy,
};

struct device *debug_exit_new(struct guest_event_sink sink, struct err *err)
{
	struct debug_exit *d = calloc(1, sizeof(*d));

	if (!d) {
		err_set(err, -ENOMEM, "debug-exit port: out of memory");
		return NULL;
	}
	device_init(&d->dev, &debug_exit_ops);
	d->sink = sink;
	return &d->dev;
}
