/* virtio-blk beyond single requests: order, many at once, resets with requests under way, limits, changes of size. */
#include "blk_rig.h"

enum { POISON = 0xdb };

/* --- many at once --------------------------------------------------------------------------------------------------
 */

static unsigned fill_queue(struct br *b, unsigned queue)
{
	unsigned count = BR_QUEUE_SIZE / 3;
	for (unsigned i = 0; i < count; i++)
		br_request(b, queue, VIRTIO_BLK_T_IN, i, BR_DATA + i * 512, 512);
	br_ring(b, queue);
	br_settle(b);
	return count;
}

/* Completions come in any order: each answers its own request. */
static void out_of_order(struct br *b)
{
	br_start(b);
	b->disk->holds = true;
	memset(b->ram + BR_DATA, 0, 0x40000);
	unsigned count = fill_queue(b, 0), slot = 0;
	assert_int_equal(b->disk->held_count, count);
	for (unsigned i = 0; i < count; i++) {
		unsigned which = i * 37 % b->disk->held_count;
		int res = i % 5 ? 0 : -EIO;
		uint64_t sector = b->disk->held[which]->offset_bytes / 512;
		br_complete(b->disk, which, res);
		uint32_t written;
		assert_true(br_take(b, 0, &slot, &written));
		assert_int_equal(*br_status_byte(b, slot), res ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
		assert_int_equal(((struct virtio_blk_outhdr *)(void *)(b->ram + br_slot(slot)))->sector, sector);
		assert_int_equal(written, res ? 1 : 513);
		if (res == 0)
			assert_memory_equal(b->ram + BR_DATA + sector * 512, b->disk->bytes + sector * 512, 512);
		else
			assert_int_equal(b->ram[BR_DATA + sector * 512] | b->ram[BR_DATA + sector * 512 + 511], 0);
	}
	b->disk->holds = false;
	assert_int_equal(b->sent[0], 0);
}

static void any_order(void **state)
{
	struct br *b = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		b->packed = kind & 1;
		b->indirect = kind & 2;
		out_of_order(b);
	}
}

/* Flushes that share one indirect table, and so take one descriptor each. */
static void fill_with_tables(struct br *b, unsigned queue)
{
	struct virtq_driver *d = &b->drivers[queue];
	unsigned slot = br_make_slot(b, VIRTIO_BLK_T_FLUSH, 0);
	const struct virtq_buffer buffers[] = {{br_slot(slot), 16, false}, {br_slot(slot) + BR_SLOT_STATUS, 1, true}};
	const struct virtq_buffer table = {virtq_driver_table(d, virtq_driver_next_id(d)), 32, false};
	br_send(b, queue, slot, buffers, 2);
	for (unsigned i = 1; i < BR_QUEUE_SIZE; i++) {
		int id = b->packed ? virtq_driver_add_packed(d, &table, 1, VRING_DESC_F_INDIRECT)
				   : virtq_driver_add_split(d, &table, 1, VRING_DESC_F_INDIRECT);
		assert_true(id >= 0);
		b->slot_of[queue][id] = (uint16_t)slot;
	}
	virtio_ring(b->dev, queue);
}

/* As many as a ring can hold, on every queue: each has a place. Round after round. */
static void full_rings(void **state)
{
	struct br *b = *state;
	const unsigned count = BR_QUEUES * BR_QUEUE_SIZE;
	b->indirect = true;
	for (unsigned round = 0; round < 6; round++) {
		b->packed = round & 1;
		br_start(b);
		b->disk->holds = true;
		for (unsigned queue = 0; queue < BR_QUEUES; queue++)
			fill_with_tables(b, queue);
		br_settle(b);
		assert_int_equal(b->disk->held_count, count);
		while (b->disk->held_count)
			br_complete(b->disk, b->disk->held_count / 2, 0);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(br_wait(b, i % BR_QUEUES).status, VIRTIO_BLK_S_OK);
		b->disk->holds = false;
	}
}

/* --- resets with requests under way ----------------------------------------------------------------------------- */

static void poison(struct br *b)
{
	memset(b->ram, POISON, BR_RAM_BYTES);
}

static void check_poison(struct br *b)
{
	for (unsigned i = 0; i < BR_RAM_BYTES; i += 8) {
		uint64_t word;
		memcpy(&word, b->ram + i, sizeof(word));
		if (word != 0xdbdbdbdbdbdbdbdb)
			fail_msg("byte %#x was written after the reset", i);
	}
}

/* The register write returns: from now on the memory is the driver's. */
static void reset_and_poison(struct br *b)
{
	br_write_status(b, 0);
	assert_int_equal(br_status(b), 0);
	assert_int_equal(b->disk->block.in_flight, 0);
	poison(b);
}

static void put_under_way(struct br *b)
{
	br_start(b);
	b->disk->holds = true;
	for (unsigned i = 0; i < 40; i++)
		br_request(b, i % BR_QUEUES, i % 3 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i, BR_DATA + i * 512, 512);
	br_request(b, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	br_ring(b, 0);
	br_ring(b, 1);
	br_settle(b);
	assert_int_equal(b->disk->held_count, 41);
}

static void check_reset(struct br *b, enum br_cancel cancel)
{
	b->disk->cancel = cancel;
	put_under_way(b);
	b->disk->cancels = 0;
	br_on_vcpu(b, reset_and_poison);
	assert_int_equal(b->disk->cancels, 41);
	br_settle(b);
	check_poison(b);
	b->disk->holds = false;
	br_start(b);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, 0, 512);
}

static void a_reset_waits_for_what_is_under_way(void **state)
{
	struct br *b = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		b->packed = kind & 1;
		check_reset(b, kind & 2 ? BR_CANCEL_SLOW : BR_CANCEL_AT_ONCE);
	}
}

/* By the thread of the loop itself, as when the machine is freed. */
static void a_free_waits_too(void **state)
{
	struct br *b = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		b->disk->cancel = kind ? BR_CANCEL_SLOW : BR_CANCEL_AT_ONCE;
		put_under_way(b);
		br_free_device(b);
		assert_int_equal(b->disk->block.in_flight, 0);
		poison(b);
		br_settle(b);
		check_poison(b);
		b->disk->holds = false;
		br_new_device(b);
	}
}

/* A broken device has its requests under way, too. */
static void a_broken_device_is_reset(void **state)
{
	struct br *b = *state;
	put_under_way(b);
	const struct virtq_buffer nothing = {BR_DATA, 1, true};
	br_send(b, 0, 0, &nothing, 1);
	virtio_ring(b->dev, 0);
	br_settle(b);
	assert_true(br_status(b) & VIRTIO_CONFIG_S_NEEDS_RESET);
	br_complete(b->disk, 0, 0);
	br_complete(b->disk, 0, -EIO);
	br_settle(b);
	assert_false(virtq_driver_has_used(&b->drivers[0]) || virtq_driver_has_used(&b->drivers[1]));
	br_on_vcpu(b, reset_and_poison);
	br_settle(b);
	check_poison(b);
	b->disk->holds = false;
	br_start(b);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, 0, 512);
}

static void reset_queue0(struct br *b)
{
	virtio_lock(b->dev);
	virtio_reset_queue(b->dev, virtio_get_queue(b->dev, 0));
	virtio_unlock(b->dev);
	memset(b->ram + BR_RINGS, POISON, BR_RINGS_STEP);
}

/* One queue is reset; what the other has under way goes on. */
static void a_ring_is_reset_alone(void **state)
{
	struct br *b = *state;
	put_under_way(b);
	b->disk->cancels = 0;
	br_on_vcpu(b, reset_queue0);
	br_settle(b);
	assert_int_equal(b->disk->cancels, 21);
	assert_int_equal(b->disk->held_count, 20);
	for (unsigned i = 0; i < BR_RINGS_STEP; i++)
		assert_int_equal(b->ram[BR_RINGS + i], POISON);
	br_set_up_queue(b, 0);
	b->disk->holds = false;
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, 3, 512);
	while (b->disk->held_count)
		br_complete(b->disk, 0, 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(br_wait(b, 1).status, VIRTIO_BLK_S_OK);
}

/* --- limits ------------------------------------------------------------------------------------------------------- */

static void limit(struct br *b, struct rate_limit_config config)
{
	b->init.limit = config;
	br_renew_device(b);
	br_start(b);
}

static void send_many(struct br *b, unsigned queue, unsigned count, uint32_t size)
{
	for (unsigned i = 0; i < count; i++)
		br_request(b, queue, VIRTIO_BLK_T_IN, 0, BR_DATA, size);
	br_ring(b, queue);
}

/* All come, each once, and not before the limit says. */
static void check_takes(struct br *b, unsigned count, uint64_t at_least_ms)
{
	uint64_t begin_ns = loop_now_ns();
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(br_wait(b, 0).status, VIRTIO_BLK_S_OK);
	uint64_t ms = (loop_now_ns() - begin_ns) / BR_MS;
	if (ms < at_least_ms)
		fail_msg("%u requests in %llu ms instead of %llu", count, (unsigned long long)ms,
			 (unsigned long long)at_least_ms);
	br_settle(b);
	assert_int_equal(b->disk->submitted, count);
	b->disk->submitted = 0;
}

static void rates_are_kept(void **state)
{
	struct br *b = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		b->packed = kind;
		limit(b, (struct rate_limit_config){.ops_per_s = 500, .ops_burst = 5});
		send_many(b, 0, 30, 512);
		check_takes(b, 30, 48);
		limit(b, (struct rate_limit_config){.bytes_per_s = 512000, .bytes_burst = 5120});
		send_many(b, 0, 30, 1024);
		check_takes(b, 30, 48);
		limit(b, (struct rate_limit_config){.ops_per_s = 500, .ops_burst = 5, .bytes_per_s = 1ULL << 40});
		send_many(b, 0, 30, 1024);
		check_takes(b, 30, 48);
	}
}

static void a_burst_passes_at_once(void **state)
{
	struct br *b = *state;
	limit(b, (struct rate_limit_config){.ops_per_s = 1, .ops_burst = 64});
	send_many(b, 0, 64, 512);
	check_takes(b, 64, 0);
	send_many(b, 0, 1, 512);
	br_settle(b);
	assert_int_equal(b->disk->submitted, 0);
}

/* An hour to go; the reset does not wait for it, and after it nothing of it is left. */
static void a_reset_while_throttled(void **state)
{
	struct br *b = *state;
	limit(b, (struct rate_limit_config){.ops_per_s = 100, .ops_burst = 1});
	send_many(b, 0, 10, 512);
	send_many(b, 1, 10, 512);
	br_settle(b);
	assert_true(b->disk->submitted < 5);
	br_on_vcpu(b, reset_and_poison);
	for (unsigned i = 0; i < 5; i++)
		br_settle(b);
	check_poison(b);
	br_start(b);
	send_many(b, 0, 3, 512);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(br_wait(b, 0).status, VIRTIO_BLK_S_OK);

	send_many(b, 0, 10, 512);
	br_settle(b);
	br_on_vcpu(b, reset_queue0);
	br_set_up_queue(b, 0);
	send_many(b, 0, 3, 512);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(br_wait(b, 0).status, VIRTIO_BLK_S_OK);
	send_many(b, 0, 10, 512); /* freed while it waits */
	br_settle(b);
}

/* A queue that always has requests does not keep another from its share. */
static void queues_share_the_limit(void **state)
{
	struct br *b = *state;
	limit(b, (struct rate_limit_config){.ops_per_s = 1000, .ops_burst = 1});
	send_many(b, 0, 60, 512);
	send_many(b, 1, 60, 512);
	unsigned slot, taken[BR_QUEUES] = {0};
	uint32_t written;
	while (taken[0] + taken[1] < 40) {
		assert_int_equal(loop_wait(b->loop, 100 * BR_MS), 0);
		for (unsigned queue = 0; queue < BR_QUEUES; queue++) {
			while (br_take(b, queue, &slot, &written))
				taken[queue]++;
		}
	}
	if (taken[0] < 10 || taken[1] < 10)
		fail_msg("of the first 40, queue 0 had %u and queue 1 %u", taken[0], taken[1]);
}

/* A request that needs the whole burst is not overtaken for ever by small ones, which leave the bucket never full. */
static void large_requests_get_their_turn(void **state)
{
	struct br *b = *state;
	limit(b, (struct rate_limit_config){.bytes_per_s = 1 << 20, .bytes_burst = 64 << 10});
	send_many(b, 1, 80, 4096);
	br_settle(b);
	send_many(b, 0, 3, 64 << 10);
	unsigned slot, large = 0, small = 0;
	uint32_t written;
	while (large < 3 && small < 250) { /* 1 MiB: a second */
		assert_int_equal(loop_wait(b->loop, 100 * BR_MS), 0);
		for (; br_take(b, 1, &slot, &written); small++)
			send_many(b, 1, 1, 4096);
		while (br_take(b, 0, &slot, &written))
			large++;
	}
	if (large < 3 || small < 18)
		fail_msg("%u large and %u small ones", large, small);
}

/* What has to wait long in one queue does not make another queue wait as long. */
static void queues_wait_for_their_own(void **state)
{
	struct br *b = *state;
	limit(b, (struct rate_limit_config){.ops_per_s = 50, .ops_burst = 2, .bytes_per_s = 1000, .bytes_burst = 4096});
	send_many(b, 0, 1, 4096); /* that is all of the bytes, for some seconds */
	assert_int_equal(br_wait(b, 0).status, VIRTIO_BLK_S_OK);
	for (unsigned i = 0; i < 3; i++)
		br_request(b, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	br_ring(b, 0);
	br_settle(b); /* one has passed, the others wait for 20 and 40 ms */
	send_many(b, 1, 1, 4096);
	uint64_t begin_ns = loop_now_ns();
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(br_wait(b, 0).status, VIRTIO_BLK_S_OK);
	assert_true(loop_now_ns() - begin_ns < 1000 * BR_MS);
}

/* --- what it says of itself ----------------------------------------------------------------------------------------
 */

static struct virtio_blk_config read_config(struct br *b)
{
	struct virtio_blk_config config;
	virtio_lock(b->dev);
	virtio_read_config(b->dev, 0, &config, sizeof(config));
	virtio_unlock(b->dev);
	return config;
}

static void configuration(void **state)
{
	struct br *b = *state;
	struct virtio_blk_config config = read_config(b);
	assert_int_equal(config.capacity, BR_SECTORS);
	assert_int_equal(config.seg_max, BR_QUEUE_SIZE - 2);
	assert_int_equal(config.blk_size, 512);
	assert_int_equal(config.physical_block_exp, 3);
	assert_int_equal(config.alignment_offset, 0);
	assert_int_equal(config.min_io_size, 8);
	assert_int_equal(config.opt_io_size, 128);
	assert_int_equal(config.num_queues, BR_QUEUES);
	assert_int_equal(config.max_discard_sectors, 8388607);
	assert_int_equal(config.max_discard_seg, 1);
	assert_int_equal(config.discard_sector_alignment, 8);
	assert_int_equal(config.max_write_zeroes_sectors, 8388607);
	assert_int_equal(config.max_write_zeroes_seg, 1);
	assert_int_equal(config.write_zeroes_may_unmap, 1);

	b->disk->block.info.block_size_bytes = b->disk->block.info.physical_block_bytes = 4096;
	b->disk->block.info.optimal_io_bytes = 0;
	b->init.queues = 1;
	br_renew_device(b);
	config = read_config(b);
	assert_int_equal(config.capacity, BR_SECTORS); /* in 512 bytes, whatever the block size */
	assert_int_equal(config.blk_size, 4096);
	assert_int_equal(config.physical_block_exp, 0);
	assert_int_equal(config.min_io_size, 1);
	assert_int_equal(config.opt_io_size, 0);
	assert_false(b->dev->features & 1ULL << VIRTIO_BLK_F_MQ);
}

static void write_config(struct br *b)
{
	const uint64_t ones = UINT64_MAX;
	virtio_lock(b->dev);
	for (uint32_t i = 0; i < 80; i++)
		virtio_write_config(b->dev, i, &ones, sizeof(ones));
	virtio_write_config(b->dev, UINT32_MAX - 3, &ones, sizeof(ones));
	virtio_unlock(b->dev);
}

static void nothing_of_it_can_be_written(void **state)
{
	struct br *b = *state;
	struct virtio_blk_config before = read_config(b);
	write_config(b);
	struct virtio_blk_config after = read_config(b);
	assert_memory_equal(&before, &after, sizeof(before));
}

static void a_disk_that_grows(void **state)
{
	struct br *b = *state;
	b->disk->block.info.size_bytes = BR_DISK_BYTES / 2;
	br_renew_device(b);
	br_start(b);
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_IN, BR_SECTORS / 2, 512);
	assert_int_equal(read_config(b).capacity, BR_SECTORS / 2);
	uint8_t generation = b->dev->config_generation;
	unsigned interrupts = b->config_interrupts;

	b->disk->block.info.size_bytes = BR_DISK_BYTES;
	virtio_blk_resized(b->dev);
	assert_int_equal(b->config_interrupts, interrupts + 1);
	assert_true(b->dev->config_generation != generation);
	assert_int_equal(read_config(b).capacity, BR_SECTORS);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, BR_SECTORS - 1, 512);

	b->disk->block.info.size_bytes = 512; /* and shrinks, before and after the driver */
	virtio_blk_resized(b->dev);
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_IN, 1, 512);
	br_write_status(b, 0);
	interrupts = b->config_interrupts;
	virtio_blk_resized(b->dev);
	assert_int_equal(b->config_interrupts, interrupts);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, br_setup, br_teardown)
	const struct CMUnitTest tests[] = {
		TEST(any_order),
		TEST(full_rings),
		TEST(a_reset_waits_for_what_is_under_way),
		TEST(a_free_waits_too),
		TEST(a_broken_device_is_reset),
		TEST(a_ring_is_reset_alone),
		TEST(rates_are_kept),
		TEST(a_burst_passes_at_once),
		TEST(a_reset_while_throttled),
		TEST(queues_share_the_limit),
		TEST(large_requests_get_their_turn),
		TEST(queues_wait_for_their_own),
		TEST(configuration),
		TEST(nothing_of_it_can_be_written),
		TEST(a_disk_that_grows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
