/* The stream port: three streams between descriptors of the host's and a program in the guest. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

struct streams {
	int in[2], out[2], err[2]; /* pipes; the VM borrows in[0], out[1] and err[1] */
	struct pump *out_pump, *err_pump;
	pthread_t feeder;
	size_t feed;
};

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i + (i >> 8) * 3);
}

static void *feed_main(void *arg)
{
	struct streams *streams = arg;
	uint8_t block[8191];

	for (size_t at = 0; at < streams->feed; at += sizeof(block)) {
		size_t size = streams->feed - at < sizeof(block) ? streams->feed - at : sizeof(block);

		for (size_t i = 0; i < size; i++)
			block[i] = pattern(at + i);
		write_all(streams->in[1], block, size);
	}
	close(streams->in[1]);
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* `feed` bytes of the pattern come in, then the end. */
static void start(struct machine *machine, struct streams *streams, const char *cmdline, size_t feed)
{
	machine_init(machine, "streams", cmdline);
	CHECK(pipe2(streams->in, O_CLOEXEC) == 0 && pipe2(streams->out, O_CLOEXEC) == 0 &&
		      pipe2(streams->err, O_CLOEXEC) == 0,
	      "%s", strerror(errno));
	machine->config.streams.enabled = true;
	machine->config.streams.in_fd = streams->in[0];
	machine->config.streams.out_fd = streams->out[1];
	machine->config.streams.err_fd = streams->err[1];
	streams->feed = feed;
	streams->out_pump = pump_start(streams->out[0], (struct pump_pace){0});
	streams->err_pump = pump_start(streams->err[0], (struct pump_pace){0});
	CHECK(pthread_create(&streams->feeder, NULL, feed_main, streams) == 0, "thread");
}

static void finish(struct machine *machine, struct streams *streams, uint32_t value)
{
	machine_expect(machine, VMLET_END_DEBUG_EXIT, value);
	pthread_join(streams->feeder, NULL);
	close_fd(&streams->in[0]);
	close_fd(&streams->out[1]);
	close_fd(&streams->err[1]);
	pump_finish(streams->out_pump);
	pump_finish(streams->err_pump);
}

static void end(struct machine *machine, struct streams *streams)
{
	pump_free(streams->out_pump);
	pump_free(streams->err_pump);
	machine_free(machine);
}

static void check_pattern(struct pump *pump, size_t size)
{
	const uint8_t *text = (const uint8_t *)pump_finish(pump);

	CHECK(pump_size(pump) == size, "%zu bytes of %zu", pump_size(pump), size);
	for (size_t i = 0; i < size; i++)
		CHECK(text[i] == pattern(i), "byte %zu is %#x", i, text[i]);
}

/* Both ways, byte for byte; the guest ends at the end of the input. */
static void run_echo(const void *arg)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 1 << 20, 10 << 20};
	unsigned count = strstr(arg, "width=4") ? 7 : 6; /* by single bytes 10 MiB take half a minute on a slow host */
	struct machine machine;
	struct streams streams;

	for (unsigned i = 0; i < count; i++) {
		start(&machine, &streams, arg, sizes[i]);
		finish(&machine, &streams, 0);
		check_pattern(streams.out_pump, sizes[i]);
		CHECK(pump_size(streams.err_pump) == 0, "nothing on standard error");
		end(&machine, &streams);
	}
}

/* One output after the other, each in its own order. */
static void run_split(const void *arg)
{
	struct machine machine;
	struct streams streams;
	size_t out, err;

	start(&machine, &streams, arg, 300000);
	finish(&machine, &streams, 0);
	out = pump_size(streams.out_pump);
	err = pump_size(streams.err_pump);
	CHECK(out + err == 300000 && out && err, "%zu and %zu bytes", out, err);
	CHECK((uint8_t)pump_finish(streams.out_pump)[0] == pattern(0), "the first block is standard output's");
	end(&machine, &streams);
}

/* Nobody takes it: the guest is told, and ends by itself. */
static void run_reader_leaves(const void *arg)
{
	struct machine machine;
	struct streams streams;

	(void)arg;
	start(&machine, &streams, "mode=write kib=100000 width=4", 0);
	/* The reader is a thread of ours; this one goes early. */
	close(streams.out[1]);
	pump_finish(streams.out_pump);
	CHECK(pipe2(streams.out, O_CLOEXEC) == 0, "pipe");
	machine.config.streams.out_fd = streams.out[1];
	close(streams.out[0]);
	finish(&machine, &streams, 2);
	CHECK(!machine.log[0], "it is nothing to talk about: %s", machine.log);
	end(&machine, &streams);
}

static void run_no_reader(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "streams", "mode=write");
	machine.config.streams.enabled = true; /* and no descriptors */
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 2);
	machine_free(&machine);
}

/* What the port has taken comes out, however slow the reader is. */
static void run_slow_reader(const void *arg)
{
	struct machine machine;
	struct streams streams;

	(void)arg;
	start(&machine, &streams, "mode=write kib=200 width=4", 0);
	close(streams.out[1]);
	pump_free(streams.out_pump);
	CHECK(pipe2(streams.out, O_CLOEXEC) == 0, "pipe");
	machine.config.streams.out_fd = streams.out[1];
	streams.out_pump =
		pump_start(streams.out[0], (struct pump_pace){.stall_ms = 3500, .pause_us = 1000, .chunk = 4096});
	finish(&machine, &streams, 0);
	check_pattern(streams.out_pump, 200 << 10);
	end(&machine, &streams);
}

/* One that never reads is waited for until the timeout; how the program ended stays true. */
static void run_deaf_reader(const void *arg)
{
	struct machine machine;
	uint64_t begin = now_ms(), took;
	int out[2];

	(void)arg;
	CHECK(pipe2(out, O_CLOEXEC) == 0, "pipe");
	machine_init(&machine, "streams", "mode=write kib=100 width=4");
	machine.config.streams.enabled = true;
	machine.config.streams.out_fd = out[1];
	machine.config.timeout_ns = 5 * 1000000000ULL;
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	took = now_ms() - begin;
	CHECK(took >= 4500 && took < 15000, "it took %u ms", (unsigned)took);
	close(out[0]);
	close(out[1]);
	machine_free(&machine);
}

static void run_absent(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "streams", "mode=absent");
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	machine_free(&machine);
}

static void run_limits(const void *arg)
{
	struct machine machine;
	struct streams streams;

	(void)arg;
	start(&machine, &streams, "mode=limits", 0);
	finish(&machine, &streams, 0);
	CHECK(pump_size(streams.out_pump) == 0 && strcmp(pump_finish(streams.err_pump), "abcde") == 0, "'%s'",
	      pump_finish(streams.err_pump));
	end(&machine, &streams);
}

static size_t to_capitals(void *ctx, uint8_t *data, size_t size)
{
	(void)ctx;
	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(data[i] >= 'a' && data[i] <= 'z' ? data[i] - 'a' + 'A' : data[i]);
	return size;
}

/* The size at the start and after changes; the filter; the end of the input. */
static void run_window_size(const void *arg)
{
	struct machine machine;
	int in[2];

	(void)arg;
	CHECK(pipe2(in, O_CLOEXEC) == 0, "pipe");
	machine_init(&machine, "streams", "mode=size");
	machine.config.streams.enabled = true;
	machine.config.streams.in_fd = in[0];
	machine.config.streams.rows = 24;
	machine.config.streams.columns = 80;
	machine_start(&machine);
	machine_serve_until(&machine, "size 24 x 80\n");
	CHECK(vmlet_set_window_size(machine.vm, 50, 132) == 0, "set");
	machine_serve_until(&machine, "size 50 x 132\n");
	CHECK(vmlet_set_window_size(machine.vm, 50, 132) == 0, "the same again");
	CHECK(vmlet_set_window_size(machine.vm, 65535, 65535) == 0, "set");
	machine_serve_until(&machine, "size 65535 x 65535\n");
	close(in[1]);
	machine_run(&machine);
	machine_end(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT, "%s", end_name(machine.result.end));
	CHECK(strcmp(machine_output(&machine), "size 24 x 80\nsize 50 x 132\nsize 65535 x 65535\n") == 0, "%s",
	      machine_output(&machine));
	close(in[0]);
	machine_free(&machine);
}

static void run_filter(const void *arg)
{
	struct machine machine;
	struct streams streams;

	(void)arg;
	start(&machine, &streams, "mode=echo", 1000);
	machine.config.streams.input_filter = to_capitals;
	finish(&machine, &streams, 0);
	CHECK(pump_size(streams.out_pump) == 1000, "%zu bytes", pump_size(streams.out_pump));
	for (size_t i = 0; i < 1000; i++) {
		uint8_t expected = pattern(i);

		to_capitals(NULL, &expected, 1);
		CHECK((uint8_t)pump_finish(streams.out_pump)[i] == expected, "byte %zu", i);
	}
	end(&machine, &streams);
}

static void count_reset(void *ctx, const struct vmlet_event *event)
{
	*(unsigned *)ctx += event->kind == VMLET_EVENT_RESET;
}

/* A restarted guest finds the streams and the size where they were. */
static void run_restart(const void *arg)
{
	static const char *const lines[] = {"one\n", "two\n", "three\n"};
	struct machine machine;
	struct pump *pump;
	unsigned resets = 0;
	int in[2], out[2];

	(void)arg;
	CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0, "pipe");
	machine_init(&machine, "streams", "mode=once");
	machine.config.streams.enabled = true;
	machine.config.streams.in_fd = in[0];
	machine.config.streams.out_fd = out[1];
	machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine.config.event = count_reset;
	machine.config.event_ctx = &resets;
	pump = pump_start(out[0], (struct pump_pace){0});
	machine_start(&machine);
	CHECK(vmlet_set_window_size(machine.vm, 3, 4) == 0, "set");
	for (unsigned i = 0; i < 3; i++) {
		write_all(in[1], lines[i], strlen(lines[i]));
		for (uint64_t end = now_ms() + 10000; now_ms() < end && resets == i;)
			machine_serve_ms(&machine, 5);
		CHECK(resets == i + 1, "no reset after '%s'", lines[i]);
	}
	close(in[1]);
	machine_run(&machine);
	machine_end(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT && machine.result.value == 3, "%s",
	      end_name(machine.result.end));
	close(in[0]);
	close(out[1]);
	CHECK(strcmp(pump_finish(pump), "one\ntwo\nthree\n") == 0, "'%s'", pump_finish(pump));
	CHECK(resets == 3, "%u resets", resets);
	pump_free(pump);
	machine_free(&machine);
}

static const struct test tests[] = {
	TEST("echo", run_echo, "mode=echo"),
	TEST("echo-wide", run_echo, "mode=echo width=4"),
	TEST("split", run_split, "mode=split"),
	TEST("reader-leaves", run_reader_leaves, NULL),
	TEST("no-reader", run_no_reader, NULL),
	TEST("slow-reader", run_slow_reader, NULL),
	TEST("deaf-reader", run_deaf_reader, NULL),
	TEST("absent", run_absent, NULL),
	TEST("limits", run_limits, NULL),
	TEST("window-size", run_window_size, NULL),
	TEST("filter", run_filter, NULL),
	TEST("restart", run_restart, NULL),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
