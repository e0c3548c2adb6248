/*
 * Who fills which clusters of an overlay: a list of ranges in the order of their arrival. A range is granted when no
 * earlier one overlaps it; so two writes never copy up the same cluster at the same time, and nobody starves.
 *
 * Everything here is for the block's loop thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Embedded in its owner, who fills first, end and granted. */
struct cow_lock {
	uint64_t first, end;                    /* clusters; end is not part of it */
	void (*granted)(struct cow_lock *lock); /* not called when cow_lock_take said true. It releases no lock. */
	unsigned blockers;                      /* earlier ranges that overlap; private, as are: */
	struct cow_lock *next, *prev;
};

struct cow_locks {
	struct cow_lock *head, *tail;
};

/* Queue it. True: it is granted at once; false: `granted` will be called. */
bool cow_lock_take(struct cow_locks *locks, struct cow_lock *lock);

/* Leave, granted or not. Calls `granted` of who waited for this one alone. */
void cow_lock_release(struct cow_locks *locks, struct cow_lock *lock);
