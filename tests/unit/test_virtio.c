/* The virtio core as a driver sees it through registers: status, features, queue set-up, configuration, reset. */
#include "virtio_core.h"

#include "iothread.h"

enum {
	FOUND = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER,
	READY = FOUND | VIRTIO_CONFIG_S_FEATURES_OK,
	RUNNING = READY | VIRTIO_CONFIG_S_DRIVER_OK,
};

/* --- status and features -------------------------------------------------------------------------------------------
 */

static void a_driver_goes_step_by_step(void **state)
{
	struct core *c = *state;
	assert_int_equal(virtio_read_status(c->rig.dev), 0);
	core_prepare(c);
	assert_int_equal(virtio_read_status(c->rig.dev), READY);
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->starts, 0);
	assert_false(c->doorbells_on);

	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK), RUNNING);
	assert_true(c->doorbells_on);
	assert_int_equal(c->rig.fake->starts, 0); /* that is the loop's */
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->starts, 1);
	assert_int_equal(c->rig.fake->serves, FAKE_QUEUES);
	core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK);
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->starts, 1);
}

static void features_come_in_halves(void **state)
{
	struct core *c = *state;
	uint64_t offered = virtio_read_features(c->rig.dev, 0) | (uint64_t)virtio_read_features(c->rig.dev, 1) << 32;
	assert_int_equal(offered, core_features(c) | 1ULL << FAKE_FEATURE | 1ULL << VIRTIO_RING_F_EVENT_IDX |
					  1ULL << VIRTIO_F_RING_PACKED);
	assert_int_equal(virtio_read_features(c->rig.dev, 2), 0);
	assert_int_equal(virtio_read_features(c->rig.dev, UINT32_MAX), 0);

	core_write_features(c, 0x123456789abcdef0);
	virtio_write_driver_features(c->rig.dev, 2, UINT32_MAX);
	virtio_write_driver_features(c->rig.dev, UINT32_MAX, UINT32_MAX);
	assert_int_equal(virtio_read_driver_features(c->rig.dev, 0), 0x9abcdef0);
	assert_int_equal(virtio_read_driver_features(c->rig.dev, 1), 0x12345678);
}

static void expect_refused(struct core *c, uint64_t features)
{
	core_write_features(c, features);
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_FEATURES_OK), FOUND);
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK), FOUND);
	assert_false(virtio_has_feature(c->rig.dev, VIRTIO_F_VERSION_1));
}

static void features_that_cannot_be_are_refused(void **state)
{
	struct core *c = *state;
	core_add_status(c, FOUND);
	expect_refused(c, 0);
	expect_refused(c, 1ULL << FAKE_FEATURE);
	expect_refused(c, 1ULL << VIRTIO_F_VERSION_1 | 1);
	expect_refused(c, 1ULL << VIRTIO_F_VERSION_1 | 1ULL << 63);
	assert_int_equal(c->rig.fake->starts, 0);

	/* And it may think again. */
	core_write_features(c, 1ULL << VIRTIO_F_VERSION_1 | 1ULL << FAKE_FEATURE);
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_FEATURES_OK), READY);
	assert_true(virtio_has_feature(c->rig.dev, FAKE_FEATURE));
	assert_false(virtio_has_feature(c->rig.dev, VIRTIO_RING_F_EVENT_IDX));
}

static void features_are_fixed_once_accepted(void **state)
{
	struct core *c = *state;
	core_negotiate(c);
	core_write_features(c, UINT64_MAX);
	assert_int_equal(c->rig.dev->driver_features, core_features(c));
	core_write_status(&c->rig, 0);
	assert_int_equal(c->rig.dev->driver_features, 0);
	core_write_features(c, 7);
	assert_int_equal(c->rig.dev->driver_features, 7);
}

static void steps_cannot_be_skipped(void **state)
{
	struct core *c = *state;
	core_write_features(c, core_features(c));
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_FEATURES_OK), 0);
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK), 0);
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_FEATURES_OK),
			 VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK), FOUND);
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->starts, 0);
	assert_int_equal(core_add_status(c, RUNNING), RUNNING); /* all at once is a way, too */
}

static void bits_stay_until_a_reset(void **state)
{
	struct core *c = *state;
	core_start(c);
	core_write_status(&c->rig, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(virtio_read_status(c->rig.dev), RUNNING);
	core_write_status(&c->rig, VIRTIO_CONFIG_S_FAILED);
	assert_int_equal(virtio_read_status(c->rig.dev), RUNNING | VIRTIO_CONFIG_S_FAILED);
	core_write_status(&c->rig, VIRTIO_CONFIG_S_NEEDS_RESET | 0x30); /* not the driver's to say */
	assert_int_equal(virtio_read_status(c->rig.dev), RUNNING | VIRTIO_CONFIG_S_FAILED);
	core_write_status(&c->rig, 0);
	assert_int_equal(virtio_read_status(c->rig.dev), 0);
}

/* --- queues' registers -------------------------------------------------------------------------------------------- */

static uint16_t set_size(struct core *c, unsigned size)
{
	struct virtio_queue *queue = virtio_get_queue(c->rig.dev, 0);
	virtio_set_queue_size(c->rig.dev, queue, size);
	return queue->size;
}

static void sizes_that_cannot_be_are_refused(void **state)
{
	struct core *c = *state;
	core_negotiate(c);
	assert_int_equal(set_size(c, 0), FAKE_QUEUE_SIZE);
	assert_int_equal(set_size(c, 8), 8);
	assert_int_equal(set_size(c, 6), 8);
	assert_int_equal(set_size(c, 2 * FAKE_QUEUE_SIZE), 8);
	assert_int_equal(set_size(c, 0x10008), 8);
	core_write_status(&c->rig, 0);
	assert_int_equal(virtio_get_queue(c->rig.dev, 0)->size, FAKE_QUEUE_SIZE);

	c->packed = true;
	core_negotiate(c);
	assert_int_equal(set_size(c, 6), 6);
	assert_int_equal(set_size(c, 0), 6);
	assert_int_equal(set_size(c, FAKE_QUEUE_SIZE + 1), 6);
}

static void an_enabled_queue_keeps_its_registers(void **state)
{
	struct core *c = *state;
	core_prepare(c);
	struct virtio_queue *queue = virtio_get_queue(c->rig.dev, 0);
	gpa_t desc = queue->desc;
	virtio_set_queue_area(queue, &queue->desc, 1, 1);
	assert_int_equal(queue->desc, desc);
	assert_int_equal(set_size(c, 1), FAKE_QUEUE_SIZE);
	core_write_status(&c->rig, 0);
	assert_false(queue->enabled);
	virtio_set_queue_area(queue, &queue->desc, 1, 0x89abcdef);
	virtio_set_queue_area(queue, &queue->desc, 0, 0x01234567);
	assert_int_equal(queue->desc, 0x89abcdef01234567);
}

static void only_its_queues_are_there(void **state)
{
	struct core *c = *state;
	assert_non_null(virtio_get_queue(c->rig.dev, FAKE_QUEUES - 1));
	assert_null(virtio_get_queue(c->rig.dev, FAKE_QUEUES));
	assert_null(virtio_get_queue(c->rig.dev, UINT32_MAX));
	virtio_ring(c->rig.dev, FAKE_QUEUES);
	virtio_ring(c->rig.dev, UINT32_MAX);
}

static void a_ring_that_is_not_in_ram_breaks_the_device(void **state)
{
	struct core *c = *state;
	core_negotiate(c);
	struct virtio_queue *queue = virtio_get_queue(c->rig.dev, 1);
	core_set_up_queue(c, 0);
	virtio_set_queue_area(queue, &queue->desc, 1, 7);
	virtio_enable_queue(c->rig.dev, queue);
	assert_int_equal(core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK), RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(c->config_interrupts, 1);
	assert_int_equal(c->rig.log_lines, 1);
	assert_non_null(strstr(c->rig.log_text, "fake: queue 1: "));
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->starts, 0);

	core_write_status(&c->rig, 0);
	assert_int_equal(virtio_read_status(c->rig.dev), 0);
	core_start(c);
	assert_int_equal(c->rig.fake->starts, 1);
}

/* --- configuration space --------------------------------------------------------------------------------------------
 */

static void configuration_ends_where_it_ends(void **state)
{
	struct core *c = *state;
	uint8_t bytes[8];
	virtio_read_config(c->rig.dev, FAKE_CONFIG_SIZE - 2, bytes, sizeof(bytes));
	assert_memory_equal(bytes, ((uint8_t[]){FAKE_CONFIG_SIZE - 1, FAKE_CONFIG_SIZE, 0, 0, 0, 0, 0, 0}), 8);
	memset(bytes, 0xff, sizeof(bytes));
	virtio_read_config(c->rig.dev, UINT32_MAX, bytes, sizeof(bytes));
	assert_memory_equal(bytes, ((uint8_t[8]){0}), 8);

	memset(bytes, 0xee, sizeof(bytes));
	virtio_write_config(c->rig.dev, FAKE_CONFIG_SIZE - 3, bytes, sizeof(bytes));
	assert_int_equal(c->rig.fake->config_writes, 1);
	assert_int_equal(c->rig.fake->config_offset, FAKE_CONFIG_SIZE - 3);
	assert_int_equal(c->rig.fake->config_size, 3);
	virtio_write_config(c->rig.dev, FAKE_CONFIG_SIZE, bytes, 1);
	virtio_write_config(c->rig.dev, UINT32_MAX, bytes, 8);
	assert_int_equal(c->rig.fake->config_writes, 1);
}

static void a_change_shows_in_the_generation(void **state)
{
	struct core *c = *state;
	uint8_t byte;
	core_start(c);
	for (unsigned changes = 1; changes <= 600; changes++) {
		uint8_t before = c->rig.dev->config_generation;
		virtio_read_config(c->rig.dev, 0, &byte, 1);
		for (unsigned i = 0; i < changes; i++)
			virtio_config_changed(c->rig.dev);
		virtio_read_config(c->rig.dev, 1, &byte, 1);
		assert_int_not_equal(c->rig.dev->config_generation, before);
	}
	uint8_t quiet = c->rig.dev->config_generation;
	virtio_read_config(c->rig.dev, 0, &byte, 1);
	assert_int_equal(c->rig.dev->config_generation, quiet);
}

static void a_change_interrupts_a_running_driver_only(void **state)
{
	struct core *c = *state;
	virtio_config_changed(c->rig.dev);
	core_prepare(c);
	virtio_config_changed(c->rig.dev);
	assert_int_equal(c->config_interrupts, 0);
	core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK);
	virtio_config_changed(c->rig.dev);
	assert_int_equal(c->config_interrupts, 1);
	core_write_status(&c->rig, 0);
	virtio_config_changed(c->rig.dev);
	assert_int_equal(c->config_interrupts, 1);
}

/* --- reset
 * ------------------------------------------------------------------------------------------------------------- */

static void expect_blank(struct core *c)
{
	assert_int_equal(virtio_read_status(c->rig.dev), 0);
	assert_int_equal(c->rig.dev->driver_features, 0);
	assert_int_equal(c->rig.dev->state, VIRTIO_IDLE);
	assert_false(c->doorbells_on);
	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		const struct virtio_queue *queue = virtio_get_queue(c->rig.dev, i);
		assert_null(queue->ring);
		assert_int_equal(queue->in_flight, 0);
		assert_false(queue->enabled);
		assert_int_equal(queue->size, FAKE_QUEUE_SIZE);
		assert_int_equal(queue->desc | queue->driver | queue->device, 0);
		assert_int_equal(queue->doorbell_op.state, LOOP_OP_IDLE);
	}
}

static void hold_some(struct core *c)
{
	c->rig.fake->holds = true;
	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		core_add(c, i, 3);
		assert_true(core_ring(c, i));
	}
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->held_count[0], 3);
	assert_int_equal(c->rig.fake->held_count[1], 3);
}

/* On the vCPU's thread: when the write returns, nothing is in flight. */
static void reset_and_look(struct rig *rig)
{
	core_write_status(rig, 0);
	virtio_lock(rig->dev);
	expect_blank(to_core(rig));
	virtio_unlock(rig->dev);
}

static void reset_waits_for_what_is_in_flight(void **state)
{
	struct core *c = *state;
	for (unsigned turn = 1; turn <= 3; turn++) {
		c->packed = turn % 2 == 0;
		core_start(c);
		assert_int_equal(c->rig.fake->starts, turn);
		hold_some(c);
		rig_on_vcpus(&c->rig, reset_and_look, 1);
		assert_int_equal(c->rig.fake->resets, turn);
		assert_int_equal(c->rig.fake->cancels, FAKE_QUEUES * turn);
		assert_int_equal(c->rig.fake->held_count[0], 0);
	}
}

static void vcpus_may_reset_together(void **state)
{
	struct core *c = *state;
	core_start(c);
	hold_some(c);
	rig_on_vcpus(&c->rig, reset_and_look, 4);
	assert_true(c->rig.fake->resets >= 1 && c->rig.fake->resets <= 4);
	assert_int_equal(c->rig.fake->cancels, FAKE_QUEUES);
}

static void the_loop_s_own_thread_may_reset(void **state)
{
	struct core *c = *state;
	core_start(c);
	hold_some(c);
	core_write_status(&c->rig, 0);
	expect_blank(c);
}

/* Nothing of it runs on the loop yet, so that there is nothing to wait for; what was asked of the loop is void. */
static void start_and_reset(struct rig *rig)
{
	core_prepare(to_core(rig));
	core_add_status(to_core(rig), VIRTIO_CONFIG_S_DRIVER_OK);
	core_write_status(rig, 0);
	expect_blank(to_core(rig));
}

static void reset_right_after_the_start(void **state)
{
	struct core *c = *state;
	start_and_reset(&c->rig);
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->starts, 0);
	assert_int_equal(c->rig.fake->resets, 1);
	for (int i = 0; i < 20; i++)
		rig_on_vcpus(&c->rig, start_and_reset, 1); /* once before the loop looks, once after */
	expect_blank(c);
}

static void no_driver_no_wait(struct rig *rig)
{
	reset_and_look(rig);
	core_add_status(to_core(rig), FOUND);
	reset_and_look(rig);
}

static void reset_of_an_idle_device_does_not_need_the_loop(void **state)
{
	struct core *c = *state;
	pthread_t thread;
	struct vcpu vcpu = {.rig = &c->rig, .fn = no_driver_no_wait};
	rig_settle(&c->rig);
	assert_int_equal(pthread_create(&thread, NULL, vcpu_main, &vcpu), 0);
	pthread_join(thread, NULL); /* nobody runs the loop */
	assert_int_equal(c->rig.fake->resets, 2);
}

/* --- the end
 * ---------------------------------------------------------------------------------------------------------- */

static void the_end_waits_for_what_is_in_flight(void **state)
{
	struct core *c = *state;
	core_start(c);
	hold_some(c); /* teardown frees the device */
}

static void the_end_of_a_device_on_another_thread(void **state)
{
	struct core *c = *state;
	struct iothread *iothread = iothread_new("test", NULL);
	assert_non_null(iothread);
	core_free_device(c);
	c->rig.destroyed = false;
	rig_init_device(&c->rig, iothread_loop(iothread));
	core_attach(c);
	c->rig.fake->holds = true;

	core_prepare(c);
	core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK);
	core_add(c, 0, 5);
	virtio_ring(c->rig.dev, 0);
	for (bool popped = false; !popped;) {
		usleep(100);
		virtio_lock(c->rig.dev);
		popped = c->rig.fake->held_count[0] == 5;
		virtio_unlock(c->rig.dev);
	}
	core_free_device(c);
	assert_true(c->rig.destroyed);
	iothread_free(iothread);
	assert_int_equal(rig_take_all(&c->rig, 0), 5);

	rig_init_device(&c->rig, c->rig.loop);
	core_attach(c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, core_setup, core_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_driver_goes_step_by_step),
		TEST(features_come_in_halves),
		TEST(features_that_cannot_be_are_refused),
		TEST(features_are_fixed_once_accepted),
		TEST(steps_cannot_be_skipped),
		TEST(bits_stay_until_a_reset),
		TEST(sizes_that_cannot_be_are_refused),
		TEST(an_enabled_queue_keeps_its_registers),
		TEST(only_its_queues_are_there),
		TEST(a_ring_that_is_not_in_ram_breaks_the_device),
		TEST(configuration_ends_where_it_ends),
		TEST(a_change_shows_in_the_generation),
		TEST(a_change_interrupts_a_running_driver_only),
		TEST(reset_waits_for_what_is_in_flight),
		TEST(vcpus_may_reset_together),
		TEST(the_loop_s_own_thread_may_reset),
		TEST(reset_right_after_the_start),
		TEST(reset_of_an_idle_device_does_not_need_the_loop),
		TEST(the_end_waits_for_what_is_in_flight),
		TEST(the_end_of_a_device_on_another_thread),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
