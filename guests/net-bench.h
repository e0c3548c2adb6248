/* The frames of net-bench, behind a virtio-net header: what it sends and what it knows again. */
#ifndef GUEST_NET_BENCH_H
#define GUEST_NET_BENCH_H

#include "net.h"

enum { ECHO_FRAME_MIN = 14 + 20 + 8, TCP_FRAME_MIN = 14 + 20 + 20, TCP_SEGMENT = 1448 };

/* All are `frame_bytes` long; the buffer has NET_HEADER_BYTES more before them. */

/* Ethernet for local experiments (0x88b5), which the host counts and drops. */
void frame_raw(void *buffer, const struct net *n, uint32_t frame_bytes);
/* TCP over IPv4, to be cut into segments by whoever needs that; to an address of nobody's. */
void frame_tcp(void *buffer, const struct net *n, uint32_t frame_bytes);
/* An ICMP echo request from 10.0.2.2 to 10.0.2.1, and whether a packet is its answer. */
void frame_echo(void *buffer, const struct net *n, uint32_t frame_bytes, uint16_t sequence);
bool frame_is_answer(const void *buffer, uint32_t bytes, uint16_t sequence);
/* Whether a packet that came is one of the host's flood: TCP or UDP. */
bool frame_is_flood(const void *buffer, uint32_t bytes);

#endif
