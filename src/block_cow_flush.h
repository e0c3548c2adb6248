/*
 * The flushes of a copy-on-write overlay: data, then map, then done.
 *
 * Those that come while one is under way are served together by the next. Of an unlinked overlay nothing outlives the
 * VM, so a flush of it does nothing. Everything here is for the block's loop thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "block.h"
#include "block_cow_map.h"
#include "loop.h"

struct cow_flush {
	struct loop *loop;
	struct cow_map *map;
	bool unsafe; /* hand the map to the host's cache, and do not wait for its disk */
	int file;    /* for loop operations; filled by the caller before the first flush */

	/* Private. */
	struct block_request *waiting_head, **waiting_tail;
	struct block_request *running; /* those that the round under way is for */
	struct loop_task task;         /* begins the next one */
	struct loop_op op;
	struct loop_task retry_task; /* when the ring was full */
	struct cow_map_run run;      /* what is left to write of a piece of the map */
	int broken;                  /* -errno for good: the host has lost data that it had taken */
};

void cow_flush_init(struct cow_flush *flush, struct loop *loop, struct cow_map *map, bool unsafe);

/* Nothing of it is in flight. */
void cow_flush_fini(struct cow_flush *flush);

/* Ends by block_complete, later. */
void cow_flush_submit(struct cow_flush *flush, struct block_request *request);
