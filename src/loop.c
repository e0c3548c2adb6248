#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "util.h"

enum { RING_ENTRIES = 256 };
static const uint64_t NS_PER_S = 1000000000;

/* The only operations that this ring will ever take, whatever a bug in us asks for. */
static const uint8_t ALLOWED_OPCODES[] = {
	IORING_OP_READ, IORING_OP_WRITE, IORING_OP_POLL_ADD, IORING_OP_ACCEPT, IORING_OP_ASYNC_CANCEL,
};

struct loop {
	struct io_uring ring;
	bool ring_ready;
	bool enabled; /* the loop thread has entered */

	/*
	 * eventfd: the ring counts it up when something completes. The ring's own descriptor does not do for poll:
	 * with DEFER_TASKRUN a completion does not wake who polls it already (seen on 6.18). It begins at 1, because
	 * what was queued before the first dispatch waits for that.
	 */
	int notify_fd;

	int wake_fd; /* eventfd: written by loop_wake from anywhere */
	uint64_t wake_count;
	struct loop_op wake_op;

	int timer_fd; /* timerfd for the earliest timer; set from any thread */
	uint64_t timer_count;
	struct loop_op timer_op;

	pthread_mutex_t mutex; /* guards the two lists */
	struct loop_task *tasks_head, **tasks_tail;
	struct loop_timer *timers; /* ascending deadlines */
};

uint64_t loop_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* --- ring ------------------------------------------------------------------------------------------- */

static int restrict_opcodes(struct io_uring *ring)
{
	struct io_uring_restriction rules[ARRAY_SIZE(ALLOWED_OPCODES) + 2] = {0};
	unsigned count = 0;
	for (; count < ARRAY_SIZE(ALLOWED_OPCODES); count++) {
		rules[count].opcode = IORING_RESTRICTION_SQE_OP;
		rules[count].sqe_op = ALLOWED_OPCODES[count];
	}
	rules[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	rules[count++].sqe_flags = IOSQE_ASYNC;
	rules[count].opcode = IORING_RESTRICTION_REGISTER_OP;
	rules[count++].register_op = IORING_REGISTER_ENABLE_RINGS;
	return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, rules, count);
}

static int create_ring(struct loop *loop, struct err *err)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED,
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
	return 0;
}

/* A free submission entry; submits what is queued when the ring is full. NULL: the kernel takes no more now. */
static struct io_uring_sqe *get_sqe(struct loop *loop)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);
	if (sqe || !loop->enabled)
		return sqe;
	io_uring_submit(&loop->ring);
	return io_uring_get_sqe(&loop->ring);
}

static struct io_uring_sqe *start_op(struct loop *loop, struct loop_op *op)
{
	assert(op->state == LOOP_OP_IDLE && op->done);
	struct io_uring_sqe *sqe = get_sqe(loop);
	if (sqe)
		op->state = LOOP_OP_INFLIGHT;
	return sqe;
}

int loop_read(struct loop *loop, struct loop_op *op, int fd, void *buf, size_t size_bytes, uint64_t offset)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_read(sqe, fd, buf, (unsigned)size_bytes, offset);
	io_uring_sqe_set_data(sqe, op);
	return 0;
}

int loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buf, size_t size_bytes, uint64_t offset)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_write(sqe, fd, buf, (unsigned)size_bytes, offset);
	/* A stream's write may raise SIGPIPE: on a kernel worker, where it is blocked, never on the caller's thread. */
	if (offset == UINT64_MAX)
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, op);
	return 0;
}

int loop_poll(struct loop *loop, struct loop_op *op, int fd, uint32_t poll_events)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_poll_add(sqe, fd, poll_events);
	io_uring_sqe_set_data(sqe, op);
	return 0;
}

int loop_accept(struct loop *loop, struct loop_op *op, int listen_fd)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_accept(sqe, listen_fd, NULL, NULL, SOCK_CLOEXEC);
	io_uring_sqe_set_data(sqe, op);
	return 0;
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	if (op->state != LOOP_OP_INFLIGHT)
		return;
	struct io_uring_sqe *sqe = get_sqe(loop);
	if (!sqe)
		return;
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL); /* its own completion is nobody's business */
	op->state = LOOP_OP_CANCELLING;
}

/* --- tasks from other threads ------------------------------------------------------------------------- */

void loop_wake(struct loop *loop)
{
	uint64_t one = 1;
	int saved_errno = errno;
	/* EAGAIN cannot be: the counters would have to reach 2^64 - 2. */
	(void)!write(loop->wake_fd, &one, sizeof(one));
	/* From within the write to one eventfd the ring cannot count up another: it puts that off, and it got lost. */
	(void)!write(loop->notify_fd, &one, sizeof(one));
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
	for (struct loop_task **at = &loop->tasks_head; *at; at = &(*at)->next) {
		if (*at != task)
			continue;
		*at = task->next;
		if (!*at)
			loop->tasks_tail = at;
		task->queued = false;
		break;
	}
	pthread_mutex_unlock(&loop->mutex);
}

static void run_tasks(struct loop *loop)
{
	struct loop_task *task;
	while ((task = pop_task(loop)))
		task->fn(task);
}

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

/* Deadlines are absolute, so one that has passed fires at once. Called with the mutex held. */
static void set_timerfd(struct loop *loop)
{
	uint64_t deadline = loop->timers ? loop->timers->deadline_ns : 0;
	struct itimerspec spec = {
		.it_value = {.tv_sec = (time_t)(deadline / NS_PER_S), .tv_nsec = (long)(deadline % NS_PER_S)}};
	timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void unlink_timer(struct loop *loop, struct loop_timer *timer)
{
	for (struct loop_timer **at = &loop->timers; *at; at = &(*at)->next) {
		if (*at == timer) {
			*at = timer->next;
			break;
		}
	}
	timer->deadline_ns = 0;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
	pthread_mutex_lock(&loop->mutex);
	if (timer->deadline_ns)
		unlink_timer(loop, timer);
	timer->deadline_ns = max_u64(deadline_ns, 1);
	struct loop_timer **at = &loop->timers;
	while (*at && (*at)->deadline_ns <= timer->deadline_ns)
		at = &(*at)->next;
	timer->next = *at;
	*at = timer;
	if (loop->timers == timer)
		set_timerfd(loop);
	pthread_mutex_unlock(&loop->mutex);
}

void loop_timer_disarm(struct loop *loop, struct loop_timer *timer)
{
	pthread_mutex_lock(&loop->mutex);
	if (timer->deadline_ns) {
		unlink_timer(loop, timer);
		set_timerfd(loop);
	}
	pthread_mutex_unlock(&loop->mutex);
}

static struct loop_timer *pop_expired(struct loop *loop, uint64_t now_ns)
{
	pthread_mutex_lock(&loop->mutex);
	struct loop_timer *timer = loop->timers;
	if (timer && timer->deadline_ns <= now_ns) {
		loop->timers = timer->next;
		timer->deadline_ns = 0;
	} else {
		timer = NULL;
		set_timerfd(loop);
	}
	pthread_mutex_unlock(&loop->mutex);
	return timer;
}

static void arm_timer_op(struct loop *loop)
{
	(void)loop_read(loop, &loop->timer_op, loop->timer_fd, &loop->timer_count, sizeof(loop->timer_count), 0);
}

static void timer_done(struct loop_op *op, int res)
{
	struct loop *loop = container_of(op, struct loop, timer_op);
	if (res == -ECANCELED)
		return;
	arm_timer_op(loop);

	/* One reading of the clock: a timer that re-arms itself in the past waits for the next round. */
	uint64_t now = loop_now_ns();
	struct loop_timer *timer;
	while ((timer = pop_expired(loop, now)))
		timer->fn(timer);
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
	loop->enabled = true;
	return 0;
}

static void complete(struct io_uring_cqe *cqe)
{
	struct loop_op *op = io_uring_cqe_get_data(cqe);
	if (!op)
		return;
	op->state = LOOP_OP_IDLE;
	op->done(op, cqe->res);
}

/* What has completed by now, and no more: an op that is resubmitted by its `done` cannot hold us here. */
static void reap(struct loop *loop)
{
	unsigned ready = io_uring_cq_ready(&loop->ring);
	while (ready--) {
		struct io_uring_cqe *cqe;
		if (io_uring_peek_cqe(&loop->ring, &cqe) < 0)
			return;
		struct io_uring_cqe copy = *cqe;
		io_uring_cqe_seen(&loop->ring, cqe);
		complete(&copy);
	}
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
	/* What the callbacks have submitted starts now, also when the caller polls before it comes back. */
	r = io_uring_submit(&loop->ring);
	return r < 0 && !is_transient(r) ? r : 0;
}

int loop_wait(struct loop *loop, uint64_t timeout_ns)
{
	int r = enter(loop);
	if (r < 0)
		return r;

	struct __kernel_timespec timeout = {
		.tv_sec = (long long)(timeout_ns / NS_PER_S),
		.tv_nsec = (long long)(timeout_ns % NS_PER_S),
	};
	struct io_uring_cqe *cqe;
	r = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
	if (r < 0 && !is_transient(r))
		return r;
	reap(loop);
	return 0;
}

int loop_get_fd(const struct loop *loop)
{
	return loop->notify_fd;
}

struct loop *loop_new(struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop) {
		err_set(err, -ENOMEM, "event loop: %s", err_name(ENOMEM));
		return NULL;
	}
	loop->notify_fd = loop->wake_fd = loop->timer_fd = -1;
	loop->tasks_tail = &loop->tasks_head;
	loop->wake_op.done = wake_done;
	loop->timer_op.done = timer_done;
	pthread_mutex_init(&loop->mutex, NULL);

	loop->notify_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->notify_fd < 0) {
		err_set(err, -errno, "event loop: %s", err_name(errno));
		goto fail;
	}
	if (create_ring(loop, err) < 0)
		goto fail;
	/* Not O_NONBLOCK: io_uring then waits for it, instead of failing with EAGAIN. */
	loop->wake_fd = eventfd(0, EFD_CLOEXEC);
	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (loop->wake_fd < 0 || loop->timer_fd < 0) {
		err_set(err, -errno, "event loop: %s", err_name(errno));
		goto fail;
	}
	arm_wake(loop);
	arm_timer_op(loop);
	return loop;
fail:
	loop_free(loop);
	return NULL;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->ring_ready)
		io_uring_queue_exit(&loop->ring);
	fd_close(&loop->notify_fd);
	fd_close(&loop->wake_fd);
	fd_close(&loop->timer_fd);
	pthread_mutex_destroy(&loop->mutex);
	free(loop);
}
