/*
 * Numbered records on a disk, for tests that kill the machine: what was flushed must be there afterwards.
 *
 * Each slot of 16 sectors has a place for one record of 1 to 16 sectors; record N goes to slot N * STRIDE modulo the
 * slots, so that records are scattered and overwrite older ones. Every sector tells its record and its place. A record
 * after the last that is known to be flushed may be there, in part even: it was being written when the machine died.
 */
#ifndef RECORDS_H
#define RECORDS_H

#include <stdbool.h>
#include <stdint.h>

enum { SECTOR = 512, SLOT_SECTORS = 16, SLOT = SLOT_SECTORS * SECTOR, STRIDE = 7919, BATCH_MAX = 8 };

#define RECORD_EMPTY UINT64_MAX /* in a sector that no record was written to */

static inline uint64_t record_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static inline unsigned record_sectors(uint64_t slot)
{
	return 1 + record_mix(slot + 1) % SLOT_SECTORS;
}

static inline unsigned record_start(uint64_t slot)
{
	return (unsigned)(record_mix(slot + 1) >> 32) % (SLOT_SECTORS + 1 - record_sectors(slot));
}

/* How many records are written before the flush after this one. */
static inline unsigned record_batch(uint64_t record)
{
	return 1 + record_mix(record) % BATCH_MAX;
}

static inline void record_fill(uint64_t *words, uint64_t record, uint64_t sector)
{
	uint64_t word = record_mix(record) ^ record_mix(sector + 12345);

	words[0] = record;
	for (unsigned i = 1; i < SECTOR / 8; i++)
		words[i] = word = record_mix(word + i);
}

/* The newest of the records 1 to last that go to this slot, 0 if none does. */
static inline uint64_t record_newest(uint64_t slot, uint64_t last, uint64_t slots)
{
	for (uint64_t back = 0; back < slots && back < last; back++) {
		if ((last - back) * STRIDE % slots == slot)
			return last - back;
	}
	return 0;
}

/* Whether a sector of a slot is as it must be when `oldest` is record_newest(). */
static inline bool record_is_right(const uint64_t *words, uint64_t slot, unsigned sector, uint64_t oldest,
				   uint64_t slots)
{
	bool inside = sector >= record_start(slot) && sector < record_start(slot) + record_sectors(slot);
	uint64_t wanted[SECTOR / 8];

	record_fill(wanted, words[0], slot * SLOT_SECTORS + sector);
	for (unsigned i = 0; i < SECTOR / 8; i++) {
		if (words[i] != wanted[i])
			return false;
	}
	if (words[0] == RECORD_EMPTY)
		return !inside || oldest == 0;
	return inside && words[0] >= oldest && words[0] * STRIDE % slots == slot;
}

#endif
