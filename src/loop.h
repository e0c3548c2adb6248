/*
 * The event loop: one io_uring, driven by one thread.
 *
 * Theory of operation. Every asynchronous thing is a `struct loop_op` embedded in the object that owns it.
 * Its life is IDLE -> INFLIGHT -> IDLE (through CANCELLING when cancelled): from submit to `done` the kernel
 * may use the op's buffers, so their owner keeps them, and `done` is called exactly once, also after a cancel.
 * The thread that first calls loop_dispatch or loop_wait becomes the loop thread; the ring is created
 * disabled and enabled there, so an op may be submitted earlier by the thread that sets the VM up.
 * Another thread enters through loop_post or a loop_timer only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "err.h"

struct loop;
struct msghdr;
struct sockaddr;

struct loop_op {
	void (*done)(struct loop_op *op, int res); /* res: bytes or event bits, or -errno (-ECANCELED). [loop] */
	enum { LOOP_OP_IDLE, LOOP_OP_INFLIGHT, LOOP_OP_CANCELLING } state;
	struct loop_op *next; /* private */
};

/* Something to call on the loop thread. Posting a task that is already queued does nothing. */
struct loop_task {
	void (*fn)(struct loop_task *task); /* [loop] */
	struct loop_task *next;             /* private */
	bool queued;                        /* private */
};

struct loop_timer {
	void (*fn)(struct loop_timer *timer); /* [loop] */
	uint64_t deadline_ns;                 /* private; CLOCK_MONOTONIC, 0 when not armed */
	struct loop_timer *next;              /* private */
};

/*
 * Somebody who can look for work by himself (in memory that is shared with a guest) before the loop sleeps. While work
 * comes often, the loop looks instead of sleeping, for as long as has paid off lately: see loop_spin.c.
 */
struct loop_poller {
	bool (*look)(struct loop_poller *poller); /* true: there is work, and it is deferred or done. [loop] */
	bool (*sleep)(
		struct loop_poller *poller); /* see to it that the loop is woken; true: work came meanwhile. [loop] */
	uint64_t limit_ns;                   /* never look longer than this; 0: not at all */
	struct loop_poller *next;            /* private */
	bool active;                         /* private */
};

struct loop *loop_new(struct err *err); /* NULL with `err` set. [setup] */
void loop_free(struct loop *loop);      /* no op is in flight, no timer armed. */

/* A descriptor that polls readable when loop_dispatch has work. Owned by the loop. It costs something per completion
 * from the first call on. [any] */
int loop_get_fd(struct loop *loop);

/* Run what is ready and return without waiting; 0 or -errno (a broken ring). [loop] */
int loop_dispatch(struct loop *loop);

/* Wait until something is ready, at most `timeout_ns` (UINT64_MAX: no limit), then dispatch. [loop] */
int loop_wait(struct loop *loop, uint64_t timeout_ns);

/*
 * Submit: the op must be IDLE and its `done` set. Offset UINT64_MAX means "the file's own position" (streams).
 * -ENOSPC when the ring cannot take it. [setup, loop]
 */
int loop_read(struct loop *loop, struct loop_op *op, int fd, void *buf, size_t size_bytes, uint64_t offset);
int loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buf, size_t size_bytes, uint64_t offset);
int loop_poll(struct loop *loop, struct loop_op *op, int fd, uint32_t poll_events);
int loop_accept(struct loop *loop, struct loop_op *op, int listen_fd); /* res: a new CLOEXEC descriptor */

/*
 * What block devices and sockets need; the arrays, headers and addresses stay the caller's until `done`. A `file` is a
 * descriptor, or what loop_add_file returned. Sends never raise SIGPIPE. As above otherwise.
 */
int loop_readv(struct loop *loop, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
	       uint64_t offset);
/* The same without waiting, for what is there now: -EAGAIN when that is nothing, -EOPNOTSUPP for a kind of file that
 * cannot tell. */
int loop_try_readv(struct loop *loop, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
		   uint64_t offset);
int loop_writev(struct loop *loop, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
		uint64_t offset);
int loop_fdatasync(struct loop *loop, struct loop_op *op, int file);
int loop_fallocate(struct loop *loop, struct loop_op *op, int file, int mode, uint64_t offset, uint64_t size_bytes);
int loop_connect(struct loop *loop, struct loop_op *op, int fd, const struct sockaddr *address, unsigned size_bytes);
int loop_sendmsg(struct loop *loop, struct loop_op *op, int fd, const struct msghdr *message);
int loop_recvmsg(struct loop *loop, struct loop_op *op, int fd, struct msghdr *message);

/*
 * Register a descriptor with the ring, which spares each operation the look into the process's table. Returns a number
 * that the functions above take as `file`; when the ring has no room, `fd` itself. The descriptor stays the caller's;
 * loop_remove_file before it is closed, with nothing in flight on it. [setup, loop]
 */
int loop_add_file(struct loop *loop, int fd);
void loop_remove_file(struct loop *loop, int file);

/* Ask for the op's end; `done` still comes, once. A no-op on an IDLE op. [loop] */
void loop_cancel(struct loop *loop, struct loop_op *op);

/* Run task->fn soon on the loop thread. Never fails, never blocks on the loop. Async-signal-safe it is not. [any] */
void loop_post(struct loop *loop, struct loop_task *task);

/* Take a posted task back; when this returns it is not queued. [loop] */
void loop_unpost(struct loop *loop, struct loop_task *task);

/* Run task->fn once at the end of the round of callbacks that is going on: what they did is then done in one go. [loop]
 */
void loop_defer(struct loop *loop, struct loop_task *task);

/* Look until the loop next sleeps: then `sleep` is called, and it is over. Stop before. [loop] */
void loop_start_polling(struct loop *loop, struct loop_poller *poller);
void loop_stop_polling(struct loop *loop, struct loop_poller *poller);

/* Is the calling thread the one that runs the loop (or has no thread run it yet)? [any] */
bool loop_is_current(const struct loop *loop);

/* Run the loop until the op is IDLE, after a loop_cancel; other callbacks run meanwhile. [setup, loop] */
void loop_drain(struct loop *loop, struct loop_op *op);

/*
 * Make the loop come round once (loop_wait returns, the fd polls readable). The only call that is
 * async-signal-safe. [any]
 */
void loop_wake(struct loop *loop);

/* Arm (or re-arm) for an absolute CLOCK_MONOTONIC time; disarm. After a disarm on the loop thread, fn is not called.
 * [any] */
void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns);
void loop_timer_disarm(struct loop *loop, struct loop_timer *timer);

uint64_t loop_now_ns(void); /* CLOCK_MONOTONIC [any] */
