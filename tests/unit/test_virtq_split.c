/* Split rings by the letter (virtio 1.3, 2.7); test_virtq.c has what both kinds share. */
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

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525U + 1013904223U;
	return *seed >> 8;
}

static void an_available_index_that_jumps(void **state)
{
	const int jumps[] = {9, 8 + 1000, 32768, 65535};
	for (size_t i = 0; i < ARRAY_SIZE(jumps); i++) {
		fixture_again(f, *state);
		f->driver.avail->idx = (uint16_t)jumps[i];
		fixture_expect_broken(f, "available index jumped from 0");
	}

	/* Eight at once are possible, but not while one is in flight. */
	fixture_again(f, *state);
	struct virtq_chain chain;
	fixture_add(f, 1);
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	f->driver.avail->idx = 9;
	fixture_expect_broken(f, "available index jumped from 1 to 9");
}

static void heads_and_links_outside_the_table(void **state)
{
	const struct virtq_buffer b = {FIXTURE_DATA, 1, false}, buffers[] = {b, b};
	fixture_add(f, 1);
	f->driver.avail->ring[0] = 8;
	fixture_expect_broken(f, "descriptor 8 of a table of 8");

	fixture_again(f, *state);
	virtq_driver_add(&f->driver, buffers, 2);
	f->driver.desc[0].next = 8;
	fixture_expect_broken(f, "descriptor 8 of a table of 8");

	fixture_again(f, *state);
	virtq_driver_add_indirect(&f->driver, buffers, 2);
	struct vring_desc *table = gmem_view(f->gmem, virtq_driver_table(&f->driver, 0), 32, 1);
	table[0].next = 2;
	fixture_expect_broken(f, "descriptor 2 of a table of 2");
}

static void loops(void **state)
{
	const struct virtq_buffer b = {FIXTURE_DATA, 1, false}, buffers[] = {b, b, b};
	virtq_driver_add(&f->driver, buffers, 3);
	f->driver.desc[2].flags = VRING_DESC_F_NEXT;
	f->driver.desc[2].next = 1;
	fixture_expect_broken(f, "loops");

	fixture_again(f, *state);
	fixture_add(f, 1);
	f->driver.desc[0].flags = VRING_DESC_F_NEXT;
	f->driver.desc[0].next = 0;
	fixture_expect_broken(f, "loops");

	fixture_again(f, *state);
	virtq_driver_add_indirect(&f->driver, buffers, 3);
	struct vring_desc *table = gmem_view(f->gmem, virtq_driver_table(&f->driver, 0), 48, 1);
	table[2].flags = VRING_DESC_F_NEXT;
	table[2].next = 2;
	fixture_expect_broken(f, "loops");
}

static void flags_that_do_not_go_together(void **state)
{
	const struct virtq_buffer b = {FIXTURE_DATA, 1, false}, buffers[] = {b, b};
	virtq_driver_add_indirect(&f->driver, buffers, 2);
	f->driver.desc[0].flags |= VRING_DESC_F_NEXT;
	fixture_expect_broken(f, "INDIRECT and has a NEXT");

	fixture_again(f, *state);
	virtq_driver_add_indirect(&f->driver, buffers, 2);
	struct vring_desc *table = gmem_view(f->gmem, virtq_driver_table(&f->driver, 0), 32, 1);
	table[1].flags = VRING_DESC_F_INDIRECT;
	fixture_expect_broken(f, "inside an indirect table");
}

/* 2.7.5.3.2: plain descriptors may come before a table, whose own WRITE is ignored; so are flags nobody knows. */
static void a_table_at_the_end_of_a_chain(void **state)
{
	(void)state;
	const struct virtq_buffer b = {FIXTURE_DATA, 2, false}, buffers[] = {b, b};
	virtq_driver_add(&f->driver, buffers, 2);
	const struct vring_desc table[] = {{FIXTURE_DATA, 4, 0x7ff8 | VRING_DESC_F_NEXT, 1},
					   {FIXTURE_DATA, 8, VRING_DESC_F_WRITE, 0xffff}};
	gmem_write(f->gmem, FIXTURE_DATA + 0x100, table, sizeof(table));
	f->driver.desc[1] =
		(struct vring_desc){FIXTURE_DATA + 0x100, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0};
	struct virtq_chain chain;
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	assert_int_equal(chain.out_bytes, 6);
	assert_int_equal(chain.in_bytes, 8);

	/* Both count towards the longest chain. */
	assert_int_equal(virtq_driver_add(&f->driver, buffers, 2), 2);
	f->driver.desc[3] = (struct vring_desc){0x40000, VIRTQ_SIZE_MAX * 16, VRING_DESC_F_INDIRECT, 0};
	fixture_expect_broken(f, "table of 1024 descriptors");
}

/* vring_need_event by counting: was the entry at index `event` written in the last `count` pushes? */
static bool passed(uint16_t before, unsigned count, uint16_t event)
{
	for (unsigned i = 0; i < count; i++) {
		if ((uint16_t)(before + i) == event)
			return true;
	}
	return false;
}

static void used_event_against_counting(void **state)
{
	(void)state;
	uint32_t seed = 7;
	while (f->driver.next_used < 65536 - 2000)
		fixture_turn(f);
	virtq_wants_interrupt(f->q);
	for (unsigned i = 0; i < 20000; i++) {
		unsigned batch = next_random(&seed) % 40;
		uint16_t before = f->driver.next_used;
		uint16_t event = (uint16_t)(before + next_random(&seed) % 80 - 20);
		if (i % 16 == 0)
			event = (uint16_t)next_random(&seed);
		for (unsigned n = 0; n < batch; n++)
			fixture_turn(f);
		f->driver.avail->ring[f->driver.config.size] = event;
		f->driver.avail->flags = i % 2; /* to be ignored */
		assert_int_equal(virtq_wants_interrupt(f->q), passed(before, batch, event));
	}
}

static void a_batch_of_all_indices_passes_every_event(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 65536 + 3; i++)
		fixture_turn(f);
	f->driver.avail->ring[f->driver.config.size] = 1000;
	assert_true(virtq_wants_interrupt(f->q));
	assert_false(virtq_wants_interrupt(f->q));
}

static struct virtq_config split_event = {.size = 8, .indirect = true, .event_idx = true};

#define SPLIT(fn)                                                                                                      \
	{                                                                                                              \
#fn, fn, setup, teardown, &split_event                                                                 \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPLIT(an_available_index_that_jumps),
		SPLIT(heads_and_links_outside_the_table),
		SPLIT(loops),
		SPLIT(flags_that_do_not_go_together),
		SPLIT(a_table_at_the_end_of_a_chain),
		SPLIT(used_event_against_counting),
		SPLIT(a_batch_of_all_indices_passes_every_event),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
