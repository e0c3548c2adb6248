#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fd.h"
#include "loop_ring.h"
#include "util.h"

enum {
	RING_ENTRIES = 256,
};
static const uint64_t RETRY_NS = 10000000;
static const uint64_t NS_PER_S = 1000000000;

/* The only operations that this ring will ever take, whatever a bug in us asks for. */
static const uint8_t ALLOWED_OPCODES[] = {
	IORING_OP_READ,    IORING_OP_WRITE,     IORING_OP_READV,    IORING_OP_WRITEV,
	IORING_OP_FSYNC,   IORING_OP_FALLOCATE, IORING_OP_POLL_ADD, IORING_OP_ACCEPT,
	IORING_OP_CONNECT, IORING_OP_SENDMSG,   IORING_OP_RECVMSG,  IORING_OP_ASYNC_CANCEL,
};

/* All that the ring may be asked to register once it runs. */
static const uint8_t ALLOWED_REGISTERS[] = {
	IORING_REGISTER_ENABLE_RINGS,
	IORING_REGISTER_FILES2,
	IORING_REGISTER_FILES_UPDATE,
};

/* --- ring ------------------------------------------------------------------------------------------- */

static int restrict_opcodes(struct io_uring *ring)
{
	struct io_uring_restriction rules[ARRAY_SIZE(ALLOWED_OPCODES) + ARRAY_SIZE(ALLOWED_REGISTERS) + 1] = {0};
	unsigned count = 0;
	for (size_t i = 0; i < ARRAY_SIZE(ALLOWED_OPCODES); i++) {
		rules[count].opcode = IORING_RESTRICTION_SQE_OP;
		rules[count++].sqe_op = ALLOWED_OPCODES[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(ALLOWED_REGISTERS); i++) {
		rules[count].opcode = IORING_RESTRICTION_REGISTER_OP;
		rules[count++].register_op = ALLOWED_REGISTERS[i];
	}
	rules[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	rules[count++].sqe_flags = IOSQE_ASYNC | IOSQE_FIXED_FILE;
	return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, rules, count);
}

static int create_ring(struct loop *loop, struct err *err)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
			 IORING_SETUP_R_DISABLED,
	};
	int r = io_uring_queue_init_params(RING_ENTRIES, &loop->ring, &params);
	if (r < 0)
		return err_set(err, r,
			       "io_uring: %s; vmlet needs Linux 6.1 or later with io_uring allowed "
			       "(sysctl kernel.io_uring_disabled=0, and a seccomp profile that permits it)",
			       err_name(r));
	loop->ring_ready = true;

	r = restrict_opcodes(&loop->ring);
	if (r < 0)
		return err_set(err, r, "io_uring: restrict operations: %s", err_name(r));
	r = io_uring_register((unsigned)loop->ring.ring_fd, IORING_REGISTER_EVENTFD, &loop->notify_fd, 1);
	if (r < 0)
		return err_set(err, r, "io_uring: register an eventfd: %s", err_name(r));
	(void)io_uring_cq_eventfd_toggle(&loop->ring, false);
	return 0;
}

/* EAGAIN cannot be: the counter would have to reach 2^64 - 2. */
void loop_notify(struct loop *loop)
{
	uint64_t one = 1;
	if (atomic_load(&loop->has_listener))
		(void)!write(loop->notify_fd, &one, sizeof(one));
}

struct io_uring_sqe *loop_get_sqe(struct loop *loop)
{
	/* Who polls the descriptor must come to dispatch, or nobody submits this. */
	if (!loop->calling)
		loop_notify(loop);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);
	if (sqe || !loop->enabled)
		return sqe;
	io_uring_submit(&loop->ring);
	return io_uring_get_sqe(&loop->ring);
}

/* --- cancelling --------------------------------------------------------------------------------------- */

static void ask_to_end(struct loop *loop, struct loop_op *op)
{
	struct io_uring_sqe *sqe = loop_get_sqe(loop);
	if (!sqe)
		return;
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL); /* its own completion is nobody's business */
}

/*
 * Once is not enough. The ring may be full; and an op that a kernel worker could not finish at once is on its way
 * to the wait for its descriptor for a moment in which the kernel does not find it (seen on 6.18).
 */
static void cancel_again(struct loop_timer *timer)
{
	struct loop *loop = container_of(timer, struct loop, cancel_timer);
	for (struct loop_op *op = loop->cancels; op; op = op->next)
		ask_to_end(loop, op);
	if (loop->cancels)
		loop_timer_arm(loop, timer, loop_now_ns() + RETRY_NS);
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	if (op->state != LOOP_OP_INFLIGHT)
		return;
	op->state = LOOP_OP_CANCELLING;
	ask_to_end(loop, op);
	if (!loop->cancels)
		loop_timer_arm(loop, &loop->cancel_timer, loop_now_ns() + RETRY_NS);
	op->next = loop->cancels;
	loop->cancels = op;
}

static void cancel_ended(struct loop *loop, const struct loop_op *op)
{
	struct loop_op **at = &loop->cancels;
	while (*at != op)
		at = &(*at)->next;
	*at = op->next;
	if (!loop->cancels)
		loop_timer_disarm(loop, &loop->cancel_timer);
}

/* --- tasks -------------------------------------------------------------------------------------------- */

static bool unlink_task(struct loop_task **head, struct loop_task ***tail, struct loop_task *task)
{
	for (struct loop_task **at = head; *at; at = &(*at)->next) {
		if (*at != task)
			continue;
		*at = task->next;
		if (!*at)
			*tail = at;
		task->queued = false;
		return true;
	}
	return false;
}

/* --- tasks from other threads ------------------------------------------------------------------------- */

void loop_wake(struct loop *loop)
{
	uint64_t one = 1;
	int saved_errno = errno;
	(void)!write(loop->wake_fd, &one, sizeof(one));
	/* From within the write to one eventfd the ring cannot count up another: it puts that off, and it got lost. */
	loop_notify(loop);
	errno = saved_errno;
}

void loop_post(struct loop *loop, struct loop_task *task)
{
	pthread_mutex_lock(&loop->mutex);
	bool wake = !loop->tasks_head;
	if (!task->queued) {
		task->queued = true;
		task->next = NULL;
		*loop->tasks_tail = task;
		loop->tasks_tail = &task->next;
	}
	pthread_mutex_unlock(&loop->mutex);
	if (wake)
		loop_wake(loop);
}

static struct loop_task *pop_task(struct loop *loop)
{
	pthread_mutex_lock(&loop->mutex);
	struct loop_task *task = loop->tasks_head;
	if (task) {
		loop->tasks_head = task->next;
		if (!loop->tasks_head)
			loop->tasks_tail = &loop->tasks_head;
		task->queued = false;
	}
	pthread_mutex_unlock(&loop->mutex);
	return task;
}

void loop_unpost(struct loop *loop, struct loop_task *task)
{
	pthread_mutex_lock(&loop->mutex);
	bool found = unlink_task(&loop->tasks_head, &loop->tasks_tail, task);
	pthread_mutex_unlock(&loop->mutex);
	if (!found)
		unlink_task(&loop->deferred_head, &loop->deferred_tail, task);
}

static unsigned count_tasks(struct loop *loop)
{
	unsigned count = 0;
	pthread_mutex_lock(&loop->mutex);
	for (const struct loop_task *task = loop->tasks_head; task; task = task->next)
		count++;
	pthread_mutex_unlock(&loop->mutex);
	return count;
}

/* No more than there are by now: a task that posts itself again waits for the next round. */
static void run_tasks(struct loop *loop)
{
	struct loop_task *task;
	for (unsigned left = count_tasks(loop); left && (task = pop_task(loop)); left--)
		task->fn(task);
	if (count_tasks(loop))
		loop_wake(loop); /* loop_post does it for the first of a list only */
}

/* --- deferred tasks ----------------------------------------------------------------------------------- */

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	task->next = NULL;
	*loop->deferred_tail = task;
	loop->deferred_tail = &task->next;
	if (!loop->calling)
		loop_wake(loop); /* no round is going on: have one */
}

/*
 * As many as there are by now: what they defer is for the next round, after what was submitted has begun. A task may
 * have taken others back.
 */
static void run_deferred(struct loop *loop)
{
	unsigned left = 0;
	for (const struct loop_task *task = loop->deferred_head; task; task = task->next)
		left++;
	for (; left && loop->deferred_head; left--) {
		struct loop_task *task = loop->deferred_head;
		unlink_task(&loop->deferred_head, &loop->deferred_tail, task);
		task->fn(task);
	}
}

/* --- waking ------------------------------------------------------------------------------------------- */

static void arm_wake(struct loop *loop)
{
	(void)loop_read(loop, &loop->wake_op, loop->wake_fd, &loop->wake_count, sizeof(loop->wake_count), 0);
}

static void wake_done(struct loop_op *op, int res)
{
	struct loop *loop = container_of(op, struct loop, wake_op);
	if (res == -ECANCELED)
		return;
	arm_wake(loop);
	run_tasks(loop);
}

/* --- timers ------------------------------------------------------------------------------------------- */

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
	loop_timers_arm(&loop->timers, timer, deadline_ns);
}

void loop_timer_disarm(struct loop *loop, struct loop_timer *timer)
{
	loop_timers_disarm(&loop->timers, timer);
}

static void arm_timer_op(struct loop *loop)
{
	(void)loop_read(loop, &loop->timer_op, loop->timers.fd, &loop->timer_count, sizeof(loop->timer_count), 0);
}

static void timer_done(struct loop_op *op, int res)
{
	struct loop *loop = container_of(op, struct loop, timer_op);
	if (res == -ECANCELED)
		return;
	arm_timer_op(loop);
	loop_timers_run(&loop->timers);
}

/* Without its own two ops the loop is deaf. False: the ring did not take one; try again soon. */
static bool arm_own_ops(struct loop *loop)
{
	if (loop->wake_op.state == LOOP_OP_IDLE)
		arm_wake(loop);
	if (loop->timer_op.state == LOOP_OP_IDLE)
		arm_timer_op(loop);
	return loop->wake_op.state != LOOP_OP_IDLE && loop->timer_op.state != LOOP_OP_IDLE;
}

/* --- dispatch ------------------------------------------------------------------------------------------ */

/* The first call binds the ring to this thread. */
static int enter(struct loop *loop)
{
	if (loop->enabled)
		return 0;
	int r = io_uring_register((unsigned)loop->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (r < 0)
		return r;
	loop->thread = pthread_self();
	atomic_store(&loop->enabled, true);
	return 0;
}

bool loop_is_current(const struct loop *loop)
{
	return !atomic_load(&loop->enabled) || pthread_equal(loop->thread, pthread_self());
}

static void complete(struct loop *loop, const struct io_uring_cqe *cqe)
{
	struct loop_op *op = io_uring_cqe_get_data(cqe);
	if (!op)
		return;
	if (op->state == LOOP_OP_CANCELLING)
		cancel_ended(loop, op);
	op->state = LOOP_OP_IDLE;
	op->done(op, cqe->res);
}

/* What has completed by now, and no more: an op that is resubmitted by its `done` cannot hold us here. */
static void reap(struct loop *loop)
{
	bool nested = loop->calling; /* a callback that waits for another op */
	loop->calling = true;
	struct io_uring_cqe *cqe;
	for (unsigned ready = io_uring_cq_ready(&loop->ring); ready && io_uring_peek_cqe(&loop->ring, &cqe) == 0;
	     ready--) {
		struct io_uring_cqe copy = *cqe;
		io_uring_cqe_seen(&loop->ring, cqe);
		complete(loop, &copy);
	}
	run_deferred(loop);
	loop->calling = nested;
}

static bool is_transient(int r)
{
	return r == -EINTR || r == -ETIME || r == -EAGAIN || r == -EBUSY;
}

int loop_dispatch(struct loop *loop)
{
	int r = enter(loop);
	if (r < 0)
		return r;
	/* First this, then the completions: one that comes in between is notified again. */
	uint64_t count;
	(void)!read(loop->notify_fd, &count, sizeof(count));
	r = io_uring_submit_and_get_events(&loop->ring);
	if (r < 0 && !is_transient(r))
		return r;
	reap(loop);
	(void)arm_own_ops(loop);
	(void)loop_spin(loop, false); /* who called us sleeps as he likes */
	if (loop->deferred_head)
		loop_notify(loop);
	/* What the callbacks have submitted starts now, also when the caller polls before it comes back. */
	r = io_uring_submit(&loop->ring);
	return r < 0 && !is_transient(r) ? r : 0;
}

static bool needs_kernel(struct loop *loop)
{
	unsigned flags = IO_URING_READ_ONCE(*loop->ring.sq.kflags);
	return io_uring_sq_ready(&loop->ring) || flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/* To wait for no time at all arms a timer all the same, which costs more than all the rest of a round. */
static int submit_and_wait(struct loop *loop, uint64_t timeout_ns)
{
	if (timeout_ns == 0)
		return needs_kernel(loop) ? io_uring_submit_and_get_events(&loop->ring) : 0;
	struct __kernel_timespec timeout = {
		.tv_sec = (long long)(timeout_ns / NS_PER_S),
		.tv_nsec = (long long)(timeout_ns % NS_PER_S),
	};
	struct io_uring_cqe *cqe;
	return io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
}

int loop_wait(struct loop *loop, uint64_t timeout_ns)
{
	int r = enter(loop);
	if (r < 0)
		return r;

	if (!arm_own_ops(loop))
		timeout_ns = min_u64(timeout_ns, RETRY_NS);
	uint64_t since_ns = loop->pollers ? loop_now_ns() : 0;
	bool is_busy = loop->deferred_head;
	if (is_busy)
		loop_glance(loop);
	if (is_busy || loop_spin(loop, timeout_ns > 0) || loop->deferred_head)
		timeout_ns = 0;
	r = submit_and_wait(loop, timeout_ns);
	if (r < 0 && !is_transient(r))
		return r;
	if (since_ns && timeout_ns)
		loop_spin_slept(loop, since_ns);
	reap(loop);
	return 0;
}

void loop_drain(struct loop *loop, struct loop_op *op)
{
	while (op->state != LOOP_OP_IDLE) {
		if (loop_wait(loop, RETRY_NS) < 0)
			return;
	}
}

int loop_get_fd(struct loop *loop)
{
	if (!atomic_exchange(&loop->has_listener, true)) {
		(void)io_uring_cq_eventfd_toggle(&loop->ring, true);
		loop_notify(loop); /* whatever has completed by now */
	}
	return loop->notify_fd;
}

static int open_fds(struct loop *loop, struct err *err)
{
	int r = loop_timers_init(&loop->timers);
	loop->notify_fd = r < 0 ? -1 : eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Not O_NONBLOCK: io_uring then waits for it, instead of failing with EAGAIN. */
	loop->wake_fd = loop->notify_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC);
	if (r == 0 && loop->wake_fd < 0)
		r = -errno;
	return r < 0 ? err_set(err, r, "event loop: %s", err_name(r)) : 0;
}

struct loop *loop_new(struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop) {
		err_set(err, -ENOMEM, "event loop: %s", err_name(ENOMEM));
		return NULL;
	}
	loop->notify_fd = loop->wake_fd = -1;
	loop->tasks_tail = &loop->tasks_head;
	loop->deferred_tail = &loop->deferred_head;
	loop->wake_op.done = wake_done;
	loop->timer_op.done = timer_done;
	loop->cancel_timer.fn = cancel_again;
	pthread_mutex_init(&loop->mutex, NULL);

	if (open_fds(loop, err) < 0 || create_ring(loop, err) < 0) {
		loop_free(loop);
		return NULL;
	}
	arm_own_ops(loop);
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->ring_ready)
		io_uring_queue_exit(&loop->ring);
	fd_close(&loop->notify_fd);
	fd_close(&loop->wake_fd);
	loop_timers_fini(&loop->timers);
	pthread_mutex_destroy(&loop->mutex);
	free(loop);
}
