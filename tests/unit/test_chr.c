/* The byte pump of a character back end, over given descriptors and files. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_chr_device.h"

static int in[2], out[2]; /* pipes: the test writes in[1] and reads out[0] */

static int setup(void **state)
{
	(void)state;
	device_reset();
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

static struct chr *make_fd_chr(struct chr_filter filter)
{
	struct chr *chr = chr_fd_new(loop, &test_log, in[0], out[1], filter, NULL);
	assert_non_null(chr);
	device.chr = chr;
	return chr;
}

static const struct chr_filter NO_FILTER;

static void put(const char *text)
{
	assert_int_equal(write(in[1], text, strlen(text)), strlen(text));
}

static void check_out(const char *expected)
{
	char back[64] = "";
	for (size_t got = 0; got < strlen(expected);) {
		pump();
		got += (size_t)max_u64((uint64_t)read_some(out[0], back + got, sizeof(back) - 1 - got), 0);
	}
	assert_string_equal(back, expected);
}

/* --- the simple ways ------------------------------------------------------------------------------------------ */

static void null_takes_everything(void **state)
{
	(void)state;
	struct chr *chr = chr_null_new(loop, &test_log, NULL);
	struct chr_client client = device_client();
	chr_set_client(chr, &client);
	assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 1);
	assert_int_equal(chr_pending(chr), 0);
	chr_accept_input(chr);
	assert_null(chr_path(chr));
	chr_set_client(chr, NULL);
	chr_free(chr);
	chr_free(NULL);
}

static void bytes_go_out_and_come_in(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	assert_int_equal(chr_write(chr, (const uint8_t *)"hello", 5), 5);
	assert_int_equal(chr_pending(chr), 5);
	check_out("hello");
	pump_until_sent(chr);
	put("input");
	pump_until_received(5);
	assert_memory_equal(device.data, "input", 5);
	assert_int_equal(device.writables, 0);
	chr_free(chr);
}

/* Both kinds of descriptor: a user's shell may hand over O_NONBLOCK ones. */
static void nonblocking_descriptors(void **state)
{
	(void)state;
	assert_int_equal(fcntl(in[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(fcntl(out[1], F_SETFL, O_NONBLOCK), 0);
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	settle();
	put("late");
	pump_until_received(4);
	check_stream(chr, out[0], 300000);
	put("again");
	pump_until_received(9);
	chr_free(chr);
	assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, O_NONBLOCK); /* borrowed: left as it was */
}

static void one_way_only(void **state)
{
	(void)state;
	struct chr *chr = chr_fd_new(loop, &test_log, -1, out[1], NO_FILTER, NULL);
	device.chr = chr;
	device_connect();
	chr_write(chr, (const uint8_t *)"out", 3);
	check_out("out");
	chr_free(chr);

	chr = chr_fd_new(loop, &test_log, in[0], -1, NO_FILTER, NULL);
	device.chr = chr;
	device_connect();
	assert_int_equal(chr_write(chr, (const uint8_t *)"nowhere", 7), 7);
	assert_int_equal(chr_pending(chr), 0);
	put("in");
	pump_until_received(2);
	chr_free(chr);
}

/* --- output backpressure --------------------------------------------------------------------------------------- */

/* More than the queue, by a reader that reads in odd pieces: it wraps at every place. */
static void nothing_is_lost_or_doubled(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	check_stream(chr, out[0], 5 << 20);
	chr_free(chr);
}

static size_t fill_queue(struct chr *chr)
{
	static const uint8_t block[65536];
	size_t sum = 0, taken;
	do {
		taken = chr_write(chr, block, sizeof(block));
		sum += taken;
	} while (taken == sizeof(block));
	return sum;
}

static void writable_comes_once_for_a_refusal(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	size_t sum = fill_queue(chr);
	assert_int_equal(sum, 1 << 20);
	assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 0);
	assert_int_equal(chr_write(chr, (const uint8_t *)"", 0), 0); /* does not make the refusal forgotten */
	while (!device.writables)
		pump();
	settle();
	assert_int_equal(device.writables, 1);
	assert_true(chr_write(chr, (const uint8_t *)"x", 1) == 1);
	drain(out[0]);
	pump();
	settle();
	assert_int_equal(device.writables, 1); /* nothing was refused since */
	chr_free(chr);
}

/* --- input backpressure ---------------------------------------------------------------------------------------- */

static void a_refusing_device_gets_the_rest_later(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	device.room = 3;
	put("abcdefgh");
	pump_until_received(3);
	settle();
	assert_int_equal(device.count, 3);
	device_take_more(2);
	pump_until_received(5);
	put("ijk");
	settle();
	assert_int_equal(device.count, 5);
	device_take_more(100);
	pump_until_received(11);
	assert_memory_equal(device.data, "abcdefghijk", 11);
	chr_free(chr);
}

/* A paste of many blocks into a device of 16 bytes, whose driver is another thread. */
static void *read_like_a_guest(void *arg)
{
	(void)arg;
	for (unsigned taken = 0; taken < device.expected; taken += 16) {
		while (atomic_load(&device.atomic_count) < min_u64(taken + 16, device.expected))
			sched_yield();
		atomic_fetch_add(&device.atomic_room, 16);
		chr_accept_input(device.chr);
	}
	return NULL;
}

static void a_long_paste_arrives_whole(void **state)
{
	(void)state;
	enum { SIZE = 40000 };
	struct chr *chr = make_fd_chr(NO_FILTER);
	fcntl(in[1], F_SETPIPE_SZ, 65536);
	uint8_t paste[SIZE];
	for (size_t i = 0; i < SIZE; i++)
		paste[i] = pattern(i);
	device.expected = SIZE;
	device.is_fifo = true;
	atomic_store(&device.atomic_room, 16);
	device_connect();
	assert_int_equal(write(in[1], paste, SIZE), SIZE);
	pthread_t guest;
	assert_int_equal(pthread_create(&guest, NULL, read_like_a_guest, NULL), 0);
	while (atomic_load(&device.atomic_count) < SIZE)
		pump();
	pthread_join(guest, NULL);
	assert_int_equal(device.wrong, 0);
	chr_free(chr);
}

static void without_a_device_input_waits(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	put("early");
	settle();
	device_connect();
	pump_until_received(5);
	chr_set_client(chr, NULL);
	put("meanwhile");
	settle();
	assert_int_equal(device.count, 5);
	assert_int_equal(chr_write(chr, (const uint8_t *)"still", 5), 5);
	check_out("still");
	device_connect();
	pump_until_received(14);
	assert_memory_equal(device.data, "earlymeanwhile", 14);
	chr_free(chr);
}

static void the_end_of_input_is_not_the_end_of_output(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	device.room = 2;
	put("last");
	fd_close(&in[1]);
	pump_until_received(2);
	settle();
	device_take_more(2); /* what came before the end is still delivered after it */
	pump_until_received(4);
	chr_write(chr, (const uint8_t *)"more", 4);
	check_out("more");
	chr_free(chr);
}

/* The ring has no room when the device connects: input comes all the same. */
static void ignore_done(struct loop_op *op, int res)
{
	(void)op, (void)res;
}

static void a_read_that_the_ring_did_not_take(void **state)
{
	(void)state;
	static struct loop_op ops[1000];
	unsigned count = 0;
	for (; count < ARRAY_SIZE(ops); count++) {
		ops[count] = (struct loop_op){.done = ignore_done};
		if (loop_poll(loop, &ops[count], out[1], POLLOUT) < 0)
			break;
	}
	assert_true(count < ARRAY_SIZE(ops));
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	chr_write(chr, (const uint8_t *)"out", 3);
	put("input");
	pump_until_received(5);
	check_out("out");
	chr_free(chr);
}

/* --- the owner's filter ------------------------------------------------------------------------------------------ */

static size_t drop_x(void *ctx, uint8_t *data, size_t size_bytes)
{
	unsigned *dropped = ctx;
	size_t kept = 0;
	for (size_t i = 0; i < size_bytes; i++) {
		if (data[i] == 'x')
			++*dropped;
		else
			data[kept++] = data[i] == 'a' ? 'A' : data[i];
	}
	return kept;
}

static void the_filter_changes_and_shortens(void **state)
{
	(void)state;
	unsigned dropped = 0;
	struct chr *chr = make_fd_chr((struct chr_filter){drop_x, &dropped});
	device_connect();
	put("xaxbx");
	pump_until_received(2);
	put("xxx"); /* nothing is left of it; reading goes on */
	settle();
	put("c");
	pump_until_received(3);
	assert_memory_equal(device.data, "Abc", 3);
	assert_int_equal(dropped, 6);
	chr_free(chr);
}

/* The escape keys work when the guest hangs and does not read what was typed before. */
static void the_filter_sees_what_a_hung_guest_does_not_take(void **state)
{
	(void)state;
	unsigned dropped = 0;
	struct chr *chr = make_fd_chr((struct chr_filter){drop_x, &dropped});
	device_connect();
	device.room = 1;
	put("hello");
	pump_until_received(1);
	put("?x");
	settle();
	assert_int_equal(dropped, 1);
	device_take_more(100);
	pump_until_received(6);
	assert_memory_equal(device.data, "hello?", 6);
	chr_free(chr);
}

static size_t grow(void *ctx, uint8_t *data, size_t size_bytes)
{
	(void)ctx, (void)data;
	return size_bytes + 100000;
}

static void a_filter_cannot_grow_its_input(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr((struct chr_filter){grow, NULL});
	device_connect();
	put("ab");
	pump_until_received(2);
	settle();
	assert_int_equal(device.count, 2);
	chr_free(chr);
}

/* --- failures ---------------------------------------------------------------------------------------------------- */

static void a_reader_that_leaves_frees_the_device(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	fill_queue(chr);
	while (!device.writables)
		pump();
	fill_queue(chr); /* starved again */
	fd_close(&out[0]);
	while (device.writables < 2)
		pump();
	assert_int_equal(chr_pending(chr), 0);
	assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 1);
	assert_int_equal(chr_pending(chr), 0);
	assert_int_equal(log_lines, 1);
	put("still");
	pump_until_received(5);
	chr_free(chr);
}

static void a_full_disk_is_one_line(void **state)
{
	(void)state;
	int first_free = dup(0);
	close(first_free);
	struct chr *chr = chr_file_new(loop, &test_log, "/dev/full", NULL);
	assert_non_null(chr);
	assert_string_equal(chr_path(chr), "/dev/full");
	for (int i = 0; i < 20; i++) {
		assert_int_equal(chr_write(chr, (const uint8_t *)"x", 1), 1);
		settle();
	}
	assert_int_equal(chr_pending(chr), 0);
	assert_int_equal(log_lines, 1);
	assert_non_null(strstr(log_line, "No space left on device"));
	assert_true(chr_has_peer(chr));
	chr_free(chr);
	int fd = dup(0);
	assert_int_equal(fd, first_free);
	close(fd);
}

static void a_file_is_created_and_truncated(void **state)
{
	(void)state;
	char path[] = "/tmp/vmlet-test-chr-XXXXXX";
	int fd = mkstemp(path);
	assert_int_equal(write(fd, "older and longer", 16), 16);
	struct chr *chr = chr_file_new(loop, &test_log, path, NULL);
	assert_non_null(chr);
	chr_write(chr, (const uint8_t *)"new", 3);
	pump_until_sent(chr);
	chr_write(chr, (const uint8_t *)"er", 2);
	pump_until_sent(chr);
	char back[32] = "";
	assert_int_equal(pread(fd, back, sizeof(back), 0), 5);
	assert_string_equal(back, "newer");
	chr_free(chr);
	unlink(path);
	close(fd);
}

static void files_that_cannot_be(void **state)
{
	(void)state;
	struct err err;
	assert_null(chr_file_new(loop, &test_log, "/nonexistent/x", &err));
	assert_string_equal(err.text, "console output '/nonexistent/x': No such file or directory");
	assert_int_equal(err.kind, ERR_CONFIG);
	assert_null(chr_file_new(loop, &test_log, "/tmp", &err));
	assert_int_equal(err.code, -EISDIR);

	char dir[] = "/tmp/vmlet-test-chr-XXXXXX", path[64];
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_null(chr_file_new(loop, &test_log, path, &err)); /* nobody reads it: no waiting */
	assert_int_equal(err.code, -ENXIO);

	int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct chr *chr = chr_file_new(loop, &test_log, path, &err);
	assert_non_null(chr);
	device.chr = chr;
	device_connect();
	check_stream(chr, reader, 300000);
	chr_free(chr);
	close(reader);
	unlink(path);
	rmdir(dir);
}

/* --- ends -------------------------------------------------------------------------------------------------------- */

static void free_before_the_loop_ran(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	chr_write(chr, (const uint8_t *)"x", 1);
	chr_free(chr);
}

static void free_with_a_reader_that_has_stalled(void **state)
{
	(void)state;
	struct chr *chr = make_fd_chr(NO_FILTER);
	device_connect();
	fill_queue(chr);
	settle();
	assert_true(chr_pending(chr) > 0);
	chr_free(chr);
	settle(); /* nothing of it comes later */
}

/* At every moment of a write's life. */
static void free_at_any_time(void **state)
{
	(void)state;
	fcntl(out[1], F_SETPIPE_SZ, 4096);
	static const uint8_t block[4096];
	assert_int_equal(write(out[1], block, sizeof(block)), sizeof(block));
	for (unsigned i = 0; i < 300; i++) {
		struct chr *chr = make_fd_chr(NO_FILTER);
		device_connect();
		chr_write(chr, block, sizeof(block));
		for (unsigned rounds = i % 4; rounds; rounds--)
			loop_wait(loop, i * 7919 % 20000);
		chr_free(chr);
	}
	assert_int_equal(log_lines, 0);
}

#define CHR_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHR_TEST(null_takes_everything),
		CHR_TEST(bytes_go_out_and_come_in),
		CHR_TEST(nonblocking_descriptors),
		CHR_TEST(one_way_only),
		CHR_TEST(nothing_is_lost_or_doubled),
		CHR_TEST(writable_comes_once_for_a_refusal),
		CHR_TEST(a_refusing_device_gets_the_rest_later),
		CHR_TEST(a_long_paste_arrives_whole),
		CHR_TEST(without_a_device_input_waits),
		CHR_TEST(the_end_of_input_is_not_the_end_of_output),
		CHR_TEST(a_read_that_the_ring_did_not_take),
		CHR_TEST(the_filter_changes_and_shortens),
		CHR_TEST(the_filter_sees_what_a_hung_guest_does_not_take),
		CHR_TEST(a_filter_cannot_grow_its_input),
		CHR_TEST(a_reader_that_leaves_frees_the_device),
		CHR_TEST(a_full_disk_is_one_line),
		CHR_TEST(a_file_is_created_and_truncated),
		CHR_TEST(files_that_cannot_be),
		CHR_TEST(free_before_the_loop_ran),
		CHR_TEST(free_with_a_reader_that_has_stalled),
		CHR_TEST(free_at_any_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
