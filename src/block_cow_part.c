/* The parts of a request to a copy-on-write overlay: each is one operation at a time, on the file or on the base. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "block_cow_impl.h"
#include "util.h"

enum {
	SPANS_MAX = 1024, /* of one operation: the kernel's UIO_MAXIOV */
	RETRIES_MAX = 16,
};

static const char *const KIND_NAMES[] = {
	[COW_PART_BASE] = "read the base", [COW_PART_FILL] = "read the base", [COW_PART_READ] = "read",
	[COW_PART_WRITE] = "write",        [COW_PART_PUNCH] = "punch a hole",
};

struct cow_part *cow_part_whole(struct cow_io *io, enum cow_part_kind kind)
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

struct cow_part *cow_part_new(struct cow_io *io, unsigned spans, size_t extra_bytes)
{
	struct cow_part *part = malloc(sizeof(*part) + spans * sizeof(struct iovec) + extra_bytes);
	if (part)
		*part = (struct cow_part){.io = io, .iov = part->own, .iov_count = spans};
	return part;
}

/* --- the end of a part ------------------------------------------------------------------------------------------ */

static void unlink_part(struct cow_part *part)
{
	struct cow_part **at = &part->io->parts;
	while (*at != part)
		at = &(*at)->next;
	*at = part->next;
}

static void part_done(struct cow_part *part, int res)
{
	struct cow_io *io = part->io;
	unlink_part(part);
	if (part != &io->whole)
		free(part);
	cow_io_part_done(io, res);
}

/* Not for what the base says: it has its own words. */
static void file_failed(struct cow_part *part, int res)
{
	struct cow *cow = part->io->cow;
	if (res != -ECANCELED)
		log_guest(cow->log, &cow->error_limit, "%s: %s %llu bytes at %llu of the disk: %s", cow->name,
			  KIND_NAMES[part->kind], (unsigned long long)part->size_bytes,
			  (unsigned long long)part->offset_bytes, err_name(res));
	part_done(part, res);
}

/* --- operations on the file ------------------------------------------------------------------------------------- */

static uint64_t file_offset(const struct cow_part *part)
{
	return part->io->cow->map.data_offset_bytes + part->offset_bytes;
}

static int transfer(struct cow_part *part)
{
	struct cow *cow = part->io->cow;
	const struct iovec *iov = part->iov;
	unsigned count = (unsigned)min_u64(part->iov_count, SPANS_MAX);
	bool has_begun = part->rest.iov != part->iov || part->rest.skip_bytes;
	if (has_begun || part->size_bytes > BLOCK_STEP_BYTES_MAX) {
		size_t size_bytes = (size_t)min_u64(part->size_bytes, BLOCK_STEP_BYTES_MAX);
		iov = part->rest_iov;
		count = iovc_peek(&part->rest, size_bytes, part->rest_iov, COW_REST_SPANS);
	}
	if (part->kind == COW_PART_READ)
		return loop_readv(cow->block.loop, &part->op, cow->file, iov, count, file_offset(part));
	return loop_writev(cow->block.loop, &part->op, cow->file, iov, count, file_offset(part));
}

static int punch(struct cow_part *part)
{
	struct cow *cow = part->io->cow;
	return loop_fallocate(cow->block.loop, &part->op, cow->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      file_offset(part), part->size_bytes);
}

/* The ring being full is nobody's fault, and passes. */
static void use_file(struct cow_part *part)
{
	struct cow *cow = part->io->cow;
	int r = part->kind == COW_PART_PUNCH ? punch(part) : transfer(part);
	if (r == 0)
		return;
	part->next_stalled = cow->stalled;
	cow->stalled = part;
	loop_post(cow->block.loop, &cow->stalled_task);
}

static void use_file_again(struct cow_part *part)
{
	if (part->io->cancelled)
		part_done(part, -ECANCELED);
	else
		use_file(part);
}

void cow_part_run_stalled(struct loop_task *task)
{
	struct cow *cow = container_of(task, struct cow, stalled_task);
	struct cow_part *part = cow->stalled;
	cow->stalled = NULL;
	while (part) {
		struct cow_part *next = part->next_stalled;
		use_file_again(part);
		part = next;
	}
}

static void transferred(struct cow_part *part, size_t size_bytes)
{
	part->offset_bytes += size_bytes;
	part->size_bytes -= size_bytes;
	if (part->size_bytes == 0) {
		part_done(part, 0);
		return;
	}
	/* Cut short. Nothing at all: the file has been cut under us. */
	iovc_skip(&part->rest, size_bytes);
	if (size_bytes)
		use_file_again(part);
	else
		file_failed(part, -EIO);
}

static void file_done(struct loop_op *op, int res)
{
	struct cow_part *part = container_of(op, struct cow_part, op);
	if ((res == -EINTR || res == -EAGAIN) && part->retries++ < RETRIES_MAX)
		use_file_again(part);
	else if (res < 0)
		file_failed(part, res);
	else if (part->kind == COW_PART_PUNCH)
		part_done(part, 0);
	else
		transferred(part, (size_t)res);
}

/* --- reads of the base ------------------------------------------------------------------------------------------ */

static void base_done(struct block_request *base, int res)
{
	struct cow_part *part = container_of(base, struct cow_part, base);
	if (res < 0 || part->kind == COW_PART_BASE) {
		part_done(part, res);
		return;
	}
	part->kind = COW_PART_WRITE;
	use_file_again(part);
}

static void use_base(struct cow_part *part)
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
}

/* --- starting and cancelling ------------------------------------------------------------------------------------- */

static bool is_of_base(const struct cow_part *part)
{
	return part->kind == COW_PART_BASE || part->kind == COW_PART_FILL;
}

void cow_part_start(struct cow_io *io, struct cow_part *part)
{
	if (!part) {
		cow_io_fail(io, -ENOMEM);
		return;
	}
	part->op.done = file_done;
	part->rest = (struct iovc){part->iov, part->iov_count, 0};
	part->next = io->parts;
	io->parts = part;
	io->part_count++;
	if (is_of_base(part))
		use_base(part);
	else
		use_file(part);
}

void cow_part_cancel_all(struct cow_io *io)
{
	struct cow_part *next;
	for (struct cow_part *part = io->parts; part; part = next) {
		next = part->next;
		if (is_of_base(part))
			block_cancel(io->cow->base, &part->base);
		else
			loop_cancel(io->cow->block.loop, &part->op);
	}
}
