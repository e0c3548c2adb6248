#include "devices/i8042.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "util.h"

/* Status register: IBM PS/2 Hardware Interface Technical Reference, "Keyboard/Auxiliary Device Controller". */
enum {
	STATUS_OUTPUT_FULL = 0x01,
	STATUS_SYSTEM_FLAG = 0x04, /* follows the command byte's */
	STATUS_COMMAND = 0x08,     /* the last write went to the command register */
	STATUS_NOT_INHIBITED = 0x10,
	STATUS_TIMEOUT = 0x40, /* the device did not answer; with REPLY_RESEND in the output buffer */
};

/* Command byte, which is byte 0 of the controller's memory. */
enum {
	CTR_KEYBOARD_INTERRUPT = 0x01,
	CTR_SYSTEM_FLAG = 0x04,
	CTR_KEYBOARD_DISABLE = 0x10,
	CTR_AUX_DISABLE = 0x20,
	CTR_TRANSLATE = 0x40,
};

/* Commands, written at I8042_COMMAND_OFFSET. */
enum {
	CMD_READ_MEMORY = 0x20,  /* to 0x3f */
	CMD_WRITE_MEMORY = 0x60, /* to 0x7f; one parameter */
	CMD_MEMORY_MASK = 0x1f,
	CMD_TEST_PASSWORD = 0xa4,
	CMD_DISABLE_AUX = 0xa7,
	CMD_ENABLE_AUX = 0xa8,
	CMD_TEST_AUX = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_TEST_KEYBOARD = 0xab,
	CMD_DISABLE_KEYBOARD = 0xad,
	CMD_ENABLE_KEYBOARD = 0xae,
	CMD_READ_INPUT_PORT = 0xc0,
	CMD_READ_OUTPUT_PORT = 0xd0,
	CMD_WRITE_OUTPUT_PORT = 0xd1, /* these four take a parameter */
	CMD_WRITE_KEYBOARD_OUTPUT = 0xd2,
	CMD_WRITE_AUX_OUTPUT = 0xd3,
	CMD_WRITE_AUX = 0xd4,
	CMD_PULSE = 0xf0, /* to 0xff: pulse the output port's lines whose bits are 0 */
};

enum {
	REPLY_TEST_PASSED = 0x00,
	REPLY_CLOCK_STUCK_LOW = 0x01, /* of an interface test */
	REPLY_SELF_TEST_PASSED = 0x55,
	REPLY_NO_PASSWORD = 0xf1,
	REPLY_RESEND = 0xfe,
	INPUT_PORT_NOT_INHIBITED = 0x80,
	OUTPUT_PORT_NOT_RESET = 0x01,
	OUTPUT_PORT_A20 = 0x02,
};

enum { MEMORY_SIZE = 32 };

struct i8042 {
	struct device dev;
	struct irq_line irq;
	struct guest_event_sink sink;
	uint8_t output;      /* the output buffer; full as STATUS_OUTPUT_FULL says */
	uint8_t status;      /* without STATUS_SYSTEM_FLAG */
	uint8_t command;     /* whose parameter is awaited, or 0 */
	uint8_t output_port; /* reads as written, but reset never stays low */
	bool irq_level;
	uint8_t memory[MEMORY_SIZE];
};

static struct i8042 *to_i8042(struct device *dev)
{
	return container_of(dev, struct i8042, dev);
}

static void irq_update(struct i8042 *k)
{
	bool level = (k->status & STATUS_OUTPUT_FULL) && (k->memory[0] & CTR_KEYBOARD_INTERRUPT);

	if (level == k->irq_level)
		return;
	k->irq_level = level;
	irq_set(k->irq, level);
}

/*
 * A reply takes the place of one that nobody read: the driver is after the answer to its latest question, and
 * with a buffer of one byte no guest makes us keep more.
 */
static void reply(struct i8042 *k, uint8_t value)
{
	k->output = value;
	k->status &= ~STATUS_TIMEOUT;
	k->status |= STATUS_OUTPUT_FULL;
}

static void reply_from_nobody(struct i8042 *k)
{
	reply(k, REPLY_RESEND);
	k->status |= STATUS_TIMEOUT;
}

static void output_port_write(struct i8042 *k, uint8_t value)
{
	k->output_port = value | OUTPUT_PORT_NOT_RESET;
	if (!(value & OUTPUT_PORT_NOT_RESET))
		guest_event_raise(k->sink, GUEST_EVENT_RESET, 0);
}

/* Commands that are one byte. Unknown ones do nothing, as in the controller. */
static void simple_command(struct i8042 *k, uint8_t command)
{
	switch (command) {
	case CMD_TEST_PASSWORD:
		reply(k, REPLY_NO_PASSWORD);
		break;
	case CMD_DISABLE_AUX:
		k->memory[0] |= CTR_AUX_DISABLE;
		break;
	case CMD_ENABLE_AUX: /* there is none, and so the bit stays: drivers look whether it goes away */
		break;
	case CMD_TEST_AUX:
		reply(k, REPLY_CLOCK_STUCK_LOW);
		break;
	case CMD_SELF_TEST:
		k->memory[0] |= CTR_SYSTEM_FLAG;
		reply(k, REPLY_SELF_TEST_PASSED);
		break;
	case CMD_TEST_KEYBOARD:
		reply(k, REPLY_TEST_PASSED);
		break;
	case CMD_DISABLE_KEYBOARD:
		k->memory[0] |= CTR_KEYBOARD_DISABLE;
		break;
	case CMD_ENABLE_KEYBOARD:
		k->memory[0] &= ~CTR_KEYBOARD_DISABLE;
		break;
	case CMD_READ_INPUT_PORT:
		reply(k, INPUT_PORT_NOT_INHIBITED);
		break;
	case CMD_READ_OUTPUT_PORT:
		reply(k, k->output_port);
		break;
	default:
		break;
	}
}

static bool takes_parameter(uint8_t command)
{
	return (command & ~CMD_MEMORY_MASK) == CMD_WRITE_MEMORY ||
	       (command >= CMD_WRITE_OUTPUT_PORT && command <= CMD_WRITE_AUX);
}

static void command_write(struct i8042 *k, uint8_t command)
{
	k->status |= STATUS_COMMAND;
	k->command = takes_parameter(command) ? command : 0;
	if ((command & ~CMD_MEMORY_MASK) == CMD_READ_MEMORY)
		reply(k, k->memory[command & CMD_MEMORY_MASK]);
	else if (command < CMD_PULSE)
		simple_command(k, command);
	else if (!(command & OUTPUT_PORT_NOT_RESET))
		guest_event_raise(k->sink, GUEST_EVENT_RESET, 0);
}

/*
 * CMD_WRITE_AUX_OUTPUT should make the byte look as if a mouse had sent it. We let the byte through without
 * the mark: Linux, which uses this to find an auxiliary port, sees at once that there is none instead of
 * waiting half a second for an answer.
 */
static void parameter_write(struct i8042 *k, uint8_t command, uint8_t value)
{
	switch (command) {
	case CMD_WRITE_OUTPUT_PORT:
		output_port_write(k, value);
		break;
	case CMD_WRITE_KEYBOARD_OUTPUT:
	case CMD_WRITE_AUX_OUTPUT:
		reply(k, value);
		break;
	case CMD_WRITE_AUX:
		reply_from_nobody(k);
		break;
	case CMD_WRITE_MEMORY:
		k->memory[0] = value | CTR_AUX_DISABLE;
		break;
	default:
		k->memory[command & CMD_MEMORY_MASK] = value;
		break;
	}
}

static void data_write(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->command;

	k->status &= ~STATUS_COMMAND;
	k->command = 0;
	if (command)
		parameter_write(k, command, value);
	else
		reply_from_nobody(k);
}

/* An empty buffer reads as what it held last. */
static uint8_t data_read(struct i8042 *k)
{
	k->status &= ~(STATUS_OUTPUT_FULL | STATUS_TIMEOUT);
	return k->output;
}

static uint64_t i8042_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct i8042 *k = to_i8042(dev);
	uint8_t value = 0xff;

	(void)size_bytes;
	if (offset == I8042_DATA_OFFSET)
		value = data_read(k);
	else if (offset == I8042_COMMAND_OFFSET)
		value = k->status | (k->memory[0] & CTR_SYSTEM_FLAG ? STATUS_SYSTEM_FLAG : 0);
	irq_update(k);
	return value;
}

static void i8042_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct i8042 *k = to_i8042(dev);

	(void)size_bytes;
	if (offset == I8042_DATA_OFFSET)
		data_write(k, (uint8_t)value);
	else if (offset == I8042_COMMAND_OFFSET)
		command_write(k, (uint8_t)value);
	irq_update(k);
}

static void i8042_destroy(struct device *dev)
{
	device_fini(dev);
	free(to_i8042(dev));
}

static const struct device_ops i8042_ops = {
	.name = "i8042",
	.access_sizes = 1,
	.read = i8042_read,
	.write = i8042_write,
	.destroy = i8042_destroy,
};

struct device *i8042_new(struct irq_line irq1, struct guest_event_sink sink, struct err *err)
{
	struct i8042 *k = calloc(1, sizeof(*k));

	if (!k) {
		err_set(err, -ENOMEM, "keyboard controller: out of memory");
		return NULL;
	}
	device_init(&k->dev, &i8042_ops);
	k->irq = irq1;
	k->sink = sink;
	k->status = STATUS_NOT_INHIBITED;
	k->output_port = OUTPUT_PORT_NOT_RESET | OUTPUT_PORT_A20;
	/* As firmware leaves it: self test passed, scan codes translated. */
	k->memory[0] = CTR_SYSTEM_FLAG | CTR_TRANSLATE | CTR_AUX_DISABLE;
	return &k->dev;
}
