#include "cli/test_command.h"

#include <errno.h>
#include <regex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/report.h"
#include "cli/test_access.h"
#include "cli/test_options.h"
#include "cli/test_progress.h"
#include "cli/test_run.h"

static const uint64_t grace_ns = 10000000000; /* a child that ends itself in time never sees it */

/* Open report files. NULL: not asked for. */
struct reports {
	FILE *tap, *junit, *markdown;
};

struct session {
	struct test_options options;
	struct test_file *files; /* allocated, as many as options.file_count */
	struct test_plan plan;
	struct test_fleet fleet;
	struct test_output output;
	struct reports reports;
	struct test_progress progress;
	size_t reported; /* the first test that TAP has not yet */
	int host_error;  /* -errno of a report that could not be written */
};

static int status_of_error(int r)
{
	return r == -ENOMEM ? TEST_EXIT_HOST : TEST_EXIT_CONFIG;
}

/* --- before: nothing runs until all of it is known to be right --- */

static int read_files(struct session *session, struct cli_error *error)
{
	session->files = calloc(session->options.file_count, sizeof(*session->files));
	if (!session->files) {
		*error = (struct cli_error){"out of memory"};
		return -ENOMEM;
	}
	for (size_t i = 0; i < session->options.file_count; i++) {
		int r = test_file_read(&session->files[i], session->options.files[i], error);

		if (r == 0)
			r = test_plan_add(&session->plan, &session->files[i], error);
		if (r < 0)
			return r;
	}
	return test_plan_check_names(&session->plan, error);
}

/* Forget the tests that the filter does not match. */
static int filter_plan(struct session *session, struct cli_error *error)
{
	struct test_plan *plan = &session->plan;
	size_t kept = 0;
	regex_t regex;

	if (!session->options.filter)
		return 0;
	if (regcomp(&regex, session->options.filter, REG_EXTENDED | REG_NOSUB) != 0) {
		*error = (struct cli_error){"the filter is not a regular expression"};
		return -EINVAL;
	}
	for (size_t i = 0; i < plan->count; i++) {
		if (regexec(&regex, plan->cases[i].name, 0, NULL, 0) == 0) {
			struct test_case match = plan->cases[i];

			plan->cases[i] = plan->cases[kept];
			plan->cases[kept++] = match;
		}
	}
	regfree(&regex);
	while (plan->count > kept) {
		plan->count--;
		free(plan->cases[plan->count].name);
		free(plan->cases[plan->count].values);
	}
	if (kept > 0)
		return 0;
	snprintf(error->text, sizeof(error->text), "no test's name matches '%.200s'", session->options.filter);
	return -EINVAL;
}

static int check_access(const struct test_plan *plan, struct cli_error *error)
{
	for (size_t i = 0; i < plan->count; i++) {
		int r = test_access_check(&plan->cases[i], error);

		if (r < 0)
			return r;
	}
	return 0;
}

static int open_report(FILE **report, const char *path, struct cli_error *error)
{
	if (!path)
		return 0;
	*report = fopen(path, "we");
	if (*report)
		return 0;
	snprintf(error->text, sizeof(error->text), "the report '%.200s' cannot be written: %s", path, strerror(errno));
	return -EINVAL;
}

static int open_reports(struct session *session, struct cli_error *error)
{
	const struct test_options *options = &session->options;
	int r = open_report(&session->reports.tap, options->tap_path, error);

	if (r == 0)
		r = open_report(&session->reports.junit, options->junit_path, error);
	if (r == 0)
		r = open_report(&session->reports.markdown, options->markdown_path, error);
	if (r == 0 && !options->tap_path)
		session->reports.tap = stdout;
	return r;
}

static int prepare(struct session *session, struct cli_error *error)
{
	int r = read_files(session, error);

	if (r == 0)
		r = filter_plan(session, error);
	if (r == 0)
		r = check_access(&session->plan, error);
	if (r < 0 || session->options.list)
		return r;
	session->fleet = (struct test_fleet){
		.plan = &session->plan,
		.results = calloc(session->plan.count, sizeof(*session->fleet.results)),
	};
	if (!session->fleet.results) {
		*error = (struct cli_error){"out of memory"};
		return -ENOMEM;
	}
	r = open_reports(session, error);
	return r < 0 ? r : test_output_open(&session->output, session->options.output_path, &session->plan, error);
}

/* --- during --- */

/* In the order of the files, each as soon as those before it are over. */
static void report_tap(struct session *session)
{
	struct test_fleet *fleet = &session->fleet;

	while (session->reported < fleet->plan->count && fleet->results[session->reported].outcome != TEST_WAITING) {
		test_tap_point(session->reports.tap, session->reported + 1, &fleet->plan->cases[session->reported],
			       &fleet->results[session->reported]);
		session->reported++;
	}
	fflush(session->reports.tap);
}

static void on_done(void *ctx, size_t index)
{
	struct session *session = ctx;

	test_progress_done(&session->progress, index);
	if (index != session->reported)
		return;
	test_progress_hide(&session->progress);
	report_tap(session);
}

static void on_tick(void *ctx, unsigned running)
{
	struct session *session = ctx;

	test_progress_tick(&session->progress, running);
}

static unsigned cpu_count(void)
{
	cpu_set_t set;
	int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return count < 1 ? 1 : count > TEST_JOBS_MAX ? TEST_JOBS_MAX : (unsigned)count;
}

static unsigned job_count(const struct session *session)
{
	unsigned jobs = session->options.jobs ? session->options.jobs : cpu_count();

	return jobs < session->plan.count ? jobs : (unsigned)session->plan.count;
}

static int run_all(struct session *session, const char *program)
{
	struct test_run run = {
		.program = program,
		.fleet = &session->fleet,
		.output = &session->output,
		.jobs = job_count(session),
		.retries = session->options.retries,
		.fail_fast = session->options.fail_fast,
		.grace_ns = grace_ns,
		.done = on_done,
		.tick = on_tick,
		.ctx = session,
	};

	signal(SIGPIPE, SIG_IGN);
	test_tap_begin(session->reports.tap, session->plan.count);
	test_progress_begin(&session->progress, &session->fleet);
	return test_run(&run);
}

/* --- after --- */

static void close_report(struct session *session, FILE **file, const char *name)
{
	bool is_bad;

	if (!*file)
		return;
	is_bad = ferror(*file) != 0;
	is_bad |= (*file == stdout ? fflush(*file) : fclose(*file)) != 0;
	*file = NULL;
	if (!is_bad)
		return;
	report("the %s report could not be written in full", name);
	session->host_error = -EIO;
}

static void write_reports(struct session *session)
{
	struct reports *reports = &session->reports;

	test_tap_end(reports->tap, &session->fleet);
	if (reports->junit)
		test_junit_print(reports->junit, &session->fleet);
	if (reports->markdown)
		test_markdown_print(reports->markdown, &session->fleet);
}

static void close_reports(struct session *session)
{
	close_report(session, &session->reports.tap, "TAP");
	close_report(session, &session->reports.junit, "JUnit");
	close_report(session, &session->reports.markdown, "Markdown");
}

static int sum_up(struct session *session)
{
	struct test_counts counts = test_count(&session->fleet);

	test_progress_end(&session->progress);
	if (counts.failed > 0 && session->output.is_fresh)
		report("the output of what failed is in %s", session->output.base);
	if (session->fleet.signo != 0)
		return TEST_EXIT_SIGNAL + session->fleet.signo;
	if (counts.failed > 0)
		return TEST_EXIT_FAILED;
	return session->host_error < 0 ? TEST_EXIT_HOST : TEST_EXIT_PASSED;
}

static int execute(struct session *session, const char *program)
{
	int r = run_all(session, program);

	if (r < 0) {
		report("the tests cannot be run: %s", strerror(-r));
		return TEST_EXIT_HOST;
	}
	write_reports(session);
	close_reports(session);
	return sum_up(session);
}

static int list(const struct session *session)
{
	for (size_t i = 0; i < session->plan.count; i++)
		printf("%s\n", session->plan.cases[i].name);
	if (fflush(stdout) == 0)
		return TEST_EXIT_PASSED;
	report("standard output cannot be written: %s", strerror(errno));
	return TEST_EXIT_HOST;
}

static void dispose(struct session *session)
{
	close_reports(session);
	test_output_close(&session->output);
	for (size_t i = 0; i < session->plan.count && session->fleet.results; i++) {
		free(session->fleet.results[i].console);
		free(session->fleet.results[i].directory);
	}
	free(session->fleet.results);
	test_plan_free(&session->plan);
	for (size_t i = 0; i < session->options.file_count && session->files; i++)
		test_file_free(&session->files[i]);
	free(session->files);
	test_options_free(&session->options);
}

static int print_help(void)
{
	test_options_print_help(stdout);
	return fflush(stdout) == 0 ? TEST_EXIT_PASSED : TEST_EXIT_HOST;
}

static int prepare_and_execute(struct session *session, const char *program)
{
	struct cli_error error;
	int r = prepare(session, &error);

	if (r < 0) {
		report("%s", error.text);
		return status_of_error(r);
	}
	return session->options.list ? list(session) : execute(session, program);
}

int test_command(size_t count, const char *const *args, const char *program)
{
	struct session session = {0};
	struct cli_error error;
	int status, r = test_options_parse(&session.options, count, args, &error);

	if (r < 0) {
		report("%s", error.text);
		return status_of_error(r);
	}
	status = session.options.help ? print_help() : prepare_and_execute(&session, program);
	dispose(&session);
	return status;
}
