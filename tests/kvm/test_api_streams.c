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
	struct machine machine;
	struct streams streams;

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t begin = now_ms();

		start(&machine, &streams, arg, sizes[i]);
		finish(&machine, &streams, 0);
		check_pattern(streams.out_pump, sizes[i]);
		CHECK(pump_size(streams.err_pump) == 0, "nothing on standard error");
		end(&machine, &streams);
		fprintf(stderr, "%zu bytes there and back: %u ms\n", sizes[i], (unsigned)(now_ms() - begin));
	}
}

static const struct test tests[] = {
	TEST("echo", run_echo, "mode=echo"),
	TEST("echo-wide", run_echo, "mode=echo width=4"),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
