/* Where the library's log lines go: "vmlet: warning: ..." on standard error, or in a file. */
#pragma once

#include <vmlet.h>

#include "cli/options.h"

struct log_sink {
	int fd;
};

/* Open `path` for appending; NULL is standard error. 0, or -errno with a sentence. */
int log_sink_open(struct log_sink *sink, const char *path, struct cli_error *error);
void log_sink_close(struct log_sink *sink);

/* Fits vmlet_config.log, with the sink as its context. [any] */
void log_sink_write(void *sink, enum vmlet_log_level level, const char *line);
