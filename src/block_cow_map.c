#include "block_cow_map.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block_cow_file.h"
#include "fd.h"
#include "util.h"

static const char DEFAULT_DIR[] = "/var/tmp";

enum { WORD_CLUSTERS = 64 };

/* --- bits --------------------------------------------------------------------------------------------------- */

bool cow_map_is_written(const struct cow_map *map, uint64_t cluster)
{
	return map->bits[cluster / CHAR_BIT] >> cluster % CHAR_BIT & 1;
}

uint64_t cow_map_run(const struct cow_map *map, uint64_t first, uint64_t limit)
{
	bool written = cow_map_is_written(map, first);
	uint64_t alike = written ? UINT64_MAX : 0;
	uint64_t run = 1;
	while (run < limit) {
		uint64_t at = first + run;
		uint64_t word;
		if (at % WORD_CLUSTERS == 0 && limit - run >= WORD_CLUSTERS) {
			memcpy(&word, map->bits + at / CHAR_BIT, sizeof(word));
			if (word == alike) {
				run += WORD_CLUSTERS;
				continue;
			}
		}
		if (cow_map_is_written(map, at) != written)
			break;
		run++;
	}
	return run;
}

static void mark_dirty(struct cow_map *map, uint64_t first, uint64_t end)
{
	uint64_t bits_per_block = COW_MAP_BLOCK_BYTES * (uint64_t)CHAR_BIT;
	uint64_t first_block = first / bits_per_block;
	uint64_t last_block = (end - 1) / bits_per_block;
	memset(map->dirty + first_block, true, last_block - first_block + 1);
}

void cow_map_set(struct cow_map *map, uint64_t first, uint64_t end)
{
	if (first == end)
		return;
	mark_dirty(map, first, end);
	for (; first < end && first % CHAR_BIT; first++)
		map->bits[first / CHAR_BIT] |= (uint8_t)(1U << first % CHAR_BIT);
	uint64_t whole = align_down(end - first, CHAR_BIT);
	memset(map->bits + first / CHAR_BIT, 0xff, whole / CHAR_BIT);
	for (first += whole; first < end; first++)
		map->bits[first / CHAR_BIT] |= (uint8_t)(1U << first % CHAR_BIT);
}

/* --- writing it out ------------------------------------------------------------------------------------------- */

void cow_map_rewind(struct cow_map *map)
{
	map->snapshot_from = 0;
}

size_t cow_map_snapshot(struct cow_map *map)
{
	map->snapshot_count = map->snapshot_used = 0;
	size_t block = map->snapshot_from;
	while (block < map->block_count && map->snapshot_count < COW_SNAPSHOT_BLOCKS) {
		bool *found = memchr(map->dirty + block, 1, map->block_count - block);
		if (!found) {
			block = map->block_count;
			break;
		}
		block = (size_t)(found - map->dirty);
		memcpy(map->snapshot + map->snapshot_count * COW_MAP_BLOCK_BYTES,
		       map->bits + block * COW_MAP_BLOCK_BYTES, COW_MAP_BLOCK_BYTES);
		map->snapshot_blocks[map->snapshot_count++] = block;
		*found = false;
		block++;
	}
	map->snapshot_from = block;
	return map->snapshot_count;
}

bool cow_map_next_run(struct cow_map *map, struct cow_map_run *ret_run)
{
	size_t first = map->snapshot_used;
	if (first == map->snapshot_count)
		return false;
	size_t end = first + 1;
	while (end < map->snapshot_count && map->snapshot_blocks[end] == map->snapshot_blocks[end - 1] + 1)
		end++;
	map->snapshot_used = end;
	*ret_run = (struct cow_map_run){
		.data = map->snapshot + first * COW_MAP_BLOCK_BYTES,
		.size_bytes = (end - first) * COW_MAP_BLOCK_BYTES,
		.offset_bytes = COW_HEADER_BYTES + map->snapshot_blocks[first] * COW_MAP_BLOCK_BYTES,
	};
	return true;
}

void cow_map_snapshot_lost(struct cow_map *map)
{
	for (size_t i = 0; i < map->snapshot_count; i++)
		map->dirty[map->snapshot_blocks[i]] = true;
	map->snapshot_count = map->snapshot_used = 0;
}

static int write_run(int fd, struct cow_map_run run)
{
	while (run.size_bytes) {
		ssize_t n = pwrite(fd, run.data, run.size_bytes, (off_t)run.offset_bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		run.data += n;
		run.size_bytes -= (size_t)n;
		run.offset_bytes += (uint64_t)n;
	}
	return 0;
}

/* The order is everything: the data, then the bits that speak of it, and these are stable in the end too. */
int cow_map_store(struct cow_map *map, bool sync)
{
	cow_map_rewind(map);
	for (;;) {
		size_t count = cow_map_snapshot(map);
		int r = sync && fdatasync(map->fd) < 0 ? -errno : 0;
		struct cow_map_run run;
		while (r == 0 && cow_map_next_run(map, &run))
			r = write_run(map->fd, run);
		if (r < 0)
			cow_map_snapshot_lost(map);
		if (r < 0 || count == 0)
			return r;
	}
}

/* --- opening -------------------------------------------------------------------------------------------------- */

/* Only what the file holds: the map of a big disk is mostly holes, and a page that is not touched costs nothing. */
static int load_bits(struct cow_map *map, const struct cow_layout *layout)
{
	off_t end = (off_t)(COW_HEADER_BYTES + layout->map_bytes);
	off_t at = COW_HEADER_BYTES;
	while (at < end) {
		off_t data = lseek(map->fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0)
			return -errno;
		off_t hole = lseek(map->fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		if (hole > end)
			hole = end;
		if (data >= hole)
			return 0;
		int r = fd_pread_all(map->fd, map->bits + (data - COW_HEADER_BYTES), (size_t)(hole - data),
				     (uint64_t)data);
		if (r < 0)
			return r;
		at = hole;
	}
	return 0;
}

static int alloc_map(struct cow_map *map, const struct cow_layout *layout)
{
	map->block_count = layout->map_bytes / COW_MAP_BLOCK_BYTES;
	map->bits = calloc(map->block_count + 1, COW_MAP_BLOCK_BYTES);
	map->dirty = calloc(map->block_count + 1, sizeof(*map->dirty));
	if (!map->bits || !map->dirty)
		return -ENOMEM;
	if (!map->named)
		return 0;
	size_t room = min_u64(map->block_count, COW_SNAPSHOT_BLOCKS) + 1;
	map->snapshot = calloc(room, COW_MAP_BLOCK_BYTES);
	map->snapshot_blocks = calloc(room, sizeof(*map->snapshot_blocks));
	return map->snapshot && map->snapshot_blocks ? 0 : -ENOMEM;
}

/* Behind the end, where nothing is lost by trying. */
static bool can_punch(int fd, const struct cow_layout *layout)
{
	off_t behind = (off_t)align_up(layout->file_bytes, COW_CLUSTER_BYTES);
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, COW_CLUSTER_BYTES) == 0;
}

int cow_map_open(struct cow_map *map, const struct block_cow_config *config, uint64_t disk_bytes, const struct log *log,
		 struct err *err)
{
	*map = (struct cow_map){.fd = -1, .named = config->path, .disk_bytes = disk_bytes};
	const char *name = config->path ? config->path : "(unlinked)";
	struct cow_layout layout;
	int r = cow_layout_init(&layout, disk_bytes);
	if (r < 0)
		return err_set(err, r, "overlay '%s': %s", name, err_name(r));
	r = alloc_map(map, &layout);
	if (r < 0)
		return err_set(err, r, "overlay '%s': %s", name, err_name(r));
	map->data_offset_bytes = layout.data_offset_bytes;

	if (config->path)
		map->fd = cow_file_open(config->path, &layout, log, err);
	else
		map->fd = cow_file_make_unlinked(config->dir ? config->dir : DEFAULT_DIR, &layout, err);
	if (map->fd < 0)
		return map->fd;
	r = map->named ? load_bits(map, &layout) : 0;
	if (r < 0)
		return err_set(err, r, "overlay '%s': read its map: %s", name, err_name(r));
	map->can_punch = can_punch(map->fd, &layout);
	return 0;
}

void cow_map_close(struct cow_map *map)
{
	fd_close(&map->fd);
	free(map->bits);
	free(map->dirty);
	free(map->snapshot);
	free(map->snapshot_blocks);
	*map = (struct cow_map){.fd = -1};
}
