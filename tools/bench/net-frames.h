/* The frames that `bench net` sends from the host's side: the same as guests/net-bench-frames.c makes in the guest. */
#pragma once

#include <linux/virtio_net.h>
#include <stddef.h>

enum { FRAME_MIN = 14, FRAME_TCP_MIN = 14 + 20 + 20, FRAME_UDP_MIN = 14 + 20 + 8, FRAME_MAX = 65535 + 14 };

/* Each fills `bytes` of the frame, less than FRAME_MAX: Ethernet for local experiments (0x88b5) ... */
void frame_raw(unsigned char *frame, size_t bytes, const unsigned char to[6]);
/* ... TCP to be cut into segments of 1448 bytes, with the header that says so ... */
void frame_tcp(unsigned char *frame, size_t bytes, const unsigned char to[6], struct virtio_net_hdr *ret_header);
/* ... UDP, likewise to be cut into datagrams that give frames of `cut_bytes` ... */
void frame_udp(unsigned char *frame, size_t bytes, const unsigned char to[6], size_t cut_bytes,
	       struct virtio_net_hdr *ret_header);
/* ... and an ICMP echo request from 10.0.2.2 to 10.0.2.1. */
void frame_echo(unsigned char *frame, size_t bytes, const unsigned char to[6]);
