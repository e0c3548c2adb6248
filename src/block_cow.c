/*
 * A copy-on-write overlay: a block over a block.
 *
 * Theory of operation. The map (block_cow_map.h) says of each cluster of 4 KiB whether it is in the overlay's file. A
 * request becomes a `cow_io` with one or more parts, each of which is an operation on the file or a read of the base;
 * it ends when the last of them has.
 *
 * A read has one part per run of clusters that are alike. A write has one for its data; and where it covers a cluster
 * that is not in the file in part, the rest of that cluster is read from the base and written beside it (a "fill").
 * The bits are set when everything has been written, so until then, and for good when something fails, the clusters
 * are what the base says. Writes that set bits lock their clusters against each other: or a fill could overwrite with
 * old data what another write has just put there. Writes to clusters in the file need no lock, because bits are never
 * taken back.
 *
 * Zeroes are holes that are punched into the file. A discard punches too, but sets no bits: clusters that are not in
 * the file stay as they are.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block_cow_impl.h"
#include "util.h"

enum { PARTS_MAX = 32 }; /* of one read, at a time */

static struct cow *cow_of(struct block *block)
{
	return container_of(block, struct cow, block);
}

static uint64_t first_cluster(const struct block_request *request)
{
	return request->offset_bytes / COW_CLUSTER_BYTES;
}

static uint64_t end_cluster(const struct block_request *request)
{
	return align_up(request->offset_bytes + request->size_bytes, COW_CLUSTER_BYTES) / COW_CLUSTER_BYTES;
}

static bool sets_bits(enum block_op op)
{
	return op == BLOCK_WRITE || op == BLOCK_WRITE_ZEROES;
}

/* --- the life of an io ----------------------------------------------------------------------------------------- */

static void read_more(struct cow_io *io);

static struct cow_io *take_io(struct cow *cow, struct block_request *request)
{
	struct cow_io *io = cow->idle;
	if (io)
		cow->idle = io->next;
	else
		io = malloc(sizeof(*io));
	if (!io)
		return NULL;
	*io = (struct cow_io){.cow = cow, .request = request, .at_bytes = request->offset_bytes};
	request->cookie = (uintptr_t)io;
	return io;
}

static struct cow_io *io_of(const struct block_request *request)
{
	return (struct cow_io *)(uintptr_t)request->cookie;
}

/* The block may be gone after this, if that was its last request. */
static void finish(struct cow_io *io)
{
	struct cow *cow = io->cow;
	struct block_request *request = io->request;
	int error = io->error;
	assert(io->part_count == 0);
	if (io->locked && !error)
		cow_map_set(&cow->map, io->lock.first, io->lock.end);
	if (io->locked)
		cow_lock_release(&cow->locks, &io->lock);
	io->next = cow->idle;
	cow->idle = io;
	block_complete(request, error);
}

static void finish_ended(struct loop_task *task)
{
	struct cow *cow = container_of(task, struct cow, ended_task);
	struct cow_io *io = cow->ended;
	cow->ended = NULL;
	while (io) {
		struct cow_io *next = io->next;
		finish(io);
		io = next;
	}
}

/* From inside block_submit, block_cancel or another request's end, where `done` must not be called. */
static void finish_later(struct cow_io *io)
{
	struct cow *cow = io->cow;
	io->ending = true;
	io->next = cow->ended;
	cow->ended = io;
	loop_defer(cow->block.loop, &cow->ended_task);
}

void cow_io_fail(struct cow_io *io, int error)
{
	if (!io->error)
		io->error = error;
}

void cow_io_part_done(struct cow_io *io, int res)
{
	if (res < 0)
		cow_io_fail(io, res);
	if (io->request->op == BLOCK_READ)
		read_more(io);
	if (--io->part_count > 0)
		return;
	io->ending = true;
	finish(io);
}

/* --- reads ----------------------------------------------------------------------------------------------------- */

/* The next bytes of the request that are all in the file, or all not; as long as can be. */
static struct cow_part *next_read_part(struct cow_io *io)
{
	const struct block_request *request = io->request;
	const struct cow_map *map = &io->cow->map;
	uint64_t end_bytes = request->offset_bytes + request->size_bytes;
	uint64_t first = io->at_bytes / COW_CLUSTER_BYTES;
	uint64_t run = cow_map_run(map, first, end_cluster(request) - first);
	uint64_t size_bytes = min_u64((first + run) * COW_CLUSTER_BYTES, end_bytes) - io->at_bytes;
	enum cow_part_kind kind = cow_map_is_written(map, first) ? COW_PART_READ : COW_PART_BASE;

	struct cow_part *part;
	if (size_bytes == request->size_bytes) {
		part = cow_part_whole(io, kind);
	} else {
		part = cow_part_new(io, iovc_spans(&io->at, size_bytes), 0);
		if (!part)
			return NULL;
		part->kind = kind;
		part->offset_bytes = io->at_bytes;
		part->size_bytes = size_bytes;
		(void)iovc_peek(&io->at, size_bytes, part->own, part->iov_count);
		iovc_skip(&io->at, size_bytes);
	}
	io->at_bytes += size_bytes;
	return part;
}

static void read_more(struct cow_io *io)
{
	uint64_t end_bytes = io->request->offset_bytes + io->request->size_bytes;
	if (io->cancelled && io->at_bytes < end_bytes)
		cow_io_fail(io, -ECANCELED);
	while (!io->error && io->at_bytes < end_bytes && io->part_count <= PARTS_MAX)
		cow_part_start(io, next_read_part(io));
}

/* --- writes ---------------------------------------------------------------------------------------------------- */

/* [from, to) of a cluster is to be what the base says. */
static void start_fill(struct cow_io *io, uint64_t from_bytes, uint64_t to_bytes)
{
	if (from_bytes >= to_bytes || cow_map_is_written(&io->cow->map, from_bytes / COW_CLUSTER_BYTES))
		return;
	size_t size_bytes = to_bytes - from_bytes;
	struct cow_part *part = cow_part_new(io, 1, size_bytes);
	if (part) {
		part->kind = COW_PART_FILL;
		part->offset_bytes = from_bytes;
		part->size_bytes = size_bytes;
		part->own[0] = (struct iovec){&part->own[1], size_bytes};
	}
	cow_part_start(io, part);
}

static void start_write(struct cow_io *io)
{
	const struct block_request *request = io->request;
	uint64_t offset_bytes = request->offset_bytes;
	uint64_t end_bytes = offset_bytes + request->size_bytes;
	uint64_t cluster_end_bytes = min_u64(align_up(end_bytes, COW_CLUSTER_BYTES), io->cow->map.disk_bytes);
	cow_part_start(io, cow_part_whole(io, request->op == BLOCK_WRITE ? COW_PART_WRITE : COW_PART_PUNCH));
	start_fill(io, align_down(offset_bytes, COW_CLUSTER_BYTES), offset_bytes);
	start_fill(io, end_bytes, cluster_end_bytes);
}

/* --- requests -------------------------------------------------------------------------------------------------- */

/* It does not end here, whatever happens. */
static void start(struct cow_io *io)
{
	io->part_count = 1;
	if (io->request->op == BLOCK_READ) {
		io->at = (struct iovc){io->request->iov, io->request->iov_count, 0};
		read_more(io);
	} else if (sets_bits(io->request->op)) {
		start_write(io);
	} else {
		cow_part_start(io, cow_part_whole(io, COW_PART_PUNCH));
	}
	if (--io->part_count == 0)
		finish_later(io);
}

static void lock_granted(struct cow_lock *lock)
{
	start(container_of(lock, struct cow_io, lock));
}

/* Writes that set bits exclude each other on their clusters. */
static bool take_lock(struct cow_io *io)
{
	struct cow_map *map = &io->cow->map;
	uint64_t first = first_cluster(io->request);
	uint64_t end = end_cluster(io->request);
	if (cow_map_is_written(map, first) && cow_map_run(map, first, end - first) == end - first)
		return true;
	io->lock = (struct cow_lock){.first = first, .end = end, .granted = lock_granted};
	io->locked = true;
	return cow_lock_take(&io->cow->locks, &io->lock);
}

static void cow_submit(struct block *block, struct block_request *request)
{
	struct cow *cow = cow_of(block);
	if (request->op == BLOCK_FLUSH) {
		cow_flush_submit(&cow->flush, request);
		return;
	}
	struct cow_io *io = take_io(cow, request);
	if (!io)
		block_complete_later(request, -ENOMEM);
	else if (!sets_bits(request->op) || take_lock(io))
		start(io);
}

/* A flush is left to end by itself: it serves others too. */
static void cow_cancel(struct block *block, struct block_request *request)
{
	struct cow_io *io = io_of(request);
	if (!io || io->cancelled || io->ending)
		return;
	io->cancelled = true;
	if (io->part_count) {
		io->part_count++; /* stay until all have been asked */
		cow_part_cancel_all(io);
		if (--io->part_count > 0)
			return;
	} else { /* still waiting for its lock */
		cow_io_fail(io, -ECANCELED);
		io->locked = false;
		cow_lock_release(&cow_of(block)->locks, &io->lock);
	}
	finish_later(io);
}

/* --- opening and closing --------------------------------------------------------------------------------------- */

/* A clean end: what was written is there the next time, also without a flush. */
static void store_map(struct cow *cow)
{
	if (cow->file < 0 || !cow->map.named || cow->flush.broken)
		return;
	int r = cow_map_store(&cow->map, !cow->flush.unsafe);
	if (r < 0)
		log_warn(cow->log, "%s: write its map: %s; what was not flushed is lost", cow->name, err_name(r));
}

static void cow_destroy(struct block *block)
{
	struct cow *cow = cow_of(block);
	store_map(cow);
	loop_unpost(block->loop, &cow->ended_task);
	loop_unpost(block->loop, &cow->stalled_task);
	cow_flush_fini(&cow->flush);
	if (cow->file >= 0)
		loop_remove_file(block->loop, cow->file);
	cow_map_close(&cow->map);
	while (cow->idle) {
		struct cow_io *io = cow->idle;
		cow->idle = io->next;
		free(io);
	}
	block_free(cow->base);
	free(cow->name);
	free(cow);
}

static const struct block_ops COW_OPS = {
	.name = "cow",
	.submit = cow_submit,
	.cancel = cow_cancel,
	.destroy = cow_destroy,
};

static void fill_info(struct cow *cow)
{
	const struct block_info *base = &cow->base->info;
	cow->block.info = (struct block_info){
		.size_bytes = base->size_bytes,
		.block_size_bytes = base->block_size_bytes,
		.physical_block_bytes = COW_CLUSTER_BYTES,
		.discard_granularity_bytes = cow->map.can_punch ? COW_CLUSTER_BYTES : 0,
		.can_write_zeroes = cow->map.can_punch,
	};
}

static char *make_name(const char *path)
{
	char *name;
	if (!path)
		return strdup("overlay (unlinked)");
	return asprintf(&name, "overlay '%s'", path) < 0 ? NULL : name;
}

static int open_file(struct cow *cow, const struct block_cow_config *config, struct err *err)
{
	cow->name = make_name(config->path);
	if (!cow->name)
		return err_set(err, -ENOMEM, "overlay: %s", err_name(ENOMEM));
	int r = cow_map_open(&cow->map, config, cow->base->info.size_bytes, cow->log, err);
	if (r < 0)
		return r;
	cow->file = loop_add_file(cow->block.loop, cow->map.fd);
	cow->flush.file = cow->file;
	fill_info(cow);
	return 0;
}

struct block *block_cow_open(struct loop *loop, const struct log *log, struct block *base,
			     const struct block_cow_config *config, struct err *err)
{
	struct cow *cow = calloc(1, sizeof(*cow));
	if (!cow) {
		err_set(err, -ENOMEM, "overlay: %s", err_name(ENOMEM));
		block_free(base);
		return NULL;
	}
	block_init(&cow->block, &COW_OPS, loop);
	cow->base = base;
	cow->map.fd = cow->file = -1;
	cow->ended_task.fn = finish_ended;
	cow->stalled_task.fn = cow_part_run_stalled;
	cow->log = log;
	cow_flush_init(&cow->flush, loop, &cow->map, config->unsafe_flush);
	if (open_file(cow, config, err) == 0)
		return &cow->block;
	cow_destroy(&cow->block);
	return NULL;
}
