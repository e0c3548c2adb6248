#include "port.h"

#include <asm/errno.h>

#include "sys.h"

enum {
	STREAM_PORT = 0x5e0,
	STREAM_PORT_COUNT = 16,
	DATA = STREAM_PORT,
	SELECT = STREAM_PORT + 1,
	STATUS = STREAM_PORT + 2,
	ROOM = STREAM_PORT + 4,
	AVAILABLE = STREAM_PORT + 8,
	SIZE = STREAM_PORT + 12,
	DEBUG_EXIT_PORT = 0xf4,
};

enum {
	STATUS_INPUT_ENDED = 1 << 0,
	STATUS_SIZE_CHANGED = 1 << 1,
	STATUS_NO_PORT = 0xff,
};

static const uint32_t ROOM_NOBODY_READS = 0x80000000;

static long permit(bool permitted)
{
	long r = SYS_3(ioperm, STREAM_PORT, STREAM_PORT_COUNT, permitted);

	return r < 0 ? r : SYS_3(ioperm, DEBUG_EXIT_PORT, 1, permitted);
}

long port_open(void)
{
	long r = permit(true);

	if (r < 0)
		return r;
	return inb(STATUS) == STATUS_NO_PORT ? -ENODEV : 0;
}

void port_renounce(void)
{
	(void)permit(false);
}

/* KVM leaves the guest once for each access, so four bytes in one are four times as fast. */
static void write_data(const uint8_t *data, size_t size_bytes)
{
	size_t wide = size_bytes & ~3UL;

	rep_outsl(DATA, data, wide / 4);
	rep_outsb(DATA, data + wide, size_bytes - wide);
}

long port_write(enum port_stream stream, const void *data, size_t size_bytes)
{
	uint32_t room;

	outb(SELECT, (uint8_t)stream);
	room = inl(ROOM);
	if (room == ROOM_NOBODY_READS)
		return -EPIPE;
	if (size_bytes > room)
		size_bytes = room;
	write_data(data, size_bytes);
	return (long)size_bytes;
}

static void sleep_a_millisecond(void)
{
	const long time[2] = {0, 1000000};

	SYS_2(nanosleep, time, NULL);
}

void port_write_all(enum port_stream stream, const char *data, size_t size_bytes)
{
	while (size_bytes > 0) {
		long n = port_write(stream, data, size_bytes);

		if (n < 0)
			return;
		if (n == 0)
			sleep_a_millisecond();
		data += n;
		size_bytes -= (size_t)n;
	}
}

size_t port_read(void *data, size_t size_bytes)
{
	size_t available = inl(AVAILABLE);
	size_t wide;

	if (size_bytes > available)
		size_bytes = available;
	wide = size_bytes & ~3UL;
	rep_insl(DATA, data, wide / 4);
	rep_insb(DATA, (uint8_t *)data + wide, size_bytes - wide);
	return size_bytes;
}

struct port_status port_status(void)
{
	uint8_t status = inb(STATUS);

	return (struct port_status){
		.input_ended = (status & STATUS_INPUT_ENDED) != 0,
		.size_changed = (status & STATUS_SIZE_CHANGED) != 0,
	};
}

uint32_t port_size(void)
{
	return inl(SIZE);
}

void port_exit(uint8_t status)
{
	outb(DEBUG_EXIT_PORT, status);
}
