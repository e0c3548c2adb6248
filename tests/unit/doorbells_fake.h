/* A bus's accelerator that remembers which doorbells it was given. */
#pragma once

#include <assert.h>

#include "bus.h"

enum { FAKE_DOORBELLS_MAX = 8 };

struct fake_doorbells {
	struct bus_doorbell all[FAKE_DOORBELLS_MAX];
	unsigned count;
};

static inline int fake_doorbells_add(void *ctx, const struct bus_doorbell *doorbell)
{
	struct fake_doorbells *d = ctx;
	assert(d->count < FAKE_DOORBELLS_MAX);
	d->all[d->count++] = *doorbell;
	return 0;
}

static inline bool fake_doorbells_same(const struct bus_doorbell *a, const struct bus_doorbell *b)
{
	return a->addr == b->addr && a->size_bytes == b->size_bytes && a->has_value == b->has_value &&
	       a->value == b->value && a->eventfd == b->eventfd;
}

static inline void fake_doorbells_remove(void *ctx, const struct bus_doorbell *doorbell)
{
	struct fake_doorbells *d = ctx;
	unsigned i = 0;
	while (i < d->count && !fake_doorbells_same(&d->all[i], doorbell))
		i++;
	assert(i < d->count); /* one that was never added */
	d->all[i] = d->all[--d->count];
}

static const struct bus_doorbell_ops FAKE_DOORBELL_OPS = {fake_doorbells_add, fake_doorbells_remove};
