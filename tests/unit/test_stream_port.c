/* The stream port's registers (docs/stream-port.md), over fake back ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "devices/stream_port.h"
#include "util.h"

enum { DATA = 0, SELECT = 1, STATUS = 2, ROOM = 4, AVAILABLE = 8, SIZE = 12 };
enum { ENDED = 1, SIZE_CHANGED = 2 };

struct chr {
	uint8_t out[16];
	size_t size_bytes, room;
	bool ended;
	unsigned accepts;
	struct chr_client client;
};

size_t chr_write(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	size_t taken = min_u64(size_bytes, sizeof(chr->out) - chr->size_bytes);
	memcpy(chr->out + chr->size_bytes, data, taken);
	chr->size_bytes += taken;
	return taken;
}

size_t chr_room(struct chr *chr)
{
	return chr->room;
}

bool chr_input_has_ended(struct chr *chr)
{
	return chr->ended;
}

void chr_accept_input(struct chr *chr)
{
	chr->accepts++;
}

void chr_set_client(struct chr *chr, const struct chr_client *client)
{
	chr->client = client ? *client : (struct chr_client){0};
}

static struct chr in, out, err;
static struct device *dev;

static int setup(void **state)
{
	(void)state;
	in = (struct chr){0};
	out = err = (struct chr){.room = 1 << 20};
	struct stream_port_config config = {.in = &in, .out = &out, .err = &err, .rows = 24, .columns = 80};
	dev = stream_port_new(&config, NULL);
	return dev ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	device_free(dev);
	return in.client.receive ? -1 : 0; /* it has let go of the back end */
}

static uint32_t get(uint64_t offset, unsigned size)
{
	return (uint32_t)device_read(dev, offset, size);
}

static void put(uint64_t offset, unsigned size, uint32_t value)
{
	device_write(dev, offset, size, value);
}

static size_t receive(const void *data, size_t size)
{
	return in.client.receive(in.client.ctx, data, size);
}

static void output_goes_where_it_is_selected(void **state)
{
	(void)state;
	assert_int_equal(get(SELECT, 1), 1);
	put(DATA, 1, 'a');
	put(DATA, 4, 'b' | 'c' << 8 | 'd' << 16 | 'e' << 24);
	put(SELECT, 1, 2);
	assert_int_equal(get(SELECT, 1), 2);
	put(DATA, 1, '!');
	put(SELECT, 1, 0);
	put(SELECT, 1, 3);
	put(SELECT, 1, 255);
	assert_int_equal(get(SELECT, 1), 2);
	put(SELECT, 1, 1);
	put(DATA, 1, 'f');
	assert_int_equal(out.size_bytes, 6);
	assert_memory_equal(out.out, "abcdef", 6);
	assert_int_equal(err.size_bytes, 1);
	assert_memory_equal(err.out, "!", 1);
	for (int i = 0; i < 20; i++)
		put(DATA, 4, 0x78787878); /* what does not fit is dropped */
	assert_int_equal(out.size_bytes, sizeof(out.out));
}

static void room_is_that_of_the_selected_output(void **state)
{
	(void)state;
	assert_int_equal(get(ROOM, 4), 65536);
	out.room = 17;
	assert_int_equal(get(ROOM, 4), 17);
	out.room = 0;
	assert_int_equal(get(ROOM, 4), 0);
	out.room = SIZE_MAX;
	assert_int_equal(get(ROOM, 4), 0x80000000);
	put(SELECT, 1, 2);
	assert_int_equal(get(ROOM, 4), 65536);
	put(ROOM, 4, 0);
	assert_int_equal(get(ROOM, 4), 65536);
}

static void input_is_read_in_order(void **state)
{
	(void)state;
	assert_int_equal(get(AVAILABLE, 4), 0);
	assert_int_equal(get(DATA, 1), 0);
	assert_int_equal(receive("abcdefg", 7), 7);
	assert_int_equal(get(AVAILABLE, 4), 7);
	assert_int_equal(get(DATA, 1), 'a');
	assert_int_equal(get(DATA, 4), 'b' | 'c' << 8 | 'd' << 16 | 'e' << 24);
	assert_int_equal(get(DATA, 4), 'f' | 'g' << 8); /* the rest are those of an empty port */
	assert_int_equal(get(DATA, 1), 0);
	assert_int_equal(get(AVAILABLE, 4), 0);
	assert_int_equal(in.accepts, 0);
}

static uint8_t pattern(unsigned i)
{
	return (uint8_t)(i * 7 + (i >> 8));
}

/* The buffer wraps; what it refused is asked for again when half of it is free. */
static void input_is_bounded_and_asked_for(void **state)
{
	(void)state;
	static uint8_t block[40000];
	unsigned sent = 0, got = 0;
	for (int round = 0; round < 5; round++) {
		size_t taken;
		do {
			for (unsigned i = 0; i < sizeof(block); i++)
				block[i] = pattern(sent + i);
			taken = receive(block, sizeof(block));
			sent += (unsigned)taken;
		} while (taken == sizeof(block));
		assert_int_equal(get(AVAILABLE, 4), STREAM_PORT_BUFFER);
		assert_int_equal(receive("x", 1), 0);
		unsigned accepts = in.accepts;
		while (in.accepts == accepts)
			assert_int_equal(get(DATA, 1), pattern(got++));
		assert_int_equal(get(AVAILABLE, 4), STREAM_PORT_BUFFER / 2);
		for (unsigned i = 0; i < 1000; i++)
			assert_int_equal(get(DATA, 1), pattern(got++));
		assert_int_equal(in.accepts, accepts + 1); /* once for a refusal */
	}
}

static void the_end_comes_after_the_last_byte(void **state)
{
	(void)state;
	assert_int_equal(get(STATUS, 1), 0);
	receive("ab", 2);
	in.ended = true;
	assert_int_equal(get(STATUS, 1), 0);
	get(DATA, 1);
	assert_int_equal(get(STATUS, 1), 0);
	get(DATA, 1);
	assert_int_equal(get(STATUS, 1), ENDED);
}

static void the_size_and_its_changes(void **state)
{
	(void)state;
	assert_int_equal(get(SIZE, 4), 24 << 16 | 80);
	stream_port_set_size(dev, 24, 80);
	assert_int_equal(get(STATUS, 1), 0);
	stream_port_set_size(dev, 50, 132);
	stream_port_set_size(dev, 24, 80); /* it may have been seen in between by nobody, but it has changed */
	assert_int_equal(get(STATUS, 1), SIZE_CHANGED);
	assert_int_equal(get(STATUS, 1), SIZE_CHANGED);
	assert_int_equal(get(SIZE, 4), 24 << 16 | 80);
	assert_int_equal(get(STATUS, 1), 0);
	stream_port_set_size(dev, 65535, 65535);
	assert_int_equal(get(SIZE, 4), 0xffffffff);
}

/* Byte for byte a register is that of the moment when its first byte was read. */
static void registers_in_bytes(void **state)
{
	(void)state;
	uint8_t bytes[0x1234] = {0};
	receive(bytes, sizeof(bytes));
	assert_int_equal(get(AVAILABLE, 1), 0x34);
	(void)get(DATA, 1);
	assert_int_equal(get(AVAILABLE + 1, 1), 0x12);
	assert_int_equal(get(AVAILABLE + 2, 1), 0);
	assert_int_equal(get(AVAILABLE + 3, 1), 0);
	assert_int_equal(get(AVAILABLE, 1), 0x33);
	stream_port_set_size(dev, 24, 80);
	assert_int_equal(get(SIZE, 1), 80);
	assert_int_equal(get(SIZE + 2, 1), 24);
}

static void other_accesses_are_nothing(void **state)
{
	(void)state;
	receive("abcd", 4);
	for (unsigned size = 1; size <= 4; size *= 2) {
		for (uint64_t offset = 0; offset + size <= STREAM_PORT_SIZE; offset++) {
			bool is_long = offset == ROOM || offset == AVAILABLE || offset == SIZE;
			bool is_short = offset == SELECT || offset == STATUS;
			bool is_byte_of_long = offset >= ROOM && size == 1;
			if (offset == DATA ? size != 2
			    : is_long      ? size != 2
					   : is_byte_of_long || (is_short && size == 1))
				continue;
			assert_int_equal(get(offset, size), (uint32_t)((1ULL << (8 * size)) - 1));
			put(offset, size, 0x02020202);
		}
	}
	assert_int_equal(get(SELECT, 1), 1);
	assert_int_equal(get(AVAILABLE, 4), 4);
	assert_int_equal(out.size_bytes + err.size_bytes, 0);
}

#define PORT_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PORT_TEST(output_goes_where_it_is_selected),
		PORT_TEST(room_is_that_of_the_selected_output),
		PORT_TEST(input_is_read_in_order),
		PORT_TEST(input_is_bounded_and_asked_for),
		PORT_TEST(the_end_comes_after_the_last_byte),
		PORT_TEST(the_size_and_its_changes),
		PORT_TEST(registers_in_bytes),
		PORT_TEST(other_accesses_are_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
