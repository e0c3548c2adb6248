#include "iothread.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "thread.h"
#include "util.h"

struct iothread {
	struct loop *loop;
	char name[16];
	pthread_t thread;
	bool has_thread;
	_Atomic bool stop;
};

/* --- calls into a loop ------------------------------------------------------------------------------------- */

struct call {
	struct loop_task task;
	void (*fn)(void *ctx);
	void *ctx;
	pthread_mutex_t mutex;
	pthread_cond_t returned;
	bool has_returned;
};

static void run_call(struct loop_task *task)
{
	struct call *call = container_of(task, struct call, task);
	call->fn(call->ctx);
	pthread_mutex_lock(&call->mutex);
	call->has_returned = true;
	pthread_cond_signal(&call->returned); /* with the mutex held: the caller's stack is gone soon after */
	pthread_mutex_unlock(&call->mutex);
}

static void call_and_wait(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
	struct call call = {
		.task = {.fn = run_call},
		.fn = fn,
		.ctx = ctx,
		.mutex = PTHREAD_MUTEX_INITIALIZER,
		.returned = PTHREAD_COND_INITIALIZER,
	};
	loop_post(loop, &call.task);
	pthread_mutex_lock(&call.mutex);
	while (!call.has_returned)
		pthread_cond_wait(&call.returned, &call.mutex);
	pthread_mutex_unlock(&call.mutex);
	pthread_cond_destroy(&call.returned);
	pthread_mutex_destroy(&call.mutex);
}

void loop_call(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
	if (loop_is_current(loop))
		fn(ctx);
	else
		call_and_wait(loop, fn, ctx);
}

/* --- the thread ---------------------------------------------------------------------------------------------- */

static void *iothread_main(void *arg)
{
	struct iothread *iothread = arg;
	pthread_setname_np(pthread_self(), iothread->name);
	while (!atomic_load(&iothread->stop) && loop_wait(iothread->loop, UINT64_MAX) == 0)
		;
	return NULL;
}

static void nothing(void *ctx)
{
	(void)ctx;
}

struct iothread *iothread_new(const char *name, struct err *err)
{
	struct iothread *iothread = calloc(1, sizeof(*iothread));
	if (!iothread) {
		err_set(err, -ENOMEM, "I/O thread: %s", err_name(ENOMEM));
		return NULL;
	}
	(void)snprintf(iothread->name, sizeof(iothread->name), "%s", name);
	iothread->loop = loop_new(err);
	int r = iothread->loop ? thread_start(&iothread->thread, iothread_main, iothread) : err->code;
	iothread->has_thread = r == 0;
	if (r < 0) {
		if (iothread->loop)
			err_set(err, r, "I/O thread: %s", err_name(r));
		iothread_free(iothread);
		return NULL;
	}
	/* From here on the loop is that thread's. */
	call_and_wait(iothread->loop, nothing, NULL);
	return iothread;
}

void iothread_free(struct iothread *iothread)
{
	if (!iothread)
		return;
	if (iothread->has_thread) {
		atomic_store(&iothread->stop, true);
		loop_wake(iothread->loop);
		pthread_join(iothread->thread, NULL);
	}
	loop_free(iothread->loop);
	free(iothread);
}

struct loop *iothread_loop(struct iothread *iothread)
{
	return iothread->loop;
}
