/*
 * Writes numbered records to a disk, says when they are flushed, and checks later that what it said is true:
 *
 *	flushed fill FILE BYTES      makes an image in which no record is written yet
 *	flushed write DEVICE LAST    writes the records after LAST for ever; "flushed DEVICE N": up to N they are safe
 *	flushed verify DEVICE LAST   the records up to LAST are there, and nothing but records is
 *
 * See guests/records.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../guests/records.h"

static uint64_t buffer[SLOT_SECTORS][SECTOR / 8] __attribute__((aligned(4096)));

static _Noreturn void fail(const char *what, const char *path)
{
	fprintf(stderr, "flushed: %s '%s': %s\n", what, path, strerror(errno));
	exit(1);
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
			record_fill(buffer[i], RECORD_EMPTY, slot * SLOT_SECTORS + i);
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
		record_fill(buffer[i], record, first + i);
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
		for (unsigned batch = record_batch(record); batch > 0; batch--)
			write_record(fd, path, ++record, slots);
		if (fdatasync(fd))
			fail("flush", path);
		/* One write, so that two of us do not mix. */
		dprintf(STDOUT_FILENO, "flushed %s %" PRIu64 "\n", path, record);
	}
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
		uint64_t oldest = record_newest(slot, last, slots);

		if (pread(fd, buffer, SLOT, (off_t)(slot * SLOT)) != SLOT)
			fail("read", path);
		for (unsigned i = 0; i < SLOT_SECTORS; i++) {
			if (record_is_right(buffer[i], slot, i, oldest, slots))
				continue;
			if (wrong++ < 10)
				printf("wrong %s slot %" PRIu64 " sector %u record %" PRIx64 " oldest %" PRIu64 "\n",
				       path, slot, i, buffer[i][0], oldest);
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
