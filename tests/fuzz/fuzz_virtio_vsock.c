/*
 * virtio-vsock under a hostile driver and hostile programs of the host. An input's bytes fill ring memory and packets,
 * give buffers, ring doorbells, and let the programs connect, write, read, and leave; resets of device and queues come
 * in between. The sockets are pairs: vsock_host is played here.
 *
 * Whatever they do: the device keeps no chain; what it holds of a connection is within the credit that it gave; nothing
 * is left of a driver after its reset; and only buffers that were given are written to.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz_virtio_model.h"
#include "gmem.h"
#include "util.h"
#include "virtio/vsock_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	QUEUES = VSOCK_QUEUES,
	QUEUE_SIZE = 8,
	RAM_BYTES = 0x71000,
	RINGS_END = 0x3000,
	PACKETS = 0x4000, /* to the host: a header, and data that nobody looks at */
	PACKET_STEP = 0x200,
	BUFFERS = 0x60000, /* from the host */
	BUFFER_STEP = 0x1000,
	GUARD = 0x70000, /* no well-formed chain names it */
	CID = 3,
	PROGRAMS_MAX = 16,
	STEPS_MAX = 300,
};

struct fz {
	struct loop *loop;
	struct gmem *gmem;
	uint8_t *ram;
	struct device door;
	struct virtio_device *dev;
	struct vsock_host_client client;
	int programs[PROGRAMS_MAX];
	unsigned program_count;
	bool hostile, refuses; /* hostile: bytes went into memory as they are */

	const uint8_t *data;
	size_t left;
};

static struct fz fz;

/* --- input -------------------------------------------------------------------------------------------------------- */

static uint8_t take8(void)
{
	if (fz.left == 0)
		return 0;
	fz.left--;
	return *fz.data++;
}

static uint32_t take32(void)
{
	uint32_t value = 0;
	for (unsigned i = 0; i < 4; i++)
		value = value << 8 | take8();
	return value;
}

/* --- the host: what vsock_host.c would do with paths ----------------------------------------------------------------
 */

static void leave(unsigned index)
{
	close(fz.programs[index]);
	fz.programs[index] = fz.programs[--fz.program_count];
}

/* A program at one end; the other, for the device. */
static int new_program(void)
{
	int pair[2], small = 4096;
	if (fz.program_count == PROGRAMS_MAX)
		leave(0);
	int r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
	assert(r == 0);
	(void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	fz.programs[fz.program_count++] = pair[0];
	return pair[1];
}

void vsock_host_set_client(struct vsock_host *host, const struct vsock_host_client *client)
{
	(void)host;
	fz.client = client ? *client : (struct vsock_host_client){0};
}

int vsock_host_connect(struct vsock_host *host, uint32_t port)
{
	(void)host;
	return fz.refuses || port > 3 ? -ECONNREFUSED : new_program();
}

/* --- the driver's steps
 * ----------------------------------------------------------------------------------------------- */

static struct virtio_vsock *vsock(void)
{
	return container_of(fz.dev, struct virtio_vsock, dev);
}

static void step_reset(void)
{
	write_status(fz.dev, 0);
	for (const struct vsock_link *l = vsock()->conns.next; l != &vsock()->conns; l = l->next) {
		const struct vsock_conn *conn = container_of(l, struct vsock_conn, all);
		assert(!conn->is_known && conn->fd < 0 && !conn->buffer);
	}
	assert(vsock()->reset_count == 0 && vsock()->ready.next == &vsock()->ready);
}

static void step_start(void)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER, what = take8();
	uint64_t features = fz.dev->features;
	step_reset();
	(void)gmem_fill(fz.gmem, 0, 0, RINGS_END);
	features &= what & 1 ? UINT64_MAX : ~(1ULL << VIRTIO_F_RING_PACKED);
	features &= what & 2 ? UINT64_MAX : ~(1ULL << VIRTIO_RING_F_EVENT_IDX);
	write_status(fz.dev, status);
	virtio_lock(fz.dev);
	virtio_write_driver_features(fz.dev, 0, (uint32_t)features);
	virtio_write_driver_features(fz.dev, 1, (uint32_t)(features >> 32));
	virtio_unlock(fz.dev);
	write_status(fz.dev, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned i = 0; i < QUEUES; i++)
		set_up_queue(fz.dev, i, QUEUE_SIZE);
	write_status(fz.dev, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void step_reset_queue(void)
{
	unsigned index = take8() % QUEUES;
	virtio_lock(fz.dev);
	virtio_reset_queue(fz.dev, virtio_get_queue(fz.dev, index));
	virtio_unlock(fz.dev);
	(void)gmem_fill(fz.gmem, index * RINGS_STEP, 0, RINGS_STEP);
	set_up_queue(fz.dev, index, QUEUE_SIZE);
}

static void step_mutate(void)
{
	gpa_t at = take32() % RAM_BYTES;
	for (unsigned count = take8() % 32 + 1; count && at < RAM_BYTES; count--)
		fz.ram[at++] = take8();
	fz.hostile = true;
}

/* Make the descriptor chain that begins at `head` available on a split ring, and ring. */
static void post(unsigned queue, uint16_t head)
{
	gpa_t avail = queue * RINGS_STEP + DRIVER_AREA;
	uint16_t idx;
	(void)gmem_read(fz.gmem, avail + 2, &idx, sizeof(idx));
	(void)gmem_write(fz.gmem, avail + 4 + 2 * (idx % QUEUE_SIZE), &head, sizeof(head));
	idx++;
	(void)gmem_write(fz.gmem, avail + 2, &idx, sizeof(idx));
	virtio_ring(fz.dev, queue);
}

static void step_give(void)
{
	uint8_t what = take8(), slot = what % QUEUE_SIZE;
	gpa_t at = BUFFERS + slot * (gpa_t)BUFFER_STEP;
	struct vring_desc desc = {at, what & 0x80 ? take8() % 128 + 1U : BUFFER_STEP, VRING_DESC_F_WRITE, 0};
	(void)gmem_write(fz.gmem, slot * sizeof(desc), &desc, sizeof(desc));
	post(VSOCK_QUEUE_RX, slot);
}

/* A packet by rules that its bytes may break. Ports are few, so that they meet. */
static void step_packet(void)
{
	static const uint32_t sizes[] = {0, 1, 100, 4096, 65536, 131072, VIRTIO_VSOCK_BUFFER_BYTES, 300000};
	uint8_t what = take8(), ports = take8(), odd = take8(), slot = take8() % QUEUE_SIZE;
	gpa_t at = PACKETS + slot * (gpa_t)PACKET_STEP;
	struct virtio_vsock_hdr header = {
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = ports & 3,
		.dst_port = ports & 4 ? (1U << 30) + (ports >> 4 & 3) : ports >> 4 & 3,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = what & 15,
		.flags = ports >> 6,
		.buf_alloc = odd & 1 ? take32() : 100000,
		.fwd_cnt = odd & 2 ? take32() : 0,
	};
	header.len = header.op == VIRTIO_VSOCK_OP_RW ? sizes[what >> 4 & 7] : 0;
	struct vring_desc desc = {at, VSOCK_HEADER_BYTES + header.len, 0, 0};
	header.type = odd & 4 ? take8() : header.type;
	header.src_cid = odd & 8 ? take8() : header.src_cid;
	header.dst_cid = odd & 16 ? take8() : header.dst_cid;
	header.len = odd & 32 ? take32() : header.len;
	desc.len = odd & 64 ? take8() + 1U : desc.len;
	(void)gmem_write(fz.gmem, at, &header, sizeof(header));
	(void)gmem_write(fz.gmem, RINGS_STEP + slot * sizeof(desc), &desc, sizeof(desc));
	post(VSOCK_QUEUE_TX, slot);
}

static void step_ring(void)
{
	virtio_ring(fz.dev, take8() % (QUEUES + 1));
}

static void step_dispatch(void)
{
	for (unsigned count = take8() % 4 + 1; count; count--) {
		int r = loop_dispatch(fz.loop);
		assert(r == 0);
	}
}

/* --- the programs' steps
 * ----------------------------------------------------------------------------------------------- */

static void step_call(void)
{
	uint8_t port = take8() & 3;
	int fd = new_program();
	if (fz.client.connect)
		fz.client.connect(fz.client.ctx, fd, port);
	else
		close(fd);
}

static void step_program(void)
{
	static char bytes[65536];
	uint8_t which = take8(), what = take8();
	if (fz.program_count == 0)
		return;
	unsigned index = which % fz.program_count;
	int fd = fz.programs[index];
	size_t size = 1U << (what >> 4);
	if ((what & 7) < 3)
		(void)!send(fd, bytes, size, MSG_NOSIGNAL);
	else if ((what & 7) < 5)
		(void)!recv(fd, bytes, size, 0);
	else if ((what & 7) < 7)
		(void)shutdown(fd, what & 8 ? SHUT_WR : SHUT_RD);
	else
		leave(index);
	fz.refuses = what & 8;
}

/* --- what must hold
 * --------------------------------------------------------------------------------------------------- */

static void check_conn(const struct vsock_conn *conn)
{
	uint32_t held = vsock_credit_held(&conn->credit);
	assert(held <= VIRTIO_VSOCK_BUFFER_BYTES);
	assert((held > 0) == (conn->buffer != NULL));
	assert(conn->fd >= 0 || !conn->buffer);
	assert(conn->is_known || !conn->is_ready);
	assert(conn->fd >= 0 || conn->is_over);
}

static void check(void)
{
	unsigned count = 0;
	for (const struct vsock_link *l = vsock()->conns.next; l != &vsock()->conns; l = l->next, count++)
		check_conn(container_of(l, struct vsock_conn, all));
	assert(count == vsock()->conn_count && count <= VIRTIO_VSOCK_CONNECTIONS_MAX);
	assert(vsock()->reset_count <= VSOCK_RESETS_MAX);
	for (unsigned i = 0; i < QUEUES; i++)
		assert(fz.dev->queues[i].in_flight == 0);
	for (unsigned i = GUARD; i < RAM_BYTES && !fz.hostile; i++)
		assert(fz.ram[i] == 0x5a);
}

static void step(void)
{
	static void (*const steps[])(void) = {step_start,  step_mutate,      step_packet,  step_packet,
					      step_ring,   step_dispatch,    step_give,    step_dispatch,
					      step_reset,  step_reset_queue, step_call,    step_program,
					      step_packet, step_give,        step_program, step_dispatch};
	steps[take8() % ARRAY_SIZE(steps)]();
	check();
}

/* --- a life
 * ----------------------------------------------------------------------------------------------------------- */

static void init(void)
{
	const struct gmem_region region = {0, RAM_BYTES, NULL};
	fz.loop = loop_new(NULL);
	fz.gmem = gmem_new(&region, 1, NULL);
	if (!fz.loop || !fz.gmem)
		abort();
	fz.ram = gmem_view(fz.gmem, 0, RAM_BYTES, 1);
	device_init(&fz.door, &DOOR);
}

static void create(void)
{
	struct virtio_vsock_init how = {.guest_cid = CID, .packed = true};
	if (take8() & 1)
		how.limit = (struct rate_limit_config){.ops_per_s = 100000, .ops_burst = 2, .bytes_per_s = 1 << 28};
	(void)gmem_fill(fz.gmem, 0, 0x5a, RAM_BYTES);
	(void)gmem_fill(fz.gmem, 0, 0, RINGS_END);
	fz.hostile = fz.refuses = false;
	fz.dev = virtio_vsock_new(fz.loop, fz.gmem, NULL, NULL, &how, NULL);
	if (!fz.dev)
		abort();
	virtio_attach(fz.dev, &fz.door, &TRANSPORT, fz.dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	if (!fz.loop)
		init();
	fz.data = data;
	fz.left = size_bytes;
	create();
	for (unsigned i = 0; fz.left && i < STEPS_MAX; i++)
		step();
	virtio_free(fz.dev);
	while (fz.program_count)
		leave(0);
	return 0;
}
