/*
 * For tests of virtio-vsock: the device over a real vsock_host in a directory of its own, and a guest that speaks
 * packets. The transport only counts. Programs of the host are sockets of the test itself.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_vsock.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <setjmp.h> /* cmocka wants these before it */

#include <cmocka.h>

#include "unix_socket.h"
#include "util.h"
#include "virtio/vsock.h"
#include "virtq_driver.h"

enum {
	VR_CID = 42,
	VR_HOST = 2,
	VR_QUEUE_SIZE = 256,
	VR_RAM_BYTES = 0x4000000,
	VR_RINGS = 0x10000,
	VR_RINGS_STEP = 0x20000,
	VR_TX_DATA = 0x100000,
	VR_RX_DATA = 0x200000,
	VR_RX_STEP = 0x11000,
	VR_RX_MAX = 128,
	VR_HEADER = sizeof(struct virtio_vsock_hdr),
	VR_BUF_ALLOC = 128 << 10, /* the guest's */
	VR_PACKETS_MAX = 4096,
};
static const uint64_t VR_MS = 1000000;

struct vr_packet {
	struct virtio_vsock_hdr header;
	uint8_t *data;
};

struct vr {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct log log;
	unsigned log_lines;
	char log_text[256];
	char dir[32], path[64];
	struct vsock_host *host;
	struct device door;
	struct virtio_device *dev;
	struct virtio_vsock_init init;
	unsigned queue_interrupts[3], config_interrupts;

	struct virtq_driver drivers[3];
	bool packed, event_idx;
	uint32_t rx_bytes; /* of a buffer, header included */
	bool rx_holds;     /* buffers that were used are not given again */
	unsigned rx_slot_of[VIRTQ_SIZE_MAX];
	uint32_t rx_free[VR_RX_MAX];
	unsigned rx_free_count;

	struct vr_packet packets[VR_PACKETS_MAX]; /* that came and were not looked at: a ring */
	unsigned packet_head, packet_count;
};

/* --- around it ------------------------------------------------------------------------------------------------ */

static inline void vr_log(void *ctx, enum log_level level, const char *line)
{
	struct vr *v = ctx;
	(void)level;
	v->log_lines++;
	(void)snprintf(v->log_text, sizeof(v->log_text), "%s", line);
}

static inline void vr_interrupt_queue(void *ctx, unsigned queue)
{
	((struct vr *)ctx)->queue_interrupts[queue]++;
}

static inline void vr_interrupt_config(void *ctx)
{
	((struct vr *)ctx)->config_interrupts++;
}

static inline void vr_set_doorbells(void *ctx, bool on)
{
	(void)ctx, (void)on;
}

static const struct virtio_transport VR_TRANSPORT = {vr_interrupt_queue, vr_interrupt_config, vr_set_doorbells};

static inline uint64_t vr_no_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)dev, (void)offset, (void)size_bytes;
	return 0;
}

static inline void vr_no_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	(void)dev, (void)offset, (void)size_bytes, (void)value;
}

static const struct device_ops VR_DOOR = {.name = "door", .access_sizes = 1, .read = vr_no_read, .write = vr_no_write};

static inline void vr_new_device(struct vr *v)
{
	struct err err = {0};
	v->dev = virtio_vsock_new(v->loop, v->gmem, &v->log, v->host, &v->init, &err);
	if (!v->dev)
		fail_msg("%s", err.text);
	virtio_attach(v->dev, &v->door, &VR_TRANSPORT, v);
}

static inline struct vr *vr_new(void)
{
	struct vr *v = calloc(1, sizeof(*v));
	assert_non_null(v);
	const struct gmem_region region = {0, VR_RAM_BYTES, NULL};
	struct err err = {0};
	alarm(60); /* a test that hangs has failed */
	v->log = (struct log){LOG_LEVEL_DEBUG, vr_log, v};
	v->loop = loop_new(NULL);
	v->gmem = gmem_new(&region, 1, NULL);
	assert_non_null(v->loop);
	assert_non_null(v->gmem);
	v->ram = gmem_view(v->gmem, 0, VR_RAM_BYTES, 1);
	(void)snprintf(v->dir, sizeof(v->dir), "/tmp/vmlet-vsock-XXXXXX");
	assert_non_null(mkdtemp(v->dir));
	(void)snprintf(v->path, sizeof(v->path), "%s/v.sock", v->dir);
	v->host = vsock_host_new(v->loop, &v->log, v->path, &err);
	if (!v->host)
		fail_msg("%s", err.text);
	v->init = (struct virtio_vsock_init){.guest_cid = VR_CID, .packed = true};
	v->rx_bytes = 4096 + VR_HEADER;
	device_init(&v->door, &VR_DOOR);
	vr_new_device(v);
	return v;
}

static inline void vr_forget_packets(struct vr *v)
{
	for (; v->packet_count; v->packet_count--) {
		free(v->packets[v->packet_head].data);
		v->packet_head = (v->packet_head + 1) % VR_PACKETS_MAX;
	}
}

static inline void vr_free(struct vr *v)
{
	virtio_free(v->dev);
	vsock_host_free(v->host);
	assert_int_equal(access(v->path, F_OK), -1);
	device_fini(&v->door);
	loop_free(v->loop);
	gmem_free(v->gmem);
	vr_forget_packets(v);
	assert_int_equal(rmdir(v->dir), 0);
	free(v);
}

static inline int vr_setup(void **state)
{
	*state = vr_new();
	return 0;
}

static inline int vr_teardown(void **state)
{
	vr_free(*state);
	return 0;
}

/* --- the guest's registers -------------------------------------------------------------------------------------- */

static inline uint8_t vr_status(struct vr *v)
{
	virtio_lock(v->dev);
	uint8_t status = virtio_read_status(v->dev);
	virtio_unlock(v->dev);
	return status;
}

static inline void vr_write_status(struct vr *v, uint8_t status)
{
	virtio_lock(v->dev);
	virtio_write_status(v->dev, status);
	virtio_unlock(v->dev);
}

static inline void vr_set_up_queue(struct vr *v, unsigned index)
{
	struct virtq_config config = {
		.packed = v->packed, .event_idx = v->event_idx, .indirect = true, .size = VR_QUEUE_SIZE};
	struct virtq_driver *d = &v->drivers[index];
	virtq_driver_init(d, v->gmem, VR_RINGS + index * VR_RINGS_STEP, &config);
	virtio_lock(v->dev);
	struct virtio_queue *queue = virtio_get_queue(v->dev, index);
	virtio_set_queue_area(queue, &queue->desc, 0, (uint32_t)d->config.desc);
	virtio_set_queue_area(queue, &queue->driver, 0, (uint32_t)d->config.driver);
	virtio_set_queue_area(queue, &queue->device, 0, (uint32_t)d->config.device);
	virtio_enable_queue(v->dev, queue);
	virtio_unlock(v->dev);
}

static inline void vr_ring(struct vr *v, unsigned queue)
{
	if (virtq_driver_rings(&v->drivers[queue]))
		virtio_ring(v->dev, queue);
}

/* Give a buffer, in two parts as Linux 6.1 does. */
static inline void vr_give(struct vr *v, uint32_t slot)
{
	gpa_t at = VR_RX_DATA + (gpa_t)slot * VR_RX_STEP;
	const struct virtq_buffer buffers[] = {{at, VR_HEADER, true}, {at + VR_HEADER, v->rx_bytes - VR_HEADER, true}};
	int id = virtq_driver_add(&v->drivers[0], buffers, v->rx_bytes > VR_HEADER ? 2 : 1);
	assert_true(id >= 0);
	v->rx_slot_of[id] = slot;
}

/* The first `count` buffers that the guest has free. */
static inline void vr_give_some(struct vr *v, unsigned count)
{
	for (; count && v->rx_free_count; count--)
		vr_give(v, v->rx_free[--v->rx_free_count]);
	vr_ring(v, 0);
}

static inline uint64_t vr_features(const struct vr *v)
{
	uint64_t features = v->dev->features;
	features &= v->packed ? UINT64_MAX : ~(1ULL << VIRTIO_F_RING_PACKED);
	return features & (v->event_idx ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_EVENT_IDX));
}

static inline void vr_start_with(struct vr *v, unsigned buffers)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	vr_write_status(v, 0);
	vr_write_status(v, status);
	virtio_lock(v->dev);
	virtio_write_driver_features(v->dev, 0, (uint32_t)vr_features(v));
	virtio_write_driver_features(v->dev, 1, (uint32_t)(vr_features(v) >> 32));
	virtio_unlock(v->dev);
	vr_write_status(v, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < 3; i++)
		vr_set_up_queue(v, i);
	vr_write_status(v, status |= VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(vr_status(v), status);
	for (v->rx_free_count = 0; v->rx_free_count < VR_RX_MAX; v->rx_free_count++)
		v->rx_free[v->rx_free_count] = VR_RX_MAX - 1 - v->rx_free_count;
	vr_give_some(v, buffers);
	assert_int_equal(loop_wait(v->loop, VR_MS), 0);
}

static inline void vr_start(struct vr *v)
{
	vr_start_with(v, VR_RX_MAX);
}

/* --- packets ------------------------------------------------------------------------------------------------------ */

static inline void vr_take_packet(struct vr *v, uint32_t slot, uint32_t written)
{
	const uint8_t *at = v->ram + VR_RX_DATA + (size_t)slot * VR_RX_STEP;
	assert_true(v->packet_count < VR_PACKETS_MAX && written >= VR_HEADER);
	struct vr_packet *packet = &v->packets[(v->packet_head + v->packet_count++) % VR_PACKETS_MAX];
	memcpy(&packet->header, at, VR_HEADER);
	assert_int_equal(written, VR_HEADER + packet->header.len);
	assert_true(written <= v->rx_bytes);
	packet->data = malloc(packet->header.len + 1);
	assert_non_null(packet->data);
	memcpy(packet->data, at + VR_HEADER, packet->header.len);
}

/* What the guest does in an interrupt. */
static inline void vr_take_all(struct vr *v)
{
	uint16_t id;
	uint32_t written;
	if (!v->drivers[0].gmem)
		return; /* there is no driver yet */
	while (virtq_driver_take(&v->drivers[0], &id, &written)) {
		vr_take_packet(v, v->rx_slot_of[id], written);
		v->rx_free[v->rx_free_count++] = v->rx_slot_of[id];
	}
	if (!v->rx_holds)
		vr_give_some(v, VR_RX_MAX);
}

static inline void vr_turn(struct vr *v)
{
	assert_int_equal(loop_wait(v->loop, VR_MS / 2), 0);
	vr_take_all(v);
}

/* Run until nothing comes any more for a while. */
static inline void vr_settle(struct vr *v)
{
	for (int i = 0; i < 10; i++)
		vr_turn(v);
}

/* The next packet; its data is the caller's. */
static inline struct vr_packet vr_next(struct vr *v)
{
	while (v->packet_count == 0)
		vr_turn(v);
	struct vr_packet packet = v->packets[v->packet_head];
	v->packet_head = (v->packet_head + 1) % VR_PACKETS_MAX;
	v->packet_count--;
	return packet;
}

static inline struct virtio_vsock_hdr vr_expect(struct vr *v, uint16_t op, uint32_t host_port, uint32_t guest_port)
{
	struct vr_packet packet = vr_next(v);
	struct virtio_vsock_hdr header = packet.header;
	free(packet.data);
	if (header.op != op)
		fail_msg("operation %u instead of %u", header.op, op);
	assert_int_equal(header.dst_cid, VR_CID);
	assert_int_equal(header.src_port, host_port);
	assert_int_equal(header.dst_port, guest_port);
	if (op != VIRTIO_VSOCK_OP_RW)
		assert_int_equal(header.len, 0);
	return header;
}

static inline void vr_expect_nothing(struct vr *v)
{
	vr_settle(v);
	assert_int_equal(v->packet_count, 0);
}

static inline struct virtio_vsock_hdr vr_header(uint16_t op, uint32_t host_port, uint32_t guest_port)
{
	return (struct virtio_vsock_hdr){.src_cid = VR_CID,
					 .dst_cid = VR_HOST,
					 .src_port = guest_port,
					 .dst_port = host_port,
					 .type = VIRTIO_VSOCK_TYPE_STREAM,
					 .op = op,
					 .buf_alloc = VR_BUF_ALLOC};
}

/* Put a chain on the tx queue: the header, and `size_bytes` of what is at VR_TX_DATA + VR_HEADER. */
static inline void vr_post(struct vr *v, const struct virtio_vsock_hdr *header, uint32_t size_bytes)
{
	memcpy(v->ram + VR_TX_DATA, header, VR_HEADER);
	const struct virtq_buffer buffers[] = {{VR_TX_DATA, VR_HEADER, false},
					       {VR_TX_DATA + VR_HEADER, size_bytes, false}};
	assert_true(virtq_driver_add(&v->drivers[1], buffers, size_bytes ? 2 : 1) >= 0);
	vr_ring(v, 1);
}

static inline bool vr_is_sent(struct vr *v)
{
	uint16_t id;
	uint32_t written;
	if (!virtq_driver_take(&v->drivers[1], &id, &written))
		return false;
	assert_int_equal(written, 0);
	return true;
}

/* The same, and wait until it was taken. */
static inline void vr_send_header(struct vr *v, const struct virtio_vsock_hdr *header, const void *data)
{
	if (data)
		memcpy(v->ram + VR_TX_DATA + VR_HEADER, data, header->len);
	vr_post(v, header, header->len);
	while (!vr_is_sent(v))
		vr_turn(v);
}

static inline void vr_send(struct vr *v, uint16_t op, uint32_t host_port, uint32_t guest_port)
{
	struct virtio_vsock_hdr header = vr_header(op, host_port, guest_port);
	vr_send_header(v, &header, NULL);
}

static inline void vr_send_data(struct vr *v, uint32_t host_port, uint32_t guest_port, const void *data,
				uint32_t size_bytes)
{
	struct virtio_vsock_hdr header = vr_header(VIRTIO_VSOCK_OP_RW, host_port, guest_port);
	header.len = size_bytes;
	vr_send_header(v, &header, data);
}

static inline void vr_send_shutdown(struct vr *v, uint32_t host_port, uint32_t guest_port, uint32_t flags)
{
	struct virtio_vsock_hdr header = vr_header(VIRTIO_VSOCK_OP_SHUTDOWN, host_port, guest_port);
	header.flags = flags;
	vr_send_header(v, &header, NULL);
}

/* --- programs of the host ----------------------------------------------------------------------------------------- */

static inline void vr_port_path(const struct vr *v, uint32_t port, char ret_path[80])
{
	(void)snprintf(ret_path, 80, "%s_%u", v->path, port);
}

static inline int vr_listen(struct vr *v, uint32_t port)
{
	char path[80];
	struct err err = {0};
	vr_port_path(v, port, path);
	int fd = unix_socket_listen(path, 128, &err);
	if (fd < 0)
		fail_msg("%s", err.text);
	return fd;
}

static inline void vr_stop_listening(struct vr *v, uint32_t port, int fd)
{
	char path[80];
	vr_port_path(v, port, path);
	close(fd);
	assert_int_equal(unlink(path), 0);
}

/* The guest connects to a port of the host; returns the program's socket (non-blocking). */
static inline int vr_connect_out(struct vr *v, int listen_fd, uint32_t host_port, uint32_t guest_port)
{
	vr_send(v, VIRTIO_VSOCK_OP_REQUEST, host_port, guest_port);
	struct virtio_vsock_hdr header = vr_expect(v, VIRTIO_VSOCK_OP_RESPONSE, host_port, guest_port);
	assert_int_equal(header.src_cid, VR_HOST);
	assert_int_equal(header.buf_alloc, VIRTIO_VSOCK_BUFFER_BYTES);
	assert_int_equal(header.fwd_cnt, 0);
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* Connect to the socket and say something. */
static inline int vr_call(struct vr *v, const char *line)
{
	int fd = unix_socket_connect(v->path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
	return fd;
}

static inline bool vr_is_readable(int fd)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	return poll(&pollfd, 1, 0) == 1;
}

/* Wait for something to read (or the end) and read at most `size`. */
static inline ssize_t vr_read(struct vr *v, int fd, void *ret_data, size_t size)
{
	while (!vr_is_readable(fd))
		vr_turn(v);
	return read(fd, ret_data, size);
}

static inline void vr_expect_text(struct vr *v, int fd, const char *text)
{
	char got[128];
	size_t size = strlen(text);
	for (size_t have = 0; have < size;) {
		ssize_t n = vr_read(v, fd, got + have, size - have);
		assert_true(n > 0);
		have += (size_t)n;
	}
	assert_memory_equal(got, text, size);
}

/* The program sees the end: of file, or a reset when the guest left something unread. */
static inline void vr_expect_end(struct vr *v, int fd)
{
	char byte;
	ssize_t n = vr_read(v, fd, &byte, 1);
	assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
	close(fd);
}

/* A program of the host connects to a port of the guest, which accepts; returns its socket and the host's port. */
static inline int vr_connect_in(struct vr *v, uint32_t guest_port, uint32_t *ret_host_port)
{
	char line[32];
	(void)snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
	int fd = vr_call(v, line);
	struct vr_packet packet = vr_next(v);
	assert_int_equal(packet.header.op, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(packet.header.dst_port, guest_port);
	free(packet.data);
	*ret_host_port = packet.header.src_port;
	vr_send(v, VIRTIO_VSOCK_OP_RESPONSE, *ret_host_port, guest_port);
	(void)snprintf(line, sizeof(line), "OK %u\n", *ret_host_port);
	vr_expect_text(v, fd, line);
	return fd;
}
