/*
 * Log lines go to a sink that the owner of the VM chose; this library has no stdio of its own.
 *
 * Levels follow the library's rule: only what ends or harms the VM is above DEBUG without a guest's part;
 * what a guest can cause is rate-limited with a `struct log_limit` that lives beside the cause.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

struct log {
	enum log_level level; /* lines above this are dropped before they are formatted */
	void (*sink)(void *ctx, enum log_level level, const char *line); /* one line, no newline; NULL: drop. [any] */
	void *ctx;
};

/* At most `LOG_LIMIT_BURST` lines and then one a second; all-zero is a fresh limit. Not locked: the owner is. */
enum { LOG_LIMIT_BURST = 8 };
struct log_limit {
	uint64_t window_start_ns;
	unsigned used;
	unsigned suppressed;
};

/* `log` may be NULL. [any] */
void log_error(const struct log *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_warn(const struct log *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_info(const struct log *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_debug(const struct log *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * A warning that a guest can provoke: goes through `limit`, and says how many were swallowed before it. False: it was
 * swallowed itself.
 */
bool log_guest(const struct log *log, struct log_limit *limit, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
