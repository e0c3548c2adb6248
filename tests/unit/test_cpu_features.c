/* The "+name,-name" list of CPU features. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/cpu_features.h"
#include "util.h"

static char seen[256];
static int answer;

static int note(void *ctx, const struct cpu_feature *feature, int on, struct err *err)
{
	assert_ptr_equal(ctx, seen);
	size_t length = strlen(seen);
	(void)snprintf(seen + length, sizeof(seen) - length, "%c%s.%u ", on ? '+' : '-', feature->name, feature->bit);
	return answer < 0 ? err_set(err, answer, "the visitor's own") : 0;
}

static int walk(const char *list, struct err *err)
{
	seen[0] = 0;
	return cpu_features_walk(list, (struct cpu_feature_visitor){note, seen}, err);
}

static void well_formed_lists(void **state)
{
	(void)state;
	answer = 0;
	assert_int_equal(walk(NULL, NULL), 0);
	assert_int_equal(walk("", NULL), 0);
	assert_string_equal(seen, "");
	assert_int_equal(walk("+avx", NULL), 0);
	assert_string_equal(seen, "+avx.28 ");
	assert_int_equal(walk("-avx,+avx2,-3dnowprefetch,-avx", NULL), 0);
	assert_string_equal(seen, "-avx.28 +avx2.5 -3dnowprefetch.8 -avx.28 ");
	assert_int_equal(walk("-kvmclock", NULL), 0);
	assert_string_equal(seen, "-kvmclock.0 -kvmclock.3 ");
}

static void malformed_lists(void **state)
{
	(void)state;
	static const struct {
		const char *list, *sentence;
	} cases[] = {
		{"avx", "CPU features: 'avx' is not +NAME or -NAME"},
		{"+", "CPU features: '+' is not +NAME or -NAME"},
		{",", "CPU features: '' is not +NAME or -NAME"},
		{",+avx", "CPU features: '' is not +NAME or -NAME"},
		{"+avx,", "CPU features: '' is not +NAME or -NAME"},
		{"+avx,,-avx2", "CPU features: '' is not +NAME or -NAME"},
		{"+avx, -avx2", "CPU features: ' -avx2' is not +NAME or -NAME"},
		{" ", "CPU features: ' ' is not +NAME or -NAME"},
		{"+av", "CPU features: vmlet does not know 'av'; names are those of flags in /proc/cpuinfo"},
		{"+avxx", "CPU features: vmlet does not know 'avxx'; names are those of flags in /proc/cpuinfo"},
		{"+AVX", "CPU features: vmlet does not know 'AVX'; names are those of flags in /proc/cpuinfo"},
		{"++avx", "CPU features: vmlet does not know '+avx'; names are those of flags in /proc/cpuinfo"},
		{"+avx -avx2",
		 "CPU features: vmlet does not know 'avx -avx2'; names are those of flags in /proc/cpuinfo"},
	};
	answer = 0;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err = {0};
		assert_int_equal(walk(cases[i].list, &err), -EINVAL);
		assert_string_equal(err.text, cases[i].sentence);
		assert_int_equal(err.kind, ERR_CONFIG);
	}
}

static void a_name_without_end(void **state)
{
	(void)state;
	char list[5000];
	memset(list, 'x', sizeof(list));
	list[0] = '+';
	list[sizeof(list) - 1] = 0;
	struct err err;
	assert_int_equal(walk(list, &err), -EINVAL);
	assert_in_range(strlen(err.text), 64, 200);
	list[0] = 'x';
	assert_int_equal(walk(list, &err), -EINVAL);
	assert_in_range(strlen(err.text), 64, 200);
}

static void the_visitor_may_stop(void **state)
{
	(void)state;
	struct err err;
	answer = -ENOENT;
	assert_int_equal(walk("+avx,+avx2", &err), -ENOENT);
	assert_string_equal(seen, "+avx.28 ");
	assert_string_equal(err.text, "the visitor's own");
	assert_int_equal(walk("-kvmclock", &err), -ENOENT);
	assert_string_equal(seen, "-kvmclock.0 ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(well_formed_lists),
		cmocka_unit_test(malformed_lists),
		cmocka_unit_test(a_name_without_end),
		cmocka_unit_test(the_visitor_may_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
