/*
 * virtio-console under a hostile driver and back ends of moods: an input's bytes fill ring memory, chains and messages,
 * ring doorbells, take output or not, offer input, come and go.
 *
 * Whatever they do: no chain is kept between rounds; output comes from RAM and input goes there and nowhere else, in
 * pieces that were offered; a round moves a bounded number of bytes; a status is 0 to 255 and comes once; an unhurt
 * driver's memory beside its buffers stays as it was.
 */
#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "gmem.h"
#include "util.h"
#include "virtio/console.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	PORTS = 3, /* two with a back end, and the status port */
	QUEUES = 2 * (PORTS + 1),
	QUEUE_SIZE = 8,
	RAM_BYTES = 0x10000,
	RINGS_STEP = 0x1000, /* a queue's: descriptors, driver's area at 0x400, device's at 0x800 */
	DRIVER_AREA = 0x400,
	DEVICE_AREA = 0x800,
	BUFFERS = 0x8000, /* 0x800 for each queue */
	GUARD = 0xfc00,   /* no well-formed chain names it */
	STEPS_MAX = 400,
	SERVE_BYTES_MAX = 65536,
	ROUND_SERVES_MAX = 4, /* of one queue: its doorbell, its kick, and once more for a status */
};

/* --- back ends, instead of src/chr*.c ----------------------------------------------------------------------------
 */

struct chr {
	struct chr_client client;
	size_t room;
	bool has_peer, starved;
	bool input_waits;   /* it was refused */
	size_t round_bytes; /* taken since the last round began */
	const uint8_t *ram;
};

void chr_set_client(struct chr *chr, const struct chr_client *client)
{
	chr->client = client ? *client : (struct chr_client){0};
}

bool chr_has_peer(const struct chr *chr)
{
	return chr->has_peer;
}

void chr_accept_input(struct chr *chr)
{
	chr->input_waits = false;
}

size_t chr_write(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	size_t taken = min_u64(size_bytes, chr->room);
	bool is_emergency = size_bytes == 1;
	assert(is_emergency || (data >= chr->ram && data < chr->ram + RAM_BYTES &&
				size_bytes <= (size_t)(chr->ram + RAM_BYTES - data)));
	assert(size_bytes > 0 && size_bytes <= SERVE_BYTES_MAX);
	chr->room -= taken;
	chr->starved |= taken < size_bytes;
	chr->round_bytes += taken;
	return taken;
}

/* --- the machine -------------------------------------------------------------------------------------------------
 */

struct fz {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct device door;
	struct virtio_device *dev;
	struct chr chr[PORTS - 1];
	unsigned consoles;
	unsigned events; /* since the last reset */
	bool hostile;    /* bytes went into memory as they are */

	const uint8_t *data;
	size_t left;
};

static uint8_t take8(struct fz *fz)
{
	if (fz->left == 0)
		return 0;
	fz->left--;
	return *fz->data++;
}

static uint32_t take32(struct fz *fz)
{
	uint32_t value = 0;
	for (unsigned i = 0; i < 4; i++)
		value = value << 8 | take8(fz);
	return value;
}

static void on_event(void *ctx, enum guest_event event, uint32_t value)
{
	struct fz *fz = ctx;
	assert(event == GUEST_EVENT_DEBUG_EXIT && value <= 255);
	assert(fz->events++ == 0);
}

static void no_interrupt(void *ctx, unsigned queue)
{
	(void)ctx;
	assert(queue < QUEUES);
}

static void no_config_interrupt(void *ctx)
{
	(void)ctx;
}

static void no_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

static const struct virtio_transport TRANSPORT = {no_interrupt, no_config_interrupt, no_doorbells};
static const struct device_ops DOOR = {.name = "door"};

static void write_status(struct fz *fz, uint8_t status)
{
	virtio_lock(fz->dev);
	virtio_write_status(fz->dev, status);
	virtio_unlock(fz->dev);
}

static void set_up_queue(struct fz *fz, unsigned index)
{
	gpa_t base = index * RINGS_STEP;
	virtio_lock(fz->dev);
	struct virtio_queue *queue = virtio_get_queue(fz->dev, index);
	virtio_set_queue_size(fz->dev, queue, QUEUE_SIZE);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)base);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)base + DRIVER_AREA);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)base + DEVICE_AREA);
	virtio_enable_queue(fz->dev, queue);
	virtio_unlock(fz->dev);
}

/* --- steps of the driver -----------------------------------------------------------------------------------------
 */

static void step_reset(struct fz *fz)
{
	write_status(fz, 0);
	assert(fz->dev->status == 0);
	fz->events = 0;
}

static void step_start(struct fz *fz)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, what = take8(fz);
	uint64_t features = fz->dev->features;
	step_reset(fz);
	(void)gmem_fill(fz->gmem, 0, 0, BUFFERS);
	features &= what & 1 ? UINT64_MAX : ~(1ULL << VIRTIO_F_RING_PACKED);
	features &= what & 2 ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	features &= what & 4 ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_INDIRECT_DESC);
	features &= what & 8 ? ~(1ULL << VIRTIO_CONSOLE_F_MULTIPORT) : UINT64_MAX;
	features &= what & 16 ? ~(1ULL << VIRTIO_CONSOLE_F_SIZE) : UINT64_MAX;
	write_status(fz, status);
	virtio_lock(fz->dev);
	virtio_write_driver_features(fz->dev, 0, (uint32_t)features);
	virtio_write_driver_features(fz->dev, 1, (uint32_t)(features >> 32));
	virtio_unlock(fz->dev);
	write_status(fz, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < QUEUES; i++)
		set_up_queue(fz, i);
	write_status(fz, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void step_reset_queue(struct fz *fz)
{
	unsigned index = take8(fz) % QUEUES;
	virtio_lock(fz->dev);
	virtio_reset_queue(fz->dev, virtio_get_queue(fz->dev, index));
	virtio_unlock(fz->dev);
	(void)gmem_fill(fz->gmem, index * RINGS_STEP, 0, RINGS_STEP);
	set_up_queue(fz, index);
}

static void step_mutate(struct fz *fz)
{
	gpa_t at = take32(fz) % RAM_BYTES;
	for (unsigned count = take8(fz) % 32 + 1; count && at < RAM_BYTES; count--)
		fz->ram[at++] = take8(fz);
	fz->hostile = true;
}

/* A chain of two buffers on a split ring, made available once or oftener. */
static void add(struct fz *fz, unsigned queue, uint32_t size, uint32_t second, bool writable, unsigned times)
{
	gpa_t base = queue * RINGS_STEP, at = BUFFERS + queue * 0x800U;
	uint16_t flags = writable ? VRING_DESC_F_WRITE : 0;
	struct vring_desc desc[2] = {
		{at, size, (uint16_t)(flags | (second ? VRING_DESC_F_NEXT : 0)), 1},
		{at + 0x400, second, flags, 0},
	};
	uint16_t idx = 0, head = 0;
	(void)gmem_write(fz->gmem, base, desc, sizeof(desc));
	(void)gmem_read(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	for (; times; times--, idx++)
		(void)gmem_write(fz->gmem, base + DRIVER_AREA + 4 + 2 * (idx % QUEUE_SIZE), &head, sizeof(head));
	(void)gmem_write(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	virtio_ring(fz->dev, queue);
}

static void step_chain(struct fz *fz)
{
	uint8_t what = take8(fz), size = take8(fz);
	unsigned queue = what % QUEUES;
	bool writable = (queue & 1) == (what >> 6 & 1); /* mostly as it should be */
	add(fz, queue, size * 4U + 1, what & 8 ? size : 0, writable, (what >> 4 & 3) + 1);
}

static void step_message(struct fz *fz)
{
	uint8_t what = take8(fz);
	struct virtio_console_control message = {.id = what >> 4 & 3, .event = what & 7, .value = (what & 0x80) == 0};
	if (what & 8)
		message.id = VIRTIO_CONSOLE_BAD_ID;
	(void)gmem_write(fz->gmem, BUFFERS + 3 * 0x800, &message, sizeof(message));
	add(fz, 3, sizeof(message), 0, false, 1);
}

/* Bytes to the last port, mostly such as it knows. */
static void step_status(struct fz *fz)
{
	static const char letters[] = "0123456789 \t\n\n\nx";
	uint8_t text[32];
	unsigned size = take8(fz) % sizeof(text) + 1;
	for (unsigned i = 0; i < size; i++)
		text[i] = (uint8_t)letters[take8(fz) & 15];
	(void)gmem_write(fz->gmem, BUFFERS + 7 * 0x800, text, size);
	add(fz, 7, size, 0, false, 1);
}

static void step_ring(struct fz *fz)
{
	virtio_ring(fz->dev, take8(fz) % (QUEUES + 1));
}

static void step_config(struct fz *fz)
{
	uint32_t offset = take8(fz) % 16, value = take32(fz);
	virtio_lock(fz->dev);
	virtio_write_config(fz->dev, offset, &value, 1U << offset % 3);
	virtio_read_config(fz->dev, offset, &value, sizeof(value));
	virtio_unlock(fz->dev);
}

/* --- steps of the host -------------------------------------------------------------------------------------------
 */

static void step_dispatch(struct fz *fz)
{
	for (unsigned count = take8(fz) % 4 + 1; count; count--) {
		for (unsigned i = 0; i < ARRAY_SIZE(fz->chr); i++)
			fz->chr[i].round_bytes = 0;
		int r = loop_dispatch(fz->loop);
		assert(r == 0);
		for (unsigned i = 0; i < ARRAY_SIZE(fz->chr); i++)
			assert(fz->chr[i].round_bytes <= ROUND_SERVES_MAX * SERVE_BYTES_MAX);
	}
}

static void step_room(struct fz *fz)
{
	uint8_t what = take8(fz);
	struct chr *chr = &fz->chr[what & 1];
	chr->room = what & 2 ? SIZE_MAX : what * 8U;
	if (!chr->starved)
		return;
	chr->starved = false;
	chr->client.writable(chr->client.ctx);
}

static void step_input(struct fz *fz)
{
	uint8_t block[256], what = take8(fz);
	struct chr *chr = &fz->chr[what & 1];
	size_t size = what / 2 + 1U;
	memset(block, what, sizeof(block));
	if (chr->input_waits)
		return;
	chr->input_waits = true; /* as chr.c: raised before the offer */
	size_t taken = chr->client.receive(chr->client.ctx, block, size);
	assert(taken <= size);
	assert(!taken || fz->dev->state == VIRTIO_RUNNING);
	chr->input_waits = taken < size;
}

static void step_peer(struct fz *fz)
{
	struct chr *chr = &fz->chr[take8(fz) & 1];
	chr->has_peer = !chr->has_peer;
	chr->client.peer(chr->client.ctx, chr->has_peer);
}

static void step_size(struct fz *fz)
{
	uint8_t what = take8(fz);
	if (fz->consoles)
		virtio_console_set_size(fz->dev, what % fz->consoles, what, take8(fz));
}

/* --- what must hold ----------------------------------------------------------------------------------------------
 */

static void check(const struct fz *fz)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		const struct virtio_queue *queue = &fz->dev->queues[i];
		const struct virtio_counters *count = &queue->counters;
		assert(queue->in_flight == 0);
		assert(count->chains == count->interrupts + count->interrupts_spared + queue->pushed);
	}
	for (unsigned i = GUARD; i < RAM_BYTES && !fz->hostile; i++)
		assert(fz->ram[i] == 0x5a);
}

static void step(struct fz *fz)
{
	static void (*const steps[])(struct fz *) = {
		step_start,  step_mutate, step_chain, step_chain,    step_message,  step_message,
		step_status, step_ring,   step_room,  step_dispatch, step_dispatch, step_dispatch,
		step_input,  step_peer,   step_size,  step_config,   step_reset,    step_reset_queue};
	steps[take8(fz) % ARRAY_SIZE(steps)](fz);
	check(fz);
}

/* --- a life ------------------------------------------------------------------------------------------------------
 */

static void init(struct fz *fz)
{
	const struct gmem_region region = {0, RAM_BYTES, NULL};
	fz->loop = loop_new(NULL);
	fz->gmem = gmem_new(&region, 1, NULL);
	if (!fz->loop || !fz->gmem)
		abort();
	fz->ram = gmem_view(fz->gmem, 0, RAM_BYTES, 1);
	device_init(&fz->door, &DOOR);
}

static void create(struct fz *fz)
{
	struct virtio_console_port ports[PORTS - 1];
	fz->consoles = take8(fz) % PORTS;
	for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
		fz->chr[i] = (struct chr){.room = 1000, .ram = fz->ram};
		ports[i] = (struct virtio_console_port){.name = i < fz->consoles ? NULL : "named", .chr = &fz->chr[i]};
	}
	struct virtio_console_init how = {
		.ports = ports, .port_count = ARRAY_SIZE(ports), .packed = true, .events = {on_event, fz}};
	(void)gmem_fill(fz->gmem, 0, 0x5a, RAM_BYTES);
	(void)gmem_fill(fz->gmem, 0, 0, BUFFERS);
	fz->hostile = false;
	fz->events = 0;
	fz->dev = virtio_console_new(fz->loop, fz->gmem, NULL, &how, NULL);
	if (!fz->dev)
		abort();
	virtio_attach(fz->dev, &fz->door, &TRANSPORT, fz);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static struct fz fz;
	if (!fz.loop)
		init(&fz);
	fz.data = data;
	fz.left = size_bytes;
	create(&fz);
	for (unsigned i = 0; fz.left && i < STEPS_MAX; i++)
		step(&fz);
	virtio_free(fz.dev);
	for (unsigned i = 0; i < ARRAY_SIZE(fz.chr); i++)
		assert(!fz.chr[i].client.receive); /* it has let go */
	return 0;
}
