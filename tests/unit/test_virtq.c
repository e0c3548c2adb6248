/* Virtqueues: what is true of both kinds of ring. */
#include <errno.h>

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

/* --- both kinds -------------------------------------------------------------------------------------------- */

static void check_spans_in_ram(const struct virtq_chain *chain)
{
	for (unsigned i = 0; i < chain->out_count + chain->in_count; i++) {
		const struct gmem_region *region = f->gmem->regions;
		const uint8_t *host = chain->iov[i].iov_base;
		while (host < region->host || host >= region->host + region->size_bytes)
			assert_true(++region < f->gmem->regions + f->gmem->region_count);
		assert_true(chain->iov[i].iov_len <= (size_t)(region->host + region->size_bytes - host));
	}
}

static void check_arrival(bool indirect)
{
	const struct virtq_buffer buffers[] = {
		{FIXTURE_DATA, 3, false},      {FIXTURE_SEAM - 5, 9, false}, /* across touching regions: two spans */
		{FIXTURE_END - 1, 1, false},                                 /* the last byte of RAM */
		{FIXTURE_DATA + 100, 4, true}, {FIXTURE_SEAM - 0x1000, 0x2000, true},
	};
	int sent =
		indirect ? virtq_driver_add_indirect(&f->driver, buffers, 5) : virtq_driver_add(&f->driver, buffers, 5);
	assert_int_equal(gmem_write(f->gmem, FIXTURE_DATA, "abc", 3), 0);
	assert_int_equal(gmem_write(f->gmem, FIXTURE_SEAM - 5, "defghijkl", 9), 0);
	assert_int_equal(gmem_write(f->gmem, FIXTURE_END - 1, "m", 1), 0);

	struct virtq_chain chain;
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	assert_int_equal(chain.id, sent);
	if (f->driver.config.packed)
		assert_int_equal(chain.descriptors, indirect ? 1 : 5);
	assert_int_equal(chain.out_count, 4);
	assert_int_equal(chain.in_count, 3);
	assert_int_equal(chain.out_bytes, 13);
	assert_int_equal(chain.in_bytes, 0x2004);
	check_spans_in_ram(&chain);

	char data[14] = {0};
	assert_int_equal(iov_read(chain.iov, chain.out_count, 0, data, sizeof(data)), 13);
	assert_string_equal(data, "abcdefghijklm");
	assert_int_equal(iov_write(chain.iov + chain.out_count, chain.in_count, 2, "answer", 6), 6);
	virtq_push(f->q, chain.id, chain.descriptors, 8);

	uint16_t id;
	uint32_t written;
	assert_true(virtq_driver_take(&f->driver, &id, &written));
	assert_int_equal(id, sent);
	assert_int_equal(written, 8);
	assert_int_equal(gmem_read(f->gmem, FIXTURE_DATA + 102, data, 2), 0);
	assert_int_equal(gmem_read(f->gmem, FIXTURE_SEAM - 0x1000, data + 2, 4), 0);
	assert_memory_equal(data, "answer", 6);
	assert_int_equal(virtq_pop(f->q, &chain), 0);
}

static void a_chain_arrives_as_it_was_sent(void **state)
{
	(void)state;
	check_arrival(false);
	check_arrival(true);
	check_arrival(false); /* over the end of a packed ring of 8 */
}

/* The device and the driver in a random dance, for longer than 16 bits count. */
struct flying {
	uint16_t id, descriptors;
	uint32_t number;
};

static void chains_go_around_in_any_order(void **state)
{
	(void)state;
	static uint32_t number_of[VIRTQ_SIZE_MAX];
	struct flying flying[16], pushed[16]; /* more than any ring here holds */
	unsigned flying_count = 0, pushed_count = 0;
	uint32_t seed = 1, sent = 0, popped = 0, taken = 0;
	struct virtq_chain chain;

	while (taken < 70000) {
		const struct virtq_buffer b = {FIXTURE_DATA, 1 + sent % 1000, true};
		const struct virtq_buffer buffers[] = {b, b, b};
		unsigned count = 1 + next_random(&seed) % 3, step = next_random(&seed) % 4;
		int id = step == 0 ? virtq_driver_add(&f->driver, buffers, count) : -1;
		if (id >= 0)
			number_of[id] = sent++;
		if (step == 1 && virtq_pop(f->q, &chain) == 1) {
			assert_int_equal(number_of[chain.id], popped); /* first in, first out */
			assert_int_equal(chain.in_bytes, chain.in_count * (1 + popped % 1000));
			assert_true(flying_count + pushed_count < f->driver.config.size);
			flying[flying_count++] = (struct flying){chain.id, chain.descriptors, popped++};
		}
		if (step == 2 && flying_count) {
			unsigned which = next_random(&seed) % flying_count;
			pushed[pushed_count++] = flying[which];
			virtq_push(f->q, flying[which].id, flying[which].descriptors, flying[which].number);
			flying[which] = flying[--flying_count];
		}
		uint16_t used_id;
		uint32_t written;
		if (step == 3 && virtq_driver_take(&f->driver, &used_id, &written)) {
			assert_true(pushed_count > 0);
			assert_int_equal(used_id, pushed[0].id);
			assert_int_equal(written, pushed[0].number);
			memmove(pushed, pushed + 1, --pushed_count * sizeof(pushed[0]));
			taken++;
		}
	}
	assert_string_equal(virtq_error(f->q), "");
}

static void a_chain_taken_back_comes_again(void **state)
{
	(void)state;
	struct virtq_chain first, again;
	for (int i = 0; i < 20; i++) { /* at each place of the ring, and over its end */
		const struct virtq_buffer buffers[] = {{FIXTURE_DATA, 7, false}, {FIXTURE_DATA, 9, true}};
		int id = virtq_driver_add(&f->driver, buffers, 2);
		fixture_add(f, 1);
		assert_int_equal(virtq_pop(f->q, &first), 1);
		virtq_unpop(f->q, &first);
		assert_true(virtq_enable_doorbell(f->q)); /* it waits */
		assert_int_equal(virtq_pop(f->q, &again), 1);
		assert_int_equal(again.id, id);
		assert_true(fixture_same_chain(&again, &first));
		virtq_push(f->q, again.id, again.descriptors, 9);
		assert_int_equal(virtq_pop(f->q, &again), 1);
		virtq_push(f->q, again.id, again.descriptors, 0);
		uint16_t used_id;
		uint32_t written;
		assert_true(virtq_driver_take(&f->driver, &used_id, &written));
		assert_true(virtq_driver_take(&f->driver, &used_id, &written));
		if (i % 3 == 0)
			fixture_turn(f);
	}
}

/* A device that was told "no more" by enable is rung for the next chain; one that did not ask is not. */
static void doorbells(void **state)
{
	(void)state;
	struct virtq_chain chain;
	uint16_t id;
	uint32_t written;
	assert_false(virtq_enable_doorbell(f->q));
	for (int i = 0; i < 35000; i++) {
		fixture_add(f, 1);
		assert_true(virtq_driver_rings(&f->driver));
		virtq_disable_doorbell(f->q);
		assert_int_equal(virtq_pop(f->q, &chain), 1);
		virtq_push(f->q, chain.id, chain.descriptors, 0);

		fixture_add(f, 1);
		assert_false(virtq_driver_rings(&f->driver));
		assert_true(virtq_enable_doorbell(f->q)); /* it came in between */
		assert_int_equal(virtq_pop(f->q, &chain), 1);
		virtq_push(f->q, chain.id, chain.descriptors, 0);
		assert_false(virtq_enable_doorbell(f->q));

		while (virtq_driver_take(&f->driver, &id, &written))
			;
	}
}

/* The driver sleeps only when an interrupt will come. */
static void no_interrupt_is_lost_and_few_are_wasted(void **state)
{
	(void)state;
	struct virtq_chain chain;
	uint16_t id;
	uint32_t written;
	assert_false(virtq_wants_interrupt(f->q)); /* nothing was pushed */
	for (int i = 0; i < 35000; i++) {
		assert_false(virtq_driver_enable_interrupts(&f->driver));
		unsigned batch = 1 + i % 3;
		for (unsigned n = 0; n < batch; n++)
			fixture_add(f, 1);
		for (unsigned n = 0; n < batch; n++) {
			assert_int_equal(virtq_pop(f->q, &chain), 1);
			virtq_push(f->q, chain.id, chain.descriptors, 0);
			if (i % 2)
				assert_int_equal(virtq_wants_interrupt(f->q), n == 0 || !f->driver.config.event_idx);
		}
		assert_int_equal(virtq_wants_interrupt(f->q), i % 2 == 0);
		assert_false(virtq_wants_interrupt(f->q));

		virtq_driver_disable_interrupts(&f->driver);
		while (virtq_driver_take(&f->driver, &id, &written))
			;
		if (!f->driver.config.packed && f->driver.config.event_idx)
			continue; /* that one cannot be turned off, only be behind */
		fixture_turn(f);
		assert_false(virtq_wants_interrupt(f->q));
	}
}

static void a_full_ring_and_no_more(void **state)
{
	(void)state;
	struct virtq_chain chain;
	unsigned size = f->driver.config.size;
	for (unsigned i = 0; i < size; i++)
		assert_true(fixture_add(f, 1 + i) >= 0);
	assert_int_equal(fixture_add(f, 1), -1);
	for (unsigned i = 0; i < size; i++) {
		assert_int_equal(virtq_pop(f->q, &chain), 1);
		assert_int_equal(chain.out_bytes, 1 + i);
	}
	assert_int_equal(virtq_pop(f->q, &chain), 0);
	assert_false(virtq_enable_doorbell(f->q));
}

static void buffers_that_cannot_be(void **state)
{
	struct broken {
		unsigned count;
		struct virtq_buffer buffers[3];
		const char *words;
	} broken[] = {
		{1, {{FIXTURE_DATA, 0, false}}, "zero bytes"},
		{2, {{FIXTURE_DATA, 1, false}, {FIXTURE_DATA, 0, true}}, "zero bytes"},
		{2, {{FIXTURE_DATA, 1, true}, {FIXTURE_DATA, 1, false}}, "device-readable buffer after"},
		{1, {{FIXTURE_HOLE, 1, false}}, "not RAM"},
		{1, {{FIXTURE_HOLE - 1, 2, true}}, "not RAM"},
		{1, {{FIXTURE_END - 1, 2, false}}, "not RAM"},
		{1, {{UINT64_MAX, 1, false}}, "not RAM"},
		{1, {{UINT64_MAX - 7, 16, false}}, "not RAM"},
		{1, {{0, UINT32_MAX, false}}, "not RAM"},
	};
	for (size_t i = 0; i < 2 * ARRAY_SIZE(broken); i++) {
		const struct broken *b = &broken[i / 2];
		fixture_again(f, *state);
		fixture_turn(f);
		if (i % 2)
			virtq_driver_add_indirect(&f->driver, b->buffers, b->count);
		else
			virtq_driver_add(&f->driver, b->buffers, b->count);
		fixture_expect_broken(f, b->words);
	}
}

/* 63 times 64 MiB + 64 MiB is 4 GiB: one byte too many to count. */
static void a_chain_of_4_gib(void **state)
{
	const struct gmem_region region = {0, MIB(66), NULL};
	fixture_fini(f);
	for (uint32_t missing = 0; missing < 2; missing++) {
		f->gmem = gmem_new(&region, 1, NULL);
		virtq_driver_init(&f->driver, f->gmem, 0, *state);
		f->q = virtq_new(f->gmem, &f->driver.config, NULL);
		struct virtq_buffer buffers[64];
		for (unsigned i = 0; i < 64; i++)
			buffers[i] = (struct virtq_buffer){MIB(2), (uint32_t)MIB(64), true};
		buffers[63].size_bytes -= missing;
		virtq_driver_add_indirect(&f->driver, buffers, 64);
		struct virtq_chain chain;
		assert_int_equal(virtq_pop(f->q, &chain), missing ? 1 : -EPROTO);
		if (missing)
			assert_int_equal(chain.in_bytes, UINT32_MAX);
		else
			assert_non_null(strstr(virtq_error(f->q), "4 GiB"));
		fixture_fini(f);
	}
	fixture_init(f, *state);
}

static void set_table(uint64_t gpa, uint32_t size_bytes)
{
	f->driver.desc[0].addr = gpa; /* at the same place in both kinds */
	f->driver.desc[0].len = size_bytes;
}

static void indirect_tables_that_cannot_be(void **state)
{
	const struct {
		uint64_t gpa;
		uint32_t size_bytes;
		const char *words;
	} broken[] = {
		{FIXTURE_DATA, 0, "table of 0 bytes"},
		{FIXTURE_DATA, 15, "table of 15 bytes"},
		{FIXTURE_DATA, 17, "table of 17 bytes"},
		{FIXTURE_DATA, (VIRTQ_SIZE_MAX + 1) * 16, "table of 1025 descriptors"},
		{FIXTURE_DATA, 0xfffffff0, "descriptors"},
		{FIXTURE_HOLE - 16, 32, "table that is not RAM"},
		{UINT64_MAX - 15, 32, "table that is not RAM"},
	};
	const struct virtq_buffer buffer = {FIXTURE_DATA, 1, false};
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		fixture_again(f, *state);
		assert_int_equal(virtq_driver_add_indirect(&f->driver, &buffer, 1), 0);
		set_table(broken[i].gpa, broken[i].size_bytes);
		fixture_expect_broken(f, broken[i].words);
	}
}

static void an_indirect_table_that_was_not_negotiated(void **state)
{
	struct virtq_config config = *(struct virtq_config *)*state;
	config.indirect = false;
	fixture_again(f, &config);
	const struct virtq_buffer buffer = {FIXTURE_DATA, 1, false};
	virtq_driver_add_indirect(&f->driver, &buffer, 1);
	fixture_expect_broken(f, "not negotiated");
}

/* Each of the most buffers that a chain can have, on the seam between two regions. */
static void the_longest_chain_in_the_worst_place(void **state)
{
	(void)state;
	for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++) {
		struct vring_desc desc = {.addr = FIXTURE_SEAM - 1, .len = 2};
		if (!f->driver.config.packed && i < VIRTQ_SIZE_MAX - 1) {
			desc.flags = VRING_DESC_F_NEXT;
			desc.next = (uint16_t)(i + 1);
		}
		/* The table, too, crosses the seam; and is not aligned. */
		gmem_write(f->gmem, FIXTURE_SEAM - 0x1003 + i * sizeof(desc), &desc, sizeof(desc));
	}
	const struct virtq_buffer buffer = {FIXTURE_DATA, 1, false};
	assert_int_equal(virtq_driver_add_indirect(&f->driver, &buffer, 1), 0);
	set_table(FIXTURE_SEAM - 0x1003, VIRTQ_SIZE_MAX * 16);
	struct virtq_chain chain;
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	assert_int_equal(chain.out_count, 2 * VIRTQ_SIZE_MAX);
	assert_int_equal(chain.out_bytes, 2 * VIRTQ_SIZE_MAX);
	check_spans_in_ram(&chain);
}

static void what_is_in_flight_can_come_back_after_a_break(void **state)
{
	(void)state;
	struct virtq_chain chain;
	uint16_t id;
	uint32_t written;
	fixture_add(f, 1);
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	fixture_add(f, 0);
	fixture_expect_broken(f, "zero bytes");
	virtq_push(f->q, chain.id, chain.descriptors, 0);
	assert_true(virtq_driver_take(&f->driver, &id, &written));
	assert_int_equal(id, chain.id);
}

/* --- making them ------------------------------------------------------------------------------------------- */

static int new_code(struct virtq_config config, size_t desc, size_t driver, size_t device)
{
	struct err err = {0};
	config.desc = desc;
	config.driver = driver;
	config.device = device;
	struct virtq *q = virtq_new(f->gmem, &config, &err);
	assert_int_equal(!q, err.code != 0);
	assert_int_equal(!q, err.text[0] != 0);
	virtq_free(q);
	return err.code;
}

static void sizes(void **state)
{
	(void)state;
	const struct {
		unsigned size;
		bool split, packed;
	} cases[] = {{0, false, false},    {1, true, true},      {2, true, true},       {3, false, true},
		     {8, true, true},      {1000, false, true},  {1023, false, true},   {1024, true, true},
		     {1025, false, false}, {2048, false, false}, {32768, false, false}, {65535, false, false}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct virtq_config config = {.size = (uint16_t)cases[i].size};
		assert_int_equal(new_code(config, 0, 0x10000, 0x20000), cases[i].split ? 0 : -EINVAL);
		config.packed = true;
		assert_int_equal(new_code(config, 0, 0x10000, 0x20000), cases[i].packed ? 0 : -EINVAL);
	}
	virtq_free(NULL);
}

static void areas(void **state)
{
	(void)state;
	const struct virtq_config split = {.size = 8}, event = {.size = 8, .event_idx = true};
	const struct virtq_config packed = {.size = 8, .packed = true};

	/* Alignment. */
	for (unsigned off = 0; off <= 16; off++) {
		assert_int_equal(new_code(split, off, 0x1000, 0x2000), off % 16 ? -EFAULT : 0);
		assert_int_equal(new_code(split, 0, 0x1000 + off, 0x2000), off % 2 ? -EFAULT : 0);
		assert_int_equal(new_code(split, 0, 0x1000, 0x2000 + off), off % 4 ? -EFAULT : 0);
		assert_int_equal(new_code(packed, off, 0x1000, 0x2000), off % 16 ? -EFAULT : 0);
		assert_int_equal(new_code(packed, 0, 0x1000 + off, 0x2000), off % 4 ? -EFAULT : 0);
		assert_int_equal(new_code(packed, 0, 0x1000, 0x2000 + off), off % 4 ? -EFAULT : 0);
	}

	/* To the last byte of RAM, and not one more; event indices are two bytes of it. */
	assert_int_equal(new_code(split, FIXTURE_END - 128, 0, 0), 0);
	assert_int_equal(new_code(split, FIXTURE_END - 112, 0, 0), -EFAULT);
	assert_int_equal(new_code(split, 0, FIXTURE_END - 20, 0), 0);
	assert_int_equal(new_code(split, 0, FIXTURE_END - 18, 0), -EFAULT);
	assert_int_equal(new_code(event, 0, FIXTURE_END - 20, 0), -EFAULT);
	assert_int_equal(new_code(event, 0, FIXTURE_END - 22, 0), 0);
	assert_int_equal(new_code(split, 0, 0, FIXTURE_END - 68), 0);
	assert_int_equal(new_code(event, 0, 0, FIXTURE_END - 68), -EFAULT);
	assert_int_equal(new_code(event, 0, 0, FIXTURE_END - 72), 0);
	assert_int_equal(new_code(packed, FIXTURE_END - 112, 0, 0), -EFAULT);
	assert_int_equal(new_code(packed, 0, FIXTURE_END, 0), -EFAULT);
	assert_int_equal(new_code(packed, 0, FIXTURE_END - 4, FIXTURE_END - 4), 0);

	/* Not over a seam, and nowhere near the end of the address space. */
	assert_int_equal(new_code(split, FIXTURE_SEAM - 16, 0, 0), -EFAULT);
	assert_int_equal(new_code(packed, 0, 0, FIXTURE_HOLE), -EFAULT);
	assert_int_equal(new_code(split, UINT64_MAX - 15, 0, 0), -EFAULT);
}

static struct virtq_config split_event = {.size = 8, .indirect = true, .event_idx = true};
static struct virtq_config packed_event = {.size = 8, .indirect = true, .event_idx = true, .packed = true};
static struct virtq_config packed_odd = {.size = 11, .indirect = true, .event_idx = true, .packed = true};
static struct virtq_config split_plain = {.size = 8, .indirect = true};
static struct virtq_config packed_plain = {.size = 8, .indirect = true, .packed = true};

#define SPLIT(fn)                                                                                                      \
	{                                                                                                              \
#fn "/split", fn, setup, teardown, &split_event                                                        \
	}
#define BOTH(fn)                                                                                                       \
	SPLIT(fn),                                                                                                     \
	{                                                                                                              \
#fn "/packed", fn, setup, teardown, &packed_event                                                      \
	}
#define ALL(fn)                                                                                                        \
	BOTH(fn), {#fn "/packed, 11", fn, setup, teardown, &packed_odd},                                               \
		{#fn "/split, flags", fn, setup, teardown, &split_plain},                                              \
	{                                                                                                              \
#fn "/packed, flags", fn, setup, teardown, &packed_plain                                               \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ALL(a_chain_arrives_as_it_was_sent),
		ALL(chains_go_around_in_any_order),
		ALL(a_chain_taken_back_comes_again),
		ALL(doorbells),
		ALL(no_interrupt_is_lost_and_few_are_wasted),
		ALL(a_full_ring_and_no_more),
		BOTH(buffers_that_cannot_be),
		BOTH(a_chain_of_4_gib),
		BOTH(indirect_tables_that_cannot_be),
		BOTH(an_indirect_table_that_was_not_negotiated),
		BOTH(the_longest_chain_in_the_worst_place),
		BOTH(what_is_in_flight_can_come_back_after_a_break),
		SPLIT(sizes),
		SPLIT(areas),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
