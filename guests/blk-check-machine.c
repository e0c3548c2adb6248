/* blk-check: what takes the monitor's part too: a disk that changes its size, a reboot, resets without an end. */
#include "blk-check.h"

enum { RESIZE_MS = 20000, STORM_READS = 8 };

static uint8_t storm_data[STORM_READS][CHUNK] __attribute__((aligned(4096)));

/* After the line `resize now` the monitor makes the disk resize-to=N sectors. */
void check_resize(void)
{
	uint64_t want = arg_u64("resize-to", 0), now = blk.sectors;

	print("resize now\n");
	for (unsigned ms = 0; ms < RESIZE_MS && now != want; ms++) {
		clock_delay_us(1000);
		now = virtio_config(&blk.dev, offsetof(struct virtio_blk_config, capacity), 8);
	}
	check(now == want, STATUS_RESIZE, "the capacity is %lu sectors", now);
	check(blk_do(&blk, VIRTIO_BLK_T_IN, want - 1, chunk, BLK_SECTOR) == VIRTIO_BLK_S_OK, STATUS_RESIZE + 1,
	      "the last sector can be read");
	check(blk_do(&blk, VIRTIO_BLK_T_IN, want, chunk, BLK_SECTOR) == VIRTIO_BLK_S_IOERR, STATUS_RESIZE + 2,
	      "the next cannot");
}

static void begin_reads(void)
{
	for (unsigned i = 0; i < STORM_READS; i++)
		blk_push(&blk, 1 + i, VIRTIO_BLK_T_IN, area_first, storm_data[i], CHUNK);
	blk_kick(&blk);
}

/* The first boot writes and resets the machine while reads are under way; the second finds what it wrote. */
void check_reboot(void)
{
	blk_do(&blk, VIRTIO_BLK_T_IN, area_first, chunk, CHUNK);
	if (pattern_is(chunk, area_first, CHUNK)) {
		check(true, STATUS_REBOOT, "after the reboot the disk has what was written before it");
		return;
	}
	pattern_fill(chunk, area_first, CHUNK);
	check(blk_do(&blk, VIRTIO_BLK_T_OUT, area_first, chunk, CHUNK) == VIRTIO_BLK_S_OK, STATUS_REBOOT + 1,
	      "written");
	begin_reads();
	outb(0x64, 0xfe);
	clock_delay_us(500000);
	check(false, STATUS_REBOOT + 2, "still running after the reset");
}

/* For ever: reads, and a reset of the device while they are under way. Prints `storm` before it begins. */
void check_storm(void)
{
	print("storm\n");
	for (;;) {
		begin_reads();
		check(virtio_reset(&blk.dev), STATUS_RESET, "reset with reads under way");
		restart(0, VIRTIO_NO_VECTOR);
	}
}
