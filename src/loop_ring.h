/* Inside the loop: the ring, and what loop.c (dispatch) and loop_ops.c (operations) share. */
#pragma once

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

#include "loop.h"
#include "loop_timers.h"

enum {
	LOOP_FILES_MAX = 64,
	LOOP_FILE_BASE = 1 << 30, /* above every descriptor: what loop_add_file returns */
};

struct loop {
	struct io_uring ring;
	bool ring_ready;
	_Atomic bool enabled; /* the loop thread has entered */
	pthread_t thread;     /* which it is, then */
	bool calling;         /* a callback: what it submits, its caller hands to the kernel */

	/*
	 * eventfd: the ring counts it up when something completes. The ring's own descriptor does not do for poll:
	 * with DEFER_TASKRUN a completion does not wake who polls it already (seen on 6.18). It begins at 1, because
	 * what was queued before the first dispatch waits for that. Only somebody who has it needs to be told.
	 */
	int notify_fd;
	_Atomic bool has_listener;

	int wake_fd; /* eventfd: written by loop_wake from anywhere */
	uint64_t wake_count;
	struct loop_op wake_op;

	struct loop_timers timers;
	uint64_t timer_count;
	struct loop_op timer_op;

	struct loop_op *cancels; /* what has been asked to end and has not */
	struct loop_timer cancel_timer;

	pthread_mutex_t mutex; /* guards the tasks */
	struct loop_task *tasks_head, **tasks_tail;

	struct loop_task *deferred_head, **deferred_tail; /* for the end of this round [loop] */

	struct loop_poller *pollers; /* active [loop] */
	uint64_t spin_ns;            /* how long it pays off to look before sleeping */
	uint64_t spin_limit_ns;      /* at most, said the pollers when there last were some */

	bool has_files; /* the table of registered files exists */
	uint64_t files; /* which of its LOOP_FILES_MAX slots are taken */
};

/*
 * Before the loop sleeps: look for work for a while. True: there is some, do not sleep. False: the pollers have been
 * told; then loop_spin_slept is due with the time at which the loop came to want work.
 */
bool loop_spin(struct loop *loop, bool may_look);
void loop_spin_slept(struct loop *loop, uint64_t since_ns);

/* Look once, in a round that has work anyway: whose doorbells are off must not wait for the others to be done. */
void loop_glance(struct loop *loop);

/* Make the loop's descriptor readable; async-signal-safe. */
void loop_notify(struct loop *loop);

/* A free submission entry; submits what is queued when the ring is full. NULL: the kernel takes no more now. */
struct io_uring_sqe *loop_get_sqe(struct loop *loop);
