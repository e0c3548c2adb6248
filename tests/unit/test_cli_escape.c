#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "cli/escape.h"

struct heard {
	char actions[16];
	size_t count;
};

static void hear(void *ctx, enum escape_action action)
{
	struct heard *heard = ctx;

	assert_in_range(heard->count, 0, sizeof(heard->actions) - 2);
	heard->actions[heard->count++] = "xp?"[action];
}

static const struct {
	const char *in;
	const char *out;
	const char *actions;
} cases[] = {
	{"", "", ""},
	{"hello\r", "hello\r", ""},
	{"\001x", "", "x"},
	{"a\001xb", "ab", "x"},
	{"\001\001", "\001", ""},
	{"\001\001\001\001", "\001\001", ""},
	{"\001\001x", "\001x", ""},
	{"\001p\001?\001x", "", "p?x"},
	{"\001qz", "z", ""},
	{"\001X", "", ""},
	{"x\003\032\034", "x\003\032\034", ""},
	{"ab\001", "ab", ""},
};

/* Every case must come out the same however its bytes are split over two buffers and over buffers of one. */
static void check_split(size_t which, size_t first, size_t then)
{
	size_t size = strlen(cases[which].in), done = 0, kept = 0;
	struct heard heard = {0};
	struct escape escape = {.act = hear, .ctx = &heard};
	uint8_t out[32];

	while (done < size) {
		size_t n = done == 0 ? first : then;

		n = n == 0 || n > size - done ? size - done : n;
		memcpy(out + kept, cases[which].in + done, n);
		kept += escape_filter(&escape, out + kept, n);
		done += n;
	}
	assert_int_equal(kept, strlen(cases[which].out));
	assert_memory_equal(out, cases[which].out, kept);
	assert_string_equal(heard.actions, cases[which].actions);
}

static void test_all_splits(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t first = 0; first <= strlen(cases[i].in); first++)
			check_split(i, first, 0);
		check_split(i, 1, 1);
	}
}

static void test_every_byte_passes(void **state)
{
	struct escape escape = {0};
	uint8_t data[255];
	size_t n = 0;

	(void)state;
	for (unsigned c = 0; c < 256; c++)
		if (c != 1)
			data[n++] = (uint8_t)c;
	assert_int_equal(escape_filter(&escape, data, n), 255);
	assert_int_equal(data[0], 0);
	assert_int_equal(data[254], 255);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_splits),
		cmocka_unit_test(test_every_byte_passes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
