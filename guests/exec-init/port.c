#include "port.h"

#include <asm/errno.h>
#include <asm/fcntl.h>

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

enum { PAGE_BYTES = 4096 };

enum {
	STATUS_INPUT_ENDED = 1 << 0,
	STATUS_SIZE_CHANGED = 1 << 1,
	STATUS_NO_PORT = 0xff,
};

static const uint32_t ROOM_NOBODY_READS = 0x80000000;

/*
 * There is one set of ports, and a kernel has one or two ways to them. Without ioperm (CONFIG_X86_IOPL_IOPERM) it is
 * the file /dev/port, which takes a byte for each call; -1: not needed.
 */
static long port_file = -1;

/* --- access ----------------------------------------------------------------------------------------------- */

static uint8_t read_byte(uint16_t port)
{
	uint8_t value = 0xff;

	if (port_file < 0)
		return inb(port);
	SYS_4(pread64, port_file, &value, 1, port);
	return value;
}

/* The file reads the four bytes from the lowest up, which is as a register wants to be read in pieces. */
static uint32_t read_register(uint16_t port)
{
	uint32_t value = 0;

	if (port_file < 0)
		return inl(port);
	SYS_4(pread64, port_file, &value, sizeof(value), port);
	return value;
}

static void write_byte(uint16_t port, uint8_t value)
{
	if (port_file < 0)
		outb(port, value);
	else
		SYS_4(pwrite64, port_file, &value, 1, port);
}

/* KVM leaves the guest once for each access, so four bytes in one are four times as fast. */
static void write_data(const uint8_t *data, size_t size_bytes)
{
	size_t wide = size_bytes & ~3UL;

	if (port_file < 0) {
		rep_outsl(DATA, data, wide / 4);
		rep_outsb(DATA, data + wide, size_bytes - wide);
		return;
	}
	while (size_bytes-- > 0)
		write_byte(DATA, *data++);
}

/*
 * KVM reads up to a KiB ahead of a string instruction, and forgets it when the destination is not there yet and the
 * guest has a page fault first. So it is there.
 */
static void touch(volatile uint8_t *data, size_t size_bytes)
{
	for (size_t at = 0; at < size_bytes; at += PAGE_BYTES)
		data[at] = 0;
	if (size_bytes > 0)
		data[size_bytes - 1] = 0;
}

static void read_data(uint8_t *data, size_t size_bytes)
{
	size_t wide = size_bytes & ~3UL;

	if (port_file < 0) {
		touch(data, size_bytes);
		rep_insl(DATA, data, wide / 4);
		rep_insb(DATA, data + wide, size_bytes - wide);
		return;
	}
	while (size_bytes-- > 0)
		*data++ = read_byte(DATA);
}

/* --- the right to it ----------------------------------------------------------------------------------------- */

static long permit(bool permitted)
{
	long r = SYS_3(ioperm, STREAM_PORT, STREAM_PORT_COUNT, permitted);

	return r < 0 ? r : SYS_3(ioperm, DEBUG_EXIT_PORT, 1, permitted);
}

long port_open(void)
{
	long r = permit(true);

	if (r < 0)
		port_file = SYS_3(open, "/dev/port", O_RDWR | O_CLOEXEC, 0);
	if (r < 0 && port_file < 0)
		return r;
	return read_byte(STATUS) == STATUS_NO_PORT ? -ENODEV : 0;
}

/* The file closes itself when the command is executed. */
void port_renounce(void)
{
	if (port_file < 0)
		(void)permit(false);
}

/* --- the registers -------------------------------------------------------------------------------------------- */

long port_write(enum port_stream stream, const void *data, size_t size_bytes)
{
	uint32_t room;

	write_byte(SELECT, (uint8_t)stream);
	room = read_register(ROOM);
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
	size_t available = read_register(AVAILABLE);

	if (size_bytes > available)
		size_bytes = available;
	read_data(data, size_bytes);
	return size_bytes;
}

struct port_status port_status(void)
{
	uint8_t status = read_byte(STATUS);

	return (struct port_status){
		.input_ended = (status & STATUS_INPUT_ENDED) != 0,
		.size_changed = (status & STATUS_SIZE_CHANGED) != 0,
	};
}

uint32_t port_size(void)
{
	return read_register(SIZE);
}

void port_exit(uint8_t status)
{
	write_byte(DEBUG_EXIT_PORT, status);
}
