/* What the owner of a character back end does beside its device: look at the output, type, ask for the end of input. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_chr_device.h"

static int in[2], out[2]; /* pipes: the test writes in[1] and reads out[0] */

static struct {
	size_t count, wrong; /* against the pattern */
	unsigned calls, starts;
	bool runs_loop;
	int depth;
	char text[64];
} seen;

static int setup(void **state)
{
	(void)state;
	device_reset();
	memset(&seen, 0, sizeof(seen));
	loop = loop_new(NULL);
	return loop && pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	for (int i = 0; i < 2; i++) {
		fd_close(&in[i]);
		fd_close(&out[i]);
	}
	return 0;
}

static void see(void *ctx, const uint8_t *data, size_t size_bytes)
{
	(void)ctx;
	assert_int_equal(seen.depth++, 0);
	if (seen.runs_loop)
		settle(); /* what else happens must not touch what we look at */
	for (size_t i = 0; i < size_bytes; i++) {
		seen.wrong += data[i] != pattern(seen.count + i);
		if (seen.count + i < sizeof(seen.text) - 1)
			seen.text[seen.count + i] = (char)data[i];
	}
	seen.count += size_bytes;
	seen.calls++;
	seen.depth--;
}

static void see_start(void *ctx)
{
	(void)ctx;
	seen.starts++;
}

static struct chr *tapped(struct chr *chr)
{
	assert_non_null(chr);
	chr_set_tap(chr, (struct chr_tap){see, NULL});
	chr_on_output(chr, see_start, NULL);
	device.chr = chr;
	device_connect();
	return chr;
}

static struct chr *tapped_fd(void)
{
	return tapped(chr_fd_new(loop, &test_log, in[0], out[1], (struct chr_filter){0}, NULL));
}

static struct chr *tapped_null(void)
{
	return tapped(chr_null_new(loop, &test_log, NULL));
}

/* --- the tap ----------------------------------------------------------------------------------------------------- */

static void the_tap_sees_what_goes_out(void **state)
{
	(void)state;
	struct chr *chr = tapped_fd();
	check_stream(chr, out[0], 5 << 20);
	assert_int_equal(seen.count, 5 << 20);
	assert_int_equal(seen.wrong, 0);
	assert_int_equal(chr_output_bytes(chr), 5 << 20);
	chr_free(chr);
}

static void write_pattern(struct chr *chr, size_t size)
{
	uint8_t block[8192];
	static size_t at;
	if (!seen.count && !seen.calls)
		at = 0;
	for (size_t done = 0; done < size;) {
		size_t count = min_u64(sizeof(block), size - done);
		for (size_t i = 0; i < count; i++)
			block[i] = pattern(at + i);
		size_t taken = chr_write(chr, block, count);
		at += taken;
		done += taken;
		if (taken < count)
			pump();
	}
}

static void nothing_behind_it_still_is_tapped(void **state)
{
	(void)state;
	struct chr *chr = tapped_null();
	write_pattern(chr, 3 << 20);
	pump_until_sent(chr);
	assert_int_equal(seen.count, 3 << 20);
	assert_int_equal(seen.wrong, 0);
	chr_free(chr);
}

/* The queue is the bound: the device waits for a loop that does not come by. */
static void the_queue_bounds_what_the_tap_has_not_seen(void **state)
{
	(void)state;
	struct chr *chr = tapped_null();
	static uint8_t block[1 << 20];
	assert_int_equal(chr_room(chr), 1 << 20);
	assert_int_equal(chr_write(chr, block, sizeof(block)), 1 << 20);
	assert_int_equal(chr_room(chr), 0);
	assert_int_equal(chr_write(chr, block, 1), 0);
	assert_int_equal(chr_pending(chr), 1 << 20);
	assert_int_equal(seen.count, 0);
	pump_until_sent(chr);
	assert_int_equal(seen.count, 1 << 20);
	assert_int_equal(device.writables, 1);
	assert_int_equal(chr_write(chr, block, 1), 1);
	chr_free(chr);
}

/* A reader that stands still holds the guest back, and not the tap. */
static void a_stalled_reader_does_not_stall_the_tap(void **state)
{
	(void)state;
	struct chr *chr = tapped_fd();
	static uint8_t block[4096];
	size_t sum = 0, taken;
	do {
		for (int i = 0; i < 3; i++)
			settle();
		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = pattern(sum + i);
		taken = chr_write(chr, block, sizeof(block));
		sum += taken;
		settle();
		assert_int_equal(seen.count, sum);
	} while (sum < 200000);
	assert_true(chr_pending(chr) > 0);
	assert_int_equal(seen.wrong, 0);
	chr_free(chr);
}

static void the_tap_outlives_the_reader(void **state)
{
	(void)state;
	struct chr *chr = tapped_fd();
	write_pattern(chr, 1000);
	fd_close(&out[0]);
	settle();
	write_pattern(chr, 2 << 20);
	pump_until_sent(chr);
	assert_int_equal(seen.count, 1000 + (2 << 20));
	assert_int_equal(seen.wrong, 0);
	assert_int_equal(chr_output_bytes(chr), seen.count);
	chr_free(chr);
}

/* Whoever looks may run the loop meanwhile: no byte comes twice, or is overwritten under his eyes. */
static void a_tap_that_runs_the_loop(void **state)
{
	(void)state;
	struct chr *chr = tapped_fd();
	seen.runs_loop = true;
	check_stream(chr, out[0], 3 << 20);
	assert_int_equal(seen.count, 3 << 20);
	assert_int_equal(seen.wrong, 0);
	chr_free(chr);
}

static void the_first_byte_is_told_once(void **state)
{
	(void)state;
	for (int is_tapped = 0; is_tapped < 2; is_tapped++) {
		struct chr *chr = chr_null_new(loop, &test_log, NULL);
		seen.starts = 0;
		chr_on_output(chr, see_start, NULL);
		if (is_tapped)
			chr_set_tap(chr, (struct chr_tap){see, NULL});
		assert_int_equal(chr_write(chr, (const uint8_t *)"", 0), 0);
		settle();
		assert_int_equal(seen.starts, 0);
		assert_int_equal(chr_first_output_ns(chr), 0);
		uint64_t before = loop_now_ns();
		chr_write(chr, (const uint8_t *)"a", 1);
		uint64_t after = loop_now_ns();
		settle();
		chr_write(chr, (const uint8_t *)"bc", 2);
		settle();
		assert_int_equal(seen.starts, 1);
		assert_in_range(chr_first_output_ns(chr), before, after);
		assert_int_equal(chr_output_bytes(chr), 3);
		assert_int_equal(chr_pending(chr), 0);
		chr_free(chr);
	}
}

/* --- typing ------------------------------------------------------------------------------------------------------ */

static void put(const char *text)
{
	assert_int_equal(write(in[1], text, strlen(text)), strlen(text));
}

static size_t type(struct chr *chr, const char *text)
{
	return chr_type(chr, (const uint8_t *)text, strlen(text));
}

static void what_is_typed_comes_first(void **state)
{
	(void)state;
	struct chr *chr = tapped_fd();
	device.room = 2;
	put("abcdef");
	pump_until_received(2);
	assert_int_equal(type(chr, "12"), 2);
	assert_int_equal(type(chr, "34"), 2);
	settle();
	assert_int_equal(device.count, 2);
	device_take_more(3);
	pump_until_received(5);
	assert_int_equal(type(chr, "56"), 2);
	device_take_more(100);
	pump_until_received(12);
	assert_memory_equal(device.data, "ab123456cdef", 12);
	chr_free(chr);
}

static void typing_needs_no_back_end(void **state)
{
	(void)state;
	struct chr *chr = chr_null_new(loop, &test_log, NULL);
	device.chr = chr;
	assert_int_equal(type(chr, "early"), 5);
	settle();
	device_connect();
	pump_until_received(5);
	assert_int_equal(type(chr, "late"), 4);
	pump_until_received(9);
	assert_memory_equal(device.data, "earlylate", 9);
	chr_free(chr);
}

static void typing_is_bounded(void **state)
{
	(void)state;
	struct chr *chr = tapped_null();
	static uint8_t text[100000];
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = pattern(i);
	device.is_fifo = true;
	assert_int_equal(chr_type(chr, text, sizeof(text)), 65536);
	assert_int_equal(chr_type(chr, text, 1), 0);
	settle();
	atomic_store(&device.atomic_room, 1000);
	chr_accept_input(chr);
	while (atomic_load(&device.atomic_count) < 1000)
		pump();
	assert_int_equal(chr_type(chr, text + 65536, sizeof(text) - 65536), 1000);
	atomic_store(&device.atomic_room, 1 << 20);
	chr_accept_input(chr);
	while (atomic_load(&device.atomic_count) < 66536)
		pump();
	assert_int_equal(device.wrong, 0);
	chr_free(chr);
}

/* --- the end of input -------------------------------------------------------------------------------------------- */

static void the_end_is_when_all_was_taken(void **state)
{
	(void)state;
	struct chr *chr = tapped_fd();
	device.room = 3;
	put("abcde");
	pump_until_received(3);
	fd_close(&in[1]);
	settle();
	assert_false(chr_input_has_ended(chr));
	device_take_more(2);
	pump_until_received(5);
	while (!chr_input_has_ended(chr))
		pump();
	chr_free(chr);
}

static void no_input_has_ended_at_once(void **state)
{
	(void)state;
	struct chr_filter none = {0};
	struct chr *chr = chr_stream_new(loop, &test_log, -1, out[1], none, NULL);
	assert_true(chr_input_has_ended(chr));
	chr_free(chr);
	chr = chr_stream_new(loop, &test_log, in[0], -1, none, NULL);
	assert_false(chr_input_has_ended(chr));
	assert_int_equal(chr_room(chr), SIZE_MAX);
	chr_free(chr);
}

/* A program's reader that has enough is nothing to write about; a disk that is full is. */
static void a_stream_whose_reader_leaves_is_quiet(void **state)
{
	(void)state;
	struct chr_filter none = {0};
	struct chr *chr = chr_stream_new(loop, &test_log, -1, out[1], none, NULL);
	assert_int_equal(chr_room(chr), 1 << 20);
	fd_close(&out[0]);
	chr_write(chr, (const uint8_t *)"x", 1);
	pump_until_sent(chr);
	assert_int_equal(chr_room(chr), SIZE_MAX);
	assert_int_equal(log_lines, 0);
	chr_free(chr);

	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	chr = chr_stream_new(loop, &test_log, -1, full, none, NULL);
	chr_write(chr, (const uint8_t *)"x", 1);
	pump_until_sent(chr);
	assert_int_equal(log_lines, 1);
	assert_non_null(strstr(log_line, "output stream"));
	chr_free(chr);
	close(full);
}

#define TAP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TAP_TEST(the_tap_sees_what_goes_out),
		TAP_TEST(nothing_behind_it_still_is_tapped),
		TAP_TEST(the_queue_bounds_what_the_tap_has_not_seen),
		TAP_TEST(a_stalled_reader_does_not_stall_the_tap),
		TAP_TEST(the_tap_outlives_the_reader),
		TAP_TEST(a_tap_that_runs_the_loop),
		TAP_TEST(the_first_byte_is_told_once),
		TAP_TEST(what_is_typed_comes_first),
		TAP_TEST(typing_needs_no_back_end),
		TAP_TEST(typing_is_bounded),
		TAP_TEST(the_end_is_when_all_was_taken),
		TAP_TEST(no_input_has_ended_at_once),
		TAP_TEST(a_stream_whose_reader_leaves_is_quiet),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
