#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "util.h"

enum { LINE_SIZE = 512 };
static const uint64_t NS_PER_S = 1000000000;

static void emit(const struct log *log, enum log_level level, const char *fmt, va_list args)
{
	if (!log || !log->sink || level > log->level)
		return;

	char line[LINE_SIZE];
	(void)vsnprintf(line, sizeof(line), fmt, args);
	log->sink(log->ctx, level, line);
}

void log_error(const struct log *log, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	emit(log, LOG_LEVEL_ERROR, fmt, args);
	va_end(args);
}

void log_warn(const struct log *log, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	emit(log, LOG_LEVEL_WARN, fmt, args);
	va_end(args);
}

void log_info(const struct log *log, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	emit(log, LOG_LEVEL_INFO, fmt, args);
	va_end(args);
}

void log_debug(const struct log *log, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	emit(log, LOG_LEVEL_DEBUG, fmt, args);
	va_end(args);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* A burst first, then one line for every second that has passed. */
static bool limit_allows(struct log_limit *limit, uint64_t now)
{
	uint64_t seconds = (now - limit->window_start_ns) / NS_PER_S;
	limit->window_start_ns += seconds * NS_PER_S;
	limit->used -= (unsigned)min_u64(seconds, limit->used);
	if (limit->used >= LOG_LIMIT_BURST) {
		limit->suppressed++;
		return false;
	}
	limit->used++;
	return true;
}

bool log_guest(const struct log *log, struct log_limit *limit, const char *fmt, ...)
{
	if (!limit_allows(limit, now_ns()))
		return false;
	if (limit->suppressed)
		log_warn(log, "(%u similar lines were left out)", limit->suppressed);
	limit->suppressed = 0;

	va_list args;
	va_start(args, fmt);
	emit(log, LOG_LEVEL_WARN, fmt, args);
	va_end(args);
	return true;
}
