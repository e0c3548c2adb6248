/* Packed rings by the letter (virtio 1.3, 2.8); test_virtq.c has what both kinds share. */
#include "virtq_fixture.h"

static struct fixture fixture;
static struct fixture *const f = &fixture;

static int setup(void **state)
{
	fixture_init(f, *state);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_fini(f);
	return 0;
}

/* --- what is available ------------------------------------------------------------------------------------- */

static uint16_t bits(bool avail, bool used)
{
	return (uint16_t)(avail << VRING_PACKED_DESC_F_AVAIL | used << VRING_PACKED_DESC_F_USED);
}

/* 2.8.1: AVAIL is the driver's wrap counter, and USED is not. */
static void only_these_flags_are_available(void **state)
{
	struct virtq_chain chain;
	for (unsigned lap = 0; lap < 4; lap++) {
		for (unsigned combination = 0; combination < 4; combination++) {
			fixture_again(f, *state);
			for (unsigned i = 0; i < lap * 8; i++)
				fixture_turn(f);
			bool wrap = lap % 2 == 0, avail = combination & 1, used = combination & 2;
			f->driver.ring[0] = (struct vring_packed_desc){FIXTURE_DATA, 1, 0, bits(avail, used)};
			bool available = avail == wrap && used != wrap;
			assert_int_equal(virtq_enable_doorbell(f->q), available);
			assert_int_equal(virtq_pop(f->q, &chain), available);
		}
	}
}

/* An id is the driver's, and the last descriptor's; unknown flags are ignored. */
static void any_id_goes_back(void **state)
{
	(void)state;
	struct virtq_chain chain;
	f->driver.ring[1] = (struct vring_packed_desc){FIXTURE_DATA, 1, 0xffff, bits(true, false)};
	f->driver.ring[0] =
		(struct vring_packed_desc){FIXTURE_DATA, 1, 3, bits(true, false) | VRING_DESC_F_NEXT | 0x7f78};
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	assert_int_equal(chain.id, 0xffff);
	assert_int_equal(chain.descriptors, 2);
	virtq_push(f->q, chain.id, chain.descriptors, 0);
	assert_int_equal(f->driver.ring[0].id, 0xffff);
}

static void a_used_descriptor_says_what_was_written(void **state)
{
	(void)state;
	struct virtq_chain chain;
	for (uint32_t i = 0; i < 24; i++) {
		const struct virtq_buffer buffer = {FIXTURE_DATA, 100, true};
		uint16_t id = (uint16_t)virtq_driver_add(&f->driver, &buffer, 1), used_id;
		uint32_t written_bytes = i % 3;
		bool wrap = i / 8 % 2 == 0;
		assert_int_equal(virtq_pop(f->q, &chain), 1);
		virtq_push(f->q, chain.id, chain.descriptors, written_bytes);
		const struct vring_packed_desc *desc = &f->driver.ring[i % 8];
		assert_int_equal(desc->id, id);
		assert_int_equal(desc->len, written_bytes);
		assert_int_equal(desc->flags, bits(wrap, wrap) | (written_bytes ? VRING_DESC_F_WRITE : 0));
		assert_true(virtq_driver_take(&f->driver, &used_id, &written_bytes));
	}
}

/* 2.8.7: of a table's descriptors only WRITE counts, and of the ring's descriptor that names it WRITE does not. */
static void flags_that_say_nothing(void **state)
{
	(void)state;
	const struct vring_packed_desc table[] = {{FIXTURE_DATA, 4, 77, 0xffff & ~VRING_DESC_F_WRITE},
						  {FIXTURE_DATA, 8, 78, VRING_DESC_F_WRITE}};
	const struct virtq_buffer buffer = {FIXTURE_DATA, 1, false};
	gmem_write(f->gmem, virtq_driver_table(&f->driver, 0), table, sizeof(table));
	assert_int_equal(virtq_driver_add_indirect(&f->driver, &buffer, 1), 0);
	gmem_write(f->gmem, virtq_driver_table(&f->driver, 0), table, sizeof(table));
	f->driver.ring[0].len = sizeof(table);
	f->driver.ring[0].flags |= VRING_DESC_F_WRITE;
	struct virtq_chain chain;
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	assert_int_equal(chain.id, 0);
	assert_int_equal(chain.descriptors, 1);
	assert_int_equal(chain.out_bytes, 4);
	assert_int_equal(chain.in_bytes, 8);
}

/* --- broken rings ------------------------------------------------------------------------------------------ */

static void chains_longer_than_the_ring(void **state)
{
	for (unsigned before = 0; before < 9; before++) {
		fixture_again(f, *state);
		struct virtq_chain chain;
		for (unsigned i = 0; i < before; i++) {
			fixture_add(f, 1);
			assert_int_equal(virtq_pop(f->q, &chain), 1);
		}
		/* What is in flight is not free; with all of it in flight, one more is too many. */
		for (unsigned i = 0; i < 8; i++) {
			bool wrap = i >= before % 8 ? before < 8 : before >= 8;
			f->driver.ring[i] =
				(struct vring_packed_desc){FIXTURE_DATA, 1, 0, bits(wrap, !wrap) | VRING_DESC_F_NEXT};
		}
		if (before == 8)
			f->driver.ring[0].flags = bits(false, true);
		char words[64];
		snprintf(words, sizeof(words), "longer than the %u free", 8 - before);
		fixture_expect_broken(f, words);
	}
}

static void a_chain_of_the_whole_ring(void **state)
{
	(void)state;
	struct virtq_chain chain;
	struct virtq_buffer buffers[8];
	uint16_t id;
	uint32_t written;
	for (unsigned i = 0; i < 8; i++)
		buffers[i] = (struct virtq_buffer){FIXTURE_DATA, 1 + i, false};
	for (unsigned i = 0; i < 20; i++) {
		fixture_turn(f);
		assert_true(virtq_driver_add(&f->driver, buffers, 8) >= 0);
		assert_int_equal(virtq_pop(f->q, &chain), 1);
		assert_int_equal(chain.descriptors, 8);
		assert_int_equal(chain.out_bytes, 36);
		struct virtq_chain none;
		assert_int_equal(virtq_pop(f->q, &none), 0);
		virtq_push(f->q, chain.id, chain.descriptors, 0);
		assert_true(virtq_driver_take(&f->driver, &id, &written));
	}
}

static void tables_in_chains(void **state)
{
	const struct virtq_buffer b = {FIXTURE_DATA, 1, false}, buffers[] = {b, b};
	virtq_driver_add_indirect(&f->driver, buffers, 2);
	f->driver.ring[0].flags |= VRING_DESC_F_NEXT;
	fixture_expect_broken(f, "INDIRECT in a chain");

	fixture_again(f, *state);
	virtq_driver_add(&f->driver, buffers, 2);
	f->driver.ring[1].flags |= VRING_DESC_F_INDIRECT;
	fixture_expect_broken(f, "INDIRECT in a chain");
}

/* --- events ------------------------------------------------------------------------------------------------ */

static void set_driver_event(unsigned off_wrap, unsigned flags)
{
	f->driver.driver_event->off_wrap = (uint16_t)off_wrap;
	f->driver.driver_event->flags = (uint16_t)flags;
}

/* Was the place (off, wrap) among `count` descriptors from `before` on? Places count through all laps. */
static bool passed(unsigned size, unsigned before, unsigned count, unsigned off, bool wrap)
{
	for (unsigned place = before; place < before + count; place++) {
		if (place % size == off && (place / size % 2 == 0) == wrap)
			return true;
	}
	return false;
}

static void check_events_of_size(uint16_t size)
{
	fixture_again(f, &(struct virtq_config){.size = size, .event_idx = true, .packed = true});
	unsigned place = 0;
	for (unsigned start = 0; start < 2U * size; start++) {
		for (unsigned batch = 0; batch <= size; batch++) {
			for (unsigned event = 0; event < 2U * size; event++) {
				unsigned off = event % size, wrap = event / size;
				for (unsigned i = 0; i < batch; i++)
					fixture_turn(f);
				set_driver_event(off | wrap << 15, VRING_PACKED_EVENT_FLAG_DESC);
				assert_int_equal(virtq_wants_interrupt(f->q), passed(size, place, batch, off, wrap));
				place += batch;
			}
		}
		fixture_turn(f); /* begin elsewhere */
		virtq_wants_interrupt(f->q);
		place++;
	}
}

static void driver_events_against_counting(void **state)
{
	(void)state;
	check_events_of_size(1);
	check_events_of_size(5);
	check_events_of_size(8);
}

/* A chain that takes three places passes three. */
static void an_event_in_the_middle_of_a_chain(void **state)
{
	(void)state;
	const struct virtq_buffer b = {FIXTURE_DATA, 1, false}, buffers[] = {b, b, b};
	for (unsigned event = 0; event < 5; event++) {
		fixture_again(f, *state);
		struct virtq_chain chain;
		fixture_turn(f);
		virtq_wants_interrupt(f->q);
		virtq_driver_add(&f->driver, buffers, 3);
		assert_int_equal(virtq_pop(f->q, &chain), 1);
		virtq_push(f->q, chain.id, chain.descriptors, 0);
		set_driver_event(event | 1 << 15, VRING_PACKED_EVENT_FLAG_DESC);
		assert_int_equal(virtq_wants_interrupt(f->q), event >= 1 && event <= 3);
	}
}

static bool wants_after_one(unsigned off_wrap, unsigned flags)
{
	fixture_turn(f);
	set_driver_event(off_wrap, flags);
	bool wants = virtq_wants_interrupt(f->q);
	assert_false(virtq_wants_interrupt(f->q));
	return wants;
}

static void event_flags(void **state)
{
	assert_true(wants_after_one(0xffff, VRING_PACKED_EVENT_FLAG_ENABLE));
	assert_false(wants_after_one(1 | 1 << 15, VRING_PACKED_EVENT_FLAG_DISABLE));
	assert_true(wants_after_one(2 | 1 << 15, VRING_PACKED_EVENT_FLAG_DESC));
	assert_false(wants_after_one(2 | 1 << 15, VRING_PACKED_EVENT_FLAG_DESC));
	assert_true(wants_after_one(0, 3));
	/* Reserved bits, and an offset outside the ring. */
	assert_true(wants_after_one(0, 0xfffc));
	assert_false(wants_after_one(0, 0xfffc | VRING_PACKED_EVENT_FLAG_DISABLE));
	assert_false(wants_after_one(0xffff, VRING_PACKED_EVENT_FLAG_DESC));

	struct virtq_config config = *(struct virtq_config *)*state;
	config.event_idx = false;
	fixture_again(f, &config);
	assert_true(wants_after_one(5, VRING_PACKED_EVENT_FLAG_DESC));
	assert_false(wants_after_one(5, VRING_PACKED_EVENT_FLAG_DISABLE));
}

static void what_the_driver_reads(void **state)
{
	for (unsigned i = 0; i < 24; i++) {
		virtq_disable_doorbell(f->q);
		assert_int_equal(f->driver.device_event->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
		assert_false(virtq_enable_doorbell(f->q));
		assert_int_equal(f->driver.device_event->flags, VRING_PACKED_EVENT_FLAG_DESC);
		assert_int_equal(f->driver.device_event->off_wrap, i % 8 | (i / 8 % 2 == 0) << 15);
		fixture_turn(f);
	}

	struct virtq_config config = *(struct virtq_config *)*state;
	config.event_idx = false;
	fixture_again(f, &config);
	virtq_disable_doorbell(f->q);
	assert_false(virtq_enable_doorbell(f->q));
	assert_int_equal(f->driver.device_event->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
}

static struct virtq_config packed_event = {.size = 8, .indirect = true, .event_idx = true, .packed = true};

#define PACKED(fn)                                                                                                     \
	{                                                                                                              \
#fn, fn, setup, teardown, &packed_event                                                                \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PACKED(only_these_flags_are_available),
		PACKED(any_id_goes_back),
		PACKED(a_used_descriptor_says_what_was_written),
		PACKED(flags_that_say_nothing),
		PACKED(chains_longer_than_the_ring),
		PACKED(a_chain_of_the_whole_ring),
		PACKED(tables_in_chains),
		PACKED(driver_events_against_counting),
		PACKED(an_event_in_the_middle_of_a_chain),
		PACKED(event_flags),
		PACKED(what_the_driver_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
