#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "iothread.h"

struct visit {
	struct loop *loop;
	pthread_t thread;
	bool was_current;
	unsigned times;
};

static void visit(void *ctx)
{
	struct visit *v = ctx;
	v->thread = pthread_self();
	v->was_current = loop_is_current(v->loop);
	v->times++;
}

static void test_call_runs_there_and_has_returned(void **state)
{
	(void)state;
	struct err err = {0};
	struct iothread *iothread = iothread_new("io-test", &err);
	assert_non_null(iothread);
	struct visit v = {.loop = iothread_loop(iothread)};
	assert_false(loop_is_current(v.loop));
	for (unsigned i = 1; i <= 100; i++) {
		loop_call(v.loop, visit, &v);
		assert_int_equal(v.times, i);
	}
	assert_false(pthread_equal(v.thread, pthread_self()));
	assert_true(v.was_current);
	iothread_free(iothread);
	iothread_free(NULL);
}

static void test_call_is_direct_on_ones_own_loop(void **state)
{
	(void)state;
	struct err err = {0};
	struct loop *loop = loop_new(&err);
	struct visit v = {.loop = loop};
	loop_call(loop, visit, &v); /* nobody runs it yet */
	assert_int_equal(loop_dispatch(loop), 0);
	loop_call(loop, visit, &v);
	assert_int_equal(v.times, 2);
	assert_true(pthread_equal(v.thread, pthread_self()));
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_call_runs_there_and_has_returned),
		cmocka_unit_test(test_call_is_direct_on_ones_own_loop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
