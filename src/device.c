#include "device.h"

#include <assert.h>
#include <stdbool.h>

void device_init(struct device *dev, const struct device_ops *ops)
{
	dev->ops = ops;
	int r = pthread_mutex_init(&dev->mutex, NULL);
	assert(r == 0); /* default attributes: cannot fail on Linux */
}

void device_fini(struct device *dev)
{
	pthread_mutex_destroy(&dev->mutex);
}

void device_lock(struct device *dev)
{
	pthread_mutex_lock(&dev->mutex);
}

void device_unlock(struct device *dev)
{
	pthread_mutex_unlock(&dev->mutex);
}

void device_wait(struct device *dev, pthread_cond_t *condition)
{
	pthread_cond_wait(condition, &dev->mutex);
}

static uint64_t size_mask(unsigned size_bytes)
{
	return size_bytes >= 8 ? UINT64_MAX : (1ULL << (8 * size_bytes)) - 1;
}

static bool accepts(const struct device *dev, unsigned size_bytes)
{
	bool is_one_size = (size_bytes & (size_bytes - 1)) == 0;
	return is_one_size && (dev->ops->access_sizes & size_bytes);
}

uint64_t device_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	if (!accepts(dev, size_bytes))
		return size_mask(size_bytes);

	device_lock(dev);
	uint64_t value = dev->ops->read(dev, offset, size_bytes);
	device_unlock(dev);
	return value & size_mask(size_bytes);
}

void device_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	if (!accepts(dev, size_bytes))
		return;

	device_lock(dev);
	dev->ops->write(dev, offset, size_bytes, value & size_mask(size_bytes));
	device_unlock(dev);
}

void device_free(struct device *dev)
{
	if (dev)
		dev->ops->destroy(dev);
}
