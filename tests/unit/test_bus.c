/* Who answers at which address; and that the map may change while vCPUs use it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "bus.h"
#include "util.h"

/* A device that reads as its number in the upper half and the offset in the lower. */
struct probe {
	struct device dev;
	uint64_t number;
	unsigned writes;
	uint64_t offset, value;
	struct bus *remaps; /* moves itself here when written to */
};

static uint64_t probe_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)size_bytes;
	return container_of(dev, struct probe, dev)->number << 32 | (offset & UINT32_MAX);
}

static void probe_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct probe *p = container_of(dev, struct probe, dev);
	(void)size_bytes;
	p->writes++;
	p->offset = offset;
	p->value = value;
	if (!p->remaps)
		return;
	bus_unmap(p->remaps, dev);
	assert_int_equal(bus_map(p->remaps, value, value + 7, dev, 0, NULL), 0);
}

static const struct device_ops PROBE_OPS = {"probe", 1 | 2 | 4 | 8, probe_read, probe_write, NULL};
static const struct device_ops BYTE_OPS = {"byte-probe", 1, probe_read, probe_write, NULL};

static struct bus bus;
static struct probe a, b;

static void make_probe(struct probe *p, uint64_t number, const struct device_ops *ops)
{
	*p = (struct probe){.number = number};
	device_init(&p->dev, ops);
}

static int setup_with(uint64_t last)
{
	bus_init(&bus, "bus", last);
	make_probe(&a, 1, &PROBE_OPS);
	make_probe(&b, 2, &PROBE_OPS);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_with(UINT16_MAX);
}

static int setup_64(void **state)
{
	(void)state;
	return setup_with(UINT64_MAX);
}

static int teardown(void **state)
{
	(void)state;
	device_fini(&a.dev);
	device_fini(&b.dev);
	bus_fini(&bus);
	return 0;
}

static void check_value(uint64_t addr, unsigned size, uint64_t expected)
{
	uint64_t value = bus_read(&bus, addr, size);
	if (value != expected)
		fail_msg("%u bytes at %#llx: %#llx, not %#llx", size, (unsigned long long)addr,
			 (unsigned long long)value, (unsigned long long)expected);
}

static void nobody_reads_as_all_ones(void **state)
{
	(void)state;
	check_value(0, 1, 0xff);
	check_value(0x100, 2, 0xffff);
	check_value(UINT16_MAX, 4, UINT32_MAX);
	check_value(UINT64_MAX, 8, UINT64_MAX);
	bus_write(&bus, 0x100, 4, 1);
}

static void ranges_are_inclusive(void **state)
{
	(void)state;
	assert_int_equal(bus_map(&bus, 0x100, 0x107, &a.dev, 0, NULL), 0);
	check_value(0xff, 1, 0xff);
	check_value(0x100, 8, 1ULL << 32);
	check_value(0x107, 1, 7);
	check_value(0x104, 4, 4);
	check_value(0x108, 1, 0xff);
	bus_write(&bus, 0x107, 1, 0x1234);
	assert_int_equal(a.offset, 7);
	assert_int_equal(a.value, 0x34);
}

static void straddling_accesses_reach_nobody(void **state)
{
	(void)state;
	bus_map(&bus, 0x100, 0x107, &a.dev, 0, NULL);
	bus_map(&bus, 0x108, 0x10f, &b.dev, 0, NULL);
	check_value(0xff, 2, 0xffff);
	check_value(0x107, 2, 0xffff);
	check_value(0x104, 8, UINT64_MAX);
	check_value(0x10f, 2, 0xffff);
	check_value(0x10c, 4, 4);
	bus_write(&bus, 0x107, 2, 0);
	bus_write(&bus, 0x10d, 4, 0);
	assert_int_equal(a.writes + b.writes, 0);
}

static void a_device_at_both_ends_of_the_space(void **state)
{
	(void)state;
	assert_int_equal(bus_map(&bus, UINT64_MAX - 7, UINT64_MAX, &a.dev, 0, NULL), 0);
	assert_int_equal(bus_map(&bus, 0, 7, &b.dev, 0, NULL), 0);
	check_value(UINT64_MAX - 7, 8, 1ULL << 32);
	check_value(UINT64_MAX, 1, 7);
	check_value(UINT64_MAX, 2, 0xffff); /* does not wrap to b */
	check_value(UINT64_MAX - 3, 8, UINT64_MAX);
	check_value(0, 4, 0);
}

static void the_whole_space_is_one_range(void **state)
{
	(void)state;
	assert_int_equal(bus_map(&bus, 0, UINT64_MAX, &a.dev, 0, NULL), 0);
	check_value(UINT32_MAX, 1, 0xff);
	check_value(UINT64_MAX - 7, 8, 1ULL << 32 | (UINT32_MAX - 7));
	assert_int_equal(bus_map(&bus, 5, 5, &b.dev, 0, NULL), -EEXIST);
}

static void impossible_ranges_are_refused(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(bus_map(&bus, 8, 7, &a.dev, 0, &err), -EINVAL);
	assert_string_equal(err.text, "bus: impossible range 0x8..0x7 for probe");
	assert_int_equal(bus_map(&bus, UINT16_MAX, 0x10000, &a.dev, 0, &err), -EINVAL);
	assert_int_equal(bus_map(&bus, UINT16_MAX, UINT16_MAX, &a.dev, 0, &err), 0);
	check_value(UINT16_MAX, 1, 0);
}

static void overlaps_are_refused(void **state)
{
	(void)state;
	assert_int_equal(bus_map(&bus, 0x100, 0x10f, &a.dev, 0, NULL), 0);
	static const uint16_t OVERLAPS[][2] = {
		{0x100, 0x10f}, {0x10f, 0x10f}, {0x100, 0x100},  {0x108, 0x109},
		{0, 0x100},     {0x10f, 0x200}, {0, UINT16_MAX},
	};
	for (size_t i = 0; i < ARRAY_SIZE(OVERLAPS); i++) {
		struct err err;
		assert_int_equal(bus_map(&bus, OVERLAPS[i][0], OVERLAPS[i][1], &b.dev, 0, &err), -EEXIST);
		assert_non_null(strstr(err.text, "overlaps probe"));
	}
	assert_int_equal(bus_map(&bus, 0x110, 0x110, &b.dev, 0, NULL), 0);
	assert_int_equal(bus_map(&bus, 0xff, 0xff, &b.dev, 0, NULL), 0);
	check_value(0xff, 1, 0);
	check_value(0x110, 4, UINT32_MAX);
	assert_int_equal(bus.count, 3);
}

static void offsets_and_several_ranges_of_one_device(void **state)
{
	(void)state;
	bus_map(&bus, 0x64, 0x64, &a.dev, 4, NULL);
	bus_map(&bus, 0x60, 0x60, &a.dev, 0, NULL);
	bus_map(&bus, 0x62, 0x63, &b.dev, 0x10, NULL);
	check_value(0x64, 1, 4);
	check_value(0x60, 1, 0);
	check_value(0x63, 1, 0x11);
	bus_unmap(&bus, &a.dev);
	check_value(0x64, 1, 0xff);
	check_value(0x60, 1, 0xff);
	check_value(0x62, 2, 0x10);
	bus_unmap(&bus, &a.dev); /* again: nothing to do */
	assert_int_equal(bus.count, 1);
}

static void one_of_a_devices_ranges_goes(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 3; i++)
		bus_map(&bus, i * 0x100, i * 0x100 + 7, &a.dev, i, NULL);
	bus_map(&bus, 0x400, 0x407, &b.dev, 4, NULL);
	bus_unmap_range(&bus, &a.dev, 0x201); /* inside, not the beginning */
	bus_unmap_range(&bus, &a.dev, 0x400); /* another's */
	bus_unmap_range(&bus, &a.dev, 0x500);
	assert_int_equal(bus.count, 4);
	bus_unmap_range(&bus, &a.dev, 0x200);
	check_value(0x200, 1, 0xff);
	check_value(0x100, 1, 1);
	check_value(0x300, 1, 3);
	check_value(0x400, 1, 4);
	bus_unmap_range(&bus, &b.dev, 0x400);
	assert_int_equal(bus.count, 2);
}

static void a_refused_size_reads_as_all_ones(void **state)
{
	(void)state;
	struct probe bytes;
	make_probe(&bytes, 3, &BYTE_OPS);
	bus_map(&bus, 0x100, 0x107, &bytes.dev, 0, NULL);
	check_value(0x100, 1, 0);
	check_value(0x100, 2, 0xffff);
	check_value(0x100, 8, UINT64_MAX);
	device_fini(&bytes.dev);
}

/* Mapped from the top down, so that each goes in front of all others. */
static void the_table_is_full_at_its_end(void **state)
{
	(void)state;
	for (unsigned i = BUS_RANGES_MAX; i--;)
		assert_int_equal(bus_map(&bus, i * 16, i * 16 + 7, &a.dev, i, NULL), 0);
	struct err err;
	assert_int_equal(bus_map(&bus, 8, 9, &b.dev, 0, &err), -ENOSPC);
	assert_string_equal(err.text, "bus: no room for probe: 128 ranges are in use");
	for (unsigned i = 0; i < BUS_RANGES_MAX; i++) {
		check_value(i * 16 + 1, 1, (i + 1) & 0xff);
		check_value(i * 16 + 8, 1, 0xff);
	}
	bus_unmap(&bus, &a.dev);
	assert_int_equal(bus_map(&bus, 8, 9, &b.dev, 0, &err), 0);
}

/* A PCI BAR that moves from inside a register write. */
static void a_device_moves_itself(void **state)
{
	(void)state;
	bus_map(&bus, 0x100, 0x107, &a.dev, 0, NULL);
	a.remaps = &bus;
	bus_write(&bus, 0x100, 2, 0x200);
	check_value(0x100, 1, 0xff);
	check_value(0x207, 1, 7);
}

static atomic_bool stop;

static void *read_all_the_time(void *arg)
{
	(void)arg;
	unsigned long wrong = 0;
	while (!atomic_load(&stop)) {
		uint64_t low = bus_read(&bus, 0x104, 4), high = bus_read(&bus, 0x1004, 4),
			 fixed = bus_read(&bus, 0x800, 8);
		wrong += low != 4 && low != UINT32_MAX;
		wrong += high != 4 && high != UINT32_MAX;
		wrong += fixed != 2ULL << 32;
		bus_write(&bus, 0x104, 4, 0);
	}
	return (void *)wrong;
}

static void the_map_changes_while_others_read(void **state)
{
	(void)state;
	pthread_t readers[3];
	atomic_store(&stop, false);
	bus_map(&bus, 0x800, 0x807, &b.dev, 0, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(readers); i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_all_the_time, NULL), 0);
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(bus_map(&bus, 0x100, 0x107, &a.dev, 0, NULL), 0);
		assert_int_equal(bus_map(&bus, 0x1000, 0x1007, &a.dev, 0, NULL), 0);
		bus_unmap(&bus, &a.dev);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < ARRAY_SIZE(readers); i++) {
		void *wrong;
		pthread_join(readers[i], &wrong);
		assert_null(wrong);
	}
}

#define BUS_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BUS_TEST(nobody_reads_as_all_ones),
		BUS_TEST(ranges_are_inclusive),
		BUS_TEST(straddling_accesses_reach_nobody),
		cmocka_unit_test_setup_teardown(a_device_at_both_ends_of_the_space, setup_64, teardown),
		cmocka_unit_test_setup_teardown(the_whole_space_is_one_range, setup_64, teardown),
		BUS_TEST(impossible_ranges_are_refused),
		BUS_TEST(overlaps_are_refused),
		BUS_TEST(offsets_and_several_ranges_of_one_device),
		BUS_TEST(one_of_a_devices_ranges_goes),
		BUS_TEST(a_refused_size_reads_as_all_ones),
		BUS_TEST(the_table_is_full_at_its_end),
		BUS_TEST(a_device_moves_itself),
		BUS_TEST(the_map_changes_while_others_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
