/*
 * Checks that the records up to last=N (0) are on the disk, then writes more for ever, or for records=N, and prints
 * "flushed N" after each flush. See records.h; the disk begins as `flushed fill` makes it (tests/linux/flushed.c).
 */
#include "blk.h"
#include "guest.h"
#include "records.h"

enum { STATUS_DISK = 1, STATUS_VERIFY, STATUS_WRITE, STATUS_FLUSH };

static struct blk blk;
static uint64_t buffer[BATCH_MAX][SLOT / 8] __attribute__((aligned(4096)));

static void verify(uint64_t last)
{
	uint64_t slots = blk.sectors / SLOT_SECTORS;
	unsigned wrong = 0;

	for (uint64_t slot = 0; slot < slots; slot++) {
		uint64_t oldest = record_newest(slot, last, slots);

		if (blk_do(&blk, VIRTIO_BLK_T_IN, slot * SLOT_SECTORS, buffer[0], SLOT) != VIRTIO_BLK_S_OK)
			check(false, STATUS_VERIFY, "reading slot %lu", slot);
		for (unsigned i = 0; i < SLOT_SECTORS; i++) {
			uint64_t *words = buffer[0] + i * (SECTOR / 8);

			if (record_is_right(words, slot, i, oldest, slots))
				continue;
			if (wrong++ < 10)
				print("slot %lu, sector %u: record %lu, should be %lu or later\n", slot, i, words[0],
				      oldest);
		}
	}
	check(wrong == 0, STATUS_VERIFY, "records up to %lu: %u sectors are wrong", last, wrong);
}

/* A batch is under way at once, but for records of one slot. */
static uint64_t write_batch(uint64_t record)
{
	uint64_t slots = blk.sectors / SLOT_SECTORS;
	unsigned count = record_batch(record);

	for (unsigned tag = 0; tag < count; tag++) {
		uint64_t slot = ++record * STRIDE % slots;
		uint64_t first = slot * SLOT_SECTORS + record_start(slot);

		for (unsigned i = 0; i < record_sectors(slot); i++)
			record_fill(buffer[tag] + i * (SECTOR / 8), record, first + i);
		if (!blk_push(&blk, tag, VIRTIO_BLK_T_OUT, first, buffer[tag], record_sectors(slot) * SECTOR))
			check(false, STATUS_WRITE, "no room for record %lu", record);
	}
	blk_kick(&blk);
	if (!blk_drain(&blk, count))
		check(false, STATUS_WRITE, "records up to %lu did not end", record);
	for (unsigned tag = 0; tag < count; tag++) {
		if (blk_status(tag) != VIRTIO_BLK_S_OK)
			check(false, STATUS_WRITE, "status %u before record %lu", blk_status(tag), record);
	}
	return record;
}

static void in_ring3(void)
{
	uint64_t record = arg_u64("last", 0), end = record + arg_u64("records", UINT64_MAX / 2);
	bool found = blk_open(&blk);

	check(found && blk_start(&blk, blk_features(), 0, VIRTIO_NO_VECTOR), STATUS_DISK, "a disk");
	verify(record);
	while (record < end) {
		record = write_batch(record);
		if (blk_do(&blk, VIRTIO_BLK_T_FLUSH, 0, NULL, 0) != VIRTIO_BLK_S_OK)
			check(false, STATUS_FLUSH, "a flush");
		print("flushed %lu\n", record);
	}
	guest_exit(0);
}

int guest_main(void)
{
	user_start(in_ring3, false);
}
