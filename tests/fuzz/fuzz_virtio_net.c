/*
 * virtio-net under a hostile driver and a network of moods. An input's bytes fill ring memory, make chains for every
 * queue, ring doorbells, and let the network end what it has in any order, well or badly, fill receives, and change its
 * link; resets of device and queues come in between.
 *
 * Whatever they do: each popped chain is pushed once; what the back end sees is a packet, in RAM or in a copy of ours;
 * nothing is in flight after a reset; and nothing is written but receive buffers and answers.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "gmem.h"
#include "iov.h"
#include "util.h"
#include "virtio/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	PAIRS = 2,
	QUEUES = 2 * PAIRS + 1,
	QUEUE_SIZE = 16,
	RAM_BYTES = 0x40000,
	RINGS_STEP = 0x1000, /* a queue's: descriptors, driver's area at 0x400, device's at 0x800, a table at 0xc00 */
	DRIVER_AREA = 0x400,
	DEVICE_AREA = 0x800,
	TABLE = 0xc00,
	RINGS_END = QUEUES * RINGS_STEP,
	COMMANDS = 0x6000,
	OUT = 0x8000,
	IN = 0x1c000,
	GUARD = 0x3f000, /* no well-formed chain names it */
	ALL_OFFLOADS = 31,
	HELD_MAX = 256,
	STEPS_MAX = 400,
};

struct fz {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct device door;
	struct virtio_device *dev;

	struct netif netif;
	bool holds, hostile; /* hostile: bytes went into memory as they are */
	struct netif_packet *held[HELD_MAX];
	unsigned held_count;

	const uint8_t *data;
	size_t left;
};

/* --- input ---------------------------------------------------------------------------------------------------------
 */

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

/* --- the network -----------------------------------------------------------------------------------------------------
 */

static bool is_ram(const struct fz *fz, const struct iovec *iov)
{
	const uint8_t *at = iov->iov_base;
	return at >= fz->ram && at < fz->ram + RAM_BYTES && iov->iov_len <= (size_t)(fz->ram + RAM_BYTES - at);
}

static void check_packet(const struct fz *fz, const struct netif_packet *packet)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < packet->iov_count; i++) {
		/* What was gathered is one span of ours. */
		assert(is_ram(fz, &packet->iov[i]) || (packet->iov_count == 1 && !packet->receiving));
		assert(packet->iov[i].iov_len > 0);
		sum += packet->iov[i].iov_len;
	}
	assert(sum == packet->size_bytes && sum <= NETIF_PACKET_MAX_BYTES);
	assert(sum >= NETIF_HEADER_BYTES + NETIF_FRAME_MIN_BYTES);
}

static void fz_send(struct netif *netif, struct netif_packet *packet)
{
	struct fz *fz = container_of(netif, struct fz, netif);
	uint8_t last;
	check_packet(fz, packet);
	iov_read(packet->iov, packet->iov_count, packet->size_bytes - 1, &last, 1); /* it can be read */
	if (!fz->holds) {
		netif_complete_later(packet, 0);
		return;
	}
	assert(fz->held_count < HELD_MAX);
	fz->held[fz->held_count++] = packet;
}

static void fz_receive(struct netif *netif, struct netif_packet *packet)
{
	struct fz *fz = container_of(netif, struct fz, netif);
	check_packet(fz, packet);
	assert(fz->held_count < HELD_MAX);
	fz->held[fz->held_count++] = packet;
}

static struct netif_packet *take_held(struct fz *fz, unsigned index)
{
	struct netif_packet *packet = fz->held[index];
	fz->held_count--;
	memmove(&fz->held[index], &fz->held[index + 1], (fz->held_count - index) * sizeof(fz->held[0]));
	return packet;
}

static void fz_cancel(struct netif *netif, struct netif_packet *packet)
{
	struct fz *fz = container_of(netif, struct fz, netif);
	for (unsigned i = 0; i < fz->held_count; i++) {
		if (fz->held[i] == packet) {
			netif_complete_later(take_held(fz, i), -ECANCELED);
			return;
		}
	}
}

static void fz_set_offloads(struct netif *netif, unsigned offloads)
{
	assert((offloads & ~netif->info.offloads) == 0);
}

static void fz_set_queues(struct netif *netif, unsigned pairs)
{
	assert(pairs >= 1 && pairs <= netif->info.queues);
}

static void fz_destroy(struct netif *netif)
{
	(void)netif;
}

static const struct netif_ops NETIF_OPS = {"fuzzed",        fz_send,       fz_receive, fz_cancel,
					   fz_set_offloads, fz_set_queues, fz_destroy};

/* --- the transport ---------------------------------------------------------------------------------------------------
 */

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

/* --- steps
 * ------------------------------------------------------------------------------------------------------------ */

static void step_reset(struct fz *fz)
{
	write_status(fz, 0);
	assert(fz->dev->status == 0 && fz->held_count == 0 && fz->netif.in_flight == 0);
}

static void step_start(struct fz *fz)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, how = take8(fz);
	uint64_t features = fz->dev->features;
	step_reset(fz);
	(void)gmem_fill(fz->gmem, 0, 0, RINGS_END);
	features &= how & 1 ? UINT64_MAX : ~(1ULL << VIRTIO_F_RING_PACKED);
	features &= how & 2 ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	features &= how & 4 ? ~(1ULL << VIRTIO_NET_F_MRG_RXBUF) : UINT64_MAX;
	features &= how & 8 ? ~(1ULL << VIRTIO_NET_F_GUEST_CSUM) : UINT64_MAX;
	features &= how & 16 ? ~(1ULL << VIRTIO_NET_F_MQ) : UINT64_MAX;
	features &= how & 32 ? ~(1ULL << VIRTIO_NET_F_CTRL_VQ) : UINT64_MAX;
	if (how & 64)
		features &= (uint64_t)take32(fz) << 32 | take32(fz) | 1ULL << VIRTIO_F_VERSION_1;
	write_status(fz, status);
	virtio_lock(fz->dev);
	virtio_write_driver_features(fz->dev, 0, (uint32_t)features);
	virtio_write_driver_features(fz->dev, 1, (uint32_t)(features >> 32));
	virtio_unlock(fz->dev);
	write_status(fz, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < fz->dev->queue_count; i++)
		set_up_queue(fz, i);
	write_status(fz, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void step_reset_queue(struct fz *fz)
{
	unsigned index = take8(fz) % fz->dev->queue_count;
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

/* Make `count` chains of one descriptor available on a split ring, at the places behind the last. */
static void make_available(struct fz *fz, unsigned queue, const struct vring_desc *desc, unsigned count)
{
	gpa_t base = queue * RINGS_STEP;
	uint16_t idx;
	(void)gmem_read(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	for (; count; count--, idx++) {
		uint16_t head = idx % QUEUE_SIZE;
		(void)gmem_write(fz->gmem, base + head * sizeof(*desc), desc, sizeof(*desc));
		(void)gmem_write(fz->gmem, base + DRIVER_AREA + 4 + 2 * head, &head, sizeof(head));
	}
	(void)gmem_write(fz->gmem, base + DRIVER_AREA + 2, &idx, sizeof(idx));
	virtio_ring(fz->dev, queue);
}

/* Through a table of up to 64 pieces: first one of its own size, then equal ones; the last may be of the other kind. */
static struct vring_desc make_table(struct fz *fz, unsigned queue, gpa_t at, uint32_t piece, unsigned count,
				    uint16_t flags)
{
	gpa_t table = queue * RINGS_STEP + TABLE;
	uint32_t first = take8(fz) + 1U;
	for (unsigned i = 0; i < count; i++) {
		struct vring_desc desc = {at, i ? piece : first, flags, (uint16_t)(i + 1)};
		if (i + 1 < count)
			desc.flags |= VRING_DESC_F_NEXT;
		(void)gmem_write(fz->gmem, table + i * sizeof(desc), &desc, sizeof(desc));
		at += desc.len;
	}
	return (struct vring_desc){table, (uint32_t)(count * sizeof(struct vring_desc)), VRING_DESC_F_INDIRECT, 0};
}

static void step_out(struct fz *fz)
{
	uint8_t what = take8(fz), shape = take8(fz);
	unsigned queue = 2 * (what & 1) + 1, count = (shape & 63) + 1U;
	if (queue >= fz->dev->queue_count)
		queue = 1;
	uint32_t size = (what & 2 ? take8(fz) * 280U : take8(fz)) + 1U;
	fz->ram[OUT] = what & 4 ? take8(fz) : 0;
	fz->ram[OUT + 1] = what & 8 ? take8(fz) : 0;
	struct vring_desc desc = {OUT, size, what & 16 ? VRING_DESC_F_WRITE : 0, 0};
	if (shape & 64)
		desc = make_table(fz, queue, OUT, size / count + 1, count, 0);
	make_available(fz, queue, &desc, what >> 5);
}

static void step_in(struct fz *fz)
{
	uint8_t what = take8(fz), shape = take8(fz);
	unsigned queue = 2 * (what & 1), count = (shape & 63) + 1U;
	if (queue >= fz->dev->queue_count - 1)
		queue = 0;
	uint32_t size = (what & 2 ? take8(fz) * 400U : take8(fz)) + 1U;
	struct vring_desc desc = {IN, size, what & 4 ? 0 : VRING_DESC_F_WRITE, 0};
	if (shape & 64)
		desc = make_table(fz, queue, IN, size / count + 1, count, VRING_DESC_F_WRITE);
	make_available(fz, queue, &desc, (what >> 3) % (QUEUE_SIZE + 1));
}

static void step_command(struct fz *fz)
{
	uint8_t bytes[64], size = take8(fz) % sizeof(bytes) + 1;
	unsigned queue = fz->dev->driver_features & 1ULL << VIRTIO_NET_F_MQ ? fz->dev->queue_count - 1 : 2;
	gpa_t table = queue * RINGS_STEP + TABLE;
	for (unsigned i = 0; i < size; i++)
		bytes[i] = take8(fz);
	const struct vring_desc parts[2] = {{COMMANDS, size & 63 ? size : 1, VRING_DESC_F_NEXT, 1},
					    {COMMANDS + 0x100, 1, size & 64 ? 0 : VRING_DESC_F_WRITE, 0}};
	const struct vring_desc desc = {table, sizeof(parts), VRING_DESC_F_INDIRECT, 0};
	(void)gmem_write(fz->gmem, COMMANDS, bytes, size);
	(void)gmem_write(fz->gmem, table, parts, sizeof(parts));
	make_available(fz, queue, &desc, 1);
}

static void step_ring(struct fz *fz)
{
	virtio_ring(fz->dev, take8(fz) % (QUEUES + 1));
}

static void step_dispatch(struct fz *fz)
{
	for (unsigned count = take8(fz) % 4 + 1; count; count--) {
		int r = loop_dispatch(fz->loop);
		assert(r == 0);
	}
}

/* The network ends something, or gives a packet. */
static void step_end(struct fz *fz)
{
	static const int results[] = {0, 0, -EIO, -EINVAL, -ENETDOWN};
	uint8_t which = take8(fz), what = take8(fz);
	if (!fz->held_count)
		return;
	struct netif_packet *packet = take_held(fz, which % fz->held_count);
	int res = results[what % ARRAY_SIZE(results)];
	if (packet->receiving && (what & 0xc0)) {
		uint8_t bytes[NETIF_HEADER_BYTES + 6] = {take8(fz)};
		memset(bytes + NETIF_HEADER_BYTES, what & 1 ? 0xff : take8(fz), 6);
		iov_write(packet->iov, packet->iov_count, 0, bytes, sizeof(bytes));
		res = (int)min_u64(packet->size_bytes, what & 0x80 ? take8(fz) * 256U + 26 : 60);
	}
	netif_complete(packet, res);
}

static void step_network(struct fz *fz)
{
	uint8_t what = take8(fz);
	fz->holds = what & 1;
	if (what & 2)
		netif_set_link(&fz->netif, what & 4);
	if (what & 8)
		virtio_net_set_link(fz->dev, what & 16);
}

/* --- what must hold
 * ---------------------------------------------------------------------------------------------------- */

static void check(const struct fz *fz)
{
	for (unsigned i = 0; i < fz->dev->queue_count; i++) {
		const struct virtio_queue *queue = &fz->dev->queues[i];
		const struct virtio_counters *count = &queue->counters;
		assert(queue->in_flight <= QUEUE_SIZE);
		assert(count->chains ==
		       count->interrupts + count->interrupts_spared + queue->pushed + queue->in_flight);
	}
	assert(fz->netif.in_flight >= fz->held_count);
	for (unsigned i = GUARD; i < RAM_BYTES && !fz->hostile; i++)
		assert(fz->ram[i] == 0x5a);
}

static void step(struct fz *fz)
{
	static void (*const steps[])(struct fz *) = {
		step_start,    step_mutate,      step_out, step_in,       step_command, step_ring,
		step_dispatch, step_dispatch,    step_end, step_end,      step_network, step_reset,
		step_in,       step_reset_queue, step_out, step_dispatch,
	};
	steps[take8(fz) % ARRAY_SIZE(steps)](fz);
	check(fz);
}

/* --- a life
 * ------------------------------------------------------------------------------------------------------------ */

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
	uint8_t kind = take8(fz);
	struct virtio_net_init how = {.mac = {2, 0, 0, 0, 0, 1}, .packed = true, .link_down = kind & 1};
	if (kind & 2)
		how.limit = (struct rate_limit_config){.ops_per_s = 100000, .ops_burst = 2, .bytes_per_s = 1 << 28};
	(void)gmem_fill(fz->gmem, 0, 0x5a, RAM_BYTES);
	(void)gmem_fill(fz->gmem, 0, 0, RINGS_END);
	fz->holds = fz->hostile = false;
	netif_init(&fz->netif, &NETIF_OPS, fz->loop);
	fz->netif.info = (struct netif_info){
		.queues = kind & 4 ? 1 : PAIRS,
		.offloads = kind & 8 ? 0 : ALL_OFFLOADS,
		.mtu = kind & 16 ? 0 : 1500,
		.link_up = !(kind & 32),
	};
	fz->dev = virtio_net_new(fz->loop, fz->gmem, NULL, &fz->netif, &how, NULL);
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
	assert(fz.held_count == 0 && fz.netif.in_flight == 0);
	return 0;
}
