/*
 * What a tap gives to a program that does nothing else: the floor for `bench net`.
 *
 *     net-floor INTERFACE tx|rx|ping FRAME-BYTES SECONDS [tso]
 *
 * One thread on CPU 0 with an io_uring, 32 writes or reads at a time, straight from and into a buffer of its own: no
 * ring, no guest. Another on CPU 1 spins, as the virtual CPU of the bench's guest does. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "net-frames.h"

enum { BATCH = 32, HEADER = 12, BUFFER = HEADER + FRAME_MAX, WARM_MS = 300, TIMES_MAX = 1 << 22 };

static unsigned char buffers[BATCH][BUFFER];
static uint32_t times_ns[TIMES_MAX];

static struct {
	int tap;
	struct io_uring ring;
	size_t bytes;       /* of a frame */
	uint64_t warm, end; /* ns */
	uint64_t packets, packets_all, since, cpu_since;
	unsigned times;
} job;

static int check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "net-floor: %s: %s\n", what, strerror(result == -1 ? errno : -result));
		exit(1);
	}
	return result;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	check(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static void *spin(void *unused)
{
	stay_on(1);
	for (volatile unsigned long n = 0;; n++)
		;
	return unused;
}

static int open_tap(const char *interface, bool tso)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int header = HEADER, fd = check(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), "/dev/net/tun");

	snprintf(request.ifr_name, IFNAMSIZ, "%s", interface);
	check(ioctl(fd, TUNSETIFF, &request), interface);
	check(ioctl(fd, TUNSETVNETHDRSZ, &header), "TUNSETVNETHDRSZ");
	check(ioctl(fd, TUNSETOFFLOAD, tso ? TUN_F_CSUM | TUN_F_TSO4 : 0), "TUNSETOFFLOAD");
	return fd;
}

/* The time when measuring begins is the first look at the clock after the warm-up. */
static bool running(void)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (!job.since && now >= job.warm) {
		job.since = now;
		job.cpu_since = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		job.packets = 0;
	}
	return now < job.end;
}

/* BATCH writes or reads at once; how many went well. */
static unsigned turn(bool writes)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0, good = 0;

	for (unsigned i = 0; i < BATCH; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&job.ring);

		if (writes)
			io_uring_prep_write(sqe, 0, buffers[i], (unsigned)(HEADER + job.bytes), 0);
		else
			io_uring_prep_read(sqe, 0, buffers[i], BUFFER, 0);
		sqe->rw_flags = RWF_NOWAIT;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	check(io_uring_submit_and_wait(&job.ring, BATCH), "io_uring_submit_and_wait");
	io_uring_for_each_cqe(&job.ring, head, cqe)
	{
		seen++;
		good += cqe->res > 0;
	}
	io_uring_cq_advance(&job.ring, seen);
	return good;
}

/* False: nothing came for 100 ms. */
static bool wait_readable(void)
{
	struct pollfd p = {.fd = job.tap, .events = POLLIN};

	return poll(&p, 1, 100) > 0;
}

static void run_tx(void)
{
	while (running())
		job.packets += turn(true);
}

static void run_rx(void)
{
	while (running()) {
		unsigned good = turn(false);

		job.packets += good;
		if (!good)
			wait_readable();
	}
}

/* False: no answer. The first may be lost because the interface is not up yet. */
static bool ping(void)
{
	check((int)write(job.tap, buffers[0], HEADER + job.bytes), "write");
	while (read(job.tap, buffers[1], BUFFER) < 0)
		if (!wait_readable())
			return false;
	return true;
}

static void run_ping(void)
{
	while (running()) {
		uint64_t start = clock_ns(CLOCK_MONOTONIC);

		if (!ping())
			continue;
		job.packets++;
		if (job.since && job.times < TIMES_MAX)
			times_ns[job.times++] = (uint32_t)(clock_ns(CLOCK_MONOTONIC) - start);
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void report(void)
{
	uint64_t us = (clock_ns(CLOCK_MONOTONIC) - job.since) / 1000;
	uint64_t cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - job.cpu_since;

	qsort(times_ns, job.times, sizeof(times_ns[0]), compare);
	printf("{\"packets\": %lu, \"bytes\": %lu, \"us\": %lu, \"cpu_ns\": %lu, \"median_ns\": %u, \"p99_ns\": %u}\n",
	       job.packets, job.packets * job.bytes, us, cpu_ns, job.times ? times_ns[job.times / 2] : 0,
	       job.times ? times_ns[(uint64_t)job.times * 99 / 100] : 0);
}

static void make_frames(bool echo, bool tso)
{
	static const unsigned char host[6] = {2, 0, 0, 0, 0, 1}, nobody[6] = {2, 0, 0, 0, 0, 9};

	for (unsigned i = 0; i < BATCH; i++) {
		unsigned char *frame = buffers[i] + HEADER;

		if (echo)
			frame_echo(frame, job.bytes, host);
		else if (tso)
			frame_tcp(frame, job.bytes, nobody, (struct virtio_net_hdr *)buffers[i]);
		else
			frame_raw(frame, job.bytes, nobody);
	}
}

int main(int argc, char **argv)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
	bool tso = argc > 5;
	pthread_t spinner;

	if (argc < 5)
		return fprintf(stderr, "usage: net-floor INTERFACE tx|rx|ping FRAME-BYTES SECONDS [tso]\n"), 2;
	job.bytes = (size_t)atoi(argv[3]);
	if (job.bytes < FRAME_TCP_MIN || job.bytes > FRAME_MAX)
		return fprintf(stderr, "net-floor: frames of %zu bytes\n", job.bytes), 2;
	stay_on(0);
	job.tap = open_tap(argv[1], tso);
	make_frames(!strcmp(argv[2], "ping"), tso);
	check(io_uring_queue_init_params(BATCH, &job.ring, &params), "io_uring");
	check(io_uring_register_files(&job.ring, &job.tap, 1), "io_uring_register_files");
	check(-pthread_create(&spinner, NULL, spin, NULL), "pthread_create");
	job.warm = clock_ns(CLOCK_MONOTONIC) + (uint64_t)WARM_MS * 1000000;
	job.end = job.warm + (uint64_t)atoi(argv[4]) * 1000000000;
	if (!strcmp(argv[2], "tx"))
		run_tx();
	else if (!strcmp(argv[2], "rx"))
		run_rx();
	else
		run_ping();
	report();
	io_uring_unregister_files(&job.ring); /* a ring that is left to the kernel holds the tap for a while */
	io_uring_queue_exit(&job.ring);
	return 0;
}
