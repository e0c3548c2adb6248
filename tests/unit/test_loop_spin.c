/* Looking before sleeping: who is looked at, when, and who ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loop.h"
#include "util.h"

static const uint64_t MS = 1000000, LONG = 10000000000;

struct looker {
	struct loop_poller poller;
	unsigned looks, sleeps;
	unsigned finds_at; /* the look that finds something; 0: none does */
};

struct fixture {
	struct loop *loop;
	struct looker looker;
	struct loop_timer timer;
	unsigned fired;
};

static bool look(struct loop_poller *poller)
{
	struct looker *looker = container_of(poller, struct looker, poller);
	return ++looker->looks == looker->finds_at;
}

static bool go_to_sleep(struct loop_poller *poller)
{
	container_of(poller, struct looker, poller)->sleeps++;
	return false;
}

static void fire(struct loop_timer *timer)
{
	container_of(timer, struct fixture, timer)->fired++;
}

static int setup(void **state)
{
	static struct fixture f;
	struct err err = {0};
	f = (struct fixture){.looker.poller = {.look = look, .sleep = go_to_sleep}, .timer.fn = fire};
	f.loop = loop_new(&err);
	*state = &f;
	return f.loop ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	loop_stop_polling(f->loop, &f->looker.poller);
	loop_timer_disarm(f->loop, &f->timer);
	loop_free(f->loop);
	return 0;
}

/* Wait, with the poller active, for an event that is due in a millisecond. */
static void wait_for_event(struct fixture *f)
{
	f->looker.looks = f->looker.sleeps = f->fired = 0;
	loop_timer_arm(f->loop, &f->timer, loop_now_ns() + MS);
	loop_start_polling(f->loop, &f->looker.poller);
	while (!f->fired)
		assert_int_equal(loop_wait(f->loop, LONG), 0);
	loop_stop_polling(f->loop, &f->looker.poller);
}

static void test_looks_when_it_pays_off(void **state)
{
	struct fixture *f = *state;
	f->looker.poller.limit_ns = LONG;
	wait_for_event(f); /* nobody has seen an event yet: we sleep */
	assert_int_equal(f->looker.looks, 0);
	assert_int_equal(f->looker.sleeps, 1);
	wait_for_event(f); /* and would have seen that one */
	assert_true(f->looker.looks > 1);
	assert_int_equal(f->looker.sleeps, 0);
}

static void test_sleeps_when_it_does_not(void **state)
{
	struct fixture *f = *state;
	f->looker.poller.limit_ns = LONG;
	wait_for_event(f);
	f->looker.poller.limit_ns = 1; /* nothing comes that soon */
	for (unsigned i = 0; i < 64; i++)
		wait_for_event(f);
	assert_int_equal(f->looker.looks, 0);
	assert_int_equal(f->looker.sleeps, 1);
}

static void test_no_longer_than_the_limit(void **state)
{
	struct fixture *f = *state;
	f->looker.poller.limit_ns = LONG;
	wait_for_event(f); /* it would pay off */
	f->looker.poller.limit_ns = 0;
	wait_for_event(f);
	assert_true(f->looker.looks <= 1);
	assert_int_equal(f->looker.sleeps, 1);
}

static void test_the_longest_limit_counts(void **state)
{
	struct fixture *f = *state;
	struct looker other = {.poller = {.look = look, .sleep = go_to_sleep, .limit_ns = LONG}};
	f->looker.poller.limit_ns = 0;
	for (unsigned i = 0; i < 2; i++) {
		loop_start_polling(f->loop, &other.poller);
		wait_for_event(f);
		loop_stop_polling(f->loop, &other.poller);
	}
	assert_true(other.looks > 1);
	assert_true(f->looker.looks > 1);
}

static void test_found(void **state)
{
	struct fixture *f = *state;
	f->looker.poller.limit_ns = LONG;
	wait_for_event(f);
	f->looker = (struct looker){.poller = f->looker.poller, .finds_at = 3};
	loop_start_polling(f->loop, &f->looker.poller);
	assert_int_equal(loop_wait(f->loop, LONG), 0); /* comes back at once, without an event */
	assert_int_equal(f->looker.looks, 3);
	assert_int_equal(f->looker.sleeps, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_looks_when_it_pays_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sleeps_when_it_does_not, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_longer_than_the_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_longest_limit_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_found, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
