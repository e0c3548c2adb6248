#include "cli/event_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/json.h"

enum { LINE_MAX_BYTES = 4096 /* PIPE_BUF: such a line is written at once or not at all */, TEXT_MAX_BYTES = 512 };
enum { PATIENCE_MS = 1000 };

static int fail(struct cli_error *error, const char *target, int code)
{
	snprintf(error->text, sizeof(error->text), "events '%.400s': %s", target, strerror(-code));
	return code;
}

/* A descriptor that is ours to write to, and that no program we might start inherits. */
static int take_fd(struct event_stream *stream, const char *target, struct cli_error *error)
{
	int fd = atoi(target + 3), flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return fail(error, target, -errno);
	if ((flags & O_ACCMODE) == O_RDONLY)
		return fail(error, target, -EBADF);
	stream->fd = fd;
	return 0;
}

int event_stream_open(struct event_stream *stream, const char *target, struct cli_error *error)
{
	*stream = (struct event_stream){.fd = -1};
	if (!target)
		return 0;
	if (strncmp(target, "fd:", 3) == 0)
		return take_fd(stream, target, error);
	stream->fd = open(target, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
	if (stream->fd < 0)
		return fail(error, target, -errno);
	stream->owned = true;
	return 0;
}

void event_stream_close(struct event_stream *stream)
{
	if (stream->owned && stream->fd >= 0)
		close(stream->fd);
	stream->fd = -1;
}

/* A full pipe would hold up the VM; what is not a pipe is always ready. */
static bool is_ready(int fd)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
	int r;

	do
		r = poll(&pollfd, 1, PATIENCE_MS);
	while (r < 0 && errno == EINTR);
	return r > 0;
}

static int write_line(int fd, const struct json *json)
{
	ssize_t n;

	if (!is_ready(fd))
		return -ETIMEDOUT;
	do
		n = write(fd, json->text, json->used);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == json->used ? 0 : -ENOSPC;
}

static void put(struct event_stream *stream, const struct json *json)
{
	int r = write_line(stream->fd, json);

	if (r == 0)
		return;
	if (r != -EPIPE)
		stream->failed = r;
	event_stream_close(stream);
}

static void begin(struct json *json, char *line, const char *name, uint64_t ns, const char *text)
{
	json_init(json, line, LINE_MAX_BYTES);
	json_raw(json, "{\"event\":\"");
	json_raw(json, name);
	json_raw(json, "\",\"ns\":");
	json_number(json, ns);
	json_raw(json, ",\"text\":");
	json_string(json, text, TEXT_MAX_BYTES);
}

static void write_event(struct event_stream *stream, const char *name, uint64_t ns, const char *text)
{
	char line[LINE_MAX_BYTES];
	struct json json;

	if (stream->fd < 0)
		return;
	begin(&json, line, name, ns, text);
	json_raw(&json, "}\n");
	put(stream, &json);
}

static const char *name_of(enum vmlet_event_kind kind)
{
	switch (kind) {
	case VMLET_EVENT_CREATED:
		return "created";
	case VMLET_EVENT_KERNEL_LOADED:
		return "kernel-loaded";
	case VMLET_EVENT_RUNNING:
		return "running";
	case VMLET_EVENT_CONSOLE:
		return "console-first-byte";
	case VMLET_EVENT_PANIC:
		return "panic";
	case VMLET_EVENT_RESET:
		return "reset";
	case VMLET_EVENT_DEVICE_BROKEN:
		return "device-broken";
	case VMLET_EVENT_ENDED:
	default:
		return NULL;
	}
}

void event_stream_write(struct event_stream *stream, const struct vmlet_event *event)
{
	const char *name = name_of(event->kind);

	if (name)
		write_event(stream, name, event->monotonic_ns, event->text);
}

void event_stream_met(struct event_stream *stream, uint64_t ns, const char *pattern)
{
	write_event(stream, "expectation-met", ns, pattern);
}

void event_stream_ended(struct event_stream *stream, uint64_t ns, const struct outcome *outcome)
{
	char line[LINE_MAX_BYTES];
	struct json json;

	if (stream->fd < 0)
		return;
	begin(&json, line, "ended", ns, outcome->text);
	json_raw(&json, ",\"status\":");
	json_number(&json, (uint64_t)outcome->status);
	json_raw(&json, ",\"reason\":");
	json_string(&json, outcome->reason, TEXT_MAX_BYTES);
	json_raw(&json, "}\n");
	put(stream, &json);
}
