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
#include "block.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "block_cow_flush.h"
#include "block_cow_lock.h"
#include "block_cow_map.h"
#include "iovc.h"
#include "util.h"

enum {
	PARTS_MAX = 32,    /* of one read, at a time */
	SPANS_MAX = 1024,  /* of one operation: the kernel's UIO_MAXIOV */
	REST_SPANS = 8,    /* per operation, of a transfer that the kernel has cut short */
	INFO_BYTES = 4096, /* best size and alignment: a cluster's */
};

enum part_kind {
	PART_BASE_READ,
	PART_BASE_READ_FILL, /* becomes a PART_WRITE of what was read */
	PART_READ,
	PART_WRITE,
	PART_PUNCH,
};

struct cow_part {
	struct cow_io *io;
	struct cow_part *next; /* of its io's */
	enum part_kind kind;
	uint64_t offset_bytes; /* on the disk */
	uint64_t size_bytes;   /* what is left of it */
	const struct iovec *iov;
	unsigned iov_count;
	struct iovc rest; /* READ, WRITE: what is left of the spans */
	struct iovec rest_iov[REST_SPANS];
	struct loop_op op;
	struct block_request base;
	struct iovec own[]; /* and, of a fill, its buffer */
};

struct cow_io {
	struct cow *cow;
	struct block_request *request;
	struct cow_io *next_idle;
	struct cow_lock lock;
	bool locked;
	bool cancelled;
	bool ending;         /* nothing is left to wait for */
	int error;           /* the first */
	unsigned part_count; /* parts in flight, and one while they are being started */
	struct cow_part *parts;
	uint64_t at_bytes; /* READ: from here on there are no parts yet */
	struct iovc at;
	struct cow_part whole; /* for what needs no spans of its own; last, because of its flexible array */
};

struct cow {
	struct block block;
	struct block *base;
	struct cow_map map;
	struct cow_flush flush;
	struct cow_locks locks;
	int file; /* the map's descriptor, for loop operations */
	struct cow_io *idle;
	struct block_request *ended; /* those that ended where `done` must not be called */
	struct loop_task ended_task;
};

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

static struct cow_io *take_io(struct cow *cow, struct block_request *request)
{
	struct cow_io *io = cow->idle;
	if (io)
		cow->idle = io->next_idle;
	else
		io = malloc(sizeof(*io));
	if (io)
		*io = (struct cow_io){.cow = cow, .request = request, .at_bytes = request->offset_bytes};
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
	if (io->locked) {
		if (!error)
			cow_map_set(&cow->map, io->lock.first, io->lock.end);
		cow_lock_release(&cow->locks, &io->lock);
	}
	io->next_idle = cow->idle;
	cow->idle = io;
	block_complete(request, error);
}

static void finish_ended(struct loop_task *task)
{
	struct cow *cow = container_of(task, struct cow, ended_task);
	struct block_request *request = cow->ended;
	cow->ended = NULL;
	while (request) {
		struct block_request *next = request->next;
		if (io_of(request))
			finish(io_of(request));
		else
			block_complete(request, -ENOMEM);
		request = next;
	}
}

/* From inside block_submit, block_cancel or another request's end: later. */
static void end_later(struct cow *cow, struct block_request *request)
{
	if (io_of(request))
		io_of(request)->ending = true;
	request->next = cow->ended;
	cow->ended = request;
	loop_defer(cow->block.loop, &cow->ended_task);
}

static void io_fail(struct cow_io *io, int error)
{
	if (!io->error)
		io->error = error;
}

/* --- parts ----------------------------------------------------------------------------------------------------- */

static void read_more(struct cow_io *io);

static void free_part(struct cow_part *part)
{
	if (part != &part->io->whole)
		free(part);
}

/* With room for `spans` iovecs, and `extra_bytes` behind them. NULL: no memory. */
static struct cow_part *new_part(struct cow_io *io, unsigned spans, size_t extra_bytes)
{
	struct cow_part *part = malloc(sizeof(*part) + spans * sizeof(struct iovec) + extra_bytes);
	if (part)
		*part = (struct cow_part){.io = io, .iov = part->own, .iov_count = spans};
	return part;
}

static struct cow_part *whole_part(struct cow_io *io, enum part_kind kind)
{
	const struct block_request *request = io->request;
	io->whole = (struct cow_part){
		.io = io,
		.kind = kind,
		.offset_bytes = request->offset_bytes,
		.size_bytes = request->size_bytes,
		.iov = request->iov,
		.iov_count = request->iov_count,
	};
	return &io->whole;
}

static void unlink_part(struct cow_part *part)
{
	struct cow_part **at = &part->io->parts;
	while (*at != part)
		at = &(*at)->next;
	*at = part->next;
	part->io->part_count--;
}

/* In a callback: the request may be done after this. */
static void part_done(struct cow_part *part, int res)
{
	struct cow_io *io = part->io;
	if (res < 0)
		io_fail(io, res);
	io->part_count++; /* stay until it is clear whether there is more */
	unlink_part(part);
	free_part(part);
	if (io->request->op == BLOCK_READ)
		read_more(io);
	if (--io->part_count > 0)
		return;
	io->ending = true;
	finish(io);
}

static int transfer(struct cow_part *part)
{
	struct cow *cow = part->io->cow;
	uint64_t offset = cow->map.data_offset_bytes + part->offset_bytes;
	const struct iovec *iov = part->iov;
	unsigned count = part->iov_count < SPANS_MAX ? part->iov_count : SPANS_MAX;
	if (part->rest.iov != part->iov || part->rest.skip_bytes) {
		count = iovc_peek(&part->rest, part->size_bytes, part->rest_iov, REST_SPANS);
		iov = part->rest_iov;
	}
	if (part->kind == PART_READ)
		return loop_readv(cow->block.loop, &part->op, cow->file, iov, count, offset);
	return loop_writev(cow->block.loop, &part->op, cow->file, iov, count, offset);
}

static void file_done(struct loop_op *op, int res)
{
	struct cow_part *part = container_of(op, struct cow_part, op);
	if (res < 0 || part->kind == PART_PUNCH) {
		part_done(part, res);
		return;
	}
	part->size_bytes -= (uint64_t)res;
	if (part->size_bytes == 0) {
		part_done(part, 0);
		return;
	}
	/* Cut short: by the kernel, which may know why when it is asked for the rest; or the file is too short. */
	part->offset_bytes += (uint64_t)res;
	iovc_skip(&part->rest, (size_t)res);
	int r = res == 0 ? -EIO : part->io->cancelled ? -ECANCELED : transfer(part);
	if (r < 0)
		part_done(part, r);
}

static void base_done(struct block_request *base, int res)
{
	struct cow_part *part = container_of(base, struct cow_part, base);
	if (res < 0 || part->kind == PART_BASE_READ) {
		part_done(part, res);
		return;
	}
	part->kind = PART_WRITE;
	int r = part->io->cancelled ? -ECANCELED : transfer(part);
	if (r < 0)
		part_done(part, r);
}

static int read_base(struct cow_part *part)
{
	part->base = (struct block_request){
		.op = BLOCK_READ,
		.offset_bytes = part->offset_bytes,
		.size_bytes = part->size_bytes,
		.iov = part->iov,
		.iov_count = part->iov_count,
		.done = base_done,
	};
	block_submit(part->io->cow->base, &part->base);
	return 0;
}

static int punch(struct cow_part *part)
{
	struct cow *cow = part->io->cow;
	return loop_fallocate(cow->block.loop, &part->op, cow->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      cow->map.data_offset_bytes + part->offset_bytes, part->size_bytes);
}

/* Takes the part, which may be NULL for want of memory. */
static void start_part(struct cow_io *io, struct cow_part *part)
{
	if (!part) {
		io_fail(io, -ENOMEM);
		return;
	}
	part->op.done = file_done;
	part->rest = (struct iovc){part->iov, part->iov_count, 0};
	part->next = io->parts;
	io->parts = part;
	io->part_count++;

	int r;
	if (part->kind == PART_BASE_READ || part->kind == PART_BASE_READ_FILL)
		r = read_base(part);
	else
		r = part->kind == PART_PUNCH ? punch(part) : transfer(part);
	if (r == 0)
		return;
	io_fail(io, r);
	unlink_part(part);
	free_part(part);
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
	enum part_kind kind = cow_map_is_written(map, first) ? PART_READ : PART_BASE_READ;

	struct cow_part *part;
	if (size_bytes == request->size_bytes) {
		part = whole_part(io, kind);
	} else {
		part = new_part(io, iovc_spans(&io->at, size_bytes), 0);
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
		io_fail(io, -ECANCELED);
	while (!io->error && io->at_bytes < end_bytes && io->part_count <= PARTS_MAX)
		start_part(io, next_read_part(io));
}

/* --- writes ---------------------------------------------------------------------------------------------------- */

/* [from, to) of a cluster is to be what the base says. */
static void start_fill(struct cow_io *io, uint64_t from_bytes, uint64_t to_bytes)
{
	if (from_bytes >= to_bytes || cow_map_is_written(&io->cow->map, from_bytes / COW_CLUSTER_BYTES))
		return;
	size_t size_bytes = to_bytes - from_bytes;
	struct cow_part *part = new_part(io, 1, size_bytes);
	if (part) {
		part->kind = PART_BASE_READ_FILL;
		part->offset_bytes = from_bytes;
		part->size_bytes = size_bytes;
		part->own[0] = (struct iovec){&part->own[1], size_bytes};
	}
	start_part(io, part);
}

static void start_write(struct cow_io *io)
{
	const struct block_request *request = io->request;
	uint64_t offset_bytes = request->offset_bytes;
	uint64_t end_bytes = offset_bytes + request->size_bytes;
	uint64_t cluster_end_bytes = min_u64(align_up(end_bytes, COW_CLUSTER_BYTES), io->cow->map.disk_bytes);
	start_part(io, whole_part(io, request->op == BLOCK_WRITE ? PART_WRITE : PART_PUNCH));
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
		start_part(io, whole_part(io, PART_PUNCH));
	}
	if (--io->part_count == 0)
		end_later(io->cow, io->request);
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
	request->cookie = 0;
	if (request->op == BLOCK_FLUSH) {
		cow_flush_submit(&cow->flush, request);
		return;
	}
	struct cow_io *io = take_io(cow, request);
	request->cookie = (uintptr_t)io;
	if (!io || request->size_bytes == 0)
		end_later(cow, request);
	else if (!sets_bits(request->op) || take_lock(io))
		start(io);
}

static void cancel_parts(struct cow_io *io)
{
	struct cow_part *next;
	for (struct cow_part *part = io->parts; part; part = next) {
		next = part->next;
		if (part->kind == PART_BASE_READ || part->kind == PART_BASE_READ_FILL)
			block_cancel(io->cow->base, &part->base);
		else
			loop_cancel(io->cow->block.loop, &part->op);
	}
}

/* A flush is left to end by itself: it serves others too. */
static void cow_cancel(struct block *block, struct block_request *request)
{
	struct cow *cow = cow_of(block);
	struct cow_io *io = io_of(request);
	if (!io || io->cancelled || io->ending)
		return;
	io->cancelled = true;
	if (io->part_count) {
		io->part_count++; /* stay until all have been asked */
		cancel_parts(io);
		if (--io->part_count > 0)
			return;
	} else { /* still waiting for its lock */
		io_fail(io, -ECANCELED);
		io->locked = false;
		cow_lock_release(&cow->locks, &io->lock);
	}
	end_later(cow, request);
}

/* --- opening and closing --------------------------------------------------------------------------------------- */

/* A clean end: what was written is there the next time, also without a flush. */
static void store_map(struct cow *cow)
{
	if (cow->map.fd >= 0 && cow->map.named && !cow->flush.broken)
		(void)cow_map_store(&cow->map, !cow->flush.unsafe);
}

static void cow_destroy(struct block *block)
{
	struct cow *cow = cow_of(block);
	store_map(cow);
	if (cow->file >= 0)
		loop_remove_file(block->loop, cow->file);
	cow_map_close(&cow->map);
	while (cow->idle) {
		struct cow_io *io = cow->idle;
		cow->idle = io->next_idle;
		free(io);
	}
	block_free(cow->base);
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
		.physical_block_bytes = INFO_BYTES,
		.discard_granularity_bytes = cow->map.can_punch ? INFO_BYTES : 0,
		.can_write_zeroes = cow->map.can_punch,
	};
}

struct block *block_cow_open(struct loop *loop, const struct log *log, struct block *base,
			     const struct block_cow_config *config, struct err *err)
{
	(void)log;
	struct cow *cow = calloc(1, sizeof(*cow));
	if (!cow) {
		err_set(err, -ENOMEM, "overlay: %s", err_name(ENOMEM));
		block_free(base);
		return NULL;
	}
	block_init(&cow->block, &COW_OPS, loop);
	cow->base = base;
	cow->file = -1;
	cow->ended_task.fn = finish_ended;
	if (cow_map_open(&cow->map, config, base->info.size_bytes, err) < 0) {
		cow_destroy(&cow->block);
		return NULL;
	}
	cow->file = loop_add_file(loop, cow->map.fd);
	cow->flush = (struct cow_flush){
		.loop = loop, .map = &cow->map, .file = cow->file, .unsafe = config->unsafe_flush};
	cow_flush_init(&cow->flush);
	fill_info(cow);
	return &cow->block;
}
