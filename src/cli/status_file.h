/* --status-file: how it ended, as one JSON object that appears at once and whole. docs/status-file.md has the keys. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmlet.h>

#include "cli/options.h"
#include "cli/outcome.h"

enum { STATUS_FILE_MAX_BYTES = 16384, STATUS_FILE_NAME_MAX_BYTES = 256 };

struct status_file {
	const char *path; /* borrowed; NULL: none */
	int dir_fd;       /* where it will be, also when the working directory vanishes; -1: see fd */
	int fd;           /* what is written to instead of being replaced; -1: see dir_fd */
	char name[STATUS_FILE_NAME_MAX_BYTES], temporary[STATUS_FILE_NAME_MAX_BYTES];
	char last_words[STATUS_FILE_MAX_BYTES]; /* status_file_prepare */
	size_t last_words_bytes;
};

/*
 * See that it can be written, and remove one from an earlier run. `path` NULL: none, and the rest does nothing. 0, or
 * -errno with a sentence.
 */
int status_file_open(struct status_file *file, const char *path, struct cli_error *error);
void status_file_close(struct status_file *file);

/* `stats` may be NULL: there was no VM. `text` gets the object, with a newline; returns its size in bytes. */
size_t status_file_render(char *text, size_t size_bytes, const struct outcome *outcome, const struct vmlet_stats *stats,
			  uint64_t started_ns, uint64_t now_ns);

/* 0 or -errno. Async-signal-safe. */
int status_file_write(const struct status_file *file, const char *text, size_t size_bytes);
