/* The fleet's processes, with a shell script in the place of vmlet: what ends how, and that nothing stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/test_run.h"

/* Its --kernel says what it does. It runs in the directory of the test file, and leaves its number there. */
static const char script[] =
	"#!/bin/sh\n"
	"while [ $# -gt 0 ]; do\n"
	"  case $1 in --kernel) k=$2;; --status-file) s=$2;; --console-log) c=$2;; esac; shift\n"
	"done\n"
	"pass() { echo '{\"reason\":\"poweroff\"}' >$s; exit 0; }\n"
	"fail() { echo last words >$c; echo '{\"reason\":\"debug-exit\",\"text\":\"wrote 3\"}' >$s; exit 3; }\n"
	"echo $$ >pid-$k\n"
	"case $k in\n"
	"  pass) pass;;\n"
	"  fail) fail;;\n"
	"  flaky) [ -e tried ] && pass; : >tried; fail;;\n"
	"  crash) kill -SEGV $$;;\n"
	"  complain) echo 'vmlet: no such thing' >&2; exit 1;;\n"
	"  hang) trap '' TERM; sleep 60; exit 0;;\n"
	"  leave) sleep 60 & pass;;\n"
	"  interrupt) kill -TERM $PPID; sleep 60;;\n"
	"  stdin) read x && fail; pass;;\n"
	"esac\n";

struct rig {
	char directory[64], program[96], path[96];
	struct test_file file;
	struct test_plan plan;
	struct test_fleet fleet;
	struct test_output output;
	unsigned retries;
	bool fail_fast;
	uint64_t grace_ns;
	unsigned jobs;
};

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static int set_up(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	*state = rig;
	strcpy(rig->directory, "/tmp/vmlet-unit-XXXXXX");
	if (!mkdtemp(rig->directory))
		return -1;
	snprintf(rig->program, sizeof(rig->program), "%s/vmlet", rig->directory);
	snprintf(rig->path, sizeof(rig->path), "%s/t.ini", rig->directory);
	write_file(rig->program, script);
	chmod(rig->program, 0755);
	rig->grace_ns = 10000000000;
	rig->jobs = 2;
	return 0;
}

static int tear_down(void **state)
{
	struct rig *rig = *state;
	char command[128];

	test_output_close(&rig->output);
	for (size_t i = 0; i < rig->plan.count; i++) {
		free(rig->fleet.results[i].console);
		free(rig->fleet.results[i].directory);
	}
	free(rig->fleet.results);
	test_plan_free(&rig->plan);
	test_file_free(&rig->file);
	snprintf(command, sizeof(command), "rm -rf %s", rig->directory);
	free(rig);
	return system(command); /* NOLINT */
}

/* One test for each word, of that name and behaviour. */
static void run(struct rig *rig, const char *const *words)
{
	struct test_run run = {.program = rig->program, .fleet = &rig->fleet, .output = &rig->output};
	char text[1024] = "[defaults]\ntimeout = 100ms\n", *out;
	struct cli_error error = {0};

	for (; *words; words++)
		snprintf(text + strlen(text), 128, "[%s]\nkernel = %s\n", *words, *words);
	if (test_file_parse(&rig->file, rig->path, text, strlen(text), &error) < 0 ||
	    test_plan_add(&rig->plan, &rig->file, &error) < 0)
		fail_msg("%s", error.text);
	rig->fleet =
		(struct test_fleet){.plan = &rig->plan, .results = calloc(rig->plan.count, sizeof(struct test_result))};
	assert_true(asprintf(&out, "%s/out", rig->directory) > 0);
	assert_int_equal(test_output_open(&rig->output, out, &rig->plan, &error), 0);
	free(out);
	run.jobs = rig->jobs;
	run.retries = rig->retries;
	run.fail_fast = rig->fail_fast;
	run.grace_ns = rig->grace_ns;
	assert_int_equal(test_run(&run), 0);
}
#define RUN(rig, ...) run(rig, (const char *const[]){__VA_ARGS__, NULL})

static void assert_result(const struct rig *rig, size_t index, enum test_outcome outcome, const char *reason)
{
	assert_int_equal(rig->fleet.results[index].outcome, outcome);
	assert_string_equal(rig->fleet.results[index].reason, reason);
}

/* No process is left in the group of that test's child. */
static void assert_gone(const struct rig *rig, const char *name)
{
	char path[128], text[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/pid-%s", rig->directory, name);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_non_null(fgets(text, sizeof(text), file));
	fclose(file);
	while (waitpid(-(pid_t)atoi(text), NULL, 0) > 0) /* we are the reaper of orphans */
		;
	assert_int_equal(kill(-(pid_t)atoi(text), 0), -1);
	assert_int_equal(errno, ESRCH);
}

static void test_ends(void **state)
{
	struct rig *rig = *state;

	RUN(rig, "pass", "fail", "crash", "complain", "stdin");
	assert_result(rig, 0, TEST_PASSED, "");
	assert_result(rig, 1, TEST_FAILED, "status 3 (debug-exit) instead of 0: wrote 3");
	assert_string_equal(rig->fleet.results[1].console, "last words\n");
	assert_result(rig, 2, TEST_FAILED, "vmlet was killed by signal 11");
	assert_result(rig, 3, TEST_FAILED, "vmlet ended with status 1 and without a status file: no such thing");
	assert_result(rig, 4, TEST_PASSED, "");
	assert_int_equal(rig->fleet.signo, 0);
}

static void test_backstop(void **state)
{
	struct rig *rig = *state;

	rig->grace_ns = 200000000;
	RUN(rig, "hang", "leave");
	assert_result(rig, 0, TEST_FAILED, "vmlet did not end in time after its timeout and was killed");
	assert_true(rig->fleet.results[0].duration_ns >= 300000000);
	assert_true(rig->fleet.results[0].duration_ns < 10000000000);
	assert_result(rig, 1, TEST_PASSED, "");
	assert_gone(rig, "hang");
	assert_gone(rig, "leave");
}

static void test_retry(void **state)
{
	struct rig *rig = *state;

	rig->retries = 2;
	RUN(rig, "flaky", "fail", "pass");
	assert_result(rig, 0, TEST_PASSED, "");
	assert_int_equal(rig->fleet.results[0].attempts, 2);
	assert_int_equal(rig->fleet.results[1].outcome, TEST_FAILED);
	assert_int_equal(rig->fleet.results[1].attempts, 3);
	assert_non_null(strstr(rig->fleet.results[1].directory, "/out/fail~attempt3"));
	assert_int_equal(rig->fleet.results[2].attempts, 1);
}

static void test_fail_fast(void **state)
{
	struct rig *rig = *state;

	rig->fail_fast = true;
	rig->jobs = 1;
	RUN(rig, "pass", "fail", "crash", "complain");
	assert_result(rig, 0, TEST_PASSED, "");
	assert_int_equal(rig->fleet.results[1].outcome, TEST_FAILED);
	assert_result(rig, 2, TEST_SKIPPED, "not run after the failure of fail");
	assert_result(rig, 3, TEST_SKIPPED, "not run after the failure of fail");
}

static void test_interrupt(void **state)
{
	struct rig *rig = *state;

	RUN(rig, "hang", "interrupt", "pass");
	assert_int_equal(rig->fleet.signo, SIGTERM);
	for (size_t i = 0; i < 3; i++)
		assert_result(rig, i, TEST_SKIPPED, "interrupted");
	assert_gone(rig, "hang");
	assert_gone(rig, "interrupt");
}

static void test_no_program(void **state)
{
	struct rig *rig = *state;

	unlink(rig->program);
	RUN(rig, "pass", "fail", "stdin");
	for (size_t i = 0; i < 3; i++)
		assert_result(rig, i, TEST_FAILED, "it cannot be started: No such file or directory");
}

static int open_descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void test_leaves_no_descriptors(void **state)
{
	struct rig *rig = *state;
	int before = open_descriptors();

	RUN(rig, "pass", "fail", "crash");
	assert_int_equal(open_descriptors(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ends, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_backstop, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_retry, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_fail_fast, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_interrupt, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_program, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_leaves_no_descriptors, set_up, tear_down),
	};

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
