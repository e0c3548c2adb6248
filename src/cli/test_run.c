#include "cli/test_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "cli/test_args.h"
#include "cli/test_child.h"
#include "cli/test_collect.h"

enum { NS_PER_MS = 1000000, TICK_MS = 1000 };

static const uint64_t grace_of_stopped_ns = 2000000000; /* of one that was told to end */

struct slot {
	bool is_busy;
	size_t index;
	struct test_child child;
	struct test_attempt attempt;
	uint64_t started_ns, deadline_ns;
	bool was_killed;
};

struct pool {
	const struct test_run *run;
	struct slot *slots;
	struct pollfd *polls; /* the signals', then the slots' */
	unsigned running;
	size_t next; /* the first test not yet started */
	bool may_start;
	const char *failed_name; /* fail-fast: of the first that did */
	int null_fd;
	sigset_t mask; /* as it was found */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct test_result *result_of(const struct pool *pool, const struct slot *slot)
{
	return &pool->run->fleet->results[slot->index];
}

static const struct test_case *test_of(const struct pool *pool, const struct slot *slot)
{
	return &pool->run->fleet->plan->cases[slot->index];
}

/* --- start --- */

/* The test's file's directory, so that relative paths mean what they say there; allocated. */
static char *directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static int open_output(const char *path)
{
	return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
}

static int spawn(const struct pool *pool, struct slot *slot, const struct test_args *args, const char *directory)
{
	const struct test_case *test = test_of(pool, slot);
	bool is_exec = test_case_find(test, TEST_KEY_EXEC);
	int out = is_exec ? open_output(slot->attempt.out) : pool->null_fd;
	int err = open_output(slot->attempt.err);
	struct test_child_start start = {
		.program = pool->run->program,
		.argv = args->argv,
		.directory = directory,
		.fds = {pool->null_fd, out, err},
		.mask = &pool->mask,
	};
	int r = out < 0 || err < 0 ? -errno : test_child_start(&start, &slot->child);

	if (is_exec && out >= 0)
		close(out);
	if (err >= 0)
		close(err);
	return r;
}

static int start_child(const struct pool *pool, struct slot *slot)
{
	const struct test_case *test = test_of(pool, slot);
	struct test_paths paths = {slot->attempt.status, slot->attempt.events, slot->attempt.console};
	char *directory = directory_of(test->file->path);
	struct test_args args;
	int r = directory ? test_args_build(test, &paths, &args) : -ENOMEM;

	if (r == 0) {
		r = spawn(pool, slot, &args, directory);
		test_args_free(&args);
	}
	free(directory);
	return r;
}

static int begin(struct pool *pool, struct slot *slot)
{
	struct test_result *result = result_of(pool, slot);
	int r;

	result->attempts++;
	slot->was_killed = false;
	r = test_output_begin(pool->run->output, slot->index, result->attempts, &slot->attempt);
	slot->started_ns = now_ns();
	if (r == 0)
		r = start_child(pool, slot);
	if (r < 0) {
		test_attempt_free(&slot->attempt);
		return r;
	}
	slot->deadline_ns = slot->started_ns + test_of(pool, slot)->timeout_ns + pool->run->grace_ns;
	slot->is_busy = true;
	pool->running++;
	return 0;
}

static void finish(struct pool *pool, size_t index)
{
	if (pool->run->done)
		pool->run->done(pool->run->ctx, index);
}

static void stop_starting(struct pool *pool, const char *failed_name)
{
	pool->may_start = false;
	if (!pool->failed_name)
		pool->failed_name = failed_name;
}

/* A test whose child cannot be started fails, and the others go on. */
static void begin_or_fail(struct pool *pool, struct slot *slot)
{
	int r = begin(pool, slot);

	if (r == 0)
		return;
	test_collect_failure(result_of(pool, slot), r);
	if (pool->run->fail_fast)
		stop_starting(pool, test_of(pool, slot)->name);
	finish(pool, slot->index);
}

static void fill_slots(struct pool *pool)
{
	for (unsigned i = 0; i < pool->run->jobs && pool->may_start; i++) {
		struct slot *slot = &pool->slots[i];

		while (!slot->is_busy && pool->may_start && pool->next < pool->run->fleet->plan->count) {
			slot->index = pool->next++;
			begin_or_fail(pool, slot);
		}
	}
}

/* --- end --- */

static bool should_retry(const struct pool *pool, const struct test_result *result)
{
	return result->outcome == TEST_FAILED && result->attempts <= pool->run->retries &&
	       (pool->may_start || pool->failed_name) && pool->run->fleet->signo == 0;
}

static void end_attempt(struct pool *pool, struct slot *slot)
{
	struct test_result *result = result_of(pool, slot);
	int wait_status = test_child_reap(&slot->child);

	slot->is_busy = false;
	pool->running--;
	result->duration_ns = now_ns() - slot->started_ns;
	test_collect(test_of(pool, slot), wait_status, slot->was_killed, &slot->attempt, result);
	if (pool->run->fleet->signo != 0 && result->outcome == TEST_FAILED)
		test_skip(result, "interrupted");
	if (pool->run->output->is_fresh && result->outcome == TEST_PASSED)
		test_attempt_remove(&slot->attempt);
	test_attempt_free(&slot->attempt);
}

static void end_child(struct pool *pool, struct slot *slot)
{
	struct test_result *result = result_of(pool, slot);

	end_attempt(pool, slot);
	if (should_retry(pool, result)) {
		begin_or_fail(pool, slot);
		return;
	}
	if (result->outcome == TEST_FAILED && pool->run->fail_fast)
		stop_starting(pool, test_of(pool, slot)->name);
	finish(pool, slot->index);
}

/* --- signals and time --- */

static void interrupt(struct pool *pool, int signo)
{
	uint64_t deadline = now_ns() + grace_of_stopped_ns;
	/* Who asks twice means now. */
	int forward = pool->run->fleet->signo != 0 ? SIGKILL : SIGTERM;

	pool->may_start = false;
	if (pool->run->fleet->signo == 0)
		pool->run->fleet->signo = signo;
	for (unsigned i = 0; i < pool->run->jobs; i++) {
		if (!pool->slots[i].is_busy)
			continue;
		test_child_signal(&pool->slots[i].child, forward);
		pool->slots[i].deadline_ns = deadline;
	}
}

static void read_signals(struct pool *pool, int fd)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		interrupt(pool, (int)info.ssi_signo);
}

static void kill_late(struct pool *pool)
{
	uint64_t now = now_ns();

	for (unsigned i = 0; i < pool->run->jobs; i++) {
		struct slot *slot = &pool->slots[i];

		if (!slot->is_busy || slot->was_killed || slot->deadline_ns > now)
			continue;
		slot->was_killed = true;
		test_child_signal(&slot->child, SIGKILL);
	}
}

/* Until the next deadline, and not longer than a tick. */
static int milliseconds_to_wait(const struct pool *pool)
{
	uint64_t now = now_ns(), wait_ns = (uint64_t)TICK_MS * NS_PER_MS;

	for (unsigned i = 0; i < pool->run->jobs; i++) {
		const struct slot *slot = &pool->slots[i];
		uint64_t left_ns = slot->deadline_ns > now ? slot->deadline_ns - now : 0;

		if (slot->is_busy && !slot->was_killed && left_ns < wait_ns)
			wait_ns = left_ns;
	}
	return (int)((wait_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int wait_for_events(struct pool *pool)
{
	for (unsigned i = 0; i < pool->run->jobs; i++)
		pool->polls[1 + i] = (struct pollfd){
			.fd = pool->slots[i].is_busy ? pool->slots[i].child.pidfd : -1,
			.events = POLLIN,
		};
	return poll(pool->polls, 1 + pool->run->jobs, milliseconds_to_wait(pool));
}

static void handle_events(struct pool *pool)
{
	if (pool->polls[0].revents != 0)
		read_signals(pool, pool->polls[0].fd);
	for (unsigned i = 0; i < pool->run->jobs; i++)
		if (pool->slots[i].is_busy && pool->polls[1 + i].revents != 0)
			end_child(pool, &pool->slots[i]);
}

static void serve(struct pool *pool)
{
	fill_slots(pool);
	while (pool->running > 0) {
		if (wait_for_events(pool) > 0)
			handle_events(pool);
		kill_late(pool);
		fill_slots(pool);
		if (pool->run->tick)
			pool->run->tick(pool->run->ctx, pool->running);
	}
}

/* What nobody started. */
static void skip_rest(struct pool *pool)
{
	char why[512] = "interrupted";

	if (pool->failed_name && pool->run->fleet->signo == 0)
		snprintf(why, sizeof(why), "not run after the failure of %s", pool->failed_name);
	for (; pool->next < pool->run->fleet->plan->count; pool->next++) {
		test_skip(&pool->run->fleet->results[pool->next], why);
		finish(pool, pool->next);
	}
}

/* What is ignored (nohup) stays so, as a blocked signal would come to the descriptor all the same. */
static void choose_signals(sigset_t *set)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

	sigemptyset(set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct sigaction action;

		if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(set, signals[i]);
	}
}

static int open_pool(struct pool *pool)
{
	sigset_t set;

	choose_signals(&set);
	sigprocmask(SIG_BLOCK, &set, &pool->mask);
	pool->slots = calloc(pool->run->jobs, sizeof(*pool->slots));
	pool->polls = calloc(1 + pool->run->jobs, sizeof(*pool->polls));
	if (!pool->slots || !pool->polls)
		return -ENOMEM;
	pool->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (pool->null_fd < 0)
		return -errno;
	pool->polls[0] = (struct pollfd){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN};
	return pool->polls[0].fd < 0 ? -errno : 0;
}

static void close_pool(struct pool *pool)
{
	if (pool->polls && pool->polls[0].fd > 0)
		close(pool->polls[0].fd);
	if (pool->null_fd >= 0)
		close(pool->null_fd);
	free(pool->polls);
	free(pool->slots);
}

int test_run(const struct test_run *run)
{
	struct pool pool = {.run = run, .may_start = true, .null_fd = -1};
	int r = open_pool(&pool);

	if (r == 0) {
		uint64_t started_ns = now_ns();

		serve(&pool);
		skip_rest(&pool);
		run->fleet->duration_ns = now_ns() - started_ns;
	}
	close_pool(&pool);
	return r;
}
