/*
 * Theory of operation. The rule is one operation per request: the kernel reads and writes the request's own spans. What
 * is not the rule gets a `struct detour`, allocated when it is needed: a transfer that ended short, more spans or bytes
 * than one operation is to move, memory that O_DIRECT does not take, zeroes that the file system cannot make by itself,
 * an operation that has to be tried again. All of them are one thing: a request of several steps, whose progress_bytes
 * says where the next one begins.
 */
#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdalign.h>
#include <stdlib.h>

#include "block_raw_file.h"
#include "iov.h"
#include "util.h"

enum {
	SPANS_MAX = 1024, /* the kernel's UIO_MAXIOV */
	ZERO_SPANS = 64,  /* of ZERO_SPAN_BYTES: 256 KiB of zeroes a step */
	ZERO_SPAN_BYTES = 4096,
	BOUNCE_BYTES_MAX = 256 << 10,
	RETRIES_MAX = 16,
};

struct raw {
	struct block block;
	struct block_raw_file file;
	int loop_file; /* what the loop calls it */
	bool unsafe_flush;
	bool cannot_punch, cannot_zero; /* the file system has said so */
	char *path;
	const struct log *log;
	struct log_limit error_limit;
	struct block_request *waiting; /* for room in the ring */
	struct loop_task waiting_task;
};

/* In block_request.cookie; lives until the request's end. */
struct detour {
	unsigned retries;
	bool writes_zeroes; /* instead of asking the file system for them */
	void *bounce;       /* one aligned buffer instead of the request's own spans; or NULL */
	size_t bounce_bytes;
	unsigned spans_max;
	struct iovec spans[];
};

static alignas(ZERO_SPAN_BYTES) const uint8_t ZEROES[ZERO_SPAN_BYTES];

static struct raw *raw_of(const struct block_request *request)
{
	return container_of(request->block, struct raw, block);
}

static struct detour *detour_of(const struct block_request *request)
{
	return (struct detour *)(uintptr_t)request->cookie;
}

/* --- the end of a request ------------------------------------------------------------------------------- */

static const char *op_name(const struct block_request *request)
{
	static const char *const NAMES[] = {
		[BLOCK_READ] = "read",
		[BLOCK_WRITE] = "write",
		[BLOCK_FLUSH] = "flush",
		[BLOCK_DISCARD] = "discard",
		[BLOCK_WRITE_ZEROES] = "write zeroes",
	};
	return NAMES[request->op];
}

static void finish(struct block_request *request, int res)
{
	struct raw *raw = raw_of(request);
	struct detour *detour = detour_of(request);
	if (detour)
		free(detour->bounce);
	free(detour);
	request->cookie = 0;
	if (res < 0 && res != -ECANCELED)
		log_guest(raw->log, &raw->error_limit, "disk '%s': %s of %" PRIu64 " bytes at %" PRIu64 ": %s",
			  raw->path, op_name(request), request->size_bytes, request->offset_bytes, err_name(res));
	block_complete(request, res);
}

/* --- detours -------------------------------------------------------------------------------------------- */

static bool is_transfer(const struct block_request *request)
{
	return request->op == BLOCK_READ || request->op == BLOCK_WRITE;
}

/* What a step of a transfer may have to be cut to: the next one must begin where O_DIRECT allows it. */
static uint32_t granule(const struct raw *raw)
{
	return (uint32_t)max_u64(raw->block.info.block_size_bytes, raw->file.memory_align);
}

static bool memory_is_aligned(const struct raw *raw, const struct block_request *request)
{
	if (raw->file.memory_align <= 1)
		return true;
	uintptr_t addresses = 0, lengths = 0;
	for (unsigned i = 0; i < request->iov_count; i++) {
		addresses |= (uintptr_t)request->iov[i].iov_base;
		lengths |= request->iov[i].iov_len;
	}
	return !(addresses & (raw->file.memory_align - 1)) && !(lengths & (granule(raw) - 1));
}

static int add_bounce(const struct raw *raw, const struct block_request *request, struct detour *detour)
{
	if (!is_transfer(request) || memory_is_aligned(raw, request))
		return 0;
	detour->bounce_bytes = (size_t)min_u64(request->size_bytes, BOUNCE_BYTES_MAX);
	size_t align = max_u64(granule(raw), sizeof(void *));
	return posix_memalign(&detour->bounce, align, detour->bounce_bytes) ? -ENOMEM : 0;
}

/* At most one per request, whatever it is for. */
static int add_detour(struct block_request *request)
{
	if (request->cookie)
		return 0;
	unsigned spans = 0;
	if (is_transfer(request))
		spans = (unsigned)min_u64(request->iov_count, SPANS_MAX);
	else if (request->op == BLOCK_WRITE_ZEROES)
		spans = ZERO_SPANS;
	struct detour *detour = calloc(1, sizeof(*detour) + spans * sizeof(detour->spans[0]));
	if (!detour)
		return -ENOMEM;
	detour->spans_max = spans;
	int r = add_bounce(raw_of(request), request, detour);
	if (r < 0) {
		free(detour);
		return r;
	}
	request->cookie = (uintptr_t)detour;
	return 0;
}

static unsigned zero_spans(const struct block_request *request, struct iovec *to, unsigned max)
{
	uint64_t left = request->size_bytes - request->progress_bytes;
	unsigned count = 0;
	for (; count < max && left; count++) {
		to[count].iov_base = (void *)(uintptr_t)ZEROES; /* only read */
		to[count].iov_len = (size_t)min_u64(left, ZERO_SPAN_BYTES);
		left -= to[count].iov_len;
	}
	return count;
}

static unsigned bounce_span(const struct block_request *request, struct detour *detour)
{
	size_t size_bytes = (size_t)min_u64(request->size_bytes - request->progress_bytes, detour->bounce_bytes);
	if (request->op == BLOCK_WRITE)
		iov_read(request->iov, request->iov_count, request->progress_bytes, detour->bounce, size_bytes);
	detour->spans[0] = (struct iovec){.iov_base = detour->bounce, .iov_len = size_bytes};
	return 1;
}

static unsigned fill_spans(const struct block_request *request, struct detour *detour)
{
	if (request->op == BLOCK_WRITE_ZEROES)
		return zero_spans(request, detour->spans, detour->spans_max);
	if (detour->bounce)
		return bounce_span(request, detour);
	return iov_slice(request->iov, request->iov_count, request->progress_bytes, BLOCK_STEP_BYTES_MAX, detour->spans,
			 detour->spans_max);
}

/* --- one step ------------------------------------------------------------------------------------------- */

static int start_transfer(struct raw *raw, struct block_request *request)
{
	struct detour *detour = detour_of(request);
	const struct iovec *iov = detour ? detour->spans : request->iov;
	unsigned count = detour ? fill_spans(request, detour) : request->iov_count;
	uint64_t offset = request->offset_bytes + request->progress_bytes;
	if (request->op == BLOCK_READ)
		return loop_readv(raw->block.loop, &request->loop_op, raw->loop_file, iov, count, offset);
	return loop_writev(raw->block.loop, &request->loop_op, raw->loop_file, iov, count, offset);
}

/* Holes, or zeroes that keep their storage: two things that a file system can or cannot do. */
static bool is_punch(const struct block_request *request)
{
	return request->op == BLOCK_DISCARD || request->may_unmap;
}

/* Is it done by fallocate? A request of zeroes changes from that to writing once, and not back. */
static bool is_allocation(const struct block_request *request)
{
	if (request->op == BLOCK_WRITE_ZEROES)
		return !request->cookie || !detour_of(request)->writes_zeroes;
	return request->op == BLOCK_DISCARD;
}

/* KEEP_SIZE: a file that has been cut is not made longer behind the back of who cut it. */
static int start_fallocate(struct raw *raw, struct block_request *request)
{
	int mode = (is_punch(request) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
	return loop_fallocate(raw->block.loop, &request->loop_op, raw->loop_file, mode, request->offset_bytes,
			      request->size_bytes);
}

static int start(struct raw *raw, struct block_request *request)
{
	if (request->op == BLOCK_FLUSH)
		return loop_fdatasync(raw->block.loop, &request->loop_op, raw->loop_file);
	if (is_allocation(request))
		return start_fallocate(raw, request);
	return start_transfer(raw, request);
}

/* The ring being full is nobody's fault, and passes. */
static void step(struct raw *raw, struct block_request *request)
{
	if (start(raw, request) == 0)
		return;
	request->next = raw->waiting;
	raw->waiting = request;
	loop_post(raw->block.loop, &raw->waiting_task);
}

static void run_waiting(struct loop_task *task)
{
	struct raw *raw = container_of(task, struct raw, waiting_task);
	struct block_request *request = raw->waiting;
	raw->waiting = NULL;
	while (request) {
		struct block_request *next = request->next;
		if (request->cancelled)
			finish(request, -ECANCELED);
		else
			step(raw, request);
		request = next;
	}
}

/* --- what came of it ------------------------------------------------------------------------------------ */

static void go_on(struct block_request *request)
{
	int r = request->cancelled ? -ECANCELED : add_detour(request);
	if (r < 0)
		finish(request, r);
	else
		step(raw_of(request), request);
}

static void transferred(struct block_request *request, size_t size_bytes)
{
	struct raw *raw = raw_of(request);
	struct detour *detour = detour_of(request);
	if (request->op == BLOCK_READ && detour && detour->bounce)
		iov_write(request->iov, request->iov_count, request->progress_bytes, detour->bounce, size_bytes);
	if (size_bytes == request->size_bytes - request->progress_bytes) {
		finish(request, 0);
		return;
	}
	if (raw->file.memory_align > 1)
		size_bytes = (size_t)align_down(size_bytes, granule(raw));
	request->progress_bytes += size_bytes;
	/* No progress: the file ends here, and did not when it was opened. */
	if (size_bytes)
		go_on(request);
	else
		finish(request, -EIO);
}

static void failed(struct block_request *request, int res)
{
	if (res != -EAGAIN && res != -EINTR) {
		finish(request, res);
		return;
	}
	struct detour *detour = detour_of(request);
	if (detour && ++detour->retries > RETRIES_MAX)
		finish(request, res);
	else
		go_on(request);
}

/* A discard is a hint; zeroes can be written. */
static int write_zeroes_instead(struct block_request *request)
{
	int r = add_detour(request);
	if (r == 0)
		detour_of(request)->writes_zeroes = true;
	return r;
}

/* The file system has no holes, or no ranges of zeroes. */
static void allocation_refused(struct block_request *request)
{
	struct raw *raw = raw_of(request);
	if (is_punch(request))
		raw->cannot_punch = true;
	else
		raw->cannot_zero = true;
	if (request->op == BLOCK_DISCARD)
		finish(request, 0);
	else if (write_zeroes_instead(request) < 0)
		finish(request, -ENOMEM);
	else
		go_on(request);
}

static void op_done(struct loop_op *op, int res)
{
	struct block_request *request = container_of(op, struct block_request, loop_op);
	bool allocates = is_allocation(request);
	if (res == -EOPNOTSUPP && allocates)
		allocation_refused(request);
	else if (res < 0)
		failed(request, res);
	else if (allocates || request->op == BLOCK_FLUSH)
		finish(request, 0);
	else
		transferred(request, (size_t)res);
}

/* --- block_ops ------------------------------------------------------------------------------------------ */

/* What a request needs before its first step, if it is not the rule. */
static int prepare(const struct raw *raw, struct block_request *request)
{
	if (request->op == BLOCK_WRITE_ZEROES && (is_punch(request) ? raw->cannot_punch : raw->cannot_zero))
		return write_zeroes_instead(request);
	bool is_long = request->iov_count > SPANS_MAX || request->size_bytes > BLOCK_STEP_BYTES_MAX;
	if (is_transfer(request) && (is_long || !memory_is_aligned(raw, request)))
		return add_detour(request);
	return 0;
}

static bool is_nothing_to_do(const struct raw *raw, const struct block_request *request)
{
	return (request->op == BLOCK_FLUSH && raw->unsafe_flush) || (request->op == BLOCK_DISCARD && raw->cannot_punch);
}

static void raw_submit(struct block *block, struct block_request *request)
{
	struct raw *raw = container_of(block, struct raw, block);
	request->loop_op.done = op_done;
	if (is_nothing_to_do(raw, request)) {
		block_complete_later(request, 0);
		return;
	}
	int r = prepare(raw, request);
	if (r < 0)
		block_complete_later(request, r);
	else
		step(raw, request);
}

static void raw_cancel(struct block *block, struct block_request *request)
{
	loop_cancel(block->loop, &request->loop_op);
}

static int raw_resize(struct block *block, struct err *err)
{
	struct raw *raw = container_of(block, struct raw, block);
	return block_raw_file_size(&raw->file, raw->path, block->info.block_size_bytes, raw->log,
				   &block->info.size_bytes, err);
}

static void raw_destroy(struct block *block)
{
	struct raw *raw = container_of(block, struct raw, block);
	loop_unpost(block->loop, &raw->waiting_task);
	loop_remove_file(block->loop, raw->loop_file);
	block_raw_file_close(&raw->file);
	free(raw->path);
	free(raw);
}

static const struct block_ops RAW_OPS = {
	.name = "raw",
	.submit = raw_submit,
	.cancel = raw_cancel,
	.resize = raw_resize,
	.destroy = raw_destroy,
};

struct block *block_raw_open(struct loop *loop, const struct log *log, const struct block_raw_config *config,
			     struct err *err)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	char *path = strdup(config->path);
	if (!raw || !path) {
		err_set(err, -ENOMEM, "disk '%s': %s", config->path, err_name(ENOMEM));
	} else if (block_raw_file_open(&raw->file, &raw->block.info, config, log, err) == 0) {
		block_init(&raw->block, &RAW_OPS, loop);
		raw->path = path;
		raw->log = log;
		raw->unsafe_flush = config->unsafe_flush;
		raw->waiting_task.fn = run_waiting;
		raw->loop_file = loop_add_file(loop, raw->file.fd);
		return &raw->block;
	}
	free(path);
	free(raw);
	return NULL;
}
