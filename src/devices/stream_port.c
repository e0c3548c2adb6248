#include "devices/stream_port.h"

#include <errno.h>
#include <stdlib.h>

#include "util.h"

/* docs/stream-port.md */
enum {
	DATA = 0,
	SELECT = 1,
	STATUS = 2,
	ROOM = 4,
	AVAILABLE = 8,
	SIZE = 12,
};

enum {
	SELECT_OUT = 1,
	SELECT_ERR = 2,
	STATUS_INPUT_ENDED = 1 << 0,
	STATUS_SIZE_CHANGED = 1 << 1,
};

static const uint32_t ROOM_NOBODY_READS = 0x80000000;

struct stream_port {
	struct device dev;
	struct chr *in, *out, *err;
	uint8_t select;
	uint32_t size;
	bool size_changed;
	uint32_t latch; /* the register whose lowest byte was read last, for the bytes above it */

	bool input_refused; /* the back end waits for chr_accept_input */
	unsigned head, count;
	uint8_t input[STREAM_PORT_BUFFER];
};

static struct stream_port *to_port(struct device *dev)
{
	return container_of(dev, struct stream_port, dev);
}

/* --- input --------------------------------------------------------------------------------------------- */

static size_t stream_port_receive(void *ctx, const uint8_t *data, size_t size_bytes)
{
	struct stream_port *p = ctx;
	device_lock(&p->dev);
	size_t taken = (size_t)min_u64(size_bytes, STREAM_PORT_BUFFER - p->count);
	size_t tail = (p->head + p->count) % STREAM_PORT_BUFFER;
	size_t first = (size_t)min_u64(taken, STREAM_PORT_BUFFER - tail);
	memcpy(p->input + tail, data, first);
	memcpy(p->input, data + first, taken - first);
	p->count += (unsigned)taken;
	p->input_refused = taken < size_bytes;
	device_unlock(&p->dev);
	return taken;
}

/* The back end is asked for more when half the buffer is free, not for every byte. */
static uint8_t read_byte(struct stream_port *p)
{
	if (!p->count)
		return 0;
	uint8_t byte = p->input[p->head];
	p->head = (p->head + 1) % STREAM_PORT_BUFFER;
	p->count--;
	if (p->input_refused && p->count <= STREAM_PORT_BUFFER / 2) {
		p->input_refused = false;
		chr_accept_input(p->in);
	}
	return byte;
}

/* `wide`: as many bytes, the first one lowest. */
static uint32_t read_data(struct stream_port *p, unsigned wide)
{
	uint32_t value = 0;
	for (unsigned i = 0; i < wide; i++)
		value |= (uint32_t)read_byte(p) << (8 * i);
	return value;
}

/* Whatever was received before the end is in the buffer: receive takes the lock that is held here. */
static uint8_t read_status(const struct stream_port *p)
{
	bool ended = chr_input_has_ended(p->in) && p->count == 0;
	return (uint8_t)((ended ? STATUS_INPUT_ENDED : 0) | (p->size_changed ? STATUS_SIZE_CHANGED : 0));
}

/* --- output -------------------------------------------------------------------------------------------- */

static struct chr *selected(const struct stream_port *p)
{
	return p->select == SELECT_ERR ? p->err : p->out;
}

static uint32_t read_room(const struct stream_port *p)
{
	size_t room = chr_room(selected(p));
	return room == SIZE_MAX ? ROOM_NOBODY_READS : (uint32_t)min_u64(room, STREAM_PORT_BUFFER);
}

static void write_data(struct stream_port *p, unsigned wide, uint32_t value)
{
	uint8_t bytes[] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
	(void)chr_write(selected(p), bytes, wide);
}

/* --- registers ----------------------------------------------------------------------------------------- */

enum { LONG_REGISTERS = ROOM, LONG_SIZE = 4 };

static uint64_t read_long(struct stream_port *p, uint64_t offset)
{
	switch (offset) {
	case DATA:
		return read_data(p, 4);
	case ROOM:
		return read_room(p);
	case AVAILABLE:
		return p->count;
	case SIZE:
		p->size_changed = false;
		return p->size;
	default:
		return UINT64_MAX;
	}
}

/* All four bytes are of one moment, though others may change the register meanwhile. */
static uint64_t read_piece(struct stream_port *p, uint64_t offset)
{
	uint64_t byte = offset % LONG_SIZE;
	if (byte == 0)
		p->latch = (uint32_t)read_long(p, offset);
	return p->latch >> (8 * byte) & 0xff;
}

static uint64_t read_short(struct stream_port *p, uint64_t offset)
{
	switch (offset) {
	case DATA:
		return read_data(p, 1);
	case SELECT:
		return p->select;
	case STATUS:
		return read_status(p);
	default:
		return offset >= LONG_REGISTERS ? read_piece(p, offset) : UINT64_MAX;
	}
}

static uint64_t stream_port_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct stream_port *p = to_port(dev);
	return size_bytes == 4 ? read_long(p, offset) : read_short(p, offset);
}

static void stream_port_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct stream_port *p = to_port(dev);
	if (offset == DATA)
		write_data(p, size_bytes, (uint32_t)value);
	else if (offset == SELECT && size_bytes == 1 && (value == SELECT_OUT || value == SELECT_ERR))
		p->select = (uint8_t)value;
}

void stream_port_set_size(struct device *dev, uint16_t rows, uint16_t columns)
{
	struct stream_port *p = to_port(dev);
	uint32_t size = (uint32_t)rows << 16 | columns;
	device_lock(dev);
	p->size_changed |= size != p->size;
	p->size = size;
	device_unlock(dev);
}

/* --- life ---------------------------------------------------------------------------------------------- */

static void stream_port_destroy(struct device *dev)
{
	struct stream_port *p = to_port(dev);
	chr_set_client(p->in, NULL);
	device_fini(dev);
	free(p);
}

static const struct device_ops stream_port_ops = {
	.name = "stream port",
	.access_sizes = 1 | 4,
	.read = stream_port_read,
	.write = stream_port_write,
	.destroy = stream_port_destroy,
};

struct device *stream_port_new(const struct stream_port_config *config, struct err *err)
{
	struct stream_port *p = calloc(1, sizeof(*p));
	if (!p) {
		err_set(err, -ENOMEM, "stream port: %s", err_name(ENOMEM));
		return NULL;
	}
	device_init(&p->dev, &stream_port_ops);
	p->in = config->in;
	p->out = config->out;
	p->err = config->err;
	p->select = SELECT_OUT;
	p->size = (uint32_t)config->rows << 16 | config->columns;
	struct chr_client client = {.receive = stream_port_receive, .ctx = p};
	chr_set_client(p->in, &client);
	return &p->dev;
}
