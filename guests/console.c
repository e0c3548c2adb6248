/*
 * virtio-console as its driver sees it (virtio 1.3, 5.3): the ports are told in order, a console echoes what it is
 * sent until a newline, and the status port ends the machine with status=N (0). transport= as in guests/README.md.
 */
#include <linux/virtio_console.h>

#include "guest.h"
#include "virtio.h"

enum { STATUS_DEVICE = 1, STATUS_MESSAGE, STATUS_INPUT, STATUS_TIME };
enum { PORTS_MAX = 3, QUEUES = 2 * (PORTS_MAX + 1), CONTROL_IN = 2, CONTROL_OUT = 3, BUFFERS = 8, BUFFER_BYTES = 128 };
enum { SPINS = 100000000 };

static struct virtio_dev dev;
static struct virtq queues[QUEUES];
static uint8_t buffers[QUEUES][BUFFERS][BUFFER_BYTES];
static uint8_t of_head[QUEUES][VIRTQ_SIZE_MAX]; /* which buffer a chain has */
static unsigned ports;

static unsigned input_of(unsigned port)
{
	return port == 0 ? 0 : 2 * port + 2;
}

static void start(void)
{
	uint64_t wanted =
		(uint64_t)1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_CONSOLE_F_MULTIPORT | 1 << VIRTIO_CONSOLE_F_SIZE;

	check(virtio_open(&dev, VIRTIO_ID_CONSOLE, 0), STATUS_DEVICE, "there is a virtio-console");
	check(virtio_reset(&dev) && virtio_negotiate(&dev, wanted) && virtio_has(&dev, VIRTIO_CONSOLE_F_MULTIPORT),
	      STATUS_DEVICE, "it takes several ports");
	ports = (unsigned)virtio_config(&dev, 4, 4);
	check(ports > 0 && ports <= PORTS_MAX, STATUS_DEVICE, "it has %u ports", ports);
	print("size %lu x %lu\n", virtio_config(&dev, 0, 2), virtio_config(&dev, 2, 2));
	for (unsigned i = 0; i < 2 * (ports + 1); i++) {
		unsigned size = virtq_size_max(&dev, i);

		check(size >= BUFFERS && virtq_setup(&dev, &queues[i], i, size, VIRTIO_NO_VECTOR), STATUS_DEVICE,
		      "queue %u of %u", i, size);
	}
	virtio_driver_ok(&dev);
}

static void give(unsigned queue, unsigned buffer)
{
	struct virtio_buf buf = {buffers[queue][buffer], BUFFER_BYTES};
	int head = virtq_add(&queues[queue], &buf, 0, 1);

	of_head[queue][head] = (uint8_t)buffer;
	virtq_push(&queues[queue], (uint16_t)head);
	virtq_kick(&queues[queue]);
}

/* The next used chain of the queue; its length and head. */
static int wait(unsigned queue, uint32_t *ret_len)
{
	for (unsigned i = 0; i < SPINS; i++) {
		int head = virtq_take(&queues[queue], ret_len);

		if (head >= 0)
			return head;
		cpu_pause();
	}
	check(false, STATUS_TIME, "queue %u answers", queue);
	return -1;
}

static void send(unsigned queue, const void *data, uint32_t len)
{
	struct virtio_buf buf = {data, len};
	uint32_t used;

	virtq_push(&queues[queue], (uint16_t)virtq_add(&queues[queue], &buf, 1, 0));
	virtq_kick(&queues[queue]);
	wait(queue, &used);
}

static void say(uint32_t id, uint16_t event)
{
	struct virtio_console_control message = {.id = id, .event = event, .value = 1};

	send(CONTROL_OUT, &message, sizeof(message));
}

/* The next message: of this kind, about this port. Its body, which ends in NUL, stays until the queue comes round. */
static const char *expect(uint32_t id, uint16_t event)
{
	struct virtio_console_control message;
	uint32_t len;
	unsigned buffer = of_head[CONTROL_IN][wait(CONTROL_IN, &len)];
	uint8_t *data = buffers[CONTROL_IN][buffer];

	memcpy(&message, data, sizeof(message));
	check(len >= sizeof(message) && len < BUFFER_BYTES && message.id == id && message.event == event,
	      STATUS_MESSAGE, "port %u: message %u of %u bytes", message.id, message.event, len);
	data[len] = 0;
	give(CONTROL_IN, buffer);
	return (const char *)data + sizeof(message);
}

static void open_console(void)
{
	say(0, VIRTIO_CONSOLE_PORT_READY);
	expect(0, VIRTIO_CONSOLE_CONSOLE_PORT);
	expect(0, VIRTIO_CONSOLE_RESIZE);
	expect(0, VIRTIO_CONSOLE_PORT_OPEN);
	say(0, VIRTIO_CONSOLE_PORT_OPEN);
}

static void open_status(unsigned port)
{
	say(port, VIRTIO_CONSOLE_PORT_READY);
	check(str_equal(expect(port, VIRTIO_CONSOLE_PORT_NAME), "org.vmlet.status"), STATUS_MESSAGE, "its name");
	expect(port, VIRTIO_CONSOLE_PORT_OPEN);
	say(port, VIRTIO_CONSOLE_PORT_OPEN);
}

static void echo_a_line(void)
{
	const uint8_t *data;
	uint32_t len;

	send(1, "say something\n", 14);
	do {
		unsigned buffer = of_head[0][wait(0, &len)];

		data = buffers[0][buffer];
		check(len > 0 && len <= BUFFER_BYTES, STATUS_INPUT, "%u bytes", len);
		send(1, data, len);
		give(0, buffer);
	} while (data[len - 1] != '\n');
}

int guest_main(void)
{
	char status[] = "000\n";
	unsigned value = (unsigned)arg_u64("status", 0);

	start();
	for (unsigned i = 0; i < BUFFERS; i++) {
		give(CONTROL_IN, i);
		give(0, i);
	}
	say(VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY);
	for (unsigned i = 0; i < ports; i++)
		expect(i, VIRTIO_CONSOLE_PORT_ADD);
	open_console();
	open_status(ports - 1);
	echo_a_line();
	for (unsigned i = 3; i > 0; value /= 10)
		status[--i] = (char)('0' + value % 10);
	send(input_of(ports - 1) + 1, status, 4);
	for (;;)
		cpu_pause();
}
