/*
 * The file of a copy-on-write overlay, and the map of what has been written to it: one bit per cluster of 4 KiB.
 *
 * Format of a named overlay, version 1. Little-endian; everything that is not named is 0.
 *
 *        0  magic "vmletcow"
 *        8  u32 version: 1
 *       12  u32 cluster size in bytes: 4096
 *       16  u64 size of the disk in bytes, which is that of the base
 *       24  u64 offset of the map: 4096
 *       32  u64 offset of the data: the end of the map, rounded up to 64 KiB
 *       40  u64 flags: 0
 *       48  u64 checksum: FNV-1a (64 bits) of bytes 0 to 47
 *     4096  the map, in blocks of 4096 bytes: cluster n is bit n % 8 of byte n / 8; 1: it is in this file
 *     data  the disk: its byte x is at data + x. Sparse; what is not in the map means nothing.
 *
 * A bit is written only after the data it speaks of is stable, and it is never taken back. So whatever moment a crash
 * chooses, the map that it leaves points at written clusters only. An unlinked overlay has the same layout, but its
 * header and map exist in memory only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block.h"

enum {
	COW_CLUSTER_BYTES = 4096,
	COW_MAP_BLOCK_BYTES = 4096,
	COW_SNAPSHOT_BLOCKS = 1024, /* written in one go: the map of 128 GiB */
};

struct cow_map {
	int fd;
	bool named;
	bool can_punch; /* holes can be made in the file */
	uint64_t disk_bytes;
	uint64_t data_offset_bytes;
	uint8_t *bits; /* whole map blocks */
	size_t block_count;
	bool *dirty; /* per map block: has bits that the file has not */

	/* Map blocks as they were when the data was about to be made stable. Named overlays only. */
	uint8_t *snapshot;
	size_t *snapshot_blocks; /* their numbers, ascending */
	size_t snapshot_count;
	size_t snapshot_used; /* handed out by cow_map_next_run */
	size_t snapshot_from; /* where the next one goes on looking */
};

/* A piece of the map, to be written to the file. */
struct cow_map_run {
	const uint8_t *data;
	size_t size_bytes;
	uint64_t offset_bytes;
};

/*
 * Make or open the file for a disk of disk_bytes. 0, or -errno with a sentence; cow_map_close in either case. The data
 * of a named file that is new is stable when this returns. [setup]
 */
int cow_map_open(struct cow_map *map, const struct block_cow_config *config, uint64_t disk_bytes, const struct log *log,
		 struct err *err);
void cow_map_close(struct cow_map *map);

/* Write the map out, waiting for the host; `sync`: it and the data are stable then. 0 or -errno. [loop] */
int cow_map_store(struct cow_map *map, bool sync);

bool cow_map_is_written(const struct cow_map *map, uint64_t cluster);

/* How many clusters from `first` on, at most `limit` (> 0), are as that one is: in the file, or not. */
uint64_t cow_map_run(const struct cow_map *map, uint64_t first, uint64_t limit);

/* [first, end) is in the file now. */
void cow_map_set(struct cow_map *map, uint64_t first, uint64_t end);

/*
 * Writing the map out. cow_map_rewind; then, until it returns 0: cow_map_snapshot takes a copy of the next dirty
 * blocks, at most COW_SNAPSHOT_BLOCKS, and calls them clean; make the data stable; write every run. When something
 * fails, cow_map_snapshot_lost makes them dirty again. Blocks that get dirty behind it wait for the next rewind: so it
 * ends.
 */
void cow_map_rewind(struct cow_map *map);
size_t cow_map_snapshot(struct cow_map *map);
bool cow_map_next_run(struct cow_map *map, struct cow_map_run *ret_run);
void cow_map_snapshot_lost(struct cow_map *map);
