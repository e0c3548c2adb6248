/*
 * The event loop's two doors for other threads, loop_post and loop_timer, with many threads at them at once; once
 * served by loop_wait and once by a foreign poll. Meant for ThreadSanitizer, too.
 */
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "loop.h"
#include "util.h"

enum { THREADS = 8, ROUNDS = 250 };
static const uint64_t US = 1000;

struct worker {
	pthread_t thread;
	struct loop_task task;
	struct loop_timer timer, idle_timer;
	sem_t answered;
	unsigned seed;
	unsigned requests; /* plain: what is written before loop_post is seen by the task */
	unsigned seen;     /* plain: what the task writes before sem_post is seen by the worker */
	uint64_t deadline_ns;
	atomic_uint early;
};

static struct loop *loop;
static struct worker workers[THREADS];
static struct loop_task shared_task; /* all threads post it */
static atomic_uint shared_posts, shared_runs, finished;

static bool pump_by_poll;

static void pump(void)
{
	if (!pump_by_poll) {
		assert_int_equal(loop_wait(loop, UINT64_MAX), 0);
		return;
	}
	struct pollfd pollfd = {.fd = loop_get_fd(loop), .events = POLLIN};
	assert_int_equal(poll(&pollfd, 1, 10000), 1); /* nothing may be missed */
	assert_int_equal(loop_dispatch(loop), 0);
}

static int setup(void **state)
{
	(void)state;
	alarm(60);
	loop = loop_new(NULL);
	atomic_store(&shared_posts, 0);
	atomic_store(&shared_runs, 0);
	atomic_store(&finished, 0);
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void run_workers(void *(*main_fn)(void *))
{
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.seed = i + 1};
		sem_init(&workers[i].answered, 0, 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&workers[i].thread, NULL, main_fn, &workers[i]), 0);
	while (atomic_load(&finished) < THREADS)
		pump();
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		sem_destroy(&workers[i].answered);
	}
}

/* The last thing that a worker does: without this wake the loop would sleep on. */
static void finish(void)
{
	atomic_fetch_add(&finished, 1);
	loop_wake(loop);
}

static unsigned random_below(struct worker *w, unsigned limit)
{
	w->seed = w->seed * 1664525 + 1013904223;
	return (w->seed >> 8) % limit;
}

/* --- posts ---------------------------------------------------------------------------------------------------- */

static void answer(struct loop_task *task)
{
	struct worker *w = container_of(task, struct worker, task);
	w->seen = w->requests;
	sem_post(&w->answered);
}

static void count_shared(struct loop_task *task)
{
	(void)task;
	atomic_fetch_add(&shared_runs, 1);
}

static void *post_and_wait(void *arg)
{
	struct worker *w = arg;
	w->task.fn = answer;
	for (unsigned i = 1; i <= ROUNDS; i++) {
		w->requests = i;
		loop_post(loop, &w->task);
		if (random_below(w, 2)) {
			atomic_fetch_add(&shared_posts, 1);
			loop_post(loop, &shared_task);
		}
		while (sem_wait(&w->answered) < 0)
			;
		if (w->seen != i)
			atomic_fetch_add(&w->early, 1);
	}
	finish();
	return NULL;
}

static void every_post_is_run(void **state)
{
	(void)state;
	shared_task = (struct loop_task){.fn = count_shared};
	run_workers(post_and_wait);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(atomic_load(&workers[i].early), 0);
	while (shared_task.queued)
		pump();
	assert_in_range(atomic_load(&shared_runs), 1, atomic_load(&shared_posts));
}

/* Posts without waiting for an answer: some coincide, but the last one of each is run after it was made. */
static void note_request(struct loop_task *task)
{
	struct worker *w = container_of(task, struct worker, task);
	atomic_store(&w->early, atomic_load(&w->early) + 1);
}

static void *post_in_a_rush(void *arg)
{
	struct worker *w = arg;
	w->task.fn = note_request;
	for (unsigned i = 1; i <= 20 * ROUNDS; i++)
		loop_post(loop, &w->task);
	finish();
	return NULL;
}

static void a_rush_of_posts_ends(void **state)
{
	(void)state;
	run_workers(post_in_a_rush);
	for (unsigned i = 0; i < THREADS; i++) {
		while (workers[i].task.queued)
			pump();
		assert_in_range(atomic_load(&workers[i].early), 1, 20 * ROUNDS);
	}
}

/* --- timers --------------------------------------------------------------------------------------------------- */

static void ring(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, timer);
	if (loop_now_ns() < w->deadline_ns)
		atomic_fetch_add(&w->early, 1);
	sem_post(&w->answered);
}

static void never(struct loop_timer *timer)
{
	(void)timer;
}

static void *arm_and_wait(void *arg)
{
	struct worker *w = arg;
	w->timer.fn = ring;
	w->idle_timer.fn = never;
	for (unsigned i = 1; i <= ROUNDS; i++) {
		w->deadline_ns = loop_now_ns() + random_below(w, 100) * US;
		loop_timer_arm(loop, &w->timer, w->deadline_ns);
		loop_timer_arm(loop, &w->idle_timer, w->deadline_ns + random_below(w, 200) * US);
		while (sem_wait(&w->answered) < 0)
			;
		loop_timer_disarm(loop, &w->idle_timer);
	}
	finish();
	return NULL;
}

static void every_timer_fires(void **state)
{
	(void)state;
	run_workers(arm_and_wait);
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(atomic_load(&workers[i].early), 0);
		assert_int_equal(workers[i].timer.deadline_ns, 0);
		assert_int_equal(sem_trywait(&workers[i].answered), -1);
	}
}

/* --- wakes ---------------------------------------------------------------------------------------------------- */

static atomic_uint interrupts;

static void wake_handler(int number)
{
	(void)number;
	atomic_fetch_add(&interrupts, 1);
	loop_wake(loop);
}

static void *interrupt_and_wait(void *arg)
{
	struct worker *w = arg;
	w->task.fn = answer;
	for (unsigned i = 1; i <= ROUNDS / 5; i++) {
		raise(SIGUSR1);
		w->requests = i;
		loop_post(loop, &w->task);
		raise(SIGUSR1);
		while (sem_wait(&w->answered) < 0)
			;
	}
	finish();
	return NULL;
}

static void wakes_from_signal_handlers_between_posts(void **state)
{
	(void)state;
	struct sigaction action = {.sa_handler = wake_handler}, saved;
	sigaction(SIGUSR1, &action, &saved);
	atomic_store(&interrupts, 0);
	run_workers(interrupt_and_wait);
	assert_int_equal(atomic_load(&interrupts), 2 * THREADS * (ROUNDS / 5));
	sigaction(SIGUSR1, &saved, NULL);
}

#define THREADS_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		THREADS_TEST(every_post_is_run),
		THREADS_TEST(a_rush_of_posts_ends),
		THREADS_TEST(every_timer_fires),
		THREADS_TEST(wakes_from_signal_handlers_between_posts),
	};
	int failed = cmocka_run_group_tests_name("loop_wait", tests, NULL, NULL);
	pump_by_poll = true;
	return failed + cmocka_run_group_tests_name("poll and loop_dispatch", tests, NULL, NULL);
}
