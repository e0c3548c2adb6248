/* virtio-rng: requests of every size, a pool that is empty, limits, drivers that break the rules. */
#include "small_rig.h"

#include <errno.h>
#include <sys/random.h>

#include "virtio/rng.h"

enum { MARK = 0xa5 };

/* --- a host whose pool is empty, or broken, when it is told to ------------------------------------------------- */

static int pool_errno; /* 0: as it is */
static unsigned pool_asked;
static size_t pool_asked_bytes;
static size_t pool_short; /* gives so many bytes fewer */

ssize_t __real_getrandom(void *data, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags);

ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags)
{
	assert_true(flags & GRND_NONBLOCK);
	pool_asked++;
	pool_asked_bytes += size;
	errno = pool_errno;
	return pool_errno ? -1 : __real_getrandom(data, size > pool_short ? size - pool_short : 1, flags);
}

static void new_device(struct sr *s, struct rate_limit_config limit)
{
	struct err err = {0};
	struct virtio_rng_init init = {.packed = true, .limit = limit};
	sr_attach(s, virtio_rng_new(s->loop, s->gmem, &s->log, &init, &err), &err);
}

static int setup(void **state)
{
	struct sr *s = sr_new();
	pool_errno = 0;
	pool_asked = 0;
	pool_asked_bytes = pool_short = 0;
	new_device(s, (struct rate_limit_config){0});
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	sr_free(*state);
	return 0;
}

static void limited(struct sr *s, struct rate_limit_config limit)
{
	virtio_free(s->dev);
	new_device(s, limit);
	sr_start(s);
}

static void request(struct sr *s, uint32_t size_bytes)
{
	const struct virtq_buffer buffer = {SR_DATA, size_bytes, true};
	sr_send(s, 0, &buffer, 1);
}

static void mark(struct sr *s)
{
	assert_int_equal(gmem_fill(s->gmem, SR_DATA, MARK, 0x10000), 0);
}

static uint8_t byte_at(struct sr *s, uint64_t offset)
{
	uint8_t byte;
	assert_int_equal(gmem_read(s->gmem, SR_DATA + offset, &byte, 1), 0);
	return byte;
}

/* How many of the bytes are as they were: one in 256 of random ones. */
static unsigned marked(struct sr *s, uint64_t offset, unsigned size)
{
	unsigned count = 0;
	for (unsigned i = 0; i < size; i++)
		count += byte_at(s, offset + i) == MARK;
	return count;
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static void requests_of(struct sr *s, uint32_t size)
{
	uint32_t expected = (uint32_t)min_u64(size, VIRTIO_RNG_REQUEST_MAX);
	mark(s);
	request(s, size);
	assert_int_equal(sr_wait(s, 0), expected);
	if (expected >= 64)
		assert_true(marked(s, 0, expected) < expected / 8);
	assert_int_equal(marked(s, expected, 100), 100);
}

static void every_size(void **state)
{
	struct sr *s = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		s->packed = kind & 1;
		s->event_idx = kind & 2;
		sr_start(s);
		const uint32_t sizes[] = {1, 2, 63, 64, 4095, 4096, 4097, 0x8000, 0x300000};
		for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
			requests_of(s, sizes[i]);
		assert_true(s->interrupts[0] >= 1);
	}
}

/* Two answers are not the same. */
static void numbers_do_not_repeat(void **state)
{
	struct sr *s = *state;
	uint8_t first[32], second[32];
	sr_start(s);
	request(s, 32);
	sr_wait(s, 0);
	assert_int_equal(gmem_read(s->gmem, SR_DATA, first, 32), 0);
	request(s, 32);
	sr_wait(s, 0);
	assert_int_equal(gmem_read(s->gmem, SR_DATA, second, 32), 0);
	assert_memory_not_equal(first, second, 32);
}

static void scattered_room(void **state)
{
	struct sr *s = *state;
	const struct virtq_buffer buffers[] = {{SR_DATA, 100, true},
					       {SR_DATA + 0x1000, 1, true},
					       {SR_SEAM - 50, 100, true},
					       {SR_DATA + 200, 50, true}};
	sr_start(s);
	mark(s);
	assert_int_equal(gmem_fill(s->gmem, SR_SEAM - 100, MARK, 200), 0);
	sr_send(s, 0, buffers, ARRAY_SIZE(buffers));
	assert_int_equal(sr_wait(s, 0), 251);
	assert_true(marked(s, 0, 100) < 40);
	assert_int_equal(marked(s, 100, 100), 100);
	assert_true(marked(s, 200, 50) < 20);
	assert_int_equal(marked(s, 250, 100), 100);
	assert_true(marked(s, SR_SEAM - 50 - SR_DATA, 100) < 40);
	assert_int_equal(marked(s, SR_SEAM - 100 - SR_DATA, 50), 50);
	assert_int_equal(marked(s, SR_SEAM + 50 - SR_DATA, 50), 50);
}

static void a_short_answer_is_told(void **state)
{
	struct sr *s = *state;
	sr_start(s);
	mark(s);
	pool_short = 1000;
	request(s, 4096);
	assert_int_equal(sr_wait(s, 0), 3096);
	assert_int_equal(marked(s, 3096, 1000), 1000);
}

static void a_full_ring(void **state)
{
	struct sr *s = *state;
	for (unsigned round = 0; round < 4; round++) {
		s->packed = round & 1;
		sr_start(s);
		for (unsigned i = 0; i < SR_QUEUE_SIZE; i++)
			request(s, 1 << 20);
		for (unsigned i = 0; i < SR_QUEUE_SIZE; i++)
			assert_int_equal(sr_wait(s, 0), VIRTIO_RNG_REQUEST_MAX);
		assert_int_equal(s->dev->queues[0].in_flight, 0);
	}
	assert_int_equal(pool_asked_bytes, 4 * SR_QUEUE_SIZE * VIRTIO_RNG_REQUEST_MAX);
}

/* --- the host's pool ------------------------------------------------------------------------------------------------
 */

/* Not at every turn of the loop, nor whenever the driver rings: every 100 ms, however slow the machine is. */
static void check_patience(struct sr *s, uint64_t since_ns)
{
	sr_settle(s);
	assert_true(pool_asked >= 1 && pool_asked <= 1 + (loop_now_ns() - since_ns) / (100 * SR_MS));
}

static void an_empty_pool_is_asked_again(void **state)
{
	struct sr *s = *state;
	sr_start(s);
	uint64_t begin_ns = loop_now_ns();
	pool_errno = EAGAIN;
	request(s, 16);
	request(s, 16);
	check_patience(s, begin_ns);
	for (unsigned i = 0; i < 20; i++) {
		virtio_ring(s->dev, 0);
		assert_int_equal(loop_dispatch(s->loop), 0);
	}
	check_patience(s, begin_ns);
	assert_int_equal(s->dev->queues[0].in_flight, 0);
	for (unsigned asked = pool_asked; pool_asked == asked;)
		assert_int_equal(loop_wait(s->loop, UINT64_MAX), 0);
	pool_errno = 0;
	assert_int_equal(sr_wait(s, 0), 16);
	assert_int_equal(sr_wait(s, 0), 16);
	assert_false(sr_is_broken(s));
}

static void a_reset_while_the_pool_is_empty(void **state)
{
	struct sr *s = *state;
	pool_errno = EAGAIN;
	for (unsigned round = 0; round < 3; round++) {
		sr_start(s);
		request(s, 16);
		while (pool_asked <= round)
			assert_int_equal(loop_wait(s->loop, UINT64_MAX), 0);
		sr_reset(s);
	}
	pool_errno = 0;
	sr_start(s);
	request(s, 16);
	assert_int_equal(sr_wait(s, 0), 16);
	pool_errno = EAGAIN;
	request(s, 16); /* and freed with one that waits */
	sr_settle(s);
}

static void a_queue_reset_while_the_pool_is_empty(void **state)
{
	struct sr *s = *state;
	sr_start(s);
	pool_errno = EAGAIN;
	request(s, 16);
	sr_settle(s);
	sr_reset_queue(s, 0);
	pool_errno = 0;
	sr_set_up_queue(s, 0);
	sr_settle(s);
	request(s, 20);
	assert_int_equal(sr_wait(s, 0), 20);
}

static void a_host_without_random_numbers(void **state)
{
	struct sr *s = *state;
	sr_start(s);
	pool_errno = ENOSYS;
	request(s, 16);
	sr_wait_until_broken(s, "virtio-rng: getrandom: ");
	pool_errno = 0;
	sr_start(s);
	request(s, 16);
	assert_int_equal(sr_wait(s, 0), 16);
}

/* --- limits --------------------------------------------------------------------------------------------------------
 */

/* A rate of N means: not more than the burst and N per second, however often the driver rings. */
static void rates_are_kept(void **state)
{
	struct sr *s = *state;
	const struct rate_limit_config limits[] = {{.ops_per_s = 100, .ops_burst = 4},
						   {.bytes_per_s = 100 * 256, .bytes_burst = 4 * 256}};
	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
		limited(s, limits[i]);
		uint64_t begin_ns = loop_now_ns();
		unsigned done = 0;
		for (unsigned n = 0; n < 14; n++)
			request(s, 256);
		for (; done < 14; done++) {
			virtio_ring(s->dev, 0);
			assert_int_equal(sr_wait(s, 0), 256);
		}
		assert_true(loop_now_ns() - begin_ns >= 95 * SR_MS); /* ten beyond the burst */
		assert_int_equal(s->dev->queues[0].in_flight, 0);
	}
}

static void a_reset_while_throttled(void **state)
{
	struct sr *s = *state;
	limited(s, (struct rate_limit_config){.ops_per_s = 20, .ops_burst = 1});
	for (unsigned round = 0; round < 3; round++) {
		sr_start(s);
		request(s, 8);
		request(s, 8);
		sr_settle(s);
	}
	sr_reset_queue(s, 0);
	sr_set_up_queue(s, 0);
	sr_settle(s);
	request(s, 8);
	assert_int_equal(sr_wait(s, 0), 8);
}

/* --- bad drivers ----------------------------------------------------------------------------------------------------
 */

static void readable_parts_break_it(void **state)
{
	struct sr *s = *state;
	const struct virtq_buffer both[] = {{SR_DATA, 8, false}, {SR_DATA + 8, 8, true}};
	for (unsigned count = 1; count <= 2; count++) {
		sr_start(s);
		sr_send(s, 0, both, count);
		sr_wait_until_broken(s, "virtio-rng: a request with 8 bytes for the device to read");
		assert_int_equal(pool_asked, 0);
		assert_int_equal(s->dev->queues[0].in_flight, 0);
	}
	sr_start(s);
	request(s, 8);
	assert_int_equal(sr_wait(s, 0), 8);
}

static void it_has_no_features_and_no_configuration(void **state)
{
	struct sr *s = *state;
	const uint64_t ones = UINT64_MAX;
	uint64_t back = 1;
	assert_int_equal(s->dev->features & ((1 << 24) - 1), 0); /* the device's own */
	virtio_lock(s->dev);
	virtio_write_config(s->dev, 0, &ones, sizeof(ones));
	virtio_read_config(s->dev, 0, &back, sizeof(back));
	virtio_unlock(s->dev);
	assert_int_equal(back, 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(every_size),
		TEST(numbers_do_not_repeat),
		TEST(scattered_room),
		TEST(a_short_answer_is_told),
		TEST(a_full_ring),
		TEST(an_empty_pool_is_asked_again),
		TEST(a_reset_while_the_pool_is_empty),
		TEST(a_queue_reset_while_the_pool_is_empty),
		TEST(a_host_without_random_numbers),
		TEST(rates_are_kept),
		TEST(a_reset_while_throttled),
		TEST(readable_parts_break_it),
		TEST(it_has_no_features_and_no_configuration),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
