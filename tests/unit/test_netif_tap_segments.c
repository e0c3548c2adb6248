/*
 * Segmentation through a real tap, of every kind and both ways: what one side sends as one packet comes as one to who
 * can take it, and as segments with whole checksums to who cannot.
 */
#include "test_netif_tap_rig.h"

enum {
	ETHERNET = 14,
	SEGMENT = 1000,
	SEGMENTS = 5,
	PAYLOAD = SEGMENT * SEGMENTS,
	HEADERS_MAX = ETHERNET + 40 + 20,
	GSO_UDP_L4 = 5, /* VIRTIO_NET_HDR_GSO_UDP_L4, which Debian 12's header lacks */
	TCP_CWR = 0x80,
};

static const struct kind {
	unsigned offloads; /* that a driver asks for to get it as one */
	uint8_t gso_type;
	bool v6, udp, ecn;
} kinds[] = {
	{NETIF_OFFLOAD_TSO4, VIRTIO_NET_HDR_GSO_TCPV4, false, false, false},
	{NETIF_OFFLOAD_TSO6, VIRTIO_NET_HDR_GSO_TCPV6, true, false, false},
	{NETIF_OFFLOAD_TSO4 | NETIF_OFFLOAD_TSO_ECN, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, false, false,
	 true},
	{NETIF_OFFLOAD_TSO6 | NETIF_OFFLOAD_TSO_ECN, VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN, true, false,
	 true},
	{NETIF_OFFLOAD_USO, GSO_UDP_L4, false, true, false},
	{NETIF_OFFLOAD_USO, GSO_UDP_L4, true, true, false},
};

static struct rig_packet packets[SEGMENTS];

/* --- frames ------------------------------------------------------------------------------------------------------- */

static size_t transport_at(const struct kind *kind)
{
	return ETHERNET + (kind->v6 ? 40 : 20);
}

static size_t headers_of(const struct kind *kind)
{
	return transport_at(kind) + (kind->udp ? 8 : 20);
}

static size_t checksum_at(const struct kind *kind)
{
	return transport_at(kind) + (kind->udp ? 6 : 16);
}

/* The sum of the pseudo-header of a frame with so many bytes after its network header. */
static uint32_t pseudo_sum(const struct kind *kind, const uint8_t *frame, size_t size_bytes)
{
	unsigned protocol = kind->udp ? IPPROTO_UDP : IPPROTO_TCP;
	return kind->v6 ? sum_words(frame + ETHERNET + 8, 32, protocol + (uint32_t)size_bytes)
			: sum_words(frame + ETHERNET + 12, 8, protocol + (uint32_t)size_bytes);
}

static void fill_network(const struct kind *kind, uint8_t *ip, size_t transport_bytes)
{
	uint8_t protocol = kind->udp ? IPPROTO_UDP : IPPROTO_TCP;
	if (kind->v6) {
		ip[0] = 0x60;
		put_be16(ip + 4, (unsigned)transport_bytes);
		ip[6] = protocol;
		ip[7] = 64;
		ip[8] = ip[24] = 0xfd;
		ip[23] = 1;
		ip[39] = 2;
		return;
	}
	ip[0] = 0x45;
	put_be16(ip + 2, (unsigned)transport_bytes + 20);
	ip[8] = 64;
	ip[9] = protocol;
	ip[12] = ip[16] = 10;
	ip[15] = 1;
	ip[19] = 2;
	put_be16(ip + 10, (uint16_t)~fold(sum_words(ip, 20, 0)));
}

/* One packet that is to be segmented, with its checksum begun. Returns its bytes. */
static size_t fill(const struct kind *kind, uint8_t *frame)
{
	size_t transport_bytes = headers_of(kind) - transport_at(kind) + PAYLOAD;
	uint8_t *transport = frame + transport_at(kind);
	memset(frame, 0, headers_of(kind));
	memset(frame, 0x02, 12);
	put_be16(frame + 12, kind->v6 ? ETH_P_IPV6 : ETH_P_IP);
	fill_network(kind, frame + ETHERNET, transport_bytes);
	put_be16(transport, 1000);
	put_be16(transport + 2, 2000);
	if (kind->udp) {
		put_be16(transport + 4, (unsigned)transport_bytes);
	} else {
		transport[12] = 0x50;
		transport[13] = (uint8_t)(0x10 | (kind->ecn ? TCP_CWR : 0)); /* ACK */
	}
	put_be16(frame + checksum_at(kind), fold(pseudo_sum(kind, frame, transport_bytes)));
	for (size_t i = 0; i < PAYLOAD; i++)
		frame[headers_of(kind) + i] = (uint8_t)(i / SEGMENT + i % 7);
	return headers_of(kind) + PAYLOAD;
}

static struct virtio_net_hdr header_of(const struct kind *kind)
{
	return (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = kind->gso_type,
		.hdr_len = (uint16_t)headers_of(kind),
		.gso_size = SEGMENT,
		.csum_start = (uint16_t)transport_at(kind),
		.csum_offset = (uint16_t)(checksum_at(kind) - transport_at(kind)),
	};
}

/* Is this the segment of that number, with its checksum? */
static void check_segment(const struct kind *kind, const uint8_t *frame, unsigned number)
{
	size_t transport_bytes = headers_of(kind) - transport_at(kind) + SEGMENT;
	const uint8_t *payload = frame + headers_of(kind);
	assert_int_equal(
		fold(sum_words(frame + transport_at(kind), transport_bytes, pseudo_sum(kind, frame, transport_bytes))),
		0xffff);
	for (size_t i = 0; i < SEGMENT; i++)
		assert_int_equal(payload[i], (uint8_t)(number + (number * SEGMENT + i) % 7));
}

/* --- both ways ---------------------------------------------------------------------------------------------------- */

/* USO needs Linux 6.2; everything else has been there for long. */
static bool is_known(const struct kind *kind)
{
	assert_true(kind->udp || (tap->info.offloads & kind->offloads) == kind->offloads);
	return (tap->info.offloads & kind->offloads) == kind->offloads;
}

static void peer_send(const struct kind *kind)
{
	uint8_t data[sizeof(struct virtio_net_hdr) + HEADERS_MAX + PAYLOAD];
	struct virtio_net_hdr header = header_of(kind);
	memcpy(data, &header, sizeof(header));
	size_t size = sizeof(header) + fill(kind, data + sizeof(header));
	assert_int_equal(send(peer, data, size, 0), size);
}

static void come_as_segments(const struct kind *kind)
{
	size_t expected = NETIF_HEADER_BYTES + headers_of(kind) + SEGMENT;
	netif_set_offloads(tap, 0);
	for (unsigned i = 0; i < SEGMENTS; i++)
		rig_receive(&packets[i], 0, sizeof(packets[i].data));
	peer_send(kind);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		rig_wait_until(packets[i].done);
		assert_int_equal(packets[i].res, expected);
		check_segment(kind, packets[i].data + NETIF_HEADER_BYTES, i);
	}
}

static void come_as_one(const struct kind *kind)
{
	static uint8_t large[NETIF_PACKET_MAX_BYTES];
	uint8_t sent[HEADERS_MAX + PAYLOAD];
	struct iovec iov = {large, sizeof(large)};
	struct virtio_net_hdr_v1 header;
	netif_set_offloads(tap, NETIF_OFFLOAD_CSUM | kind->offloads);
	packets[0].packet =
		(struct netif_packet){.iov = &iov, .iov_count = 1, .size_bytes = sizeof(large), .done = rig_done};
	packets[0].done = 0;
	netif_receive(tap, &packets[0].packet);
	peer_send(kind);
	rig_wait_until(packets[0].done);
	size_t size = fill(kind, sent);
	assert_int_equal(packets[0].res, NETIF_HEADER_BYTES + size);
	assert_memory_equal(large + NETIF_HEADER_BYTES, sent, size);
	memcpy(&header, large, sizeof(header));
	assert_int_equal(header.gso_type, kind->gso_type);
	assert_int_equal(header.gso_size, SEGMENT);
	assert_int_equal(header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	packets[0].packet = (struct netif_packet){0};
}

static void what_comes(void **state)
{
	(void)state;
	rig_open(NULL, 1);
	for (const struct kind *kind = kinds; kind < kinds + ARRAY_SIZE(kinds); kind++) {
		if (!is_known(kind))
			continue;
		come_as_segments(kind);
		come_as_one(kind);
		come_as_segments(kind); /* what was switched on can be switched off */
	}
}

/* The next packet that the other side sees, but the neighbour discovery of its kernel's. Its bytes. */
static size_t peer_take(const struct kind *kind, uint8_t *data, size_t room)
{
	ssize_t got;
	do {
		got = recv(peer, data, room, 0);
		assert_true(got > 0);
	} while ((size_t)got < sizeof(struct virtio_net_hdr) + headers_of(kind) + SEGMENT);
	return (size_t)got;
}

static void what_goes(void **state)
{
	(void)state;
	static uint8_t data[NETIF_HEADER_BYTES + HEADERS_MAX + PAYLOAD], got[65536 + 64];
	rig_open(NULL, 1);
	for (const struct kind *kind = kinds; kind < kinds + ARRAY_SIZE(kinds); kind++) {
		struct virtio_net_hdr header = header_of(kind);
		if (!is_known(kind))
			continue;
		memset(data, 0, NETIF_HEADER_BYTES);
		memcpy(data, &header, sizeof(header));
		size_t size = fill(kind, data + NETIF_HEADER_BYTES);
		struct iovec iov = {data, NETIF_HEADER_BYTES + size};
		packets[0].packet = (struct netif_packet){
			.iov = &iov, .iov_count = 1, .size_bytes = (uint32_t)iov.iov_len, .done = rig_done};
		packets[0].done = 0;
		netif_send(tap, &packets[0].packet);
		rig_wait_until(packets[0].done);
		assert_int_equal(packets[0].res, 0);
		assert_int_equal(peer_take(kind, got, sizeof(got)), sizeof(header) + size);
		assert_memory_equal(got, &header, sizeof(header));
		assert_memory_equal(got + sizeof(header), data + NETIF_HEADER_BYTES, size);
	}
	assert_int_equal(tap->counters.dropped, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_comes),
		TEST(what_goes),
	};
	if (!rig_enter_namespace())
		return RIG_SKIPPED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
