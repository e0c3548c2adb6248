#include "events.h"

#include <stdio.h>

#include "util.h"

static void flush_task(struct loop_task *task)
{
	events_flush(container_of(task, struct events, task));
}

void events_init(struct events *events, const struct vmlet_config *config)
{
	*events = (struct events){.fn = config->event, .ctx = config->event_ctx, .task = {.fn = flush_task}};
	pthread_mutex_init(&events->mutex, NULL);
}

void events_set_loop(struct events *events, struct loop *loop)
{
	events->loop = loop;
}

void events_fini(struct events *events)
{
	if (events->loop)
		loop_unpost(events->loop, &events->task);
	pthread_mutex_destroy(&events->mutex);
}

static void tell(struct events *events, enum vmlet_event_kind kind, uint64_t monotonic_ns, const char *text)
{
	struct vmlet_event event = {.kind = kind, .monotonic_ns = monotonic_ns, .text = text};
	events->fn(events->ctx, &event);
}

static bool take_waiting(struct events *events, struct waiting_event *ret_event)
{
	pthread_mutex_lock(&events->mutex);
	bool some = events->count > 0;
	if (some) {
		*ret_event = events->waiting[0];
		events->count--;
		memmove(&events->waiting[0], &events->waiting[1], events->count * sizeof(events->waiting[0]));
	}
	pthread_mutex_unlock(&events->mutex);
	return some;
}

void events_flush(struct events *events)
{
	struct waiting_event event;
	while (take_waiting(events, &event))
		tell(events, event.kind, event.monotonic_ns, event.text);
}

void events_emit(struct events *events, enum vmlet_event_kind kind, uint64_t monotonic_ns, const char *text)
{
	if (!events->fn)
		return;
	events_flush(events);
	tell(events, kind, monotonic_ns, text);
}

void events_post(struct events *events, enum vmlet_event_kind kind, const char *text)
{
	if (!events->fn)
		return;
	pthread_mutex_lock(&events->mutex);
	bool fits = events->count < EVENTS_WAITING_MAX;
	if (fits) {
		struct waiting_event *event = &events->waiting[events->count++];
		event->kind = kind;
		event->monotonic_ns = loop_now_ns();
		(void)snprintf(event->text, sizeof(event->text), "%s", text);
	}
	pthread_mutex_unlock(&events->mutex);
	if (fits)
		loop_post(events->loop, &events->task);
}
