/* Port writes that KVM has collected, as its ring would hold them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pio_ring.h"
#include "util.h"

enum { PAGE = 4096, ENTRIES = 170 };

struct sink {
	struct device dev;
	uint8_t data[1024];
	unsigned count;
	struct kvm_coalesced_mmio_ring *ring; /* to look at while a write is handed over */
	unsigned grows;                       /* so often another vCPU adds one meanwhile */
};

static struct {
	uint8_t run[2 * PAGE] __attribute__((aligned(PAGE)));
	struct bus pio;
	struct sink sink;
	struct pio_ring ring;
} rig;

static struct kvm_coalesced_mmio_ring *shared(void)
{
	return (void *)(rig.run + PAGE);
}

static void push(uint16_t port, unsigned size, uint32_t value)
{
	struct kvm_coalesced_mmio_ring *ring = shared();
	struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[ring->last];
	memset(entry, 0xee, sizeof(*entry));
	entry->phys_addr = port;
	entry->len = size;
	entry->pio = 1;
	memcpy(entry->data, &value, sizeof(value));
	ring->last = (ring->last + 1) % ENTRIES;
}

static uint64_t sink_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return 0;
}

static void sink_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct sink *sink = container_of(dev, struct sink, dev);
	assert_int_equal(offset, 1);
	assert_int_equal(size_bytes, 1);
	assert_true(shared()->first != shared()->last); /* it is in the ring until it was handed over */
	sink->data[sink->count++] = (uint8_t)value;
	if (sink->grows) {
		sink->grows--;
		push(0x101, 1, 'x');
	}
}

static const struct device_ops sink_ops = {.name = "sink", .access_sizes = 1, .read = sink_read, .write = sink_write};

static int setup(void **state)
{
	(void)state;
	memset(&rig, 0, sizeof(rig));
	bus_init(&rig.pio, "port I/O", UINT16_MAX);
	device_init(&rig.sink.dev, &sink_ops);
	pio_ring_init(&rig.ring, &rig.pio);
	rig.ring.offset_bytes = PAGE;
	rig.ring.size = ENTRIES;
	return bus_map(&rig.pio, 0x100, 0x103, &rig.sink.dev, 0, NULL);
}

static int teardown(void **state)
{
	(void)state;
	pio_ring_fini(&rig.ring);
	device_fini(&rig.sink.dev);
	bus_fini(&rig.pio);
	return 0;
}

static void take(void)
{
	pio_ring_take(&rig.ring, (struct kvm_run *)rig.run);
}

static void all_in_order_around_the_end(void **state)
{
	(void)state;
	unsigned expected = 0, sent = 0;
	take();
	assert_int_equal(rig.sink.count, 0);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < ENTRIES - 1; i++)
			push(0x101, 1, sent++ & 0xff);
		take();
		assert_int_equal(shared()->first, shared()->last);
		assert_int_equal(rig.sink.count, sent);
		for (; expected < sent; expected++)
			assert_int_equal(rig.sink.data[expected], expected & 0xff);
	}
}

/* A vCPU that writes on and on must not keep another one here. */
static void no_more_than_there_was(void **state)
{
	(void)state;
	rig.sink.grows = 50;
	push(0x101, 1, 'a');
	push(0x101, 1, 'b');
	take();
	assert_int_equal(rig.sink.count, 2);
	take();
	assert_int_equal(rig.sink.count, 4);
}

static void nothing_is_collected(void **state)
{
	(void)state;
	push(0x101, 1, 'a');
	rig.ring.offset_bytes = 0;
	take();
	assert_int_equal(rig.sink.count, 0);
}

#define RING_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RING_TEST(all_in_order_around_the_end),
		RING_TEST(no_more_than_there_was),
		RING_TEST(nothing_is_collected),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
