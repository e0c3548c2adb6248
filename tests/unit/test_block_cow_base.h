/* A base for overlays under test: its contents are a function of the place, its answers come late and in any order. */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "util.h"

struct fake_base {
	struct block block;
	struct block_request *queue;
	struct loop_task task;
	uint32_t random;
	bool hold;       /* answer nothing */
	int read_error;  /* answer this */
	unsigned reads;  /* requests that came */
	unsigned others; /* that should never come */
	unsigned cancels;
	bool *ret_freed;
};

static inline uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

/* What a sector holds that generation `generation` has written; 0: the base's. */
static inline void fill_sector(uint8_t *sector, uint64_t number, uint64_t generation)
{
	uint64_t word = (number << 24 ^ generation) * 0x9e3779b97f4a7c15 | 1;
	for (unsigned i = 0; i < BLOCK_SECTOR_BYTES; i += sizeof(word)) {
		memcpy(sector + i, &word, sizeof(word));
		word = word * 6364136223846793005 + 1442695040888963407;
	}
}

static inline void fill_sectors(uint8_t *data, uint64_t first, uint64_t count, uint64_t generation)
{
	for (uint64_t i = 0; i < count; i++)
		fill_sector(data + i * BLOCK_SECTOR_BYTES, first + i, generation);
}

static inline void fake_answer(struct fake_base *base, struct block_request *request)
{
	uint8_t *data = malloc(request->size_bytes);
	fill_sectors(data, request->offset_bytes / BLOCK_SECTOR_BYTES, request->size_bytes / BLOCK_SECTOR_BYTES, 0);
	size_t at = 0;
	for (unsigned i = 0; i < request->iov_count; at += request->iov[i++].iov_len)
		memcpy(request->iov[i].iov_base, data + at, request->iov[i].iov_len);
	free(data);
	block_complete(request, base->read_error);
}

/* About half of them now, the others in a later round. */
static inline void fake_run(struct loop_task *task)
{
	struct fake_base *base = container_of(task, struct fake_base, task);
	struct block_request *request = base->queue;
	base->queue = NULL;
	while (request) {
		struct block_request *next = request->next;
		if (base->hold || next_random(&base->random) % 2) {
			request->next = base->queue;
			base->queue = request;
		} else {
			fake_answer(base, request);
		}
		request = next;
	}
	if (base->queue && !base->hold)
		loop_post(base->block.loop, &base->task);
}

static inline void fake_submit(struct block *block, struct block_request *request)
{
	struct fake_base *base = container_of(block, struct fake_base, block);
	if (request->op != BLOCK_READ) {
		base->others++;
		block_complete_later(request, -EIO);
		return;
	}
	base->reads++;
	request->next = base->queue;
	base->queue = request;
	loop_post(block->loop, &base->task);
}

/* Ends it on the spot, which a back end may. */
static inline void fake_cancel(struct block *block, struct block_request *request)
{
	struct fake_base *base = container_of(block, struct fake_base, block);
	base->cancels++;
	for (struct block_request **at = &base->queue; *at; at = &(*at)->next) {
		if (*at != request)
			continue;
		*at = request->next;
		block_complete(request, -ECANCELED);
		return;
	}
}

static inline void fake_destroy(struct block *block)
{
	struct fake_base *base = container_of(block, struct fake_base, block);
	if (base->ret_freed)
		*base->ret_freed = true;
	loop_unpost(block->loop, &base->task);
	free(base);
}

static inline struct fake_base *fake_base_new(struct loop *loop, uint64_t size_bytes, uint32_t block_size_bytes)
{
	static const struct block_ops OPS = {
		.name = "fake", .submit = fake_submit, .cancel = fake_cancel, .destroy = fake_destroy};
	struct fake_base *base = calloc(1, sizeof(*base));
	block_init(&base->block, &OPS, loop);
	base->task.fn = fake_run;
	base->random = 1;
	base->block.info = (struct block_info){
		.size_bytes = size_bytes,
		.block_size_bytes = block_size_bytes,
		.physical_block_bytes = block_size_bytes,
		.read_only = true,
	};
	return base;
}
