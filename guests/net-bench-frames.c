#include "net-bench.h"

/* RFC 894, 791, 792, 9293: offsets in a frame without VLAN tag and IP options. */
enum { ETH_TYPE = 12, IP = 14, L4 = IP + 20, ETH_IPV4 = 0x0800, ETH_LOCAL_EXPERIMENTAL = 0x88b5 };
enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17, ICMP_ECHO = 8, ICMP_ECHO_REPLY = 0, TCP_CHECKSUM = 16, TCP_ACK = 0x10 };

static const uint8_t ADDRESS_HOST[4] = {10, 0, 2, 1}, ADDRESS_GUEST[4] = {10, 0, 2, 2};
static const uint8_t MAC_HOST[NET_MAC_BYTES] = {2, 0, 0, 0, 0, 1}, MAC_NOBODY[NET_MAC_BYTES] = {2, 0, 0, 0, 0, 9};

static void put16(uint8_t *at, unsigned v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static unsigned sum16(const uint8_t *at, uint32_t bytes, unsigned sum)
{
	for (uint32_t i = 0; i + 1 < bytes; i += 2)
		sum += get16(at + i);
	if (bytes % 2)
		sum += (unsigned)at[bytes - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint8_t *ethernet(void *buffer, const struct net *n, uint32_t frame_bytes, const uint8_t *to, unsigned type)
{
	uint8_t *frame = (uint8_t *)buffer + NET_HEADER_BYTES;

	memset(buffer, 0, NET_HEADER_BYTES);
	memset(frame, 0x5a, frame_bytes);
	memcpy(frame, to, NET_MAC_BYTES);
	memcpy(frame + NET_MAC_BYTES, n->mac, NET_MAC_BYTES);
	put16(frame + ETH_TYPE, type);
	return frame;
}

static void ipv4(uint8_t *frame, uint32_t frame_bytes, uint8_t protocol)
{
	uint8_t *ip = frame + IP;

	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, frame_bytes - IP);
	ip[8] = 64;
	ip[9] = protocol;
	memcpy(ip + 12, ADDRESS_GUEST, 4);
	memcpy(ip + 16, ADDRESS_HOST, 4);
	put16(ip + 10, ~sum16(ip, 20, 0));
}

void frame_raw(void *buffer, const struct net *n, uint32_t frame_bytes)
{
	ethernet(buffer, n, frame_bytes, MAC_NOBODY, ETH_LOCAL_EXPERIMENTAL);
}

void frame_tcp(void *buffer, const struct net *n, uint32_t frame_bytes)
{
	uint8_t *frame = ethernet(buffer, n, frame_bytes, MAC_NOBODY, ETH_IPV4), *tcp = frame + L4;
	struct virtio_net_hdr_v1 *header = buffer;

	ipv4(frame, frame_bytes, IP_TCP);
	memset(tcp, 0, 20);
	put16(tcp, 5001);
	put16(tcp + 2, 5001);
	tcp[12] = 5 << 4;
	tcp[13] = TCP_ACK;
	put16(tcp + TCP_CHECKSUM, sum16(frame + IP + 12, 8, IP_TCP + (frame_bytes - L4))); /* of the pseudo header */
	header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	header->hdr_len = TCP_FRAME_MIN;
	header->gso_size = TCP_SEGMENT;
	header->csum_start = L4;
	header->csum_offset = TCP_CHECKSUM;
}

void frame_echo(void *buffer, const struct net *n, uint32_t frame_bytes, uint16_t sequence)
{
	uint8_t *frame = ethernet(buffer, n, frame_bytes, MAC_HOST, ETH_IPV4), *icmp = frame + L4;

	ipv4(frame, frame_bytes, IP_ICMP);
	memset(icmp, 0, 8);
	icmp[0] = ICMP_ECHO;
	put16(icmp + 6, sequence);
	put16(icmp + 2, ~sum16(icmp, frame_bytes - L4, 0));
}

bool frame_is_answer(const void *buffer, uint32_t bytes, uint16_t sequence)
{
	const uint8_t *frame = (const uint8_t *)buffer + NET_HEADER_BYTES;

	return bytes >= NET_HEADER_BYTES + ECHO_FRAME_MIN && get16(frame + ETH_TYPE) == ETH_IPV4 &&
	       frame[IP + 9] == IP_ICMP && frame[L4] == ICMP_ECHO_REPLY && get16(frame + L4 + 6) == sequence;
}

bool frame_is_flood(const void *buffer, uint32_t bytes)
{
	const uint8_t *frame = (const uint8_t *)buffer + NET_HEADER_BYTES;

	return bytes >= NET_HEADER_BYTES + TCP_FRAME_MIN && get16(frame + ETH_TYPE) == ETH_IPV4 &&
	       (frame[IP + 9] == IP_TCP || frame[IP + 9] == IP_UDP);
}
