#include "chr.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "chr_impl.h"
#include "util.h"

static void start_read(struct chr *chr);
static void start_write(struct chr *chr);

/* --- losing the peer ----------------------------------------------------------------------------------- */

/* The device learns of each change. A peer that has left is there until its last byte was received. */
static void tell_peer(struct chr *chr)
{
	bool has_peer = chr->policy->is_sink || chr->in_fd >= 0 || chr->out_fd >= 0 || chr->input_from < chr->input_to;
	if (atomic_exchange(&chr->has_peer, has_peer) != has_peer && chr->client.peer)
		chr->client.peer(chr->client.ctx, has_peer);
}

bool chr_has_peer(const struct chr *chr)
{
	return atomic_load(&chr->has_peer);
}

/* Output has nowhere to go: what the tap has not seen is dropped when it has. */
static void disconnect_output(struct chr *chr)
{
	pthread_mutex_lock(&chr->mutex);
	chr->connected = false;
	pthread_mutex_unlock(&chr->mutex);
	tell_peer(chr);
	start_write(chr);
}

static void close_out_fd(struct chr *chr)
{
	if (chr->policy->closes_fds && chr->out_fd != chr->in_fd)
		fd_close(&chr->out_fd);
	chr->out_fd = -1;
}

static void close_fds(struct chr *chr)
{
	close_out_fd(chr);
	if (chr->policy->closes_fds)
		fd_close(&chr->in_fd);
	chr->in_fd = -1;
}

static bool ops_idle(const struct chr *chr)
{
	return chr->read_op.state == LOOP_OP_IDLE && chr->write_op.state == LOOP_OP_IDLE;
}

/* Runs after each completion while losing: acts when nothing is in flight any more. */
static void finish_losing(struct chr *chr)
{
	if (!ops_idle(chr))
		return;
	chr->losing = false;
	close_fds(chr);
	disconnect_output(chr);
	if (chr->policy->lost && !chr->closing)
		chr->policy->lost(chr);
}

static void lose(struct chr *chr)
{
	chr->losing = true;
	loop_cancel(chr->loop, &chr->read_op);
	loop_cancel(chr->loop, &chr->write_op);
	finish_losing(chr);
}

/* --- output -------------------------------------------------------------------------------------------- */

/*
 * The tap may come back here, by running the loop (it pauses the VM, say): then nothing is shown until it returns, and
 * what it looks at is neither written nor dropped.
 */
static void show_tap(struct chr *chr)
{
	if (!chr->tap.output || chr->tapping)
		return;
	chr->tapping = true;
	const uint8_t *run;
	size_t size;
	while ((size = chr_first_run(chr, false, &run))) {
		chr->tap.output(chr->tap.ctx, run, size);
		pthread_mutex_lock(&chr->mutex);
		chr->queue_tapped += size;
		pthread_mutex_unlock(&chr->mutex);
	}
	chr->tapping = false;
}

static void announce_start(struct chr *chr)
{
	if (chr->announced || !chr->started || !chr_first_output_ns(chr))
		return;
	chr->announced = true;
	chr->started(chr->started_ctx);
}

static void write_task(struct loop_task *task)
{
	struct chr *chr = container_of(task, struct chr, write_task);
	announce_start(chr);
	start_write(chr);
}

/* Show the tap what is new, and write the queue's first contiguous run. */
static void start_write(struct chr *chr)
{
	if (chr->closing)
		return;
	show_tap(chr);
	if (chr->write_op.state != LOOP_OP_IDLE || chr->losing)
		return;
	if (!chr_has_output(chr)) {
		chr_drop_output(chr);
		return;
	}
	const uint8_t *run;
	size_t size = chr_first_run(chr, true, &run);
	if (!size)
		return;

	int r = chr->write_polls ? loop_poll(chr->loop, &chr->write_op, chr->out_fd, POLLOUT)
				 : loop_write(chr->loop, &chr->write_op, chr->out_fd, run, size, UINT64_MAX);
	if (r < 0)
		loop_post(chr->loop, &chr->write_task); /* the ring is full for now */
}

static void output_failed(struct chr *chr, int res)
{
	bool peer_left = res == -EPIPE || res == -ECONNRESET || res == -EIO;
	bool is_quiet = peer_left && (chr->policy->lost || chr->policy->is_stream);
	if (!is_quiet)
		log_guest(chr->log, &chr->limit, "%s: %s; what follows is discarded",
			  chr->policy->is_stream ? "output stream" : "console output", err_name(res));
	if (chr->policy->lost) {
		lose(chr);
		return;
	}
	close_out_fd(chr); /* input may go on: `vmlet run | head` still listens */
	disconnect_output(chr);
}

static void write_done(struct loop_op *op, int res)
{
	struct chr *chr = container_of(op, struct chr, write_op);
	if (chr->losing) {
		finish_losing(chr);
		return;
	}
	if (chr->closing)
		return;

	bool polled = chr->write_polls;
	chr->write_polls = res == -EAGAIN;
	if (res >= 0 && !polled)
		chr_dequeue(chr, (size_t)res);
	else if (res < 0 && res != -EAGAIN && res != -EINTR) {
		output_failed(chr, res);
		return;
	}
	start_write(chr);
}

/* --- input --------------------------------------------------------------------------------------------- */

/*
 * Offer [from, to) to the device; true when nothing is left. input_waits is raised before the offer: a device that
 * makes room between its refusal and our next line finds it raised, and posts.
 */
static bool offer(struct chr *chr, const uint8_t *data, size_t *from, size_t to)
{
	if (*from == to)
		return true;
	if (!chr->client.receive)
		return false;
	atomic_store(&chr->input_waits, true);
	size_t taken = chr->client.receive(chr->client.ctx, data + *from, to - *from);
	assert(taken <= to - *from);
	*from += taken;
	if (*from < to)
		return false;
	atomic_store(&chr->input_waits, false);
	return true;
}

/* What was typed goes first. */
static void offer_input(struct chr *chr)
{
	if (!offer(chr, chr->typed, &chr->typed_from, chr->typed_to) ||
	    !offer(chr, chr->input, &chr->input_from, chr->input_to))
		return;
	tell_peer(chr);
	if (chr->in_fd < 0 && !chr->policy->lost)
		atomic_store(&chr->input_ended, true);
}

size_t chr_type(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	size_t left = chr->typed_to - chr->typed_from;
	memmove(chr->typed, chr->typed + chr->typed_from, left);
	size_t taken = (size_t)min_u64(size_bytes, CHR_TYPED_SIZE - left);
	memcpy(chr->typed + left, data, taken);
	chr->typed_from = 0;
	chr->typed_to = left + taken;
	loop_post(chr->loop, &chr->input_task);
	return taken;
}

bool chr_input_has_ended(struct chr *chr)
{
	return atomic_load(&chr->input_ended);
}

void chr_accept_input(struct chr *chr)
{
	if (atomic_load(&chr->input_waits))
		loop_post(chr->loop, &chr->input_task);
}

static void input_task(struct loop_task *task)
{
	struct chr *chr = container_of(task, struct chr, input_task);
	offer_input(chr);
	start_read(chr);
}

static void start_read(struct chr *chr)
{
	if (chr->read_op.state != LOOP_OP_IDLE || chr->losing || chr->closing || chr->in_fd < 0)
		return;
	/* Without a device, only to see a peer go. */
	if (!chr->client.receive && !chr->policy->lost)
		return;
	if (chr->input_from == chr->input_to)
		chr->input_from = chr->input_to = 0;
	size_t room = CHR_INPUT_SIZE - chr->input_to;
	if (!room)
		return;
	uint8_t *to = chr->input + chr->input_to;
	int r = chr->read_polls ? loop_poll(chr->loop, &chr->read_op, chr->in_fd, POLLIN)
				: loop_read(chr->loop, &chr->read_op, chr->in_fd, to, room, UINT64_MAX);
	if (r < 0)
		loop_post(chr->loop, &chr->input_task);
}

static void input_ended(struct chr *chr)
{
	if (chr->policy->lost) {
		lose(chr);
		return;
	}
	chr->in_fd = -1; /* end of standard input: output goes on */
	offer_input(chr);
}

static void take_input(struct chr *chr, size_t size_bytes)
{
	uint8_t *data = chr->input + chr->input_to;
	if (chr->filter.input)
		size_bytes = (size_t)min_u64(chr->filter.input(chr->filter.ctx, data, size_bytes), size_bytes);
	chr->input_to += size_bytes;
	offer_input(chr);
}

static void read_done(struct loop_op *op, int res)
{
	struct chr *chr = container_of(op, struct chr, read_op);
	bool polled = chr->read_polls;
	bool goes_on = res > 0 || res == -EAGAIN || res == -EINTR || (polled && res == 0);
	chr->read_polls = res == -EAGAIN;
	if (res > 0 && !polled && !chr->closing)
		take_input(chr, (size_t)res); /* also while losing: the peer sent it before it went */

	if (chr->losing)
		finish_losing(chr);
	else if (goes_on)
		start_read(chr);
	else if (!chr->closing)
		input_ended(chr);
}

/* --- life ---------------------------------------------------------------------------------------------- */

void chr_connect(struct chr *chr, int in_fd, int out_fd)
{
	chr->in_fd = in_fd;
	chr->out_fd = out_fd;
	chr->read_polls = chr->write_polls = false;
	pthread_mutex_lock(&chr->mutex);
	chr->connected = out_fd >= 0;
	pthread_mutex_unlock(&chr->mutex);
	tell_peer(chr);
	offer_input(chr); /* there may be none to come */
	start_read(chr);
}

void chr_set_client(struct chr *chr, const struct chr_client *client)
{
	chr->client = client ? *client : (struct chr_client){0};
	offer_input(chr);
	start_read(chr);
}

void chr_set_tap(struct chr *chr, struct chr_tap tap)
{
	chr->tap = tap;
}

void chr_on_output(struct chr *chr, void (*started)(void *ctx), void *ctx)
{
	chr->started = started;
	chr->started_ctx = ctx;
}

const char *chr_path(const struct chr *chr)
{
	return chr->path;
}

struct chr *chr_alloc(struct loop *loop, const struct log *log, const struct chr_policy *policy, struct err *err)
{
	struct chr *chr = calloc(1, sizeof(*chr));
	if (!chr) {
		err_set(err, -ENOMEM, "console: %s", err_name(ENOMEM));
		return NULL;
	}
	chr->loop = loop;
	chr->log = log;
	chr->policy = policy;
	chr->has_peer = policy->is_sink;
	chr->in_fd = chr->out_fd = chr->listen_fd = -1;
	chr->read_op.done = read_done;
	chr->write_op.done = write_done;
	chr->write_task.fn = write_task;
	chr->input_task.fn = input_task;
	pthread_mutex_init(&chr->mutex, NULL);

	/* One mapping, not malloc: pages come as they are used, and go back whole. */
	uint8_t *pages =
		mmap(NULL, CHR_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pages == MAP_FAILED) {
		err_set(err, -errno, "console: %s", err_name(errno));
		pthread_mutex_destroy(&chr->mutex);
		free(chr);
		return NULL;
	}
	chr->queue = pages;
	chr->typed = pages + CHR_QUEUE_SIZE;
	chr->input = chr->typed + CHR_TYPED_SIZE;
	return chr;
}

/* Wait for the ends of what was cancelled: the kernel must not write to memory that we are about to free. */
static void quiesce(struct chr *chr)
{
	chr->closing = true;
	loop_timer_disarm(chr->loop, &chr->retry_timer);
	loop_cancel(chr->loop, &chr->read_op);
	loop_cancel(chr->loop, &chr->write_op);
	loop_cancel(chr->loop, &chr->accept_op);
	while (!ops_idle(chr) || chr->accept_op.state != LOOP_OP_IDLE) {
		if (loop_wait(chr->loop, UINT64_MAX) < 0)
			break;
	}
	loop_unpost(chr->loop, &chr->write_task);
	loop_unpost(chr->loop, &chr->input_task);
}

void chr_free(struct chr *chr)
{
	if (!chr)
		return;
	chr->client = (struct chr_client){0};
	quiesce(chr);
	close_fds(chr);
	if (chr->policy->close)
		chr->policy->close(chr);
	munmap(chr->queue, CHR_MEMORY_SIZE);
	pthread_mutex_destroy(&chr->mutex);
	free(chr->path);
	free(chr);
}
