/* Runs the tests of a plan, each in a child process, some at a time. [main thread] */
#pragma once

#include "cli/test_options.h"
#include "cli/test_output.h"
#include "cli/test_report.h"

struct test_run {
	const char *program; /* executed with the arguments of `vmlet run` */
	struct test_fleet *fleet;
	const struct test_output *output;
	unsigned jobs;
	unsigned retries;
	bool fail_fast;
	uint64_t grace_ns; /* of a child beyond its test's timeout; then it is killed */
	/* Called when test `index` is over, and about every second while `running` of them are not. */
	void (*done)(void *ctx, size_t index);
	void (*tick)(void *ctx, unsigned running);
	void *ctx;
};

/*
 * Run them all; every result is set afterwards, also when SIGINT, SIGTERM or SIGHUP ended it, which `fleet->signo` then
 * tells. 0, or -errno: they could not be run. Those signals stay blocked: nothing keeps the reports from being written.
 */
int test_run(const struct test_run *run);
