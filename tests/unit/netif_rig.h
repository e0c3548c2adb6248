/* What tests of network back ends stand on: a loop, packets that count their ends, and a log that counts its lines. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "netif.h"
#include "util.h"

enum { RIG_PACKETS = 512, RIG_WAIT_NS = 20 * 1000000 };
static const uint64_t RIG_PATIENCE_NS = 30 * 1000000000ULL; /* only a test that fails waits so long */

struct rig_packet {
	struct netif_packet packet;
	struct iovec iov[3];
	uint8_t *data;
	unsigned ends, turn; /* which of all ends its last one was */
	int res;
};

static struct rig {
	struct loop *loop;
	struct netif *netif;
	struct rig_packet packets[RIG_PACKETS];
	unsigned ends;
	bool link_up;
	unsigned link_changes;
	unsigned warnings;
	char last_warning[512], all_lines[8192];
} rig;

static inline void rig_sink(void *ctx, enum log_level level, const char *line)
{
	(void)ctx;
	if (level <= LOG_LEVEL_WARN) {
		rig.warnings++;
		(void)snprintf(rig.last_warning, sizeof(rig.last_warning), "%s", line);
	}
	size_t used = strlen(rig.all_lines);
	(void)snprintf(rig.all_lines + used, sizeof(rig.all_lines) - used, "%s\n", line);
}

static const struct log rig_log = {LOG_LEVEL_DEBUG, rig_sink, NULL};

static inline void rig_link(void *ctx, bool up)
{
	(void)ctx;
	rig.link_up = up;
	rig.link_changes++;
}

static inline void rig_connect_client(void)
{
	rig.link_up = rig.netif->info.link_up;
	netif_set_client(rig.netif, &(struct netif_client){rig_link, NULL});
}

static inline void rig_pump(void)
{
	assert_int_equal(loop_wait(rig.loop, RIG_WAIT_NS), 0);
}

#define rig_wait_until(condition)                                                                                      \
	do {                                                                                                           \
		uint64_t until_ns = loop_now_ns() + RIG_PATIENCE_NS;                                                   \
		while (!(condition)) {                                                                                 \
			assert_true(loop_now_ns() < until_ns);                                                         \
			rig_pump();                                                                                    \
		}                                                                                                      \
	} while (0)

/* So many rounds in which nothing came: for what must not happen. */
static inline void rig_settle(void)
{
	for (unsigned i = 0; i < 3; i++)
		rig_pump();
}

static inline void rig_done(struct netif_packet *packet, int res)
{
	struct rig_packet *p = container_of(packet, struct rig_packet, packet);
	p->ends++;
	p->turn = rig.ends++;
	p->res = res;
}

/* A fresh packet of so many bytes, header included, in three spans. */
static inline struct rig_packet *rig_packet(unsigned i, uint32_t size_bytes)
{
	struct rig_packet *p = &rig.packets[i];
	free(p->data);
	*p = (struct rig_packet){.data = malloc(size_bytes)};
	assert_non_null(p->data);
	memset(p->data, 0xa5, size_bytes);
	uint32_t first = 5, second = (size_bytes - first) / 3;
	p->iov[0] = (struct iovec){p->data, first};
	p->iov[1] = (struct iovec){p->data + first, second};
	p->iov[2] = (struct iovec){p->data + first + second, size_bytes - first - second};
	p->packet = (struct netif_packet){.iov = p->iov, .iov_count = 3, .size_bytes = size_bytes, .done = rig_done};
	return p;
}

/* Bytes that belong to frame i and to no other. */
static inline uint8_t rig_byte(unsigned i, size_t at)
{
	return (uint8_t)(i * 37 + at + (at >> 8) * 11);
}

static inline void rig_fill(unsigned i, uint8_t *frame, size_t size_bytes)
{
	for (size_t at = 0; at < size_bytes; at++)
		frame[at] = rig_byte(i, at);
}

static inline struct rig_packet *rig_send(unsigned i, uint32_t frame_bytes)
{
	struct rig_packet *p = rig_packet(i, NETIF_HEADER_BYTES + frame_bytes);
	rig_fill(i, p->data + NETIF_HEADER_BYTES, frame_bytes);
	netif_send(rig.netif, &p->packet);
	return p;
}

static inline struct rig_packet *rig_receive(unsigned i, uint32_t frame_bytes)
{
	struct rig_packet *p = rig_packet(i, NETIF_HEADER_BYTES + frame_bytes);
	netif_receive(rig.netif, &p->packet);
	return p;
}

static inline void rig_assert_frame(const struct rig_packet *p, unsigned i, uint32_t frame_bytes)
{
	static const uint8_t header[NETIF_HEADER_BYTES];
	assert_int_equal(p->ends, 1);
	assert_int_equal(p->res, NETIF_HEADER_BYTES + frame_bytes);
	assert_memory_equal(p->data, header, sizeof(header));
	for (uint32_t at = 0; at < frame_bytes; at++)
		assert_int_equal(p->data[NETIF_HEADER_BYTES + at], rig_byte(i, at));
}

static inline int rig_setup(void **state)
{
	(void)state;
	memset(&rig, 0, sizeof(rig));
	rig.loop = loop_new(NULL);
	return rig.loop ? 0 : -1;
}

/* Whatever is still under way is taken back, as a device's reset does. */
static inline void rig_close(void)
{
	for (unsigned i = 0; rig.netif && i < RIG_PACKETS; i++) {
		if (rig.packets[i].packet.netif)
			netif_cancel(rig.netif, &rig.packets[i].packet);
	}
	rig_wait_until(!rig.netif || rig.netif->in_flight == 0);
	netif_free(rig.netif);
	rig.netif = NULL;
	for (unsigned i = 0; i < RIG_PACKETS; i++) {
		free(rig.packets[i].data);
		rig.packets[i].data = NULL;
	}
}

static inline int rig_teardown(void **state)
{
	(void)state;
	rig_close();
	loop_free(rig.loop);
	return 0;
}
