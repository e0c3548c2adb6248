#include "net-frames.h"

#include <net/ethernet.h>
#include <string.h>

enum { IP = 14, L4 = IP + 20, SEGMENT = 1448, ETH_LOCAL_EXPERIMENTAL = 0x88b5 };
enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17, ICMP_ECHO = 8, TCP_CHECKSUM = 16, TCP_ACK = 0x10, UDP_CHECKSUM = 6 };
enum { GSO_UDP_L4 = 5 }; /* VIRTIO_NET_HDR_GSO_UDP_L4, virtio 1.3, 5.1.6 */

static void put16(unsigned char *at, size_t v)
{
	at[0] = (unsigned char)(v >> 8);
	at[1] = (unsigned char)v;
}

/* Of an even number of bytes. */
static unsigned sum16(const unsigned char *at, size_t bytes, unsigned sum)
{
	for (size_t i = 0; i + 1 < bytes; i += 2)
		sum += (unsigned)at[i] << 8 | at[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void ethernet(unsigned char *frame, size_t bytes, const unsigned char to[6], unsigned type)
{
	memset(frame, 0x5a, bytes);
	memcpy(frame, to, 6);
	memcpy(frame + 6, "\2\0\0\0\0\2", 6);
	put16(frame + 12, type);
}

/* From 10.0.2.2 to 10.0.2.1. */
static void ipv4(unsigned char *frame, size_t bytes, unsigned char protocol)
{
	static const unsigned char ip[20] = {0x45, [8] = 64, [12] = 10, 0, 2, 2, 10, 0, 2, 1};

	memcpy(frame + IP, ip, sizeof(ip));
	put16(frame + IP + 2, bytes - IP);
	frame[IP + 9] = protocol;
	put16(frame + IP + 10, ~sum16(frame + IP, 20, 0));
}

void frame_raw(unsigned char *frame, size_t bytes, const unsigned char to[6])
{
	ethernet(frame, bytes, to, ETH_LOCAL_EXPERIMENTAL);
}

void frame_tcp(unsigned char *frame, size_t bytes, const unsigned char to[6], struct virtio_net_hdr *ret_header)
{
	unsigned char *tcp = frame + L4;

	ethernet(frame, bytes, to, ETHERTYPE_IP);
	ipv4(frame, bytes, IP_TCP);
	memset(tcp, 0, 20);
	put16(tcp, 5001);
	put16(tcp + 2, 5001);
	tcp[12] = 5 << 4;
	tcp[13] = TCP_ACK;
	put16(tcp + TCP_CHECKSUM,
	      sum16(frame + IP + 12, 8, (unsigned)(IP_TCP + bytes - L4))); /* of the pseudo header */
	*ret_header = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					      .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					      .hdr_len = FRAME_TCP_MIN,
					      .gso_size = SEGMENT,
					      .csum_start = L4,
					      .csum_offset = TCP_CHECKSUM};
}

void frame_udp(unsigned char *frame, size_t bytes, const unsigned char to[6], size_t cut_bytes,
	       struct virtio_net_hdr *ret_header)
{
	unsigned char *udp = frame + L4;

	ethernet(frame, bytes, to, ETHERTYPE_IP);
	ipv4(frame, bytes, IP_UDP);
	put16(udp, 5001);
	put16(udp + 2, 5001);
	put16(udp + 4, bytes - L4);
	put16(udp + UDP_CHECKSUM, sum16(frame + IP + 12, 8, (unsigned)(IP_UDP + bytes - L4)));
	*ret_header = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					      .gso_type = GSO_UDP_L4,
					      .hdr_len = FRAME_UDP_MIN,
					      .gso_size = (__virtio16)(cut_bytes - FRAME_UDP_MIN),
					      .csum_start = L4,
					      .csum_offset = UDP_CHECKSUM};
}

void frame_echo(unsigned char *frame, size_t bytes, const unsigned char to[6])
{
	unsigned char *icmp = frame + L4;

	ethernet(frame, bytes, to, ETHERTYPE_IP);
	ipv4(frame, bytes, IP_ICMP);
	memset(icmp, 0, 8);
	icmp[0] = ICMP_ECHO;
	put16(icmp + 2, ~sum16(icmp, bytes - L4, 0));
}
