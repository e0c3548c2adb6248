/* The door of a device: sizes, masks, the lock. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "device.h"
#include "util.h"

struct probe {
	struct device dev;
	unsigned reads, writes, destroyed;
	uint64_t offset, value;
	unsigned size;
	bool locked;
};

static uint64_t probe_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct probe *p = container_of(dev, struct probe, dev);
	p->reads++;
	p->offset = offset;
	p->size = size_bytes;
	p->locked = pthread_mutex_trylock(&dev->mutex) == EBUSY;
	return 0x8877665544332211;
}

static void probe_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct probe *p = container_of(dev, struct probe, dev);
	p->writes++;
	p->offset = offset;
	p->size = size_bytes;
	p->value = value;
	p->locked = pthread_mutex_trylock(&dev->mutex) == EBUSY;
}

static void probe_destroy(struct device *dev)
{
	container_of(dev, struct probe, dev)->destroyed++;
	device_fini(dev);
}

static uint64_t mask(unsigned size_bytes)
{
	return size_bytes >= 8 ? UINT64_MAX : (1ULL << (8 * size_bytes)) - 1;
}

/* Every set of accepted sizes against every size that an access could claim. */
static void only_accepted_sizes_pass(void **state)
{
	(void)state;
	for (unsigned sizes = 0; sizes < 16; sizes++) {
		struct device_ops ops = {"probe", sizes, probe_read, probe_write, probe_destroy};
		for (unsigned size = 1; size <= 9; size++) {
			struct probe p = {0};
			device_init(&p.dev, &ops);
			bool power_of_two = size == 1 || size == 2 || size == 4 || size == 8;
			bool accepted = power_of_two && (sizes & size);

			uint64_t value = device_read(&p.dev, 0x10, size);
			assert_int_equal(p.reads, accepted);
			assert_true(value == (accepted ? 0x8877665544332211 & mask(size) : mask(size)));

			device_write(&p.dev, 0x20, size, UINT64_MAX);
			assert_int_equal(p.writes, accepted);
			if (accepted) {
				assert_true(p.value == mask(size));
				assert_int_equal(p.offset, 0x20);
				assert_int_equal(p.size, size);
				assert_true(p.locked);
			}
			device_free(&p.dev);
			assert_int_equal(p.destroyed, 1);
		}
	}
}

static void the_lock_is_released(void **state)
{
	(void)state;
	struct device_ops ops = {"probe", 1, probe_read, probe_write, probe_destroy};
	struct probe p = {0};
	device_init(&p.dev, &ops);
	(void)device_read(&p.dev, 0, 1);
	assert_true(p.locked);
	device_write(&p.dev, 0, 1, 0);
	(void)device_read(&p.dev, 0, 2); /* refused */
	assert_int_equal(pthread_mutex_trylock(&p.dev.mutex), 0);
	device_unlock(&p.dev);
	device_free(&p.dev);
}

static void free_of_nothing(void **state)
{
	(void)state;
	device_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_accepted_sizes_pass),
		cmocka_unit_test(the_lock_is_released),
		cmocka_unit_test(free_of_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
