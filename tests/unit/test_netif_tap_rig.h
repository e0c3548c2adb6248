/*
 * A network namespace of the test's own, taps in it, and a packet socket as the other side of one. Packets carry a
 * number in an experimental EtherType, so that what the kernel says by itself is not taken for one of ours.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netif.h"
#include "util.h"

enum {
	RIG_TYPE = 0x88b5, /* IEEE 802 local experimental EtherType 1 */
	RIG_SKIPPED = 77,
	RIG_ROUNDS_MAX = 1500,
	RIG_ROUND_NS = 10000000,
};

static struct loop *loop;
static struct netif *tap;
static int peer = -1; /* a packet socket on the tap */
static struct err err;
static char last_line[256];
static unsigned lines;
static unsigned link_changes;

static void note_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx;
	if (level > LOG_LEVEL_WARN)
		return;
	lines++;
	(void)snprintf(last_line, sizeof(last_line), "%s", line);
}

static const struct log rig_log = {.level = LOG_LEVEL_DEBUG, .sink = note_line};

static void note_link(void *ctx, bool up)
{
	(void)ctx;
	assert_int_equal(tap->info.link_up, up);
	link_changes++;
}

/* False: not allowed here. IPv6 would speak on every new interface. */
static inline bool rig_enter_namespace(void)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0 || (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)) {
		(void)fprintf(stderr, "no /dev/net/tun, or no network namespace: %s\n", strerror(errno));
		return false;
	}
	close(fd);
	fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		assert_int_equal(write(fd, "1", 1), 1);
		close(fd);
	}
	return true;
}

/* --- interfaces --------------------------------------------------------------------------------------------------
 */

static inline void rig_control(const char *name, unsigned long request, struct ifreq *ifr)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	(void)snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, request, ifr), 0);
	close(fd);
}

static inline bool rig_is_up(const char *name)
{
	struct ifreq ifr = {0};
	rig_control(name, SIOCGIFFLAGS, &ifr);
	return ifr.ifr_flags & IFF_UP;
}

static inline void rig_set_up(const char *name, bool up)
{
	struct ifreq ifr = {0};
	rig_control(name, SIOCGIFFLAGS, &ifr);
	ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
	rig_control(name, SIOCSIFFLAGS, &ifr);
}

/* A descriptor of an interface that somebody else has made. */
static inline int rig_make(const char *name, int flags, bool persistent)
{
	struct ifreq ifr = {.ifr_flags = (short)flags};
	(void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	if (persistent)
		assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	return fd;
}

static inline void rig_make_persistent(const char *name, int flags)
{
	close(rig_make(name, flags, true));
}

static inline void rig_delete(const char *name)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg info;
	} message = {
		.header = {.nlmsg_len = sizeof(message),
			   .nlmsg_type = RTM_DELLINK,
			   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.info = {.ifi_index = (int)if_nametoindex(name)},
	};
	char answer[512];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	assert_int_equal(send(fd, &message, sizeof(message), 0), sizeof(message));
	assert_true(recv(fd, answer, sizeof(answer), 0) > 0);
	close(fd);
	assert_int_equal(if_nametoindex(name), 0);
}

/* --- the tap ------------------------------------------------------------------------------------------------------ */

static inline struct netif *rig_try_open(const char *name, unsigned queues)
{
	const struct netif_tap_config config = {.interface = name, .queues = queues, .fd = -1};
	err = (struct err){0};
	return netif_tap_open(loop, &rig_log, &config, &err);
}

static inline void rig_open_peer(void)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET,
				      .sll_protocol = htons(ETH_P_ALL),
				      .sll_ifindex = (int)if_nametoindex(netif_tap_interface(tap))};
	int on = 1;
	peer = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(peer >= 0);
	assert_int_equal(setsockopt(peer, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
	assert_int_equal(setsockopt(peer, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)), 0);
	assert_int_equal(bind(peer, (struct sockaddr *)&address, sizeof(address)), 0);
}

static inline void rig_open(const char *name, unsigned queues)
{
	static const struct netif_client client = {.link = note_link};
	tap = rig_try_open(name, queues);
	if (!tap)
		fail_msg("%s", err.text);
	netif_set_client(tap, &client);
	if (tap->info.link_up)
		rig_open_peer();
}

static inline int rig_setup(void **state)
{
	(void)state;
	alarm(25); /* a test that hangs has failed */
	loop = loop_new(&err);
	lines = link_changes = 0;
	last_line[0] = '\0';
	return loop ? 0 : -1;
}

static inline void rig_close(void)
{
	if (tap)
		netif_set_client(tap, NULL);
	netif_free(tap);
	tap = NULL;
	if (peer >= 0)
		close(peer);
	peer = -1;
}

static inline int rig_teardown(void **state)
{
	(void)state;
	rig_close();
	loop_free(loop);
	return 0;
}

static inline void rig_round(void)
{
	assert_int_equal(loop_wait(loop, RIG_ROUND_NS), 0);
}

/* What is going to happen happens; how long that takes is the machine's business. */
#define rig_wait_until(condition)                                                                                      \
	do {                                                                                                           \
		bool met_ = (condition);                                                                               \
		for (unsigned i_ = 0; i_ < RIG_ROUNDS_MAX && !met_; i_++) {                                            \
			rig_round();                                                                                   \
			met_ = (condition);                                                                            \
		}                                                                                                      \
		if (!met_)                                                                                             \
			fail_msg("never: %s", #condition);                                                             \
	} while (0)

/* --- packets ------------------------------------------------------------------------------------------------------ */

struct rig_packet {
	struct netif_packet packet;
	struct iovec iov[3];
	uint8_t data[2048];
	unsigned done;
	int res;
	unsigned order; /* which of all `done` this was */
};

static unsigned rig_done_count;

static void rig_done(struct netif_packet *packet, int res)
{
	struct rig_packet *p = container_of(packet, struct rig_packet, packet);
	p->done++;
	p->res = res;
	p->order = rig_done_count++;
}

static inline void rig_fill(uint8_t *frame, uint32_t number)
{
	memset(frame, 0x02, 12); /* locally administered, both of them */
	frame[12] = RIG_TYPE >> 8;
	frame[13] = RIG_TYPE & 0xff;
	le32_store(frame + 14, number);
}

/* Its number, or -1 when it is somebody else's. `frame` is after the header. */
static inline int64_t rig_number(const uint8_t *frame)
{
	return frame[12] == RIG_TYPE >> 8 && frame[13] == (RIG_TYPE & 0xff) ? (int64_t)le32_load(frame + 14) : -1;
}

/* `size_bytes` with the header, in three spans. */
static inline void rig_span(struct rig_packet *p, uint32_t size_bytes)
{
	p->iov[0] = (struct iovec){p->data, 5};
	p->iov[1] = (struct iovec){p->data + 5, 20};
	p->iov[2] = (struct iovec){p->data + 25, size_bytes - 25};
	p->packet.iov = p->iov;
	p->packet.iov_count = 3;
	p->packet.size_bytes = size_bytes;
	p->packet.done = rig_done;
	p->done = 0;
}

static inline void rig_send(struct rig_packet *p, unsigned queue, uint32_t number)
{
	memset(p->data, 0, NETIF_HEADER_BYTES);
	rig_fill(p->data + NETIF_HEADER_BYTES, number);
	rig_span(p, NETIF_HEADER_BYTES + 60);
	p->packet.queue = queue;
	netif_send(tap, &p->packet);
}

static inline void rig_receive(struct rig_packet *p, unsigned queue, uint32_t size_bytes)
{
	rig_span(p, size_bytes);
	p->packet.queue = queue;
	netif_receive(tap, &p->packet);
}

/* The other side: a frame of `frame_bytes` with this number; and the next number that has come, -1: none. */
static inline bool rig_peer_send(uint32_t number, size_t frame_bytes)
{
	uint8_t data[sizeof(struct virtio_net_hdr) + 2048] = {0};
	rig_fill(data + sizeof(struct virtio_net_hdr), number);
	return send(peer, data, sizeof(struct virtio_net_hdr) + frame_bytes, 0) > 0;
}

static inline int64_t rig_peer_next(void)
{
	uint8_t data[65536 + 64];
	while (recv(peer, data, sizeof(data), 0) > 0) {
		int64_t number = rig_number(data + sizeof(struct virtio_net_hdr));
		if (number >= 0)
			return number;
	}
	return -1;
}

/* --- checksums ---------------------------------------------------------------------------------------------------- */

static inline uint32_t sum_words(const uint8_t *data, size_t size_bytes, uint32_t sum)
{
	for (size_t i = 0; i + 1 < size_bytes; i += 2)
		sum += (uint32_t)(data[i] << 8 | data[i + 1]);
	return sum;
}

static inline uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static inline void put_be16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}
