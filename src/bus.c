#include "bus.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void bus_init(struct bus *bus, const char *name, uint64_t last)
{
	*bus = (struct bus){.name = name, .last = last};
	int r = pthread_rwlock_init(&bus->lock, NULL);
	assert(r == 0); /* default attributes: cannot fail on Linux */
}

void bus_fini(struct bus *bus)
{
	pthread_rwlock_destroy(&bus->lock);
}

/* Index of the first range that ends at or after `addr`; count when there is none. */
static unsigned lower_bound(const struct bus *bus, uint64_t addr)
{
	unsigned low = 0, high = bus->count;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (bus->ranges[middle].last < addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int insert(struct bus *bus, const struct bus_range *range, struct err *err)
{
	unsigned at = lower_bound(bus, range->first);
	if (at < bus->count && bus->ranges[at].first <= range->last)
		return err_set(err, -EEXIST, "%s: %s at %#llx overlaps %s", bus->name, range->dev->ops->name,
			       (unsigned long long)range->first, bus->ranges[at].dev->ops->name);
	if (bus->count == BUS_RANGES_MAX)
		return err_set(err, -ENOSPC, "%s: no room for %s: %d ranges are in use", bus->name,
			       range->dev->ops->name, BUS_RANGES_MAX);

	memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof(*range));
	bus->ranges[at] = *range;
	bus->count++;
	return 0;
}

int bus_map(struct bus *bus, uint64_t first, uint64_t last, struct device *dev, uint64_t offset, struct err *err)
{
	if (first > last || last > bus->last)
		return err_set(err, -EINVAL, "%s: impossible range %#llx..%#llx for %s", bus->name,
			       (unsigned long long)first, (unsigned long long)last, dev->ops->name);

	struct bus_range range = {first, last, dev, offset};
	pthread_rwlock_wrlock(&bus->lock);
	int r = insert(bus, &range, err);
	pthread_rwlock_unlock(&bus->lock);
	return r;
}

void bus_unmap(struct bus *bus, const struct device *dev)
{
	pthread_rwlock_wrlock(&bus->lock);
	unsigned kept = 0;
	for (unsigned i = 0; i < bus->count; i++) {
		if (bus->ranges[i].dev != dev)
			bus->ranges[kept++] = bus->ranges[i];
	}
	bus->count = kept;
	pthread_rwlock_unlock(&bus->lock);
}

void bus_unmap_range(struct bus *bus, const struct device *dev, uint64_t first)
{
	pthread_rwlock_wrlock(&bus->lock);
	unsigned at = lower_bound(bus, first);
	if (at < bus->count && bus->ranges[at].first == first && bus->ranges[at].dev == dev) {
		bus->count--;
		memmove(&bus->ranges[at], &bus->ranges[at + 1], (bus->count - at) * sizeof(bus->ranges[at]));
	}
	pthread_rwlock_unlock(&bus->lock);
}

void bus_add_doorbell(struct bus *bus, const struct bus_doorbell *doorbell)
{
	if (bus->doorbell_ops)
		(void)bus->doorbell_ops->add(bus->doorbell_ctx, doorbell);
}

void bus_remove_doorbell(struct bus *bus, const struct bus_doorbell *doorbell)
{
	if (bus->doorbell_ops)
		bus->doorbell_ops->remove(bus->doorbell_ctx, doorbell);
}

/*
 * Who owns all of [addr, addr + size)? The answer is copied out before the device is called, so that a
 * device may change the map (a PCI BAR that moves) from inside its own register write.
 */
static struct device *find(struct bus *bus, uint64_t addr, unsigned size_bytes, uint64_t *ret_offset)
{
	struct device *dev = NULL;
	pthread_rwlock_rdlock(&bus->lock);
	unsigned at = lower_bound(bus, addr);
	if (at < bus->count) {
		const struct bus_range *range = &bus->ranges[at];
		if (range->first <= addr && range->last - addr >= size_bytes - 1) {
			dev = range->dev;
			*ret_offset = range->offset + (addr - range->first);
		}
	}
	pthread_rwlock_unlock(&bus->lock);
	return dev;
}

uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size_bytes)
{
	uint64_t offset = 0;
	struct device *dev = find(bus, addr, size_bytes, &offset);
	if (!dev)
		return size_bytes >= 8 ? UINT64_MAX : (1ULL << (8 * size_bytes)) - 1;
	return device_read(dev, offset, size_bytes);
}

void bus_write(struct bus *bus, uint64_t addr, unsigned size_bytes, uint64_t value)
{
	uint64_t offset = 0;
	struct device *dev = find(bus, addr, size_bytes, &offset);
	if (dev)
		device_write(dev, offset, size_bytes, value);
}
