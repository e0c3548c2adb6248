#include "block.h"

#include <assert.h>
#include <errno.h>

#include "util.h"

enum { NOT_REFUSED = 1 }; /* block_request.refused of what the back end has */

/* --- the checks ---------------------------------------------------------------------------------------- */

static bool is_transfer(const struct block_request *request)
{
	return request->op == BLOCK_READ || request->op == BLOCK_WRITE;
}

/* By subtraction, so that nothing wraps whatever the lengths are. */
static bool iov_is_as_long(const struct iovec *iov, unsigned iov_count, uint64_t size_bytes)
{
	for (unsigned i = 0; i < iov_count; i++) {
		if (iov[i].iov_len > size_bytes)
			return false;
		size_bytes -= iov[i].iov_len;
	}
	return size_bytes == 0;
}

static int check_range(const struct block_info *info, const struct block_request *request)
{
	uint64_t unaligned = (request->offset_bytes | request->size_bytes) & (info->block_size_bytes - 1);
	if (unaligned || request->offset_bytes > info->size_bytes ||
	    request->size_bytes > info->size_bytes - request->offset_bytes)
		return -EINVAL;
	if (is_transfer(request) && !iov_is_as_long(request->iov, request->iov_count, request->size_bytes))
		return -EINVAL;
	return 0;
}

static int check_permission(const struct block_info *info, const struct block_request *request)
{
	switch (request->op) {
	case BLOCK_READ:
		return 0;
	case BLOCK_WRITE:
		return info->read_only ? -EROFS : 0;
	case BLOCK_FLUSH:
		return request->offset_bytes || request->size_bytes ? -EINVAL : 0;
	case BLOCK_DISCARD:
		return info->read_only ? -EROFS : info->discard_granularity_bytes ? 0 : -ENOTSUP;
	case BLOCK_WRITE_ZEROES:
		return info->read_only ? -EROFS : info->can_write_zeroes ? 0 : -ENOTSUP;
	}
	return -EINVAL;
}

/* --- the door ------------------------------------------------------------------------------------------ */

/* The list is detached first: a `done` may submit again, and the last one may free the block. */
static void end_refused(struct loop_task *task)
{
	struct block *block = container_of(task, struct block, refused_task);
	struct block_request *request = block->refused;
	block->refused = NULL;
	while (request) {
		struct block_request *next = request->next;
		block_complete(request, request->refused);
		request = next;
	}
}

void block_init(struct block *block, const struct block_ops *ops, struct loop *loop)
{
	block->ops = ops;
	block->loop = loop;
	block->in_flight = 0;
	block->refused = NULL;
	block->refused_task = (struct loop_task){.fn = end_refused};
}

/* `done` is never called from inside block_submit, or a device would find itself in its own middle. */
void block_complete_later(struct block_request *request, int res)
{
	struct block *block = request->block;
	request->refused = res;
	request->next = block->refused;
	block->refused = request;
	loop_defer(block->loop, &block->refused_task);
}

void block_submit(struct block *block, struct block_request *request)
{
	assert(!request->block && request->done);
	request->block = block;
	request->next = NULL;
	request->progress_bytes = 0;
	request->cookie = 0;
	request->cancelled = false;
	block->in_flight++;

	int r = check_permission(&block->info, request);
	if (r == 0)
		r = check_range(&block->info, request);
	if (r < 0 || (request->op != BLOCK_FLUSH && request->size_bytes == 0)) {
		block_complete_later(request, r);
		return;
	}
	request->refused = NOT_REFUSED;
	block->ops->submit(block, request);
}

void block_cancel(struct block *block, struct block_request *request)
{
	if (request->block != block || request->refused <= 0)
		return;
	request->cancelled = true;
	if (block->ops->cancel)
		block->ops->cancel(block, request);
}

void block_complete(struct block_request *request, int res)
{
	struct block *block = request->block;
	assert(block && block->in_flight && res <= 0);
	block->in_flight--;
	request->block = NULL;
	request->done(request, res);
}

int block_resize(struct block *block, struct err *err)
{
	if (!block->ops->resize)
		return err_config(err, -ENOTSUP, "a disk of type %s cannot change its size", block->ops->name);
	return block->ops->resize(block, err);
}

void block_free(struct block *block)
{
	if (!block)
		return;
	assert(block->in_flight == 0);
	block->ops->destroy(block);
}
