/*
 * For tests of virtio-blk: the device over a disk in memory that ends its requests when and how the test says, and a
 * driver with a queue or several. The transport only counts.
 */
#pragma once

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
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

#include "util.h"
#include "virtio/blk.h"
#include "virtq_driver.h"

enum {
	BR_QUEUES = 2,
	BR_QUEUE_SIZE = 256,
	BR_RAM_BYTES = 0x400000,
	BR_RINGS = 0x10000,
	BR_RINGS_STEP = 0x20000,
	BR_SLOTS = 0x100000, /* headers and status bytes, SLOT_BYTES each */
	BR_SLOT_BYTES = 64,
	BR_SLOT_STATUS = 40, /* in a slot: the status byte */
	BR_SLOT_COUNT = 1024,
	BR_DATA = 0x200000,
	BR_DISK_BYTES = 1 << 20,
	BR_SECTORS = BR_DISK_BYTES / 512,
	BR_HELD_MAX = 1024,
	BR_NO_STATUS = 0xa5, /* what a status byte is before the device writes it */
};
static const uint64_t BR_MS = 1000000;

/* --- the disk ------------------------------------------------------------------------------------------------ */

enum br_cancel {
	BR_CANCEL_AT_ONCE, /* at the end of the round */
	BR_CANCEL_SLOW,    /* some milliseconds later, having moved its data meanwhile */
};

struct br_disk {
	struct block block;
	uint8_t bytes[BR_DISK_BYTES];
	bool holds; /* keep requests until br_complete */
	int result; /* of those that are not kept */
	enum br_cancel cancel;
	struct block_request *held[BR_HELD_MAX]; /* in the order of submission */
	unsigned held_count;
	unsigned submitted, cancels;
	unsigned max_iov_count;
	struct loop_timer slow_timer;
};

static inline void br_move(struct br_disk *disk, const struct block_request *request)
{
	uint8_t *at = disk->bytes + request->offset_bytes;
	switch (request->op) {
	case BLOCK_READ:
		iov_write(request->iov, request->iov_count, 0, at, request->size_bytes);
		break;
	case BLOCK_WRITE:
		iov_read(request->iov, request->iov_count, 0, at, request->size_bytes);
		break;
	case BLOCK_WRITE_ZEROES:
	case BLOCK_DISCARD:
		memset(at, 0, request->size_bytes);
		break;
	case BLOCK_FLUSH:
		break;
	}
}

static inline void br_submit(struct block *block, struct block_request *request)
{
	struct br_disk *disk = container_of(block, struct br_disk, block);
	disk->submitted++;
	disk->max_iov_count = (unsigned)max_u64(disk->max_iov_count, request->iov_count);
	if (disk->holds) {
		assert_true(disk->held_count < BR_HELD_MAX);
		disk->held[disk->held_count++] = request;
		return;
	}
	if (disk->result == 0)
		br_move(disk, request);
	block_complete_later(request, disk->result);
}

static inline struct block_request *br_take_held(struct br_disk *disk, unsigned index)
{
	assert_true(index < disk->held_count);
	struct block_request *request = disk->held[index];
	disk->held_count--;
	memmove(&disk->held[index], &disk->held[index + 1], (disk->held_count - index) * sizeof(disk->held[0]));
	return request;
}

/* What the disk does when it gets round to it. */
static inline void br_complete(struct br_disk *disk, unsigned index, int res)
{
	struct block_request *request = br_take_held(disk, index);
	if (res == 0)
		br_move(disk, request);
	block_complete(request, res);
}

static inline void br_slow_end(struct loop_timer *timer)
{
	struct br_disk *disk = container_of(timer, struct br_disk, slow_timer);
	while (disk->held_count)
		br_complete(disk, disk->held_count - 1, 0);
}

static inline void br_cancel(struct block *block, struct block_request *request)
{
	struct br_disk *disk = container_of(block, struct br_disk, block);
	disk->cancels++;
	for (unsigned i = 0; i < disk->held_count; i++) {
		if (disk->held[i] != request)
			continue;
		if (disk->cancel == BR_CANCEL_SLOW)
			loop_timer_arm(block->loop, &disk->slow_timer, loop_now_ns() + 5 * BR_MS);
		else
			block_complete_later(br_take_held(disk, i), -ECANCELED);
		return;
	}
}

static inline void br_destroy(struct block *block)
{
	free(container_of(block, struct br_disk, block));
}

static const struct block_ops BR_OPS = {
	.name = "memory", .submit = br_submit, .cancel = br_cancel, .destroy = br_destroy};

/* --- the device and what stands around it --------------------------------------------------------------------- */

struct br {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct log log;
	unsigned log_lines;
	struct br_disk *disk;
	struct device door;
	struct virtio_device *dev;
	unsigned queue_interrupts[VIRTIO_BLK_QUEUES_MAX], config_interrupts;
	struct virtq_driver drivers[BR_QUEUES];
	unsigned next_slot;
	unsigned sent[BR_QUEUES];
	uint16_t slot_of[BR_QUEUES][VIRTQ_SIZE_MAX]; /* by the chain's id */
	bool packed, event_idx, indirect;
	struct virtio_blk_init init;
};

static inline void br_log(void *ctx, enum log_level level, const char *line)
{
	(void)level, (void)line;
	((struct br *)ctx)->log_lines++;
}

static inline void br_interrupt_queue(void *ctx, unsigned queue)
{
	((struct br *)ctx)->queue_interrupts[queue]++;
}

static inline void br_interrupt_config(void *ctx)
{
	((struct br *)ctx)->config_interrupts++;
}

static inline void br_set_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

static const struct virtio_transport BR_TRANSPORT = {br_interrupt_queue, br_interrupt_config, br_set_doorbells};

static inline uint64_t br_no_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return 0;
}

static inline void br_no_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	(void)dev, (void)offset, (void)size_bytes, (void)value;
}

static const struct device_ops BR_DOOR = {.name = "door", .access_sizes = 1, .read = br_no_read, .write = br_no_write};

static inline void br_new_device(struct br *b)
{
	struct err err = {0};
	b->dev = virtio_blk_new(b->loop, b->gmem, &b->log, &b->disk->block, &b->init, &err);
	if (!b->dev)
		fail_msg("%s", err.text);
	virtio_attach(b->dev, &b->door, &BR_TRANSPORT, b);
}

static inline void br_free_device(struct br *b)
{
	virtio_free(b->dev);
	b->dev = NULL;
}

/* Another device over the same disk; `init` may have been changed. */
static inline void br_renew_device(struct br *b)
{
	br_free_device(b);
	br_new_device(b);
}

static inline struct br *br_new(void)
{
	struct br *b = calloc(1, sizeof(*b));
	assert_non_null(b);
	const struct gmem_region region = {0, BR_RAM_BYTES, NULL};
	alarm(30); /* a test that hangs has failed */
	b->log = (struct log){LOG_LEVEL_DEBUG, br_log, b};
	b->loop = loop_new(NULL);
	b->gmem = gmem_new(&region, 1, NULL);
	b->disk = calloc(1, sizeof(*b->disk));
	assert_non_null(b->loop);
	assert_non_null(b->gmem);
	assert_non_null(b->disk);
	b->ram = gmem_view(b->gmem, 0, BR_RAM_BYTES, 1);
	block_init(&b->disk->block, &BR_OPS, b->loop);
	b->disk->slow_timer.fn = br_slow_end;
	b->disk->block.info = (struct block_info){
		.size_bytes = BR_DISK_BYTES,
		.block_size_bytes = 512,
		.physical_block_bytes = 4096,
		.optimal_io_bytes = 65536,
		.discard_granularity_bytes = 4096,
		.can_write_zeroes = true,
	};
	for (unsigned i = 0; i < BR_DISK_BYTES; i++)
		b->disk->bytes[i] = (uint8_t)(i / 512 * 7 + i * 13 + 1);
	b->init = (struct virtio_blk_init){.serial = "the serial number", .queues = BR_QUEUES, .packed = true};
	device_init(&b->door, &BR_DOOR);
	br_new_device(b);
	return b;
}

static inline void br_free(struct br *b)
{
	br_free_device(b);
	assert_int_equal(b->disk->block.in_flight, 0);
	loop_timer_disarm(b->loop, &b->disk->slow_timer);
	block_free(&b->disk->block);
	device_fini(&b->door);
	loop_free(b->loop);
	gmem_free(b->gmem);
	free(b);
}

static inline int br_setup(void **state)
{
	*state = br_new();
	return 0;
}

static inline int br_teardown(void **state)
{
	br_free(*state);
	return 0;
}

/* --- the driver's registers ------------------------------------------------------------------------------------ */

static inline uint8_t br_status(struct br *b)
{
	virtio_lock(b->dev);
	uint8_t status = virtio_read_status(b->dev);
	virtio_unlock(b->dev);
	return status;
}

static inline void br_write_status(struct br *b, uint8_t status)
{
	virtio_lock(b->dev);
	virtio_write_status(b->dev, status);
	virtio_unlock(b->dev);
}

static inline void br_set_up_queue(struct br *b, unsigned index)
{
	struct virtq_config config = {
		.packed = b->packed, .event_idx = b->event_idx, .indirect = b->indirect, .size = BR_QUEUE_SIZE};
	struct virtq_driver *d = &b->drivers[index];
	virtq_driver_init(d, b->gmem, BR_RINGS + index * BR_RINGS_STEP, &config);
	b->sent[index] = 0;
	virtio_lock(b->dev);
	struct virtio_queue *queue = virtio_get_queue(b->dev, index);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)d->config.desc);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)d->config.driver);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)d->config.device);
	virtio_enable_queue(b->dev, queue);
	virtio_unlock(b->dev);
}

static inline uint64_t br_features(const struct br *b)
{
	uint64_t features = b->dev->features;
	if (!b->packed)
		features &= ~(1ULL << VIRTIO_F_RING_PACKED);
	if (!b->event_idx)
		features &= ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	if (!b->indirect)
		features &= ~(1ULL << VIRTIO_RING_F_INDIRECT_DESC);
	return features;
}

/* Reset, negotiation, queues, DRIVER_OK. */
static inline void br_start(struct br *b)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	br_write_status(b, 0);
	br_write_status(b, status);
	virtio_lock(b->dev);
	virtio_write_driver_features(b->dev, 0, (uint32_t)br_features(b));
	virtio_write_driver_features(b->dev, 1, (uint32_t)(br_features(b) >> 32));
	virtio_unlock(b->dev);
	br_write_status(b, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < BR_QUEUES && i < b->init.queues; i++)
		br_set_up_queue(b, i);
	br_write_status(b, status |= VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(br_status(b), status);
}

/* Run the loop until nothing comes any more for a while. */
static inline void br_settle(struct br *b)
{
	for (int i = 0; i < 6; i++)
		assert_int_equal(loop_wait(b->loop, BR_MS / 2), 0);
}

/* --- requests ------------------------------------------------------------------------------------------------------
 */

static inline gpa_t br_slot(unsigned slot)
{
	return BR_SLOTS + slot * BR_SLOT_BYTES;
}

static inline uint8_t *br_status_byte(struct br *b, unsigned slot)
{
	return b->ram + br_slot(slot) + BR_SLOT_STATUS;
}

/* A slot with this header, and a status byte that the device has not written. */
static inline unsigned br_make_slot(struct br *b, uint32_t type, uint64_t sector)
{
	unsigned slot = b->next_slot++ % BR_SLOT_COUNT;
	struct virtio_blk_outhdr header = {.type = type, .ioprio = 0x55, .sector = sector};
	memcpy(b->ram + br_slot(slot), &header, sizeof(header));
	*br_status_byte(b, slot) = BR_NO_STATUS;
	return slot;
}

static inline void br_send(struct br *b, unsigned queue, unsigned slot, const struct virtq_buffer *buffers,
			   unsigned count)
{
	struct virtq_driver *d = &b->drivers[queue];
	bool is_table = b->indirect && count <= 64 && virtq_driver_next_id(d) < VIRTQ_DRIVER_TABLE_COUNT;
	int id = is_table ? virtq_driver_add_indirect(d, buffers, count) : virtq_driver_add(d, buffers, count);
	assert_true(id >= 0);
	b->slot_of[queue][id] = (uint16_t)slot;
	b->sent[queue]++;
}

static inline void br_ring(struct br *b, unsigned queue)
{
	if (virtq_driver_rings(&b->drivers[queue]))
		virtio_ring(b->dev, queue);
}

/* Header, data, status, as Linux does; the data's direction is that of the type. Returns the slot. */
static inline unsigned br_request(struct br *b, unsigned queue, uint32_t type, uint64_t sector, gpa_t data,
				  uint32_t size_bytes)
{
	bool writable = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	unsigned slot = br_make_slot(b, type, sector), count = 0;
	struct virtq_buffer buffers[3];
	buffers[count++] = (struct virtq_buffer){br_slot(slot), sizeof(struct virtio_blk_outhdr), false};
	if (size_bytes)
		buffers[count++] = (struct virtq_buffer){data, size_bytes, writable};
	buffers[count++] = (struct virtq_buffer){br_slot(slot) + BR_SLOT_STATUS, 1, true};
	br_send(b, queue, slot, buffers, count);
	return slot;
}

/* Take one used chain, if there is one: its slot, and the used length. */
static inline bool br_take(struct br *b, unsigned queue, unsigned *ret_slot, uint32_t *ret_written)
{
	uint16_t id;
	if (!virtq_driver_take(&b->drivers[queue], &id, ret_written))
		return false;
	*ret_slot = b->slot_of[queue][id];
	b->sent[queue]--;
	return true;
}

struct br_answer {
	unsigned slot;
	uint8_t status;
	uint32_t written;
};

/* Wait for the next one. */
static inline struct br_answer br_wait(struct br *b, unsigned queue)
{
	struct br_answer answer = {0};
	while (!br_take(b, queue, &answer.slot, &answer.written))
		assert_int_equal(loop_wait(b->loop, 100 * BR_MS), 0);
	answer.status = *br_status_byte(b, answer.slot);
	return answer;
}

static inline struct br_answer br_do(struct br *b, uint32_t type, uint64_t sector, gpa_t data, uint32_t size_bytes)
{
	unsigned slot = br_request(b, 0, type, sector, data, size_bytes);
	br_ring(b, 0);
	struct br_answer answer = br_wait(b, 0);
	assert_int_equal(answer.slot, slot);
	return answer;
}

static inline void br_expect(struct br *b, uint8_t status, uint32_t type, uint64_t sector, uint32_t size_bytes)
{
	struct br_answer answer = br_do(b, type, sector, BR_DATA, size_bytes);
	if (answer.status != status)
		fail_msg("type %u, sector %#llx, %u bytes: status %u instead of %u", type, (unsigned long long)sector,
			 size_bytes, answer.status, status);
	bool has_read = type == VIRTIO_BLK_T_IN && status == VIRTIO_BLK_S_OK;
	assert_int_equal(answer.written, has_read ? size_bytes + 1 : 1);
}

/* --- a vCPU --------------------------------------------------------------------------------------------------------
 */

struct br_vcpu {
	struct br *b;
	void (*fn)(struct br *b);
	pthread_t thread;
	atomic_bool done;
};

static inline void *br_vcpu_main(void *arg)
{
	struct br_vcpu *vcpu = arg;
	vcpu->fn(vcpu->b);
	atomic_store(&vcpu->done, true);
	loop_wake(vcpu->b->loop);
	return NULL;
}

/* fn runs on another thread while this one runs the loop. */
static inline void br_on_vcpu(struct br *b, void (*fn)(struct br *b))
{
	struct br_vcpu vcpu = {.b = b, .fn = fn};
	assert_int_equal(loop_dispatch(b->loop), 0); /* the loop is this thread's */
	assert_int_equal(pthread_create(&vcpu.thread, NULL, br_vcpu_main, &vcpu), 0);
	while (!atomic_load(&vcpu.done))
		assert_int_equal(loop_wait(b->loop, 10 * BR_MS), 0);
	pthread_join(vcpu.thread, NULL);
}
