/*
 * The stream port under any order of register accesses, input, and back ends that stall, end or have nobody behind
 * them. Four bytes are one step. A model follows how many bytes must come out at each end; their values count up.
 */
#include <assert.h>
#include <stdlib.h>

#include "devices/stream_port.h"
#include "util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

struct chr {
	struct chr_client client;
	size_t room; /* SIZE_MAX: nobody reads */
	bool ended;
	bool input_waits;
	uint8_t next_out; /* the value that must come next */
};

size_t chr_write(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	size_t taken = min_u64(size_bytes, chr->room);
	for (size_t i = 0; i < taken; i++)
		assert(data[i] == chr->next_out++);
	if (chr->room != SIZE_MAX)
		chr->room -= taken;
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
	assert(chr->input_waits);
	chr->input_waits = false;
}

void chr_set_client(struct chr *chr, const struct chr_client *client)
{
	chr->client = client ? *client : (struct chr_client){0};
}

struct rig {
	struct chr in, out[2];
	struct device *dev;
	unsigned selected; /* of `out` */
	uint32_t available;
	uint8_t next_sent, next_read;
	uint32_t size;
	bool size_changed;
};

enum { DATA = 0, SELECT = 1, STATUS = 2, ROOM = 4, AVAILABLE = 8, SIZE = 12 };

static void send_input(struct rig *rig, unsigned size)
{
	uint8_t block[65536];
	if (rig->in.ended)
		return;
	for (unsigned i = 0; i < size; i++)
		block[i] = (uint8_t)(rig->next_sent + i);
	size_t taken = rig->in.client.receive(rig->in.client.ctx, block, size);
	assert(taken == min_u64(size, STREAM_PORT_BUFFER - rig->available));
	rig->available += (uint32_t)taken;
	rig->next_sent = (uint8_t)(rig->next_sent + taken);
	rig->in.input_waits = taken < size;
}

static void read_data(struct rig *rig, unsigned size)
{
	uint64_t value = device_read(rig->dev, DATA, size);
	for (unsigned i = 0; i < size; i++, value >>= 8) {
		assert((uint8_t)value == (rig->available ? rig->next_read++ : 0));
		rig->available -= rig->available ? 1 : 0;
	}
	assert(!rig->in.input_waits || rig->available > STREAM_PORT_BUFFER / 2);
}

static void write_data(struct rig *rig, unsigned size)
{
	struct chr *chr = &rig->out[rig->selected];
	uint32_t value = 0;
	for (unsigned i = 0; i < size; i++)
		value |= (uint32_t)(uint8_t)(chr->next_out + i) << (8 * i);
	device_write(rig->dev, DATA, size, value);
}

static void check_registers(struct rig *rig)
{
	size_t room = rig->out[rig->selected].room;
	assert(device_read(rig->dev, ROOM, 4) == (room == SIZE_MAX ? 0x80000000 : min_u64(room, 65536)));
	assert(device_read(rig->dev, AVAILABLE, 4) == rig->available);
	assert(device_read(rig->dev, SELECT, 1) == rig->selected + 1);
	unsigned status = (rig->in.ended && !rig->available ? 1 : 0) | (rig->size_changed ? 2 : 0);
	assert(device_read(rig->dev, STATUS, 1) == status);
}

/* Any access at all that is not to DATA, SELECT or SIZE: it changes nothing. */
static void access_anything(struct rig *rig, uint8_t where, uint32_t value)
{
	static const unsigned sizes[] = {1, 2, 4, 8};
	unsigned size = sizes[where & 3], offset = where >> 4;
	if (offset + size > STREAM_PORT_SIZE || (offset == DATA && size != 2) || (offset == SELECT && size == 1) ||
	    (offset == SIZE && size == 4))
		return;
	device_write(rig->dev, offset, size, value);
	(void)device_read(rig->dev, offset, size);
}

static void change_size(struct rig *rig, uint16_t rows, uint16_t columns)
{
	uint32_t size = (uint32_t)rows << 16 | columns;
	stream_port_set_size(rig->dev, rows, columns);
	rig->size_changed |= size != rig->size;
	rig->size = size;
}

static void step(struct rig *rig, uint8_t what, uint8_t a, uint16_t b)
{
	switch (what % 9) {
	case 0:
		send_input(rig, b);
		break;
	case 1:
		for (unsigned i = 0; i < b; i++)
			read_data(rig, a & 1 ? 4 : 1);
		break;
	case 2:
		for (unsigned i = 0; i < (b & 0xff); i++)
			write_data(rig, a & 1 ? 4 : 1);
		break;
	case 3:
		rig->out[a & 1].room = b == 0xffff ? SIZE_MAX : b;
		break;
	case 4:
		device_write(rig->dev, SELECT, 1, a);
		rig->selected = a == 1 || a == 2 ? a - 1U : rig->selected;
		break;
	case 5:
		rig->in.ended |= a == 0xff;
		break;
	case 6:
		change_size(rig, b, a);
		break;
	case 7:
		assert(device_read(rig->dev, SIZE, 4) == rig->size);
		rig->size_changed = false;
		break;
	default:
		access_anything(rig, a, b * 0x10001U);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct rig rig = {0};
	struct stream_port_config config = {.in = &rig.in, .out = &rig.out[0], .err = &rig.out[1]};
	rig.dev = stream_port_new(&config, NULL);
	assert(rig.dev);
	for (; size_bytes >= 4; data += 4, size_bytes -= 4) {
		step(&rig, data[0], data[1], (uint16_t)(data[2] | data[3] << 8));
		check_registers(&rig);
	}
	device_free(rig.dev);
	return 0;
}
