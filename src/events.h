/*
 * What a VM tells its owner as it happens, with the times of it. Events come on the thread that serves the VM, with no
 * lock held; what happens elsewhere (a device that breaks on an I/O thread) waits in a short list until the loop comes
 * by.
 */
#pragma once

#include "vmlet.h"

#include <pthread.h>

#include "loop.h"

enum {
	EVENTS_WAITING_MAX = 16, /* more than that at once are dropped */
	EVENT_TEXT_MAX = 288,
};

struct waiting_event {
	enum vmlet_event_kind kind;
	uint64_t monotonic_ns;
	char text[EVENT_TEXT_MAX];
};

struct events {
	void (*fn)(void *ctx, const struct vmlet_event *event);
	void *ctx;
	struct loop *loop;
	struct loop_task task;
	pthread_mutex_t mutex; /* guards what follows */
	unsigned count;
	struct waiting_event waiting[EVENTS_WAITING_MAX];
};

/* `config` is checked; before the loop is known only `events_emit` may be called. [setup] */
void events_init(struct events *events, const struct vmlet_config *config);
void events_fini(struct events *events);                        /* before the loop is freed [owner] */
void events_set_loop(struct events *events, struct loop *loop); /* borrowed [setup] */

/* Tell it now, after what waits. [owner] */
void events_emit(struct events *events, enum vmlet_event_kind kind, uint64_t monotonic_ns, const char *text);

/* Tell it soon; the time is now. Any lock may be held. [any] */
void events_post(struct events *events, enum vmlet_event_kind kind, const char *text);

/* Tell what waits. [owner] */
void events_flush(struct events *events);
