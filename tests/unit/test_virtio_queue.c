/* The virtio core's rings: serving, interrupts, doorbells and their suppression, ring resets, trouble. */
#include "virtio_core.h"

enum { RUNNING = 0xf, POLL_IN_FLIGHT = 4 };

static const struct virtio_counters *counters(const struct core *c, unsigned queue)
{
	return &c->rig.dev->queues[queue].counters;
}

/* Every chain has come back, with or without an interrupt of its own. */
static void check_counters(const struct core *c, unsigned queue, unsigned chains)
{
	const struct virtio_counters *count = counters(c, queue);
	assert_int_equal(c->rig.dev->queues[queue].in_flight, 0);
	assert_int_equal(count->chains, chains);
	assert_int_equal(count->interrupts + count->interrupts_spared, chains);
	assert_int_equal(count->interrupts, c->queue_interrupts[queue]);
}

/* --- there and back --------------------------------------------------------------------------------------------------
 */

/* The loop has nothing to do: now doorbells are wanted. */
static void let_loop_sleep(struct core *c)
{
	assert_int_equal(loop_wait(c->rig.loop, 0), 0);
}

static void echo(struct core *c)
{
	const uint64_t sent = 0x0123456789abcdef;
	uint64_t came = 0;
	core_start(c);
	let_loop_sleep(c);
	for (unsigned i = 1; i <= 3 * FAKE_QUEUE_SIZE; i++) {
		uint16_t id;
		uint32_t written;
		assert_int_equal(gmem_write(c->rig.gmem, FAKE_DATA, &sent, sizeof(sent)), 0);
		assert_int_equal(gmem_fill(c->rig.gmem, FAKE_DATA + 8, 0, 8), 0);
		virtq_driver_enable_interrupts(&c->rig.drivers[0]);
		int added = rig_add(&c->rig, 0);
		assert_true(core_ring(c, 0));
		while (c->queue_interrupts[0] < i)
			assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
		assert_true(virtq_driver_take(&c->rig.drivers[0], &id, &written));
		assert_int_equal(id, added);
		assert_int_equal(written, 8);
		assert_int_equal(gmem_read(c->rig.gmem, FAKE_DATA + 8, &came, sizeof(came)), 0);
		assert_int_equal(came, sent);
		let_loop_sleep(c);
	}
	check_counters(c, 0, 3 * FAKE_QUEUE_SIZE);
	check_counters(c, 1, 0);
	assert_int_equal(counters(c, 0)->doorbells, 3 * FAKE_QUEUE_SIZE);
}

static void chains_go_there_and_back(void **state)
{
	struct core *c = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		c->packed = kind & 1;
		c->event_idx = kind & 2;
		memset(c->queue_interrupts, 0, sizeof(c->queue_interrupts));
		c->rig.dev->queues[0].counters = (struct virtio_counters){0};
		echo(c);
		core_write_status(&c->rig, 0);
	}
}

static void queues_do_not_mix(void **state)
{
	struct core *c = *state;
	core_start(c);
	core_add(c, 0, 1);
	core_add(c, 1, 2);
	core_ring(c, 1);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 0); /* nobody rang */
	assert_int_equal(rig_take_all(&c->rig, 1), 2);
	core_ring(c, 0);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 1);
	check_counters(c, 0, 1);
	check_counters(c, 1, 2);
}

static void what_comes_before_driver_ok_is_served_after_it(void **state)
{
	struct core *c = *state;
	core_prepare(c);
	core_add(c, 0, 1); /* no doorbell */
	core_add(c, 1, 1);
	virtio_ring(c->rig.dev, 1);
	rig_settle(&c->rig);
	assert_int_equal(c->rig.fake->serves, 0);
	core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 1);
	assert_int_equal(rig_take_all(&c->rig, 1), 1);
	assert_int_equal(counters(c, 1)->doorbells, 1);
}

/* --- interrupts
 * ---------------------------------------------------------------------------------------------------------- */

static void one_interrupt_for_a_round(void **state)
{
	struct core *c = *state;
	core_start(c);
	core_add(c, 0, 8);
	virtio_ring(c->rig.dev, 0);
	rig_settle(&c->rig);
	assert_int_equal(c->queue_interrupts[0], 1);
	assert_int_equal(counters(c, 0)->interrupts_spared, 7);
	check_counters(c, 0, 8);
}

static void no_interrupt_for_who_wants_none(void **state)
{
	struct core *c = *state;
	core_start(c);
	virtq_driver_disable_interrupts(&c->rig.drivers[0]);
	core_add(c, 0, 3);
	virtio_ring(c->rig.dev, 0);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 3);
	assert_int_equal(c->queue_interrupts[0], 0);
	check_counters(c, 0, 3);
}

/* --- doorbells
 * ------------------------------------------------------------------------------------------------------------- */

/* An idle queue wants doorbells; a busy one is looked at when something was pushed; an idle one wants them again. */
static void busy_queues_are_not_rung(void **state)
{
	struct core *c = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		c->packed = kind & 1;
		c->event_idx = kind & 2;
		c->rig.fake->holds = true;
		core_start(c);
		let_loop_sleep(c);
		core_add(c, 0, POLL_IN_FLIGHT);
		assert_true(core_ring(c, 0));
		while (c->rig.fake->held_count[0] < POLL_IN_FLIGHT)
			assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
		let_loop_sleep(c);
		assert_true(c->rig.dev->queues[0].polled);
		core_add(c, 0, 1);
		assert_false(virtq_driver_rings(&c->rig.drivers[0]));

		fake_release(c->rig.fake, 0, 2);
		assert_int_equal(loop_wait(c->rig.loop, 50 * FAKE_MS), 0);
		assert_int_equal(c->rig.fake->held_count[0], POLL_IN_FLIGHT - 2 + 1);
		let_loop_sleep(c);
		assert_false(c->rig.dev->queues[0].polled);
		core_add(c, 0, 1);
		assert_true(virtq_driver_rings(&c->rig.drivers[0]));
		core_write_status(&c->rig, 0);
	}
}

/*
 * Receive buffers: however many the model keeps, the queue sleeps at once, with nothing that would wake the loop, and
 * the driver rings for more.
 */
static void kept_chains_do_not_make_a_queue_busy(void **state)
{
	struct core *c = *state;
	const struct virtio_queue *queue = &c->rig.dev->queues[FAKE_KEPT];
	for (unsigned kind = 0; kind < 4; kind++) {
		c->packed = kind & 1;
		c->event_idx = kind & 2;
		c->rig.fake->holds = true;
		core_start(c);
		let_loop_sleep(c);
		for (unsigned held = 0; held < FAKE_QUEUE_SIZE / 2; held += 2) {
			core_add(c, FAKE_KEPT, 2);
			assert_true(core_ring(c, FAKE_KEPT));
			while (c->rig.fake->held_count[FAKE_KEPT] < held + 2)
				assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
			let_loop_sleep(c);
			assert_false(queue->polled);
			assert_false(c->rig.dev->poll_timer_armed);
		}
		fake_release(c->rig.fake, FAKE_KEPT, 2); /* a frame: what is left is no busier */
		let_loop_sleep(c);
		let_loop_sleep(c);
		assert_false(queue->polled || c->rig.dev->poll_timer_armed);
		assert_int_equal(rig_take_all(&c->rig, FAKE_KEPT), 2);
		core_add(c, FAKE_KEPT, 1);
		assert_true(core_ring(c, FAKE_KEPT));
		core_write_status(&c->rig, 0);
	}
}

/* Busy when the ring was found empty, idle before the round was over: it is not left to the timer. */
static void a_batch_does_not_leave_a_queue_deaf(void **state)
{
	struct core *c = *state;
	c->rig.fake->refuses = true;
	core_start(c);
	core_add(c, 0, POLL_IN_FLIGHT);
	virtio_ring(c->rig.dev, 0);
	rig_settle(&c->rig);
	c->rig.fake->refuses = false;
	c->rig.fake->batches = true;
	virtio_lock(c->rig.dev);
	virtio_kick(c->rig.dev, 0);
	virtio_unlock(c->rig.dev);
	while (counters(c, 0)->chains == 0)
		assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
	assert_int_equal(rig_take_all(&c->rig, 0), POLL_IN_FLIGHT);
	let_loop_sleep(c);
	assert_false(c->rig.dev->queues[0].polled);
	core_add(c, 0, 1);
	assert_true(virtq_driver_rings(&c->rig.drivers[0]));
}

/* Nothing is ever pushed; what comes without a doorbell is found all the same, and soon. */
static void nobody_waits_for_a_push_for_long(void **state)
{
	struct core *c = *state;
	c->rig.fake->holds = true;
	core_start(c);
	core_add(c, 0, POLL_IN_FLIGHT);
	virtio_ring(c->rig.dev, 0);
	for (unsigned count = POLL_IN_FLIGHT; count < FAKE_QUEUE_SIZE / 2; count++) {
		while (c->rig.fake->held_count[0] < count)
			assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
		core_add(c, 0, 1);
		core_ring(c, 0);
		uint64_t asked_ns = loop_now_ns();
		while (c->rig.fake->held_count[0] == count)
			assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
		assert_true(loop_now_ns() - asked_ns < 2000 * FAKE_MS);
	}
}

/* Under any interleaving of a driver that rings only when asked to, everything comes back. */
static void no_chain_is_forgotten(void **state)
{
	struct core *c = *state;
	unsigned seed = 1;
	for (unsigned kind = 0; kind < 4; kind++) {
		c->packed = kind & 1;
		c->event_idx = kind & 2;
		c->rig.fake->holds = true;
		core_start(c);
		unsigned added = 0, taken = 0;
		for (unsigned i = 0; i < 2000; i++) {
			seed = seed * 1103515245 + 12345;
			unsigned what = seed >> 16 & 7, count = seed >> 20 & 3;
			for (unsigned n = 0; what < 4 && n < count && rig_add(&c->rig, 0) >= 0; n++)
				added++;
			core_ring(c, 0);
			if (what >= 4 && what < 6)
				fake_release(c->rig.fake, 0, count);
			assert_int_equal(loop_dispatch(c->rig.loop), 0);
			taken += rig_take_all(&c->rig, 0);
		}
		while (taken < added) {
			fake_release(c->rig.fake, 0, UINT32_MAX);
			assert_int_equal(loop_wait(c->rig.loop, 20 * FAKE_MS), 0);
			taken += rig_take_all(&c->rig, 0);
		}
		assert_int_equal(c->rig.dev->queues[0].in_flight, 0);
		assert_int_equal(taken, added);
		core_write_status(&c->rig, 0);
	}
}

/* --- a model that does not pop all
 * --------------------------------------------------------------------------------------------- */

static void a_model_that_was_full_asks_for_more(void **state)
{
	struct core *c = *state;
	c->rig.fake->refuses = true;
	core_start(c);
	core_add(c, 0, 2);
	virtio_ring(c->rig.dev, 0);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 0);
	c->rig.fake->refuses = false;
	virtio_lock(c->rig.dev);
	virtio_kick(c->rig.dev, 0);
	virtio_kick(c->rig.dev, 0);
	virtio_unlock(c->rig.dev);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 2);
}

static void a_chain_can_be_put_back(void **state)
{
	struct core *c = *state;
	c->rig.fake->unpops = true;
	core_start(c);
	core_add(c, 0, 2);
	virtio_ring(c->rig.dev, 0);
	rig_settle(&c->rig);
	assert_int_equal(c->rig.dev->queues[0].in_flight, 0);
	assert_int_equal(counters(c, 0)->chains, 0);
	c->rig.fake->unpops = false;
	virtio_lock(c->rig.dev);
	virtio_kick(c->rig.dev, 0);
	virtio_unlock(c->rig.dev);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 2);
	check_counters(c, 0, 2);
}

struct other {
	struct loop_timer timer;
	bool fired;
};

static void other_fired(struct loop_timer *timer)
{
	container_of(timer, struct other, timer)->fired = true;
}

/* A driver as fast as the device keeps it busy, but not the loop. */
static void an_endless_ring_leaves_time_for_others(void **state)
{
	struct core *c = *state;
	enum { REFILLS = 100000 };
	struct other other = {.timer = {.fn = other_fired}};
	core_start(c);
	c->rig.fake->refill_driver = &c->rig.drivers[0];
	c->rig.fake->refills = REFILLS;
	core_add(c, 0, 1);
	virtio_ring(c->rig.dev, 0);
	loop_timer_arm(c->rig.loop, &other.timer, loop_now_ns());
	while (!other.fired)
		assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
	assert_true(c->rig.fake->refills > REFILLS / 2);
	while (c->rig.fake->refills)
		assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
	rig_settle(&c->rig);
	check_counters(c, 0, REFILLS + 1);
}

/* --- ring reset (2.6.1)
 * ------------------------------------------------------------------------------------------------------------ */

static void reset_queue_0(struct rig *rig)
{
	struct virtio_queue *queue = virtio_get_queue(rig->dev, 0);
	virtio_lock(rig->dev);
	virtio_reset_queue(rig->dev, queue);
	assert_null(queue->ring);
	assert_false(queue->enabled);
	assert_int_equal(queue->in_flight, 0);
	assert_int_equal(queue->desc, 0);
	virtio_unlock(rig->dev);
}

static void one_queue_is_reset_and_started_again(void **state)
{
	struct core *c = *state;
	core_start(c);
	for (unsigned turn = 0; turn < 3; turn++) {
		c->rig.fake->holds = true;
		core_add(c, 0, 5);
		virtio_ring(c->rig.dev, 0);
		rig_settle(&c->rig);
		assert_int_equal(c->rig.fake->held_count[0], 5);
		rig_on_vcpus(&c->rig, reset_queue_0, turn + 1);
		assert_int_equal(virtio_read_status(c->rig.dev), RUNNING);
		assert_int_equal(c->rig.fake->resets, 0);

		/* The other one does not notice; the one that is off does nothing. */
		c->rig.fake->holds = false;
		core_add(c, 1, 1);
		core_ring(c, 1);
		virtio_ring(c->rig.dev, 0);
		rig_settle(&c->rig);
		assert_int_equal(rig_take_all(&c->rig, 1), 1);

		core_set_up_queue(c, 0);
		assert_true(c->doorbells_on);
		rig_settle(&c->rig);
		core_add(c, 0, 2);
		core_ring(c, 0);
		rig_settle(&c->rig);
		assert_int_equal(rig_take_all(&c->rig, 0), 2);
	}
}

static void ring_reset_is_negotiated(void **state)
{
	struct core *c = *state;
	struct virtio_queue *queue = virtio_get_queue(c->rig.dev, 0);
	core_add_status(c, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	core_write_features(c, 1ULL << VIRTIO_F_VERSION_1);
	core_add_status(c, VIRTIO_CONFIG_S_FEATURES_OK);
	core_set_up_queue(c, 0);
	core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK);
	rig_settle(&c->rig);
	virtio_reset_queue(c->rig.dev, queue);
	assert_true(queue->enabled);
	assert_non_null(queue->ring);
}

/* --- trouble
 * -------------------------------------------------------------------------------------------------------------------------
 */

/* An address that is not RAM. */
static void add_bad(struct core *c, unsigned queue)
{
	const struct virtq_buffer bad = {1ULL << 40, 8, false};
	assert_true(virtq_driver_add(&c->rig.drivers[queue], &bad, 1) >= 0);
	virtio_ring(c->rig.dev, queue);
}

static void a_broken_ring_silences_the_device(void **state)
{
	struct core *c = *state;
	core_start(c);
	c->rig.fake->holds = true;
	core_add(c, 0, 3);
	core_add(c, 1, 3);
	virtio_ring(c->rig.dev, 0);
	virtio_ring(c->rig.dev, 1);
	rig_settle(&c->rig);
	add_bad(c, 1);
	rig_settle(&c->rig);
	assert_int_equal(virtio_read_status(c->rig.dev), RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(c->config_interrupts, 1);
	assert_non_null(strstr(c->rig.log_text, "fake: queue 1: "));

	/* What it holds comes back to nobody, and it takes nothing more. */
	fake_release(c->rig.fake, 0, 2);
	core_add(c, 0, 1);
	virtio_ring(c->rig.dev, 0);
	rig_settle(&c->rig);
	assert_int_equal(c->rig.dev->queues[0].in_flight, 1);
	assert_int_equal(rig_take_all(&c->rig, 0), 0);
	assert_int_equal(c->queue_interrupts[0] + c->queue_interrupts[1], 0);

	core_write_status(&c->rig, 0);
	assert_int_equal(virtio_read_status(c->rig.dev), 0);
	c->rig.fake->holds = false;
	core_start(c);
	core_add(c, 0, 1);
	core_ring(c, 0);
	rig_settle(&c->rig);
	assert_int_equal(rig_take_all(&c->rig, 0), 1);
}

static void keep_text(void *ctx, const char *text)
{
	char *kept = ctx;
	assert_true(strlen(kept) + strlen(text) < 256);
	strcat(kept, text);
}

static void a_model_breaks_its_device_once(void **state)
{
	struct core *c = *state;
	char told[256] = "";
	virtio_set_owner(c->rig.dev, NULL, (struct virtio_sink){keep_text, told});
	core_start(c);
	virtio_lock(c->rig.dev);
	virtio_break(c->rig.dev, "a rule of %s", "mine");
	virtio_break(c->rig.dev, "another");
	virtio_unlock(c->rig.dev);
	assert_int_equal(c->config_interrupts, 1);
	assert_int_equal(c->rig.log_lines, 1);
	assert_non_null(strstr(c->rig.log_text, "fake: a rule of mine"));
	assert_string_equal(told, "fake: a rule of mine");
	core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK);
	assert_true(virtio_read_status(c->rig.dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void count_told(void *ctx, const char *text)
{
	assert_ptr_equal(strstr(text, "fake 'root': queue 0: "), text);
	++*(unsigned *)ctx;
}

static void a_driver_cannot_flood_the_log(void **state)
{
	struct core *c = *state;
	unsigned told = 0;
	virtio_set_owner(c->rig.dev, "root", (struct virtio_sink){count_told, &told});
	for (unsigned i = 0; i < 40; i++) {
		core_prepare(c);
		core_add_status(c, VIRTIO_CONFIG_S_DRIVER_OK);
		add_bad(c, 0);
		while (!c->rig.dev->broken)
			assert_int_equal(loop_wait(c->rig.loop, UINT64_MAX), 0);
		core_write_status(&c->rig, 0);
	}
	assert_true(c->rig.log_lines >= 1 && c->rig.log_lines <= 2 * LOG_LIMIT_BURST);
	assert_true(told >= 1 && told <= c->rig.log_lines); /* nor its owner */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, core_setup, core_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(chains_go_there_and_back),
		TEST(queues_do_not_mix),
		TEST(what_comes_before_driver_ok_is_served_after_it),
		TEST(one_interrupt_for_a_round),
		TEST(no_interrupt_for_who_wants_none),
		TEST(busy_queues_are_not_rung),
		TEST(kept_chains_do_not_make_a_queue_busy),
		TEST(a_batch_does_not_leave_a_queue_deaf),
		TEST(nobody_waits_for_a_push_for_long),
		TEST(no_chain_is_forgotten),
		TEST(a_model_that_was_full_asks_for_more),
		TEST(a_chain_can_be_put_back),
		TEST(an_endless_ring_leaves_time_for_others),
		TEST(one_queue_is_reset_and_started_again),
		TEST(ring_reset_is_negotiated),
		TEST(a_broken_ring_silences_the_device),
		TEST(a_model_breaks_its_device_once),
		TEST(a_driver_cannot_flood_the_log),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
