/*
 * For tests of virtio-net: the device over a network in memory that takes and gives packets when and how the test says,
 * and a driver with two pairs of queues and the control queue. The transport only counts.
 */
#pragma once

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h> /* cmocka wants these before it */

#include <cmocka.h>

#include "iov.h"
#include "util.h"
#include "virtio/net.h"
#include "virtio/net_impl.h"
#include "virtq_driver.h"

enum {
	NR_PAIRS = 2,
	NR_MTU = 65535, /* so that packets of any size come in */
	NR_QUEUES = 2 * NR_PAIRS + 1,
	NR_RAM_BYTES = 0x800000,
	NR_RINGS = 0x10000,
	NR_RINGS_STEP = 0x20000,
	NR_COMMAND = 0x0f0000, /* the control queue's commands and answers */
	NR_TX = 0x100000,      /* what is sent: NR_TX_SLOT bytes each, in turn */
	NR_TX_SLOT = 0x11000,
	NR_TX_SLOTS = 16,
	NR_RX = 0x300000, /* receive buffers */
	NR_RX_BYTES = NR_RAM_BYTES - NR_RX,
	NR_HELD_MAX = 1100,
	NR_RECORDS_MAX = 1100,
	NR_ALL_OFFLOADS = NETIF_OFFLOAD_CSUM | NETIF_OFFLOAD_TSO4 | NETIF_OFFLOAD_TSO6 | NETIF_OFFLOAD_TSO_ECN |
			  NETIF_OFFLOAD_USO,
};
static const uint64_t NR_MS = 1000000;
static const uint8_t NR_MAC[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

/* --- the network ------------------------------------------------------------------------------------------------ */

enum nr_cancel {
	NR_CANCEL_AT_ONCE, /* at the end of the round */
	NR_CANCEL_SLOW,    /* some milliseconds later; receives have been written to meanwhile */
};

struct nr_record {
	unsigned queue;
	uint32_t size_bytes;
	uint8_t *bytes;
};

struct nr_netif {
	struct netif netif;
	bool holds; /* keep what is sent until nr_complete */
	enum nr_cancel cancel;
	struct netif_packet *held[NR_HELD_MAX]; /* sends, in order */
	unsigned held_count;
	struct netif_packet *posted[NR_PAIRS][NR_HELD_MAX]; /* receives, in order */
	unsigned posted_count[NR_PAIRS];
	struct nr_record records[NR_RECORDS_MAX]; /* what was sent */
	unsigned sent, cancels, max_iov_count;
	unsigned offloads, offload_calls, pairs;
	struct loop_timer slow_timer;
};

static inline struct nr_netif *to_nr_netif(struct netif *netif)
{
	return container_of(netif, struct nr_netif, netif);
}

static inline void nr_op_send(struct netif *netif, struct netif_packet *packet)
{
	struct nr_netif *n = to_nr_netif(netif);
	struct nr_record *record = &n->records[n->sent++ % NR_RECORDS_MAX];
	free(record->bytes);
	*record = (struct nr_record){packet->queue, packet->size_bytes, malloc(packet->size_bytes)};
	assert_non_null(record->bytes);
	assert_int_equal(iov_read(packet->iov, packet->iov_count, 0, record->bytes, UINT32_MAX), packet->size_bytes);
	n->max_iov_count = (unsigned)max_u64(n->max_iov_count, packet->iov_count);
	if (!n->holds) {
		netif_complete_later(packet, 0);
		return;
	}
	assert_true(n->held_count < NR_HELD_MAX);
	n->held[n->held_count++] = packet;
}

static inline void nr_op_receive(struct netif *netif, struct netif_packet *packet)
{
	struct nr_netif *n = to_nr_netif(netif);
	unsigned *count = &n->posted_count[packet->queue];
	assert_true(*count < NR_HELD_MAX);
	n->posted[packet->queue][(*count)++] = packet;
}

static inline bool nr_remove(struct netif_packet **list, unsigned *count, const struct netif_packet *packet)
{
	for (unsigned i = 0; i < *count; i++) {
		if (list[i] != packet)
			continue;
		(*count)--;
		memmove(&list[i], &list[i + 1], (*count - i) * sizeof(*list));
		return true;
	}
	return false;
}

static inline bool nr_remove_any(struct nr_netif *n, const struct netif_packet *packet)
{
	return packet->receiving ? nr_remove(n->posted[packet->queue], &n->posted_count[packet->queue], packet)
				 : nr_remove(n->held, &n->held_count, packet);
}

static inline void nr_op_cancel(struct netif *netif, struct netif_packet *packet)
{
	struct nr_netif *n = to_nr_netif(netif);
	n->cancels++;
	if (n->cancel == NR_CANCEL_SLOW)
		loop_timer_arm(netif->loop, &n->slow_timer, loop_now_ns() + 5 * NR_MS);
	else if (nr_remove_any(n, packet))
		netif_complete_later(packet, -ECANCELED);
}

static inline void nr_slow_end(struct loop_timer *timer)
{
	struct nr_netif *n = container_of(timer, struct nr_netif, slow_timer);
	static const uint8_t junk[100] = {0x77};
	for (unsigned queue = 0; queue < NR_PAIRS; queue++) {
		while (n->posted_count[queue]) {
			struct netif_packet *packet = n->posted[queue][0];
			nr_remove_any(n, packet);
			size_t size = iov_write(packet->iov, packet->iov_count, 0, junk, sizeof(junk));
			netif_complete(packet, (int)size);
		}
	}
	while (n->held_count) {
		struct netif_packet *packet = n->held[n->held_count - 1];
		nr_remove_any(n, packet);
		netif_complete(packet, -ECANCELED);
	}
}

static inline void nr_op_set_offloads(struct netif *netif, unsigned offloads)
{
	to_nr_netif(netif)->offloads = offloads;
	to_nr_netif(netif)->offload_calls++;
}

static inline void nr_op_set_queues(struct netif *netif, unsigned pairs)
{
	to_nr_netif(netif)->pairs = pairs;
}

static inline void nr_op_destroy(struct netif *netif)
{
	struct nr_netif *n = to_nr_netif(netif);
	loop_timer_disarm(netif->loop, &n->slow_timer);
	for (unsigned i = 0; i < NR_RECORDS_MAX; i++)
		free(n->records[i].bytes);
	free(n);
}

static const struct netif_ops NR_OPS = {
	.name = "memory",
	.send = nr_op_send,
	.receive = nr_op_receive,
	.cancel = nr_op_cancel,
	.set_offloads = nr_op_set_offloads,
	.set_queues = nr_op_set_queues,
	.destroy = nr_op_destroy,
};

/* --- the device and what stands around it ------------------------------------------------------------------------- */

struct nr_buffer {
	gpa_t gpa;
	uint32_t size_bytes;
};

struct nr {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct log log;
	unsigned log_lines;
	struct nr_netif *net;
	struct device door;
	struct virtio_device *dev;
	unsigned queue_interrupts[NR_QUEUES], config_interrupts;
	struct virtq_driver drivers[NR_QUEUES];
	struct nr_buffer rx[NR_PAIRS][VIRTQ_SIZE_MAX]; /* by the chain's id */
	gpa_t next_rx;
	unsigned next_tx;
	uint16_t ring_size;
	bool packed, event_idx, indirect;
	uint64_t without; /* features that the driver does not accept */
	struct virtio_net_init init;
};

static inline void nr_log(void *ctx, enum log_level level, const char *line)
{
	(void)level, (void)line;
	((struct nr *)ctx)->log_lines++;
}

static inline void nr_interrupt_queue(void *ctx, unsigned queue)
{
	((struct nr *)ctx)->queue_interrupts[queue]++;
}

static inline void nr_interrupt_config(void *ctx)
{
	((struct nr *)ctx)->config_interrupts++;
}

static inline void nr_set_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

static const struct virtio_transport NR_TRANSPORT = {nr_interrupt_queue, nr_interrupt_config, nr_set_doorbells};

static inline uint64_t nr_no_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return 0;
}

static inline void nr_no_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	(void)dev, (void)offset, (void)size_bytes, (void)value;
}

static const struct device_ops NR_DOOR = {.name = "door", .access_sizes = 1, .read = nr_no_read, .write = nr_no_write};

static inline void nr_new_device(struct nr *r)
{
	struct err err = {0};
	r->dev = virtio_net_new(r->loop, r->gmem, &r->log, &r->net->netif, &r->init, &err);
	if (!r->dev)
		fail_msg("%s", err.text);
	virtio_attach(r->dev, &r->door, &NR_TRANSPORT, r);
}

static inline void nr_free_device(struct nr *r)
{
	virtio_free(r->dev);
	r->dev = NULL;
}

/* Another device over the same network; `init` and the network's info may have been changed. */
static inline void nr_renew_device(struct nr *r)
{
	nr_free_device(r);
	nr_new_device(r);
}

static inline struct nr *nr_new(void)
{
	struct nr *r = calloc(1, sizeof(*r));
	const struct gmem_region region = {0, NR_RAM_BYTES, NULL};
	alarm(60); /* a test that hangs has failed */
	assert_non_null(r);
	r->log = (struct log){LOG_LEVEL_DEBUG, nr_log, r};
	r->loop = loop_new(NULL);
	r->gmem = gmem_new(&region, 1, NULL);
	r->net = calloc(1, sizeof(*r->net));
	assert_true(r->loop && r->gmem && r->net);
	r->ram = gmem_view(r->gmem, 0, NR_RAM_BYTES, 1);
	netif_init(&r->net->netif, &NR_OPS, r->loop);
	r->net->slow_timer.fn = nr_slow_end;
	r->net->netif.info =
		(struct netif_info){.queues = NR_PAIRS, .offloads = NR_ALL_OFFLOADS, .mtu = NR_MTU, .link_up = true};
	r->init = (struct virtio_net_init){.packed = true};
	r->ring_size = NET_QUEUE_SIZE;
	r->indirect = true;
	memcpy(r->init.mac, NR_MAC, sizeof(NR_MAC));
	device_init(&r->door, &NR_DOOR);
	nr_new_device(r);
	return r;
}

static inline void nr_free(struct nr *r)
{
	nr_free_device(r);
	assert_int_equal(r->net->netif.in_flight, 0);
	netif_free(&r->net->netif);
	device_fini(&r->door);
	loop_free(r->loop);
	gmem_free(r->gmem);
	free(r);
}

static inline int nr_setup(void **state)
{
	*state = nr_new();
	return 0;
}

static inline int nr_teardown(void **state)
{
	nr_free(*state);
	return 0;
}

/* Run the loop until nothing comes any more for a while. */
static inline void nr_settle(struct nr *r)
{
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(loop_wait(r->loop, NR_MS / 4), 0);
}

/* --- the driver --------------------------------------------------------------------------------------------------- */

static inline uint8_t nr_status(struct nr *r)
{
	virtio_lock(r->dev);
	uint8_t status = virtio_read_status(r->dev);
	virtio_unlock(r->dev);
	return status;
}

static inline void nr_write_status(struct nr *r, uint8_t status)
{
	virtio_lock(r->dev);
	virtio_write_status(r->dev, status);
	virtio_unlock(r->dev);
}

static inline struct virtio_net_config nr_config(struct nr *r)
{
	struct virtio_net_config config = {0};
	virtio_lock(r->dev);
	virtio_read_config(r->dev, 0, &config, sizeof(config));
	virtio_unlock(r->dev);
	return config;
}

static inline uint64_t nr_features(const struct nr *r)
{
	uint64_t features = r->dev->features & ~r->without;
	features &= r->packed ? UINT64_MAX : ~(1ULL << VIRTIO_F_RING_PACKED);
	features &= r->event_idx ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	return features & (r->indirect ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_INDIRECT_DESC));
}

static inline void nr_set_up_queue(struct nr *r, unsigned index)
{
	struct virtq_driver *d = &r->drivers[index];
	struct virtq_config config = {
		.packed = r->packed, .indirect = r->indirect, .event_idx = r->event_idx, .size = r->ring_size};
	virtq_driver_init(d, r->gmem, NR_RINGS + index * NR_RINGS_STEP, &config);
	virtio_lock(r->dev);
	struct virtio_queue *queue = virtio_get_queue(r->dev, index);
	virtio_set_queue_size(r->dev, queue, d->config.size);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)d->config.desc);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)d->config.driver);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)d->config.device);
	virtio_enable_queue(r->dev, queue);
	virtio_unlock(r->dev);
}

static inline unsigned nr_queue_count(const struct nr *r)
{
	return 2 * r->net->netif.info.queues + 1;
}

static inline void nr_start(struct nr *r)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	uint64_t features = nr_features(r);
	nr_write_status(r, 0);
	nr_write_status(r, status);
	virtio_lock(r->dev);
	virtio_write_driver_features(r->dev, 0, (uint32_t)features);
	virtio_write_driver_features(r->dev, 1, (uint32_t)(features >> 32));
	virtio_unlock(r->dev);
	nr_write_status(r, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	assert_true(nr_status(r) & VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < nr_queue_count(r); i++)
		nr_set_up_queue(r, i);
	r->next_rx = NR_RX;
	nr_write_status(r, status | VIRTIO_CONFIG_S_DRIVER_OK);
	nr_settle(r);
}

static inline void nr_ring(struct nr *r, unsigned queue)
{
	if (virtq_driver_rings(&r->drivers[queue]))
		virtio_ring(r->dev, queue);
}

static inline int nr_add(struct nr *r, unsigned queue, const struct virtq_buffer *buffers, unsigned count)
{
	struct virtq_driver *d = &r->drivers[queue];
	if (r->indirect && count > 1 && count <= 64 && virtq_driver_next_id(d) < VIRTQ_DRIVER_TABLE_COUNT)
		return virtq_driver_add_indirect(d, buffers, count);
	return virtq_driver_add(d, buffers, count);
}

/* --- sending ---------------------------------------------------------------------------------------------------- */

/* Frame bytes that say which one they are. */
static inline uint8_t nr_byte(unsigned number, uint32_t at)
{
	return (uint8_t)(number * 37 + at * 11 + at / 251);
}

static inline gpa_t nr_fill_tx(struct nr *r, unsigned number, uint32_t size_bytes)
{
	gpa_t at = NR_TX + r->next_tx++ % NR_TX_SLOTS * NR_TX_SLOT;
	memset(r->ram + at, 0, NETIF_HEADER_BYTES);
	for (uint32_t i = NETIF_HEADER_BYTES; i < size_bytes; i++)
		r->ram[at + i] = nr_byte(number, i);
	return at;
}

/* One packet of size_bytes, header included, in one buffer. */
static inline void nr_send(struct nr *r, unsigned pair, unsigned number, uint32_t size_bytes)
{
	const struct virtq_buffer buffer = {nr_fill_tx(r, number, size_bytes), size_bytes, false};
	assert_true(nr_add(r, 2 * pair + 1, &buffer, 1) >= 0);
	nr_ring(r, 2 * pair + 1);
}

static inline bool nr_take_sent(struct nr *r, unsigned pair)
{
	uint16_t id;
	uint32_t written = 0;
	bool took = virtq_driver_take(&r->drivers[2 * pair + 1], &id, &written);
	assert_int_equal(written, 0);
	return took;
}

static inline void nr_wait_sent(struct nr *r, unsigned pair)
{
	while (!nr_take_sent(r, pair))
		assert_int_equal(loop_wait(r->loop, 100 * NR_MS), 0);
}

static inline void nr_check_record(const struct nr *r, unsigned index, unsigned number, uint32_t size_bytes)
{
	const struct nr_record *record = &r->net->records[index % NR_RECORDS_MAX];
	assert_int_equal(record->size_bytes, size_bytes);
	for (uint32_t i = NETIF_HEADER_BYTES; i < size_bytes; i++) {
		if (record->bytes[i] != nr_byte(number, i))
			fail_msg("packet %u: byte %u of %u", number, i, size_bytes);
	}
}

static inline void nr_complete(struct nr *r, unsigned index)
{
	struct netif_packet *packet = r->net->held[index];
	nr_remove_any(r->net, packet);
	netif_complete(packet, 0);
}

/* --- receiving -------------------------------------------------------------------------------------------------- */

static inline void nr_give_buffers(struct nr *r, unsigned pair, unsigned count, uint32_t size_bytes)
{
	for (unsigned i = 0; i < count; i++) {
		if (r->next_rx + size_bytes > NR_RAM_BYTES)
			r->next_rx = NR_RX;
		const struct virtq_buffer buffer = {r->next_rx, size_bytes, true};
		int id = nr_add(r, 2 * pair, &buffer, 1);
		assert_true(id >= 0);
		r->rx[pair][id] = (struct nr_buffer){r->next_rx, size_bytes};
		r->next_rx += align_up(size_bytes, 64);
	}
	nr_ring(r, 2 * pair);
}

/* A packet comes from the network: false when no receive waits for it. One that does not fit is dropped. */
static inline bool nr_inject_bytes(struct nr *r, unsigned pair, const uint8_t *bytes, uint32_t size_bytes)
{
	struct nr_netif *n = r->net;
	if (!n->posted_count[pair])
		return false;
	struct netif_packet *packet = n->posted[pair][0];
	if (packet->size_bytes < size_bytes)
		return true;
	nr_remove_any(n, packet);
	assert_int_equal(iov_write(packet->iov, packet->iov_count, 0, bytes, size_bytes), size_bytes);
	netif_complete(packet, (int)size_bytes);
	return true;
}

static inline bool nr_inject(struct nr *r, unsigned pair, unsigned number, uint32_t size_bytes)
{
	static uint8_t bytes[NETIF_PACKET_MAX_BYTES];
	memset(bytes, 0, NETIF_HEADER_BYTES);
	for (uint32_t i = NETIF_HEADER_BYTES; i < size_bytes; i++)
		bytes[i] = nr_byte(number, i);
	return nr_inject_bytes(r, pair, bytes, size_bytes);
}

struct nr_packet {
	unsigned buffers;
	uint32_t size_bytes;
	uint8_t bytes[NETIF_PACKET_MAX_BYTES];
};

static inline bool nr_take_buffer(struct nr *r, unsigned pair, struct nr_packet *packet)
{
	uint16_t id;
	uint32_t written;
	if (!virtq_driver_take(&r->drivers[2 * pair], &id, &written))
		return false;
	const struct nr_buffer *buffer = &r->rx[pair][id];
	assert_true(written <= buffer->size_bytes && written <= NETIF_PACKET_MAX_BYTES - packet->size_bytes);
	memcpy(packet->bytes + packet->size_bytes, r->ram + buffer->gpa, written);
	packet->size_bytes += written;
	packet->buffers++;
	return true;
}

/* The next packet, put together as a driver does: with the first buffer all of them are there. NULL: there is none. */
static inline const struct nr_packet *nr_take_packet(struct nr *r, unsigned pair)
{
	static struct nr_packet packet;
	packet.buffers = 0;
	packet.size_bytes = 0;
	if (!nr_take_buffer(r, pair, &packet))
		return NULL;
	if (packet.size_bytes == 0)
		return &packet;
	unsigned count = le16_load(packet.bytes + 10);
	assert_true(count > 0);
	while (packet.buffers < count)
		assert_true(nr_take_buffer(r, pair, &packet));
	return &packet;
}

static inline void nr_expect_packet(struct nr *r, unsigned pair, unsigned number, uint32_t size_bytes)
{
	const struct nr_packet *packet = nr_take_packet(r, pair);
	assert_non_null(packet);
	assert_int_equal(packet->size_bytes, size_bytes);
	for (uint32_t i = NETIF_HEADER_BYTES; i < size_bytes; i++) {
		if (packet->bytes[i] != nr_byte(number, i))
			fail_msg("packet %u: byte %u of %u", number, i, size_bytes);
	}
}

/* --- commands ----------------------------------------------------------------------------------------------------- */

static inline unsigned nr_control_queue(const struct nr *r)
{
	return nr_features(r) & 1ULL << VIRTIO_NET_F_MQ ? 2 * r->net->netif.info.queues : 2;
}

enum { NR_NO_ANSWER = 0xa5 };

/* `size_bytes` of class, command and data. The answer; NR_NO_ANSWER: there is none. */
static inline uint8_t nr_command_bytes(struct nr *r, const void *bytes, uint32_t size_bytes)
{
	unsigned queue = nr_control_queue(r);
	gpa_t ack = NR_COMMAND + 0x8000;
	const struct virtq_buffer buffers[] = {{NR_COMMAND, size_bytes, false}, {ack, 1, true}};
	unsigned skip = size_bytes ? 0 : 1;
	if (size_bytes)
		memcpy(r->ram + NR_COMMAND, bytes, size_bytes);
	r->ram[ack] = NR_NO_ANSWER;
	assert_true(nr_add(r, queue, buffers + skip, 2 - skip) >= 0);
	nr_ring(r, queue);
	uint16_t id;
	uint32_t written = 0;
	for (unsigned i = 0; !virtq_driver_take(&r->drivers[queue], &id, &written); i++) {
		if (i == 20)
			return NR_NO_ANSWER;
		assert_int_equal(loop_wait(r->loop, NR_MS), 0);
	}
	assert_int_equal(written, 1);
	return r->ram[ack];
}

static inline uint8_t nr_command(struct nr *r, uint8_t class, uint8_t cmd, const void *data, uint32_t size_bytes)
{
	uint8_t bytes[0x4000] = {class, cmd};
	assert_true(size_bytes <= sizeof(bytes) - 2);
	if (size_bytes)
		memcpy(bytes + 2, data, size_bytes);
	return nr_command_bytes(r, bytes, size_bytes + 2);
}

/* --- a vCPU --------------------------------------------------------------------------------------------------------
 */

struct nr_vcpu {
	struct nr *r;
	void (*fn)(struct nr *r);
	pthread_t thread;
	atomic_bool done;
};

static inline void *nr_vcpu_main(void *arg)
{
	struct nr_vcpu *vcpu = arg;
	vcpu->fn(vcpu->r);
	atomic_store(&vcpu->done, true);
	loop_wake(vcpu->r->loop);
	return NULL;
}

/* fn runs on another thread while this one runs the loop. */
static inline void nr_on_vcpu(struct nr *r, void (*fn)(struct nr *r))
{
	struct nr_vcpu vcpu = {.r = r, .fn = fn};
	assert_int_equal(loop_dispatch(r->loop), 0); /* the loop is this thread's */
	assert_int_equal(pthread_create(&vcpu.thread, NULL, nr_vcpu_main, &vcpu), 0);
	while (!atomic_load(&vcpu.done))
		assert_int_equal(loop_wait(r->loop, 10 * NR_MS), 0);
	pthread_join(vcpu.thread, NULL);
}
