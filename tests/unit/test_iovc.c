/* The cursor over spans, against the same bytes in one piece. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "iovc.h"
#include "util.h"

enum { SPANS = 12, SPAN_MAX = 9 };

/* The spans name successive bytes, so that the address tells the position. */
static size_t make_spans(uint8_t *memory, struct iovec *iov, uint32_t random)
{
	size_t at = 0;
	for (unsigned i = 0; i < SPANS; i++) {
		random = random * 1664525 + 1013904223;
		iov[i] = (struct iovec){memory + at, (random >> 16) % SPAN_MAX};
		at += iov[i].iov_len;
	}
	return at;
}

static void check_peek(const struct iovc *c, const uint8_t *at, size_t size_bytes, unsigned max)
{
	struct iovec got[SPANS];
	unsigned count = iovc_peek(c, size_bytes, got, max);
	assert_true(count <= max);
	size_t bytes = 0;
	for (unsigned i = 0; i < count; i++) {
		assert_ptr_equal(got[i].iov_base, at + bytes);
		assert_true(got[i].iov_len > 0);
		bytes += got[i].iov_len;
	}
	assert_true(bytes <= size_bytes);
	if (max == SPANS) {
		assert_int_equal(bytes, size_bytes);
		assert_int_equal(iovc_spans(c, size_bytes), count);
	}
}

static void any_way_of_going_through(void **state)
{
	(void)state;
	uint8_t memory[SPANS * SPAN_MAX];
	struct iovec iov[SPANS];
	for (uint32_t round = 0; round < 200; round++) {
		size_t total = make_spans(memory, iov, round);
		for (size_t step = 1; step < 20; step++) {
			struct iovc c = {iov, SPANS, 0};
			for (size_t at = 0; at < total;) {
				size_t size_bytes = min_u64(step, total - at);
				check_peek(&c, memory + at, size_bytes, SPANS);
				check_peek(&c, memory + at, total - at, 3);
				iovc_skip(&c, size_bytes);
				at += size_bytes;
			}
			assert_int_equal(iovc_spans(&c, 1), 0);
		}
	}
}

static void past_the_end_there_is_nothing(void **state)
{
	(void)state;
	uint8_t memory[8];
	const struct iovec iov[] = {{memory, 3}, {memory, 0}, {memory + 3, 5}};
	struct iovec got[4];
	struct iovc c = {iov, 3, 0};
	assert_int_equal(iovc_peek(&c, SIZE_MAX, got, 4), 2);
	iovc_skip(&c, SIZE_MAX);
	assert_int_equal(iovc_peek(&c, SIZE_MAX, got, 4), 0);
	iovc_skip(&c, 1);
	assert_int_equal(iovc_spans(&c, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_way_of_going_through),
		cmocka_unit_test(past_the_end_there_is_nothing),
	};
	return cmocka_run_group_tests_name("iovc", tests, NULL, NULL);
}
