/* virtio-blk, request by request: what reaches the disk, what comes back, and what is refused with which status. */
#include "blk_rig.h"

static const uint32_t KNOWN[] = {VIRTIO_BLK_T_IN,     VIRTIO_BLK_T_OUT,     VIRTIO_BLK_T_FLUSH,
				 VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};

/* Every kind of ring. */
static void for_each_ring(struct br *b, void (*fn)(struct br *b))
{
	for (unsigned kind = 0; kind < 8; kind++) {
		b->packed = kind & 1;
		b->event_idx = kind & 2;
		b->indirect = kind & 4;
		br_start(b);
		fn(b);
	}
}

/* --- data --------------------------------------------------------------------------------------------------------- */

static void write_and_read(struct br *b)
{
	const uint32_t size = 8 * 512;
	for (uint32_t i = 0; i < size; i++)
		b->ram[BR_DATA + i] = (uint8_t)(i * 31 + i / 512 + b->next_slot);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_OUT, 5, size);
	assert_memory_equal(b->disk->bytes + 5 * 512, b->ram + BR_DATA, size);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_FLUSH, 0, 0);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, 7, 512);
	assert_memory_equal(b->ram + BR_DATA, b->disk->bytes + 7 * 512, 512);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, BR_SECTORS - 1, 512);
	assert_memory_equal(b->ram + BR_DATA, b->disk->bytes + BR_DISK_BYTES - 512, 512);
	assert_int_equal(b->disk->block.in_flight, 0);
}

static void data_goes_there_and_back(void **state)
{
	for_each_ring(*state, write_and_read);
}

/* 2.7.4: how a request is cut into descriptors is the driver's business. Cuts the bytes by `cuts`, in turn. */
struct cutter {
	const uint32_t *cuts;
	unsigned cut_count, at;
	struct virtq_buffer buffers[300];
	unsigned count;
};

static void cut(struct cutter *c, gpa_t gpa, uint32_t size_bytes, bool writable)
{
	while (size_bytes) {
		uint32_t piece = (uint32_t)min_u64(c->cuts[c->at++ % c->cut_count], size_bytes);
		c->buffers[c->count++] = (struct virtq_buffer){gpa, piece, writable};
		gpa += piece;
		size_bytes -= piece;
	}
}

/* All of the readable part in one piece of memory, all of the writable in another; returns the answer. */
static struct br_answer do_cut(struct br *b, uint32_t type, uint32_t size_bytes, const uint32_t *cuts, unsigned count)
{
	struct cutter c = {.cuts = cuts, .cut_count = count};
	bool reads = type == VIRTIO_BLK_T_IN;
	gpa_t out = BR_DATA, in = BR_DATA + 0x10000;
	uint32_t out_size = 16 + (reads ? 0 : size_bytes), in_size = 1 + (reads ? size_bytes : 0);
	struct virtio_blk_outhdr header = {.type = type, .sector = 3};
	memcpy(b->ram + out, &header, sizeof(header));
	memset(b->ram + in, BR_NO_STATUS, in_size + 16);
	cut(&c, out, out_size, false);
	cut(&c, in, in_size, true);
	br_send(b, 0, 0, c.buffers, c.count);
	br_ring(b, 0);
	struct br_answer answer = br_wait(b, 0);
	answer.status = b->ram[in + in_size - 1];
	assert_int_equal(b->ram[in + in_size], BR_NO_STATUS);
	return answer;
}

static void check_cuts(struct br *b, uint32_t size, const uint32_t *cuts, unsigned count)
{
	struct br_answer answer;
	for (uint32_t i = 0; i < size; i++)
		b->ram[BR_DATA + 16 + i] = (uint8_t)(i * 17 + cuts[0]);
	answer = do_cut(b, VIRTIO_BLK_T_OUT, size, cuts, count);
	assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
	assert_int_equal(answer.written, 1);
	assert_memory_equal(b->disk->bytes + 3 * 512, b->ram + BR_DATA + 16, size);
	answer = do_cut(b, VIRTIO_BLK_T_IN, size, cuts, count);
	assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
	assert_int_equal(answer.written, size + 1);
	assert_memory_equal(b->ram + BR_DATA + 0x10000, b->disk->bytes + 3 * 512, size);
}

static void odd_framing(struct br *b)
{
	static const uint32_t whole[] = {UINT32_MAX}, ones[] = {1, 1, 1, 14, 100}, odd[] = {3, 9, 4, 7, 333, 1, 512},
			      around[] = {15, 2, 511, 513, 1}, some[] = {20, 40}, most[] = {13};
	check_cuts(b, 512, whole, 1); /* header and data in one, data and status in one */
	check_cuts(b, 2048, ones, ARRAY_SIZE(ones));
	check_cuts(b, 4096, odd, ARRAY_SIZE(odd));
	check_cuts(b, 1024, around, ARRAY_SIZE(around));
	check_cuts(b, 512, some, ARRAY_SIZE(some));
	check_cuts(b, 2560, most, ARRAY_SIZE(most)); /* about 200 */
	assert_true(b->disk->max_iov_count > 190);
	check_cuts(b, 0, whole, 1);
}

static void framing_is_the_drivers_business(void **state)
{
	for_each_ring(*state, odd_framing);
}

static void requests_without_data(void **state)
{
	struct br *b = *state;
	br_start(b);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, 1, 0);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_OUT, 1, 0);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, BR_SECTORS, 0);
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_IN, BR_SECTORS + 1, 0);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_FLUSH, 12345, 0); /* its sector says nothing */
	assert_int_equal(b->disk->submitted, 1);
}

/* --- what cannot be -------------------------------------------------------------------------------------------------
 */

static void sizes_that_are_no_sectors(void **state)
{
	static const uint32_t sizes[] = {1, 511, 513, 1023, 4097};
	struct br *b = *state;
	br_start(b);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_IN, 0, sizes[i]);
		br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_OUT, 0, sizes[i]);
	}
	b->disk->block.info.block_size_bytes = 4096;
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_OUT, 0, 512);
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_OUT, 1, 4096);
	assert_int_equal(b->disk->submitted, 0);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_OUT, 8, 4096);
	assert_int_equal(b->disk->submitted, 1);
}

static const uint64_t BEYOND[] = {
	BR_SECTORS,
	BR_SECTORS + 1,
	1ULL << 32,
	(1ULL << 54) - 1,
	1ULL << 54,
	(1ULL << 55) - 2,
	(1ULL << 55) - 1, /* 2^64 / 512 - 1: the last whose bytes fit */
	1ULL << 55,
	(1ULL << 55) + 1, /* wraps to sector 1 */
	(1ULL << 55) + BR_SECTORS - 1,
	1ULL << 63,
	UINT64_MAX - 1,
	UINT64_MAX,
};

static struct br_answer do_ranges(struct br *b, uint32_t type, const void *ranges, uint32_t size_bytes)
{
	memcpy(b->ram + BR_DATA, ranges, size_bytes);
	struct br_answer answer = br_do(b, type, 0, BR_DATA, size_bytes);
	assert_int_equal(answer.written, 1);
	return answer;
}

static uint8_t do_range(struct br *b, uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {sector, count, flags};
	return do_ranges(b, type, &range, sizeof(range)).status;
}

static void sectors_beyond_the_end(void **state)
{
	struct br *b = *state;
	br_start(b);
	for (unsigned i = 0; i < ARRAY_SIZE(BEYOND); i++) {
		br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_IN, BEYOND[i], 512);
		br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_OUT, BEYOND[i], 512);
		br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_OUT, BEYOND[i], 1024);
		assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, BEYOND[i], 1, 0), VIRTIO_BLK_S_IOERR);
		assert_int_equal(do_range(b, VIRTIO_BLK_T_WRITE_ZEROES, BEYOND[i], 1, 0), VIRTIO_BLK_S_IOERR);
		assert_int_equal(do_range(b, VIRTIO_BLK_T_WRITE_ZEROES, BEYOND[i], 8388607, 0), VIRTIO_BLK_S_IOERR);
	}
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_IN, BR_SECTORS - 1, 1024);
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_OUT, BR_SECTORS - 1, 1024);
	assert_int_equal(b->disk->submitted, 0);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, BR_SECTORS - 2, 1024);
}

static void discards_and_zeroes(void **state)
{
	const uint32_t unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	struct br *b = *state;
	br_start(b);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_WRITE_ZEROES, 4, 2, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(b->disk->bytes[4 * 512] | b->disk->bytes[6 * 512 - 1], 0);
	assert_true(b->disk->bytes[6 * 512] && b->disk->bytes[4 * 512 - 1]);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 8, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 8, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(b->disk->submitted, 2);
	for (uint32_t bit = 0; bit < 32; bit++) {
		uint8_t zeroes = do_range(b, VIRTIO_BLK_T_WRITE_ZEROES, 4, 2, 1U << bit);
		assert_int_equal(zeroes, 1U << bit == unmap ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_UNSUPP);
		assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 4, 2, 1U << bit), VIRTIO_BLK_S_UNSUPP);
	}
	/* max_discard_sectors, and one more. */
	assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 0, 8388607, 0), VIRTIO_BLK_S_IOERR);
	b->disk->block.info.size_bytes = 1ULL << 40;
	b->disk->holds = true;
	unsigned before = b->disk->submitted;
	struct virtio_blk_discard_write_zeroes range = {1, 8388607, unmap};
	memcpy(b->ram + BR_DATA, &range, sizeof(range));
	br_request(b, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, BR_DATA, sizeof(range));
	br_ring(b, 0);
	br_settle(b);
	assert_int_equal(b->disk->submitted, before + 1);
	assert_true(b->disk->held[0]->may_unmap);
	assert_true(b->disk->held[0]->offset_bytes == 512 && b->disk->held[0]->size_bytes == 8388607ULL * 512);
	block_complete(br_take_held(b->disk, 0), 0);
	assert_int_equal(br_wait(b, 0).status, VIRTIO_BLK_S_OK);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 0, 8388608, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
}

/* One range, no more and no less: max_discard_seg is 1. */
static void range_counts(void **state)
{
	static const struct virtio_blk_discard_write_zeroes ranges[4] = {{1, 1, 0}, {2, 1, 0}, {3, 1, 0}, {4, 1, 0}};
	static const uint32_t types[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
	struct br *b = *state;
	br_start(b);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		for (uint32_t size = 0; size <= sizeof(ranges); size++) {
			uint8_t status = do_ranges(b, types[i], ranges, size).status;
			uint8_t refused = size % 16 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_UNSUPP;
			assert_int_equal(status, size == 16 ? VIRTIO_BLK_S_OK : refused);
		}
	}
	assert_int_equal(b->disk->submitted, 2);
}

static void a_disk_that_cannot(void **state)
{
	struct br *b = *state;
	b->disk->block.info.discard_granularity_bytes = 0;
	b->disk->block.info.can_write_zeroes = false;
	br_renew_device(b);
	assert_false(b->dev->features & (1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES));
	br_start(b);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(b->disk->submitted, 0);
}

static void read_only(void **state)
{
	struct br *b = *state;
	b->disk->block.info.read_only = true;
	br_renew_device(b);
	assert_true(b->dev->features & 1ULL << VIRTIO_BLK_F_RO);
	assert_false(b->dev->features & (1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES));
	br_start(b);
	br_expect(b, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_T_OUT, 0, 512);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 0, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(do_range(b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(b->disk->submitted, 0);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, 0, 512);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_FLUSH, 0, 0);
}

static bool is_known(uint32_t type)
{
	for (unsigned i = 0; i < ARRAY_SIZE(KNOWN); i++) {
		if (KNOWN[i] == type)
			return true;
	}
	return false;
}

static void unknown_types(void **state)
{
	struct br *b = *state;
	br_start(b);
	for (uint32_t type = 0; type < 64; type++) {
		if (!is_known(type))
			br_expect(b, VIRTIO_BLK_S_UNSUPP, type, 0, 512);
	}
	for (uint32_t bit = 6; bit < 32; bit++) { /* legacy's barrier bit too */
		for (unsigned i = 0; i < ARRAY_SIZE(KNOWN); i++)
			br_expect(b, VIRTIO_BLK_S_UNSUPP, KNOWN[i] | 1U << bit, 0, 512);
	}
	assert_int_equal(b->disk->submitted, 0);
}

/* --- the serial number -------------------------------------------------------------------------------------------- */

static void check_id(struct br *b, const char *want, uint32_t room)
{
	char id[VIRTIO_BLK_ID_BYTES] = {0};
	memcpy(id, want, min_u64(strlen(want), sizeof(id)));
	memset(b->ram + BR_DATA, 0x5a, 256);
	struct br_answer answer = br_do(b, VIRTIO_BLK_T_GET_ID, 99, BR_DATA, room);
	uint32_t written = (uint32_t)min_u64(room, sizeof(id));
	assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
	assert_int_equal(answer.written, written + 1);
	assert_memory_equal(b->ram + BR_DATA, id, written);
	for (uint32_t i = written; i < 256; i++)
		assert_int_equal(b->ram[BR_DATA + i], 0x5a);
}

static void the_serial_number(void **state)
{
	static const char *const serials[] = {
		"", "x", "the serial number", "exactly twenty bytes", "this one is longer than twenty bytes", NULL};
	static const uint32_t rooms[] = {0, 1, 19, 20, 21, 100};
	struct br *b = *state;
	for (unsigned i = 0; i < ARRAY_SIZE(serials); i++) {
		b->init.serial = serials[i];
		br_renew_device(b);
		br_start(b);
		for (unsigned j = 0; j < ARRAY_SIZE(rooms); j++)
			check_id(b, serials[i] ? serials[i] : "", rooms[j]);
	}
}

/* --- a driver that breaks the rules ------------------------------------------------------------------------------- */

static void check_breaks(struct br *b, const struct virtq_buffer *buffers, unsigned count)
{
	br_start(b);
	unsigned interrupts = b->config_interrupts, submitted = b->disk->submitted;
	unsigned slot = br_make_slot(b, VIRTIO_BLK_T_IN, 0);
	br_send(b, 0, slot, buffers, count);
	br_request(b, 0, VIRTIO_BLK_T_IN, 0, BR_DATA, 512); /* what comes behind it is not served either */
	br_ring(b, 0);
	br_settle(b);
	assert_true(br_status(b) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(b->config_interrupts, interrupts + 1);
	assert_false(virtq_driver_has_used(&b->drivers[0]));
	assert_int_equal(b->disk->submitted, submitted);
	br_start(b);
	br_expect(b, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, 0, 512);
}

static void no_room_for_header_or_status(void **state)
{
	const gpa_t at = BR_DATA;
	const struct virtq_buffer no_status[] = {{at, 16, false}},
				  short_header[] = {{at, 15, false}, {at + 64, 1, true}},
				  no_header[] = {{at, 513, true}}, a_byte[] = {{at, 1, false}},
				  pieces[] = {{at, 8, false}, {at + 8, 7, false}, {at + 64, 512, true}, {at, 1, true}};
	struct br *b = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		b->packed = kind;
		check_breaks(b, no_status, 1);
		check_breaks(b, short_header, 2);
		check_breaks(b, no_header, 1);
		check_breaks(b, a_byte, 1);
		check_breaks(b, pieces, 4);
	}
}

/* The header is read once: what the driver makes of it afterwards changes nothing. */
static void the_header_is_private(void **state)
{
	struct br *b = *state;
	b->disk->holds = true;
	br_start(b);
	unsigned slot = br_request(b, 0, VIRTIO_BLK_T_OUT, 9, BR_DATA, 512);
	br_ring(b, 0);
	br_settle(b);
	memset(b->ram + br_slot(slot), 0xff, sizeof(struct virtio_blk_outhdr));
	memset(b->ram + BR_DATA, 0x77, 512); /* the data are not */
	br_complete(b->disk, 0, 0);
	assert_int_equal(br_wait(b, 0).status, VIRTIO_BLK_S_OK);
	assert_int_equal(b->disk->bytes[9 * 512], 0x77);
}

static void errors_of_the_disk(void **state)
{
	static const int errors[] = {-EIO, -ENOSPC, -ECANCELED, -EROFS, -ENOMEM, -EINVAL, -ETIMEDOUT, -ENOTSUP};
	struct br *b = *state;
	br_start(b);
	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
		uint8_t status = errors[i] == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
		b->disk->result = errors[i];
		br_expect(b, status, VIRTIO_BLK_T_IN, 0, 512);
		br_expect(b, status, VIRTIO_BLK_T_OUT, 0, 512);
		br_expect(b, status, VIRTIO_BLK_T_FLUSH, 0, 0);
		assert_int_equal(do_range(b, VIRTIO_BLK_T_DISCARD, 0, 1, 0), status);
	}
	assert_false(br_status(b) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, br_setup, br_teardown)
	const struct CMUnitTest tests[] = {
		TEST(data_goes_there_and_back),
		TEST(framing_is_the_drivers_business),
		TEST(requests_without_data),
		TEST(sizes_that_are_no_sectors),
		TEST(sectors_beyond_the_end),
		TEST(discards_and_zeroes),
		TEST(range_counts),
		TEST(a_disk_that_cannot),
		TEST(read_only),
		TEST(unknown_types),
		TEST(the_serial_number),
		TEST(no_room_for_header_or_status),
		TEST(the_header_is_private),
		TEST(errors_of_the_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
