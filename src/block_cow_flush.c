#include "block_cow_flush.h"

#include <errno.h>

#include "util.h"

static void next_snapshot(struct cow_flush *flush);

/*
 * `flush` may be gone when the last of its requests is done, so it is not looked at after. Who waits keeps it alive.
 */
static void finish(struct cow_flush *flush, int res)
{
	struct block_request *request = flush->running;
	flush->running = NULL;
	if (flush->waiting_head)
		loop_defer(flush->loop, &flush->task);
	while (request) {
		struct block_request *next = request->next;
		block_complete(request, res);
		request = next;
	}
}

static void fail(struct cow_flush *flush, int res)
{
	cow_map_snapshot_lost(flush->map);
	finish(flush, res);
}

/* --- the map ------------------------------------------------------------------------------------------------ */

static void write_map(struct cow_flush *flush);

static void map_written(struct loop_op *op, int res)
{
	struct cow_flush *flush = container_of(op, struct cow_flush, op);
	if (res <= 0) {
		fail(flush, res < 0 ? res : -EIO);
		return;
	}
	flush->run.data += res;
	flush->run.size_bytes -= (size_t)res;
	flush->run.offset_bytes += (uint64_t)res;
	write_map(flush);
}

static void write_map(struct cow_flush *flush)
{
	struct cow_map_run *run = &flush->run;
	if (!run->size_bytes && !cow_map_next_run(flush->map, run)) {
		next_snapshot(flush);
		return;
	}
	flush->op.done = map_written;
	if (loop_write(flush->loop, &flush->op, flush->file, run->data, run->size_bytes, run->offset_bytes) < 0)
		loop_post(flush->loop, &flush->retry_task);
}

/* --- the data ----------------------------------------------------------------------------------------------- */

static void data_is_stable(struct cow_flush *flush)
{
	if (flush->map->snapshot_count == 0)
		finish(flush, 0);
	else
		write_map(flush);
}

/* After a failed fdatasync the host has forgotten which pages were dirty: asking again would get a false yes. */
static void synced(struct loop_op *op, int res)
{
	struct cow_flush *flush = container_of(op, struct cow_flush, op);
	if (res < 0) {
		flush->broken = res;
		fail(flush, res);
		return;
	}
	data_is_stable(flush);
}

static void sync_data(struct cow_flush *flush)
{
	flush->op.done = synced;
	if (loop_fdatasync(flush->loop, &flush->op, flush->file) < 0)
		loop_post(flush->loop, &flush->retry_task);
}

/*
 * The bits of writes that are done by now, then the data: what is made stable is at least what the bits speak of. The
 * last snapshot finds nothing, and its fdatasync is the one that makes the map stable.
 */
static void next_snapshot(struct cow_flush *flush)
{
	(void)cow_map_snapshot(flush->map);
	flush->run = (struct cow_map_run){0};
	if (flush->unsafe)
		data_is_stable(flush);
	else
		sync_data(flush);
}

static void retry(struct loop_task *task)
{
	struct cow_flush *flush = container_of(task, struct cow_flush, retry_task);
	if (flush->op.done == synced)
		sync_data(flush);
	else
		write_map(flush);
}

/* --- rounds ------------------------------------------------------------------------------------------------- */

static void begin(struct loop_task *task)
{
	struct cow_flush *flush = container_of(task, struct cow_flush, task);
	if (flush->running || !flush->waiting_head)
		return;
	flush->running = flush->waiting_head;
	flush->waiting_head = NULL;
	flush->waiting_tail = &flush->waiting_head;
	if (!flush->map->named || flush->broken) {
		finish(flush, flush->broken);
		return;
	}
	cow_map_rewind(flush->map);
	next_snapshot(flush);
}

void cow_flush_submit(struct cow_flush *flush, struct block_request *request)
{
	request->next = NULL;
	*flush->waiting_tail = request;
	flush->waiting_tail = &request->next;
	if (!flush->running)
		loop_defer(flush->loop, &flush->task);
}

void cow_flush_init(struct cow_flush *flush, struct loop *loop, struct cow_map *map, bool unsafe)
{
	*flush = (struct cow_flush){
		.loop = loop,
		.map = map,
		.unsafe = unsafe,
		.file = -1,
		.waiting_tail = &flush->waiting_head,
		.task.fn = begin,
		.retry_task.fn = retry,
	};
}

void cow_flush_fini(struct cow_flush *flush)
{
	loop_unpost(flush->loop, &flush->task);
	loop_unpost(flush->loop, &flush->retry_task);
}
