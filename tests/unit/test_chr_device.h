/* What the tests of chr share: a device that takes as much as it is told to, a log, and the pumping of a loop. */
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "chr.h"
#include "fd.h"
#include "util.h"

static struct loop *loop;

static struct {
	struct chr *chr;
	size_t room, count; /* bytes still taken; bytes received */
	uint8_t data[4096];
	unsigned writables;
	unsigned came, left; /* the peer, so often */

	/* As a FIFO whose other end is another thread. */
	bool is_fifo;
	atomic_uint atomic_room, atomic_count;
	unsigned expected, wrong;
} device;

static unsigned log_lines;
static char log_line[512];

static void keep_log_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx, (void)level;
	log_lines++;
	(void)snprintf(log_line, sizeof(log_line), "%s", line);
}

static const struct log test_log = {LOG_LEVEL_DEBUG, keep_log_line, NULL};

static inline void device_reset(void)
{
	alarm(20); /* a test that hangs has failed */
	memset(&device, 0, sizeof(device));
	device.room = SIZE_MAX;
	log_lines = 0;
}

static inline uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 17 + (i >> 16));
}

static inline size_t receive_as_fifo(const uint8_t *data, size_t size_bytes)
{
	unsigned count = atomic_load(&device.atomic_count);
	size_t taken = min_u64(size_bytes, atomic_load(&device.atomic_room));
	for (size_t i = 0; i < taken; i++)
		device.wrong += data[i] != pattern(count + i);
	atomic_fetch_sub(&device.atomic_room, (unsigned)taken);
	atomic_fetch_add(&device.atomic_count, (unsigned)taken);
	return taken;
}

static inline size_t device_receive(void *ctx, const uint8_t *data, size_t size_bytes)
{
	(void)ctx;
	if (device.is_fifo)
		return receive_as_fifo(data, size_bytes);
	size_t taken = min_u64(size_bytes, device.room);
	memcpy(device.data + device.count, data, taken);
	device.room -= taken;
	device.count += taken;
	return taken;
}

static inline void device_writable(void *ctx)
{
	(void)ctx;
	device.writables++;
}

static inline void device_peer(void *ctx, bool is_there)
{
	(void)ctx;
	device.came += is_there;
	device.left += !is_there;
}

static inline struct chr_client device_client(void)
{
	return (struct chr_client){.receive = device_receive, .writable = device_writable, .peer = device_peer};
}

static inline void device_connect(void)
{
	struct chr_client client = device_client();
	chr_set_client(device.chr, &client);
}

static inline void device_take_more(size_t room)
{
	device.room += room;
	chr_accept_input(device.chr);
}

/* --- pumping -------------------------------------------------------------------------------------------------- */

static inline void pump(void)
{
	(void)loop_wait(loop, 1000000);
}

/* What should not happen has time to. */
static inline void settle(void)
{
	for (int i = 0; i < 4; i++)
		(void)loop_wait(loop, 500000);
}

static inline void pump_until_received(size_t count)
{
	while (device.count < count)
		pump();
}

static inline void pump_until_sent(struct chr *chr)
{
	while (chr_pending(chr))
		pump();
}

/* Without waiting; 0 when there is nothing. */
static inline ssize_t read_some(int fd, void *ret_data, size_t size_bytes)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	if (poll(&pollfd, 1, 0) < 1)
		return 0;
	ssize_t got = read(fd, ret_data, size_bytes);
	return got < 0 ? 0 : got;
}

static inline void drain(int fd)
{
	uint8_t buf[4096];
	while (read_some(fd, buf, sizeof(buf)))
		;
}

/* --- a long output, written by one thread as a vCPU does and read by another at its own pace ---------------------- */

struct stream {
	struct chr *chr;
	int fd;
	size_t size, wrong;
	atomic_bool ended;
};

static inline void *write_stream(void *arg)
{
	struct stream *stream = arg;
	uint8_t block[9973];
	for (size_t sent = 0; sent < stream->size;) {
		size_t size = min_u64(sizeof(block), stream->size - sent);
		for (size_t i = 0; i < size; i++)
			block[i] = pattern(sent + i);
		size_t taken = chr_write(stream->chr, block, size);
		sent += taken;
		if (taken < size)
			usleep(50);
	}
	return NULL;
}

static inline void *read_stream(void *arg)
{
	struct stream *stream = arg;
	static uint8_t block[50021];
	for (size_t got = 0; got < stream->size;) {
		struct pollfd pollfd = {.fd = stream->fd, .events = POLLIN};
		(void)poll(&pollfd, 1, 1000);
		ssize_t size = read(stream->fd, block, sizeof(block) - got % 7000);
		for (ssize_t i = 0; i < size; i++)
			stream->wrong += block[i] != pattern(got + (size_t)i);
		got += size > 0 ? (size_t)size : 0;
	}
	atomic_store(&stream->ended, true);
	loop_wake(loop);
	return NULL;
}

static inline void check_stream(struct chr *chr, int fd, size_t size)
{
	struct stream stream = {.chr = chr, .fd = fd, .size = size};
	pthread_t writer, reader;
	assert_int_equal(pthread_create(&reader, NULL, read_stream, &stream), 0);
	assert_int_equal(pthread_create(&writer, NULL, write_stream, &stream), 0);
	while (!atomic_load(&stream.ended))
		(void)loop_wait(loop, UINT64_MAX);
	pthread_join(writer, NULL);
	pthread_join(reader, NULL);
	assert_int_equal(stream.wrong, 0);
	pump_until_sent(chr);
}
