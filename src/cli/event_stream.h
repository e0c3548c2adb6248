/*
 * --events: what happens, as lines of JSON, each one write(2): docs/status-file.md. A reader that goes away, or that
 * does not read for a second, ends the stream and nothing else.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <vmlet.h>

#include "cli/options.h"
#include "cli/outcome.h"

struct event_stream {
	int fd;     /* -1: none, or ended */
	bool owned; /* we opened it */
	int failed; /* -errno of what could not be written, other than to a reader that left */
};

/* `target` is a path, "fd:N" or NULL for none. 0, or -errno with a sentence. */
int event_stream_open(struct event_stream *stream, const char *target, struct cli_error *error);
void event_stream_close(struct event_stream *stream);

/* Lines whose `event` has no name of its own here (VMLET_EVENT_ENDED) are left out. */
void event_stream_write(struct event_stream *stream, const struct vmlet_event *event);
void event_stream_met(struct event_stream *stream, uint64_t ns, const char *pattern);
void event_stream_ended(struct event_stream *stream, uint64_t ns, const struct outcome *outcome);
