/*
 * A table of tests in one program. `program NAME` runs one, as meson does; `program` runs each in a child process;
 * `program --names A B ...` checks that meson knows them all. A test ends the process at its first failed CHECK, and
 * SIGALRM ends one that hangs. 77 (skipped) is for a machine without /dev/kvm only.
 */
#pragma once

#include <stdnoreturn.h>

enum { TEST_TIMEOUT_S = 60, TEST_SKIPPED = 77 };

struct test {
	const char *name;
	void (*run)(const void *arg);
	const void *arg;
	unsigned timeout_s; /* 0: TEST_TIMEOUT_S */
};

#define TEST(name, fn, arg)                                                                                            \
	{                                                                                                              \
		(name), (fn), (arg), 0                                                                                 \
	}
#define TEST_LONG(name, fn, arg, timeout_s)                                                                            \
	{                                                                                                              \
		(name), (fn), (arg), (timeout_s)                                                                       \
	}

/* `tests` ends with a NULL name. */
int runner_main(int argc, char **argv, const struct test *tests);

/* Called before a failed CHECK ends the process, to tell more, and to leave nothing behind. */
extern void (*runner_on_failure)(void);
extern void (*runner_on_exit)(void);

noreturn void runner_fail(const char *file, int line, const char *condition, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#define CHECK(condition, ...)                                                                                          \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			runner_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                                      \
	} while (0)
