#include "cli/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/report.h"

int log_sink_open(struct log_sink *sink, const char *path, struct cli_error *error)
{
	int r;

	sink->fd = STDERR_FILENO;
	if (!path)
		return 0;
	sink->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
	if (sink->fd >= 0)
		return 0;
	r = -errno;
	snprintf(error->text, sizeof(error->text), "log file '%.400s': %s", path, strerror(-r));
	return r;
}

void log_sink_close(struct log_sink *sink)
{
	if (sink->fd > STDERR_FILENO)
		close(sink->fd);
	sink->fd = STDERR_FILENO;
}

static const char *level_name(enum vmlet_log_level level)
{
	switch (level) {
	case VMLET_LOG_ERROR:
		return "error";
	case VMLET_LOG_WARN:
		return "warning";
	case VMLET_LOG_INFO:
		return "info";
	case VMLET_LOG_DEBUG:
	default:
		return "debug";
	}
}

void log_sink_write(void *ctx, enum vmlet_log_level level, const char *line)
{
	const struct log_sink *sink = ctx;
	char text[1024];

	snprintf(text, sizeof(text), "%s: %s", level_name(level), line);
	report_to(sink->fd, text);
}
