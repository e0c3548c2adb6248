#include "block_cow_lock.h"

#include <assert.h>
#include <stddef.h>

static bool overlaps(const struct cow_lock *a, const struct cow_lock *b)
{
	return a->first < b->end && b->first < a->end;
}

bool cow_lock_take(struct cow_locks *locks, struct cow_lock *lock)
{
	lock->blockers = 0;
	for (const struct cow_lock *at = locks->head; at; at = at->next)
		lock->blockers += overlaps(at, lock);
	lock->next = NULL;
	lock->prev = locks->tail;
	if (locks->tail)
		locks->tail->next = lock;
	else
		locks->head = lock;
	locks->tail = lock;
	return lock->blockers == 0;
}

static void unlink_lock(struct cow_locks *locks, struct cow_lock *lock)
{
	if (lock->prev)
		lock->prev->next = lock->next;
	else
		locks->head = lock->next;
	if (lock->next)
		lock->next->prev = lock->prev;
	else
		locks->tail = lock->prev;
}

void cow_lock_release(struct cow_locks *locks, struct cow_lock *lock)
{
	unlink_lock(locks, lock);
	for (struct cow_lock *at = lock->next; at; at = at->next) {
		if (!overlaps(lock, at))
			continue;
		assert(at->blockers > 0);
		if (--at->blockers == 0)
			at->granted(at);
	}
}
