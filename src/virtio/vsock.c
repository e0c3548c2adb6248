/*
 * The device: its three queues, and the packets that are for no connection.
 *
 * Theory of operation. The tx queue is served as it comes: what a packet has to say to a connection is done at once,
 * its data sent or copied, and the chain given back. The rx queue's buffers are taken only when there is something to
 * send: first resets for nobody's packets, then the connections in `ready`, one packet each in turns. A connection that
 * has nothing to say, or no credit, is not in that list; what changes that puts it there (vsock_make_ready).
 *
 * What we owe a connection is state of that connection, so that it waits for buffers of the guest without any memory.
 * Resets for nobody have no such place: VSOCK_RESETS_MAX wait, and then tx is not served until some have gone
 * (5.10.6.1.2 asks for the use of memory of our own before that). So a full tx never waits for rx, but for a guest that
 * provokes resets and does not take them.
 */
#include "virtio/vsock.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "iothread.h"
#include "util.h"
#include "virtio/vsock_impl.h"

enum {
	QUEUE_SIZE = 256,
	PCI_CLASS_COMMUNICATION_OTHER = 0x078000,
	F_STREAM = 0,                /* VIRTIO_VSOCK_F_STREAM (5.10.3), which Debian 12's header lacks */
	FIRST_HOST_PORT = 1 << 30,   /* as Firecracker */
	LAST_HOST_PORT = 0x7fffffff, /* the same */
};

static struct virtio_vsock *to_vsock(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_vsock, dev);
}

/* --- connections -------------------------------------------------------------------------------------------------- */

static struct vsock_conn **bucket_of(struct virtio_vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	uint32_t hash = (host_port * 0x9e3779b1U ^ guest_port) * 0x85ebca6bU;
	return &vsock->buckets[hash >> 24];
}

static struct vsock_conn *find(struct virtio_vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *conn = *bucket_of(vsock, host_port, guest_port);
	while (conn && (conn->host_port != host_port || conn->guest_port != guest_port))
		conn = conn->hash_next;
	return conn;
}

/* NULL: no memory, or as many as there may be. */
static struct vsock_conn *new_conn(struct virtio_vsock *vsock, int fd, uint32_t host_port, uint32_t guest_port)
{
	if (vsock->conn_count >= vsock->conn_max) {
		log_guest(vsock->dev.log, &vsock->log_limit,
			  "virtio-vsock: there are %u connections, and may be no more", vsock->conn_count);
		return NULL;
	}
	struct vsock_conn *conn = calloc(1, sizeof(*conn));
	if (!conn)
		return NULL;
	struct vsock_conn **bucket = bucket_of(vsock, host_port, guest_port);
	conn->vsock = vsock;
	conn->fd = fd;
	conn->host_port = host_port;
	conn->guest_port = guest_port;
	conn->poll_op.done = vsock_conn_polled;
	conn->is_known = true;
	conn->hash_next = *bucket;
	*bucket = conn;
	vsock_link_append(&vsock->conns, &conn->all);
	vsock->conn_count++;
	return conn;
}

void vsock_make_unknown(struct vsock_conn *conn)
{
	struct vsock_conn **at = bucket_of(conn->vsock, conn->host_port, conn->guest_port);
	while (*at != conn)
		at = &(*at)->hash_next;
	*at = conn->hash_next;
	conn->is_known = false;
	if (conn->is_ready)
		vsock_link_remove(&conn->ready);
	conn->is_ready = false;
}

/* A poll's completion may be what frees it, also while the device goes away and waits for that. */
void vsock_free_conn(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;
	if (vsock->is_being_destroyed)
		return;
	vsock_link_remove(&conn->all);
	vsock->conn_count--;
	free(conn);
}

void vsock_make_ready(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;
	if (!conn->is_ready)
		vsock_link_append(&vsock->ready, &conn->ready);
	conn->is_ready = true;
	virtio_kick(&vsock->dev, VSOCK_QUEUE_RX);
}

static void drop_all(struct virtio_vsock *vsock)
{
	struct vsock_link *next;
	for (struct vsock_link *link = vsock->conns.next; link != &vsock->conns; link = next) {
		next = link->next;
		vsock_conn_drop(container_of(link, struct vsock_conn, all));
	}
}

/* --- deadlines ---------------------------------------------------------------------------------------------------- */

static void wake_at(struct virtio_vsock *vsock, uint64_t deadline_ns)
{
	if (vsock->deadline_ns && vsock->deadline_ns <= deadline_ns)
		return;
	vsock->deadline_ns = deadline_ns;
	loop_timer_arm(vsock->dev.loop, &vsock->deadline_timer, deadline_ns);
}

/* One timer for all; it may come for a deadline that has been lifted. */
void vsock_set_deadline(struct vsock_conn *conn, uint64_t deadline_ns)
{
	conn->deadline_ns = deadline_ns;
	if (deadline_ns)
		wake_at(conn->vsock, deadline_ns);
}

static void look_at_deadlines(struct loop_timer *timer)
{
	struct virtio_vsock *vsock = container_of(timer, struct virtio_vsock, deadline_timer);
	struct vsock_link *next;
	virtio_lock(&vsock->dev);
	vsock->deadline_ns = 0;
	uint64_t now_ns = loop_now_ns();
	for (struct vsock_link *link = vsock->conns.next; link != &vsock->conns; link = next) {
		struct vsock_conn *conn = container_of(link, struct vsock_conn, all);
		next = link->next;
		if (conn->deadline_ns > now_ns)
			wake_at(vsock, conn->deadline_ns);
		else if (conn->deadline_ns)
			vsock_conn_end(conn);
	}
	virtio_unlock(&vsock->dev);
}

/* --- packets for nobody ------------------------------------------------------------------------------------------- */

/* The caller has looked whether there is a place. A reset is never answered: that would go on for ever. */
static void refuse(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header)
{
	if (header->op == VIRTIO_VSOCK_OP_RST)
		return;
	unsigned at = (vsock->reset_head + vsock->reset_count++) % VSOCK_RESETS_MAX;
	vsock->resets[at] = (struct vsock_reset){
		.cid = header->dst_cid,
		.host_port = header->dst_port,
		.guest_port = header->src_port,
		.type = header->type,
	};
	virtio_kick(&vsock->dev, VSOCK_QUEUE_RX);
}

uint32_t vsock_write_header(const struct virtq_chain *chain, const struct virtio_vsock_hdr *header)
{
	(void)iov_write(chain->iov + chain->out_count, chain->in_count, 0, header, sizeof(*header));
	return VSOCK_HEADER_BYTES + header->len;
}

static uint32_t send_reset(struct virtio_vsock *vsock, const struct virtq_chain *chain)
{
	const struct vsock_reset *reset = &vsock->resets[vsock->reset_head];
	struct virtio_vsock_hdr header = {
		.src_cid = reset->cid,
		.dst_cid = vsock->guest_cid,
		.src_port = reset->host_port,
		.dst_port = reset->guest_port,
		.type = reset->type,
		.op = VIRTIO_VSOCK_OP_RST,
	};
	if (vsock->reset_count-- == VSOCK_RESETS_MAX)
		virtio_kick(&vsock->dev, VSOCK_QUEUE_TX);
	vsock->reset_head = (vsock->reset_head + 1) % VSOCK_RESETS_MAX;
	return vsock_write_header(chain, &header);
}

/* --- new connections ---------------------------------------------------------------------------------------------- */

static void connect_to_host(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header)
{
	struct vsock_conn *conn = NULL;
	int fd = vsock_host_connect(vsock->host, header->dst_port);
	if (fd >= 0)
		conn = new_conn(vsock, fd, header->dst_port, header->src_port);
	if (conn) {
		vsock_conn_accept(conn, header);
		return;
	}
	if (fd >= 0)
		close(fd);
	refuse(vsock, header);
}

static bool is_in_use(const struct virtio_vsock *vsock, uint32_t host_port)
{
	for (const struct vsock_link *link = vsock->conns.next; link != &vsock->conns; link = link->next) {
		if (container_of(link, struct vsock_conn, all)->host_port == host_port)
			return true;
	}
	return false;
}

static uint32_t next_port(struct virtio_vsock *vsock)
{
	do {
		bool wraps = vsock->last_port == LAST_HOST_PORT;
		vsock->last_port = wraps ? FIRST_HOST_PORT : vsock->last_port + 1;
	} while (is_in_use(vsock, vsock->last_port));
	return vsock->last_port;
}

/* A program of the host wants to speak to a port of the guest. */
static void connect_to_guest(void *ctx, int fd, uint32_t guest_port)
{
	struct virtio_vsock *vsock = ctx;
	struct vsock_conn *conn = NULL;
	virtio_lock(&vsock->dev);
	if (vsock->is_started && !vsock->dev.broken)
		conn = new_conn(vsock, fd, next_port(vsock), guest_port);
	if (conn)
		vsock_conn_request(conn);
	else
		close(fd);
	virtio_unlock(&vsock->dev);
}

/* --- rate limits -------------------------------------------------------------------------------------------------- */

/* May a packet go this way now, with so many bytes? If not, the queue is served again when it may. */
static bool may_pass(struct vsock_way *way, uint64_t bytes)
{
	struct virtio_device *dev = &way->vsock->dev;
	if (!rate_limit_is_set(&way->limit))
		return true;
	uint64_t again_ns = rate_limit_take(&way->limit, 1, bytes, loop_now_ns());
	if (!again_ns)
		return true;
	way->is_throttled = true;
	loop_timer_arm(dev->loop, &way->timer, again_ns);
	return false;
}

static void way_is_free(struct loop_timer *timer)
{
	struct vsock_way *way = container_of(timer, struct vsock_way, timer);
	virtio_lock(&way->vsock->dev);
	way->is_throttled = false;
	virtio_kick(&way->vsock->dev, way->queue);
	virtio_unlock(&way->vsock->dev);
}

/* --- from the guest ----------------------------------------------------------------------------------------------- */

static void dispatch(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header, const struct virtq_chain *chain)
{
	struct vsock_conn *conn;
	if (header->src_cid != vsock->guest_cid)
		return; /* it speaks for another: whom would we answer? */
	if (header->dst_cid != VSOCK_CID_HOST || header->type != VIRTIO_VSOCK_TYPE_STREAM)
		refuse(vsock, header);
	else if ((conn = find(vsock, header->dst_port, header->src_port)) != NULL)
		vsock_conn_receive(conn, header, chain);
	else if (header->op == VIRTIO_VSOCK_OP_REQUEST)
		connect_to_host(vsock, header);
	else
		refuse(vsock, header);
}

static void serve_tx(struct virtio_vsock *vsock)
{
	struct virtio_device *dev = &vsock->dev;
	struct vsock_way *way = &vsock->ways[VSOCK_QUEUE_TX];
	struct virtio_vsock_hdr header;
	struct virtq_chain chain;
	while (vsock->reset_count < VSOCK_RESETS_MAX && !way->is_throttled &&
	       virtio_pop(dev, VSOCK_QUEUE_TX, &chain) == 1) {
		bool has_header = iov_read(chain.iov, chain.out_count, 0, &header, sizeof(header)) == sizeof(header);
		if (!has_header || header.len > chain.out_bytes - VSOCK_HEADER_BYTES) {
			virtio_break(dev, "a packet of %u bytes, which is less than its header says", chain.out_bytes);
		} else if (!may_pass(way, header.len)) {
			virtio_unpop(dev, VSOCK_QUEUE_TX, &chain);
			return;
		} else {
			dispatch(vsock, &header, &chain);
		}
		virtio_push(dev, VSOCK_QUEUE_TX, &chain, 0);
	}
}

/* --- to the guest ------------------------------------------------------------------------------------------------- */

static bool has_packets(const struct virtio_vsock *vsock)
{
	return vsock->reset_count || vsock->ready.next != &vsock->ready;
}

/* The next packet; 0: nobody had one after all. */
static uint32_t send_next(struct virtio_vsock *vsock, const struct virtq_chain *chain)
{
	uint32_t size = 0;
	if (vsock->reset_count)
		return send_reset(vsock, chain);
	while (!size && vsock->ready.next != &vsock->ready) {
		struct vsock_conn *conn = container_of(vsock->ready.next, struct vsock_conn, ready);
		vsock_link_remove(&conn->ready);
		conn->is_ready = false;
		size = vsock_conn_send(conn, chain);
	}
	return size;
}

/*
 * A packet's size is known when it has been read from its socket: its bytes are paid for by the next one. False: this
 * was the last for now.
 */
static bool send_one(struct virtio_vsock *vsock, const struct virtq_chain *chain)
{
	struct vsock_way *way = &vsock->ways[VSOCK_QUEUE_RX];
	uint32_t size = 0;
	if (chain->in_bytes <= VSOCK_HEADER_BYTES) {
		virtio_break(&vsock->dev, "a buffer of %u bytes, too small for a packet with data", chain->in_bytes);
	} else if (may_pass(way, way->unpaid_bytes)) {
		way->unpaid_bytes = 0;
		size = send_next(vsock, chain);
	}
	if (size) {
		way->unpaid_bytes = size - VSOCK_HEADER_BYTES;
		virtio_push(&vsock->dev, VSOCK_QUEUE_RX, chain, size);
	} else {
		virtio_unpop(&vsock->dev, VSOCK_QUEUE_RX, chain);
	}
	return size;
}

static void serve_rx(struct virtio_vsock *vsock)
{
	struct virtq_chain chain;
	while (has_packets(vsock) && !vsock->ways[VSOCK_QUEUE_RX].is_throttled &&
	       virtio_pop(&vsock->dev, VSOCK_QUEUE_RX, &chain) == 1) {
		if (!send_one(vsock, &chain))
			return;
	}
}

/* --- the model ---------------------------------------------------------------------------------------------------- */

static void vsock_start(struct virtio_device *dev)
{
	to_vsock(dev)->is_started = true;
}

/* Nothing is ever put on the event queue: the only event is for a guest that was moved to another host. */
static void vsock_serve(struct virtio_device *dev, unsigned queue)
{
	if (queue == VSOCK_QUEUE_RX)
		serve_rx(to_vsock(dev));
	else if (queue == VSOCK_QUEUE_TX)
		serve_tx(to_vsock(dev));
}

/* Before `start` there are no connections, and no timer. */
static void vsock_reset(struct virtio_device *dev)
{
	struct virtio_vsock *vsock = to_vsock(dev);
	if (!vsock->is_started)
		return;
	vsock->is_started = false;
	drop_all(vsock);
	vsock->reset_count = 0;
	vsock->deadline_ns = 0;
	loop_timer_disarm(dev->loop, &vsock->deadline_timer);
	for (unsigned i = 0; i < ARRAY_SIZE(vsock->ways); i++) {
		vsock->ways[i].is_throttled = false;
		vsock->ways[i].unpaid_bytes = 0;
		loop_timer_disarm(dev->loop, &vsock->ways[i].timer);
	}
	free(vsock->spare_buffer);
	vsock->spare_buffer = NULL;
}

/* All were dropped by the reset; some wait for the end of their polls. */
static void free_conns(void *ctx)
{
	struct virtio_vsock *vsock = ctx;
	vsock_host_set_client(vsock->host, NULL);
	vsock->is_being_destroyed = true;
	struct vsock_link *next;
	for (struct vsock_link *link = vsock->conns.next; link != &vsock->conns; link = next) {
		struct vsock_conn *conn = container_of(link, struct vsock_conn, all);
		loop_drain(vsock->dev.loop, &conn->poll_op);
		next = link->next;
		free(conn);
	}
}

static void vsock_destroy(struct virtio_device *dev)
{
	struct virtio_vsock *vsock = to_vsock(dev);
	loop_call(dev->loop, free_conns, vsock);
	free(vsock);
}

static const struct virtio_model vsock_model = {
	.id = VIRTIO_ID_VSOCK,
	.name = "virtio-vsock",
	.pci_class = PCI_CLASS_COMMUNICATION_OTHER,
	.start = vsock_start,
	.serve = vsock_serve,
	.reset = vsock_reset,
	.destroy = vsock_destroy,
};

/* Each connection has a descriptor, and the guest makes them: half of the process's are for others. */
static unsigned connections_max(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return VIRTIO_VSOCK_CONNECTIONS_MAX;
	return (unsigned)min_u64(limit.rlim_cur / 2, VIRTIO_VSOCK_CONNECTIONS_MAX);
}

static void init_ways(struct virtio_vsock *vsock, const struct rate_limit_config *limit)
{
	for (unsigned i = 0; i < ARRAY_SIZE(vsock->ways); i++) {
		struct vsock_way *way = &vsock->ways[i];
		way->vsock = vsock;
		way->queue = i;
		way->timer.fn = way_is_free;
		rate_limit_init(&way->limit, limit, loop_now_ns());
	}
}

struct virtio_device *virtio_vsock_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				       struct vsock_host *host, const struct virtio_vsock_init *init, struct err *err)
{
	struct virtio_init virtio = {
		.model = &vsock_model,
		.loop = loop,
		.gmem = gmem,
		.log = log,
		.features = 1ULL << F_STREAM,
		.packed = init->packed,
		.queue_count = VSOCK_QUEUES,
		.queue_size_max = QUEUE_SIZE,
		.config_size_bytes = sizeof(struct virtio_vsock_config),
	};
	const struct virtio_vsock_config config = {.guest_cid = init->guest_cid};
	struct virtio_vsock *vsock = calloc(1, sizeof(*vsock));
	if (!vsock) {
		err_set(err, -ENOMEM, "virtio-vsock: %s", err_name(ENOMEM));
		return NULL;
	}
	vsock->host = host;
	vsock->guest_cid = init->guest_cid;
	vsock->conn_max = connections_max();
	vsock->last_port = FIRST_HOST_PORT - 1;
	vsock->deadline_timer.fn = look_at_deadlines;
	vsock_link_init(&vsock->conns);
	vsock_link_init(&vsock->ready);
	init_ways(vsock, &init->limit);
	if (virtio_init(&vsock->dev, &virtio, err) < 0) {
		free(vsock);
		return NULL;
	}
	memcpy(vsock->dev.config, &config, sizeof(config));
	const struct vsock_host_client client = {connect_to_guest, vsock};
	vsock_host_set_client(host, &client);
	return &vsock->dev;
}
