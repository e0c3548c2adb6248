/* One queue and its driver in a little RAM: [0, 1M) and [1M, 2M) touch, then a hole, then [4M, 4M + 64K). */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h> /* cmocka wants these before it */

#include <cmocka.h>

#include "virtq_driver.h"

enum {
	FIXTURE_SEAM = 0x100000,
	FIXTURE_HOLE = 0x200000,
	FIXTURE_HIGH = 0x400000,
	FIXTURE_END = 0x410000,
	FIXTURE_RINGS = 0x10000, /* the driver's memory */
	FIXTURE_DATA = 0x80000,
};

struct fixture {
	struct gmem *gmem;
	struct virtq_driver driver;
	struct virtq *q;
};

static inline void fixture_init(struct fixture *f, const struct virtq_config *config)
{
	const struct gmem_region regions[] = {
		{0, FIXTURE_SEAM, NULL},
		{FIXTURE_SEAM, FIXTURE_HOLE - FIXTURE_SEAM, NULL},
		{FIXTURE_HIGH, FIXTURE_END - FIXTURE_HIGH, NULL},
	};
	f->gmem = gmem_new(regions, ARRAY_SIZE(regions), NULL);
	assert_non_null(f->gmem);
	virtq_driver_init(&f->driver, f->gmem, FIXTURE_RINGS, config);
	f->q = virtq_new(f->gmem, &f->driver.config, NULL);
	assert_non_null(f->q);
}

static inline void fixture_fini(struct fixture *f)
{
	virtq_free(f->q);
	gmem_free(f->gmem);
	f->q = NULL;
	f->gmem = NULL;
}

static inline void fixture_again(struct fixture *f, const struct virtq_config *config)
{
	fixture_fini(f);
	fixture_init(f, config);
}

/* A readable buffer of `size_bytes`. */
static inline int fixture_add(struct fixture *f, uint32_t size_bytes)
{
	const struct virtq_buffer buffer = {FIXTURE_DATA, size_bytes, false};
	return virtq_driver_add(&f->driver, &buffer, 1);
}

/* One chain there and back. */
static inline void fixture_turn(struct fixture *f)
{
	struct virtq_chain chain;
	uint16_t id;
	uint32_t written;
	int sent = fixture_add(f, 1);
	assert_true(sent >= 0);
	assert_int_equal(virtq_pop(f->q, &chain), 1);
	assert_int_equal(chain.id, sent);
	virtq_push(f->q, chain.id, chain.descriptors, 0);
	assert_true(virtq_driver_take(&f->driver, &id, &written));
	assert_int_equal(id, sent);
}

static inline bool fixture_same_chain(const struct virtq_chain *a, const struct virtq_chain *b)
{
	return a->id == b->id && a->descriptors == b->descriptors && a->out_count == b->out_count &&
	       a->in_count == b->in_count && a->out_bytes == b->out_bytes && a->in_bytes == b->in_bytes;
}

/* The ring is broken, says so with these words, and stays so. */
static inline void fixture_expect_broken(struct fixture *f, const char *words)
{
	struct virtq_chain chain = {.id = 0x5a5a}, untouched = chain;
	assert_string_equal(virtq_error(f->q), "");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(virtq_pop(f->q, &chain), -EPROTO);
		assert_true(fixture_same_chain(&chain, &untouched));
	}
	if (!strstr(virtq_error(f->q), words))
		fail_msg("'%s' instead of '%s'", virtq_error(f->q), words);
	virtq_disable_doorbell(f->q);
	assert_false(virtq_enable_doorbell(f->q));
}
