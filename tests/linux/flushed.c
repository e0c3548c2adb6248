/*
 * Writes numbered records to a disk, says when they are flushed, and checks later that what it said is true:
 *
 *	flushed fill FILE BYTES      makes an image in which no record is written yet
 *	flushed write DEVICE LAST    writes the records after LAST for ever; "flushed DEVICE N": all up to N are on the
 *disk flushed verify DEVICE LAST   the records up to LAST are there, and nothing but records is
 *
 * Each slot of 16 sectors has a place for one record of 1 to 16 sectors; record N goes to slot N * STRIDE modulo the
 * slots, so that records are scattered and overwrite older ones. Every sector tells its record and its place. A record
 * after LAST may be there, in part even: it was being written when the machine died.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR = 512, SLOT_SECTORS = 16, SLOT = SLOT_SECTORS * SECTOR, STRIDE = 7919, BATCH_MAX = 8 };

static const uint64_t EMPTY = UINT64_MAX;

static uint8_t buffer[SLOT] __attribute__((aligned(4096)));

static _Noreturn void fail(const char *what, const char *path)
{
	fprintf(stderr, "flushed: %s '%s': %s\n", what, path, strerror(errno));
	exit(1);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static unsigned record_sectors(uint64_t slot)
{
	return 1 + mix(slot + 1) % SLOT_SECTORS;
}

static unsigned record_start(uint64_t slot)
{
	return (unsigned)(mix(slot + 1) >> 32) % (SLOT_SECTORS + 1 - record_sectors(slot));
}

static void fill_sector(uint8_t *data, uint64_t record, uint64_t sector)
{
	uint64_t word = mix(record) ^ mix(sector + 12345);

	memcpy(data, &record, sizeof(record));
	for (unsigned at = sizeof(record); at < SECTOR; at += sizeof(word)) {
		word = mix(word + at);
		memcpy(data + at, &word, sizeof(word));
	}
}

static uint64_t disk_slots(int fd)
{
	off_t bytes = lseek(fd, 0, SEEK_END);

	return (uint64_t)bytes / SLOT;
}

static int fill(const char *path, uint64_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		fail("open", path);
	for (uint64_t slot = 0; slot < bytes / SLOT; slot++) {
		for (unsigned i = 0; i < SLOT_SECTORS; i++)
			fill_sector(buffer + i * SECTOR, EMPTY, slot * SLOT_SECTORS + i);
		if (pwrite(fd, buffer, SLOT, (off_t)(slot * SLOT)) != SLOT)
			fail("write", path);
	}
	return close(fd);
}

static void write_record(int fd, const char *path, uint64_t record, uint64_t slots)
{
	uint64_t slot = record * STRIDE % slots;
	uint64_t first = slot * SLOT_SECTORS + record_start(slot);
	ssize_t bytes = record_sectors(slot) * SECTOR;

	for (unsigned i = 0; i < record_sectors(slot); i++)
		fill_sector(buffer + i * SECTOR, record, first + i);
	if (pwrite(fd, buffer, (size_t)bytes, (off_t)(first * SECTOR)) != bytes)
		fail("write", path);
}

static _Noreturn void write_forever(const char *path, uint64_t record)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	uint64_t slots;

	if (fd < 0)
		fail("open", path);
	slots = disk_slots(fd);
	for (;;) {
		for (unsigned batch = 1 + mix(record) % BATCH_MAX; batch > 0; batch--)
			write_record(fd, path, ++record, slots);
		if (fdatasync(fd))
			fail("flush", path);
		/* One write, so that two of us do not mix. */
		dprintf(STDOUT_FILENO, "flushed %s %" PRIu64 "\n", path, record);
	}
}

/* The newest of the records 1 to last that go to this slot, 0 if none does. */
static uint64_t newest(uint64_t slot, uint64_t last, uint64_t slots)
{
	for (uint64_t back = 0; back < slots && back < last; back++) {
		if ((last - back) * STRIDE % slots == slot)
			return last - back;
	}
	return 0;
}

static bool sector_is_right(const uint8_t *data, uint64_t slot, unsigned sector, uint64_t oldest, uint64_t slots)
{
	uint8_t wanted[SECTOR];
	uint64_t record;
	bool inside = sector >= record_start(slot) && sector < record_start(slot) + record_sectors(slot);

	memcpy(&record, data, sizeof(record));
	fill_sector(wanted, record, slot * SLOT_SECTORS + sector);
	if (memcmp(data, wanted, SECTOR) != 0)
		return false;
	if (record == EMPTY)
		return !inside || oldest == 0;
	return inside && record >= oldest && record * STRIDE % slots == slot;
}

static int verify(const char *path, uint64_t last)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t slots;
	unsigned wrong = 0;

	if (fd < 0)
		fail("open", path);
	slots = disk_slots(fd);
	for (uint64_t slot = 0; slot < slots; slot++) {
		uint64_t oldest = newest(slot, last, slots);

		if (pread(fd, buffer, SLOT, (off_t)(slot * SLOT)) != SLOT)
			fail("read", path);
		for (unsigned i = 0; i < SLOT_SECTORS; i++) {
			uint64_t record;

			if (sector_is_right(buffer + i * SECTOR, slot, i, oldest, slots))
				continue;
			memcpy(&record, buffer + i * SECTOR, sizeof(record));
			if (wrong++ < 10)
				printf("wrong %s slot %" PRIu64 " sector %u record %" PRIx64 " oldest %" PRIu64 "\n",
				       path, slot, i, record, oldest);
		}
	}
	printf("verified %s %" PRIu64 " wrong %u\n", path, last, wrong);
	close(fd);
	return wrong ? 1 : 0;
}

int main(int argc, char **argv)
{
	uint64_t number = argc == 4 ? strtoull(argv[3], NULL, 0) : 0;

	if (argc == 4 && !strcmp(argv[1], "fill"))
		return fill(argv[2], number);
	if (argc == 4 && !strcmp(argv[1], "write"))
		write_forever(argv[2], number);
	if (argc == 4 && !strcmp(argv[1], "verify"))
		return verify(argv[2], number);
	fprintf(stderr, "flushed fill FILE BYTES | write DEVICE LAST | verify DEVICE LAST\n");
	return 2;
}
