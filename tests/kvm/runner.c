#include "runner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void (*runner_on_failure)(void);
void (*runner_on_exit)(void);

void runner_fail(const char *file, int line, const char *condition, const char *fmt, ...)
{
	va_list args;
	const char *base = strrchr(file, '/');

	fprintf(stderr, "%s:%d: failed: %s: ", base ? base + 1 : file, line, condition);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	if (runner_on_failure)
		runner_on_failure();
	fflush(stderr);
	if (runner_on_exit)
		runner_on_exit();
	_exit(1); /* threads and machines may still run: no time for leak checks */
}

static bool kvm_is_there(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		printf("skipped: /dev/kvm: %s\n", strerror(errno));
		return false;
	}
	close(fd);
	return true;
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run_one(const struct test *test)
{
	double start = now_s();

	alarm(test->timeout_s ? test->timeout_s : TEST_TIMEOUT_S);
	test->run(test->arg);
	alarm(0);
	printf("ok %s (%.2f s)\n", test->name, now_s() - start);
	fflush(stdout);
}

static int run_all(const struct test *tests)
{
	int failed = 0;

	for (const struct test *test = tests; test->name; test++) {
		int status = -1;
		pid_t child;

		fflush(stdout);
		child = fork();

		if (child == 0) {
			run_one(test);
			exit(0); /* with the leak check, where there is one */
		}
		if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) {
			printf("FAILED %s (wait status %#x)\n", test->name, (unsigned)status);
			failed++;
		}
	}
	printf("%d failed\n", failed);
	return failed != 0;
}

static bool is_known(const char *name, int count, char **names)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static int check_names(const struct test *tests, int count, char **names)
{
	int missing = 0;

	for (const struct test *test = tests; test->name; test++) {
		if (is_known(test->name, count, names))
			continue;
		printf("meson.build does not list the test '%s'\n", test->name);
		missing++;
	}
	return missing != 0;
}

int runner_main(int argc, char **argv, const struct test *tests)
{
	if (argc > 1 && strcmp(argv[1], "--names") == 0)
		return check_names(tests, argc - 2, argv + 2);
	if (!kvm_is_there())
		return TEST_SKIPPED;
	if (argc == 1)
		return run_all(tests);
	for (const struct test *test = tests; test->name; test++) {
		if (strcmp(test->name, argv[1]) == 0) {
			run_one(test);
			return 0;
		}
	}
	fprintf(stderr, "no test '%s'\n", argv[1]);
	return 1;
}
