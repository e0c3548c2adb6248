/* The MMIO transport: registers, the interrupt line, doorbells on the bus, and a whole driver's life through them. */
#include "virtio_fake.h"

#include <linux/virtio_mmio.h>

#include "doorbells_fake.h"
#include "virtio/virtio_mmio.h"

enum {
	BASE = 0x10000000,
	QUEUE_RESET = 0x0c0,
	READY = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK,
	RUNNING = READY | VIRTIO_CONFIG_S_DRIVER_OK,
};

struct mmio {
	struct rig rig;
	struct bus bus;
	struct device *dev;
	bool irq_level;
	unsigned irq_changes;
	struct fake_doorbells doorbells;
};

static void set_irq(void *ctx, unsigned line, bool level)
{
	struct mmio *m = ctx;
	assert_int_equal(line, 5);
	assert_int_not_equal(level, m->irq_level);
	m->irq_level = level;
	m->irq_changes++;
}

static int setup(void **state)
{
	struct mmio *m = calloc(1, sizeof(*m));
	assert_non_null(m);
	rig_init(&m->rig);
	bus_init(&m->bus, "mmio", UINT64_MAX);
	m->bus.doorbell_ops = &FAKE_DOORBELL_OPS;
	m->bus.doorbell_ctx = &m->doorbells;
	m->dev = virtio_mmio_new(m->rig.dev, &m->bus, BASE, (struct irq_line){set_irq, m, 5}, NULL);
	assert_non_null(m->dev);
	assert_int_equal(bus_map(&m->bus, BASE, BASE + VIRTIO_MMIO_SIZE - 1, m->dev, 0, NULL), 0);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct mmio *m = *state;
	bus_unmap(&m->bus, m->dev);
	device_free(m->dev);
	assert_int_equal(m->doorbells.count, 0);
	bus_fini(&m->bus);
	rig_fini(&m->rig);
	free(m);
	return 0;
}

static uint32_t get(struct mmio *m, unsigned offset)
{
	return (uint32_t)bus_read(&m->bus, BASE + offset, 4);
}

static void put(struct mmio *m, unsigned offset, uint32_t value)
{
	bus_write(&m->bus, BASE + offset, 4, value);
}

static uint32_t add_status(struct mmio *m, uint32_t bits)
{
	put(m, VIRTIO_MMIO_STATUS, get(m, VIRTIO_MMIO_STATUS) | bits);
	return get(m, VIRTIO_MMIO_STATUS);
}

static void negotiate(struct mmio *m)
{
	add_status(m, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	put(m, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	put(m, VIRTIO_MMIO_DRIVER_FEATURES, 0);
	put(m, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(m, VIRTIO_MMIO_DRIVER_FEATURES, 1 << (VIRTIO_F_VERSION_1 - 32) | 1 << (VIRTIO_F_RING_RESET - 32));
	assert_int_equal(add_status(m, VIRTIO_CONFIG_S_FEATURES_OK), READY);
}

static void set_up_queue(struct mmio *m, unsigned queue)
{
	const struct virtq_driver *d = rig_lay_ring(&m->rig, queue, false, false);
	put(m, VIRTIO_MMIO_QUEUE_SEL, queue);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_NUM_MAX), FAKE_QUEUE_SIZE);
	put(m, VIRTIO_MMIO_QUEUE_NUM, d->config.size);
	put(m, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)d->config.desc);
	put(m, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
	put(m, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)d->config.driver);
	put(m, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0);
	put(m, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)d->config.device);
	put(m, VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
	put(m, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_READY), 1);
}

static void start(struct mmio *m)
{
	negotiate(m);
	set_up_queue(m, 0);
	set_up_queue(m, 1);
	assert_int_equal(add_status(m, VIRTIO_CONFIG_S_DRIVER_OK), RUNNING);
	rig_settle(&m->rig);
}

static void echo_one(struct mmio *m, unsigned queue)
{
	assert_true(rig_add(&m->rig, queue) >= 0);
	put(m, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
	rig_settle(&m->rig);
	assert_int_equal(rig_take_all(&m->rig, queue), 1);
}

/* --- registers -----------------------------------------------------------------------------------------------------
 */

static void it_says_what_it_is(void **state)
{
	struct mmio *m = *state;
	assert_int_equal(get(m, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(get(m, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(get(m, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_RNG);
	put(m, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	assert_true(get(m, VIRTIO_MMIO_DEVICE_FEATURES) & 1);
	assert_true(get(m, VIRTIO_MMIO_DEVICE_FEATURES) & 1 << (VIRTIO_F_RING_RESET - 32));
	put(m, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(get(m, VIRTIO_MMIO_DEVICE_FEATURES), 0);
	put(m, VIRTIO_MMIO_QUEUE_SEL, FAKE_QUEUES);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_READY), 0);
}

/* A length of -1: that region of shared memory does not exist (4.2.2). */
static void there_is_no_shared_memory(void **state)
{
	struct mmio *m = *state;
	put(m, VIRTIO_MMIO_SHM_SEL, 0);
	for (unsigned reg = VIRTIO_MMIO_SHM_LEN_LOW; reg <= VIRTIO_MMIO_SHM_BASE_HIGH; reg += 4)
		assert_int_equal(get(m, reg), UINT32_MAX);
}

static void control_registers_have_32_bits(void **state)
{
	struct mmio *m = *state;
	start(m);
	for (unsigned size = 1; size <= 8; size *= 2) {
		if (size == 4)
			continue;
		assert_int_equal(bus_read(&m->bus, BASE + VIRTIO_MMIO_MAGIC_VALUE, size), 0);
		bus_write(&m->bus, BASE + VIRTIO_MMIO_STATUS, size, 0);
	}
	put(m, VIRTIO_MMIO_STATUS + 2, 0);
	put(m, VIRTIO_MMIO_STATUS, 0x100);
	assert_int_equal(get(m, VIRTIO_MMIO_STATUS), RUNNING);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_NOTIFY), 0);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_DESC_LOW), 0);
	assert_int_equal(get(m, 0x0f8), 0);
}

static void configuration_has_bytes(void **state)
{
	struct mmio *m = *state;
	const uint64_t at = BASE + VIRTIO_MMIO_CONFIG;
	assert_int_equal(bus_read(&m->bus, at + 1, 1), 2);
	assert_int_equal(bus_read(&m->bus, at + 2, 2), 0x0403);
	assert_int_equal(bus_read(&m->bus, at, 4), 0x04030201);
	assert_int_equal(bus_read(&m->bus, at + 8, 8), 0x100f0e0d0c0b0a09);
	assert_int_equal(bus_read(&m->bus, at + FAKE_CONFIG_SIZE, 8), 0);
	assert_int_equal(bus_read(&m->bus, BASE + VIRTIO_MMIO_SIZE - 8, 8), 0);
	bus_write(&m->bus, at + 3, 1, 0xaa);
	bus_write(&m->bus, at + 4, 8, 0x8877665544332211);
	assert_int_equal(m->rig.fake->config_writes, 2);
	assert_int_equal(bus_read(&m->bus, at, 8), 0x44332211aa030201);
	bus_write(&m->bus, BASE + VIRTIO_MMIO_SIZE - 4, 4, 1);
	assert_int_equal(m->rig.fake->config_writes, 2);

	uint32_t generation = get(m, VIRTIO_MMIO_CONFIG_GENERATION);
	virtio_config_changed(m->rig.dev);
	assert_int_not_equal(get(m, VIRTIO_MMIO_CONFIG_GENERATION), generation);
}

/* --- interrupts
 * ------------------------------------------------------------------------------------------------------- */

static void the_line_is_up_until_all_is_acknowledged(void **state)
{
	struct mmio *m = *state;
	start(m);
	assert_false(m->irq_level);
	echo_one(m, 0);
	assert_true(m->irq_level);
	assert_int_equal(get(m, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	virtio_lock(m->rig.dev);
	virtio_config_changed(m->rig.dev);
	virtio_unlock(m->rig.dev);
	assert_int_equal(get(m, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	put(m, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	assert_true(m->irq_level);
	put(m, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING | 0xfffffffc);
	assert_true(m->irq_level);
	put(m, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	assert_false(m->irq_level);
	assert_int_equal(get(m, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	assert_int_equal(m->irq_changes, 2);

	echo_one(m, 1);
	assert_true(m->irq_level);
	put(m, VIRTIO_MMIO_STATUS, 0);
	assert_false(m->irq_level);
	assert_int_equal(get(m, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

/* --- doorbells
 * ---------------------------------------------------------------------------------------------------------- */

static void doorbells_are_on_the_bus_while_it_runs(void **state)
{
	struct mmio *m = *state;
	negotiate(m);
	set_up_queue(m, 1);
	assert_int_equal(m->doorbells.count, 0);
	add_status(m, VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(m->doorbells.count, 1); /* what is not enabled is not rung */
	assert_int_equal(m->doorbells.all[0].addr, BASE + VIRTIO_MMIO_QUEUE_NOTIFY);
	assert_int_equal(m->doorbells.all[0].size_bytes, 4);
	assert_true(m->doorbells.all[0].has_value);
	assert_int_equal(m->doorbells.all[0].value, 1);

	uint64_t one = 1;
	assert_true(rig_add(&m->rig, 1) >= 0);
	rig_settle(&m->rig);
	(void)rig_take_all(&m->rig, 1);
	assert_true(rig_add(&m->rig, 1) >= 0);
	assert_int_equal(write(m->doorbells.all[0].eventfd, &one, sizeof(one)), sizeof(one));
	rig_settle(&m->rig);
	assert_int_equal(rig_take_all(&m->rig, 1), 1);

	set_up_queue(m, 0);
	assert_int_equal(m->doorbells.count, 2);
	put(m, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(m->doorbells.count, 0);
}

/* --- queues
 * ---------------------------------------------------------------------------------------------------------------- */

static void reset_by(struct mmio *m, unsigned reg, uint32_t value)
{
	put(m, VIRTIO_MMIO_QUEUE_SEL, 0);
	put(m, reg, value);
	assert_int_equal(get(m, QUEUE_RESET), 0);
	assert_int_equal(get(m, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(m->rig.dev->queues[0].in_flight, 0);
}

static void reset_queue(struct rig *rig)
{
	reset_by(container_of(rig, struct mmio, rig), QUEUE_RESET, 1);
}

static void disable_queue(struct rig *rig)
{
	reset_by(container_of(rig, struct mmio, rig), VIRTIO_MMIO_QUEUE_READY, 0);
}

static void one_queue_is_reset(void **state)
{
	struct mmio *m = *state;
	start(m);
	for (unsigned turn = 0; turn < 2; turn++) {
		m->rig.fake->holds = true;
		assert_true(rig_add(&m->rig, 0) >= 0);
		put(m, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
		rig_settle(&m->rig);
		assert_int_equal(m->rig.dev->queues[0].in_flight, 1);
		rig_on_vcpus(&m->rig, turn ? disable_queue : reset_queue, 1);
		m->rig.fake->holds = false;
		echo_one(m, 1);
		set_up_queue(m, 0);
		echo_one(m, 0);
	}
}

static void a_driver_comes_and_goes(void **state)
{
	struct mmio *m = *state;
	for (unsigned i = 0; i < 3; i++) {
		start(m);
		echo_one(m, 0);
		echo_one(m, 1);
		put(m, VIRTIO_MMIO_STATUS, 0);
		assert_int_equal(get(m, VIRTIO_MMIO_STATUS), 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_says_what_it_is),
		TEST(there_is_no_shared_memory),
		TEST(control_registers_have_32_bits),
		TEST(configuration_has_bytes),
		TEST(the_line_is_up_until_all_is_acknowledged),
		TEST(doorbells_are_on_the_bus_while_it_runs),
		TEST(one_queue_is_reset),
		TEST(a_driver_comes_and_goes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
