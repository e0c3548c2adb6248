/* virtio-net beside its packets: the commands of the control queue, the receive filter, the link, the rates. */
#include "net_rig.h"

enum { HEADER = NETIF_HEADER_BYTES };

static const uint8_t OTHER[6] = {0x52, 0x54, 0, 1, 2, 3}, GROUP[6] = {0x33, 0x33, 0, 0, 0, 1},
		     ALL[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static uint8_t set_mode(struct nr *r, uint8_t cmd, uint8_t on)
{
	return nr_command(r, VIRTIO_NET_CTRL_RX, cmd, &on, 1);
}

/* Does a frame for this address come through? */
static bool lets_in(struct nr *r, const uint8_t *mac)
{
	uint8_t frame[60] = {0};
	memcpy(frame + HEADER, mac, 6);
	assert_true(nr_inject_bytes(r, 0, frame, sizeof(frame)));
	nr_settle(r);
	const struct nr_packet *packet = nr_take_packet(r, 0);
	if (!packet)
		return false;
	assert_memory_equal(packet->bytes + HEADER, mac, 6);
	return true;
}

static void start_with_buffers(struct nr *r)
{
	nr_start(r);
	nr_give_buffers(r, 0, 200, 1536);
	nr_settle(r);
}

/* --- the filter -----------------------------------------------------------------------------------------------------
 */

static void a_driver_that_says_nothing_gets_all(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		r->without = kind ? 1ULL << VIRTIO_NET_F_CTRL_VQ | 1ULL << VIRTIO_NET_F_CTRL_RX : 0;
		start_with_buffers(r);
		assert_true(lets_in(r, NR_MAC) && lets_in(r, OTHER) && lets_in(r, GROUP) && lets_in(r, ALL));
	}
}

static void modes(void **state)
{
	struct nr *r = *state;
	start_with_buffers(r);
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_PROMISC, 0), VIRTIO_NET_OK);
	assert_true(lets_in(r, NR_MAC) && lets_in(r, ALL));
	assert_false(lets_in(r, OTHER) || lets_in(r, GROUP));
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_ALLMULTI, 1), VIRTIO_NET_OK);
	assert_true(lets_in(r, GROUP) && !lets_in(r, OTHER));
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_NOMULTI, 1), VIRTIO_NET_OK);
	assert_true(!lets_in(r, GROUP) && lets_in(r, ALL));
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_ALLUNI, 1), VIRTIO_NET_OK);
	assert_true(lets_in(r, OTHER));
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_NOUNI, 1), VIRTIO_NET_OK);
	assert_false(lets_in(r, OTHER) || lets_in(r, NR_MAC));
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_NOBCAST, 1), VIRTIO_NET_OK);
	assert_false(lets_in(r, ALL));
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_PROMISC, 1), VIRTIO_NET_OK);
	assert_true(lets_in(r, NR_MAC) && lets_in(r, OTHER) && lets_in(r, GROUP) && lets_in(r, ALL));
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_PROMISC, 0), VIRTIO_NET_OK);
	assert_false(lets_in(r, ALL));
	start_with_buffers(r); /* a reset forgets it */
	assert_true(lets_in(r, OTHER) && lets_in(r, GROUP));
}

/* Counts, and so many addresses; the last byte of each says which. */
static uint32_t make_tables(uint8_t *data, uint32_t unicast, uint32_t multicast)
{
	uint32_t size = 0, counts[] = {unicast, multicast};
	for (unsigned table = 0; table < 2; table++) {
		le32_store(data + size, counts[table]);
		size += 4;
		for (uint32_t i = 0; i < counts[table]; i++, size += 6) {
			memcpy(data + size, table ? GROUP : OTHER, 6);
			data[size + 4] = (uint8_t)(i >> 8);
			data[size + 5] = (uint8_t)i;
		}
	}
	return size;
}

static uint8_t set_tables(struct nr *r, uint32_t unicast, uint32_t multicast)
{
	uint8_t data[0x3000];
	uint32_t size = make_tables(data, unicast, multicast);
	return nr_command(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, size);
}

static bool lets_in_number(struct nr *r, const uint8_t *base, unsigned number)
{
	uint8_t mac[6];
	memcpy(mac, base, sizeof(mac));
	mac[4] = (uint8_t)(number >> 8);
	mac[5] = (uint8_t)number;
	return lets_in(r, mac);
}

static void tables(void **state)
{
	struct nr *r = *state;
	start_with_buffers(r);
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_PROMISC, 0), VIRTIO_NET_OK);
	assert_int_equal(set_tables(r, 2, 64), VIRTIO_NET_OK);
	assert_true(lets_in_number(r, OTHER, 0) && lets_in_number(r, OTHER, 1) && lets_in_number(r, GROUP, 63));
	assert_false(lets_in_number(r, OTHER, 2) || lets_in_number(r, GROUP, 64));
	assert_int_equal(set_tables(r, 65, 0), VIRTIO_NET_OK); /* too many to know: all */
	assert_true(lets_in_number(r, OTHER, 1000) && lets_in(r, NR_MAC) && !lets_in_number(r, GROUP, 0));
	assert_int_equal(set_tables(r, 0, 1000), VIRTIO_NET_OK);
	assert_true(lets_in_number(r, GROUP, 5000) && !lets_in_number(r, OTHER, 0) && lets_in(r, NR_MAC));
	assert_int_equal(set_tables(r, 0, 0), VIRTIO_NET_OK);
	assert_false(lets_in_number(r, GROUP, 0) || lets_in_number(r, OTHER, 0));
}

static void the_address(void **state)
{
	struct nr *r = *state;
	start_with_buffers(r);
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_PROMISC, 0), VIRTIO_NET_OK);
	assert_int_equal(nr_command(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, OTHER, 6), VIRTIO_NET_OK);
	assert_memory_equal(nr_config(r).mac, OTHER, 6);
	assert_true(lets_in(r, OTHER) && !lets_in(r, NR_MAC));
	nr_write_status(r, 0);
	assert_memory_equal(nr_config(r).mac, NR_MAC, 6);
}

/* --- what cannot be --------------------------------------------------------------------------------------------------
 */

static void expect_error(struct nr *r, uint8_t class, uint8_t cmd, const void *data, uint32_t size_bytes)
{
	if (nr_command(r, class, cmd, data, size_bytes) != VIRTIO_NET_ERR)
		fail_msg("class %u, command %u with %u bytes is not refused", class, cmd, size_bytes);
}

static void tables_that_lie(struct nr *r)
{
	uint8_t data[0x400];
	uint32_t size = make_tables(data, 3, 4);
	for (uint32_t cut = 0; cut <= size + 1; cut++) {
		data[size] = 0;
		if (cut != size)
			expect_error(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, cut);
	}
	static const uint32_t counts[] = {4, 1000, 0x2aaaaaab, 0x80000000, UINT32_MAX};
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		le32_store(data, counts[i]);
		expect_error(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, size);
		make_tables(data, 3, 4);
		le32_store(data + 4 + 18, counts[i] + 1);
		expect_error(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, size);
		make_tables(data, 3, 4);
	}
}

static void garbage_is_answered(void **state)
{
	struct nr *r = *state;
	uint8_t data[16] = {1};
	for (unsigned kind = 0; kind < 4; kind++) {
		r->packed = kind & 1;
		r->indirect = kind & 2;
		start_with_buffers(r);
		for (unsigned class = 0; class < 9; class ++)
			expect_error(r, (uint8_t) class, 200, data, 1);
		expect_error(r, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, data, 2);
		expect_error(r, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, data, 0);
		expect_error(r, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, data, 2);
		expect_error(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, data, 5);
		expect_error(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, data, 7);
		expect_error(r, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, data, 1);
		expect_error(r, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, data, 4);
		assert_int_equal(nr_command_bytes(r, data, 1), VIRTIO_NET_ERR);
		assert_int_equal(nr_command_bytes(r, data, 0), VIRTIO_NET_ERR);
		tables_that_lie(r);
		assert_memory_equal(nr_config(r).mac, NR_MAC, 6);
		assert_true(lets_in(r, OTHER));
		assert_false(nr_status(r) & VIRTIO_CONFIG_S_NEEDS_RESET);
	}
}

static void no_room_for_the_answer(void **state)
{
	struct nr *r = *state;
	const struct virtq_buffer command = {NR_COMMAND, 3, false};
	nr_start(r);
	assert_true(nr_add(r, 4, &command, 1) >= 0);
	nr_ring(r, 4);
	nr_settle(r);
	assert_true(nr_status(r) & VIRTIO_CONFIG_S_NEEDS_RESET);
	nr_start(r);
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_PROMISC, 0), VIRTIO_NET_OK);
}

/* What was not negotiated is refused. Without MQ the control queue is the third. */
static void what_was_not_negotiated(void **state)
{
	struct nr *r = *state;
	const uint16_t one = 1;
	const uint64_t none = 0;
	r->without = 1ULL << VIRTIO_NET_F_MQ | 1ULL << VIRTIO_NET_F_CTRL_RX_EXTRA | 1ULL << VIRTIO_NET_F_CTRL_MAC_ADDR |
		     1ULL << VIRTIO_NET_F_GUEST_ANNOUNCE | 1ULL << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
	nr_start(r);
	assert_int_equal(nr_control_queue(r), 2);
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_ALLMULTI, 1), VIRTIO_NET_OK);
	expect_error(r, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLUNI, "", 1);
	expect_error(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, OTHER, 6);
	expect_error(r, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &one, 2);
	expect_error(r, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0);
	expect_error(r, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &none, 8);
	r->without |= 1ULL << VIRTIO_NET_F_CTRL_RX;
	nr_start(r);
	expect_error(r, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "", 1);
	expect_error(r, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0\0\0\0", 8);
	r->without |= 1ULL << VIRTIO_NET_F_CTRL_VQ;
	nr_start(r);
	assert_int_equal(set_mode(r, VIRTIO_NET_CTRL_RX_PROMISC, 0), NR_NO_ANSWER);
}

/* --- queues and offloads
 * ---------------------------------------------------------------------------------------------- */

static uint8_t set_pairs(struct nr *r, uint16_t pairs)
{
	return nr_command(r, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs, sizeof(pairs));
}

static void pairs_come_and_go(void **state)
{
	struct nr *r = *state;
	nr_start(r);
	assert_int_equal(r->net->pairs, 1);
	nr_give_buffers(r, 1, 100, 1536);
	nr_send(r, 1, 7, 100);
	virtio_ring(r->dev, 2);
	virtio_ring(r->dev, 3);
	nr_settle(r);
	assert_int_equal(r->net->posted_count[1], 0);
	assert_int_equal(r->net->sent, 0);
	expect_error(r, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, "\0", 2);
	assert_int_equal(set_pairs(r, NR_PAIRS + 1), VIRTIO_NET_ERR);
	assert_int_equal(set_pairs(r, 0x8000), VIRTIO_NET_ERR);
	assert_int_equal(r->net->pairs, 1);

	assert_int_equal(set_pairs(r, 2), VIRTIO_NET_OK);
	assert_int_equal(r->net->pairs, 2);
	nr_wait_sent(r, 1);
	nr_settle(r);
	assert_int_equal(r->net->records[0].queue, 1);
	assert_true(nr_inject(r, 1, 9, 5000));
	nr_expect_packet(r, 1, 9, 5000);
	nr_start(r);
	assert_int_equal(r->net->pairs, 1);
}

/* Back and forth while packets move on both. */
static void pairs_under_load(void **state)
{
	struct nr *r = *state;
	unsigned sent = 0, received = 0;
	nr_start(r);
	for (unsigned pair = 0; pair < NR_PAIRS; pair++)
		nr_give_buffers(r, pair, 150, 1536);
	for (unsigned i = 0; i < 40; i++) {
		for (unsigned pair = 0; pair < NR_PAIRS; pair++) {
			nr_send(r, pair, i, 100);
			received += nr_inject(r, pair, i, 100);
		}
		assert_int_equal(set_pairs(r, (uint16_t)(2 - i % 2)), VIRTIO_NET_OK);
	}
	assert_int_equal(set_pairs(r, 2), VIRTIO_NET_OK);
	nr_settle(r);
	for (unsigned pair = 0; pair < NR_PAIRS; pair++) {
		while (nr_take_sent(r, pair))
			sent++;
		while (nr_take_packet(r, pair))
			received--;
	}
	assert_int_equal(sent, 80);
	assert_int_equal(received, 0);
}

static uint8_t set_offloads(struct nr *r, uint64_t features)
{
	return nr_command(r, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &features,
			  sizeof(features));
}

static void offloads_change(void **state)
{
	struct nr *r = *state;
	const uint64_t csum = 1ULL << VIRTIO_NET_F_GUEST_CSUM, tso4 = 1ULL << VIRTIO_NET_F_GUEST_TSO4,
		       ecn = 1ULL << VIRTIO_NET_F_GUEST_ECN, uso4 = 1ULL << NET_F_GUEST_USO4,
		       uso6 = 1ULL << NET_F_GUEST_USO6;
	r->without = 1ULL << VIRTIO_NET_F_GUEST_TSO6;
	nr_start(r);
	assert_int_equal(r->net->offloads, NR_ALL_OFFLOADS & ~NETIF_OFFLOAD_TSO6);
	assert_int_equal(set_offloads(r, csum | tso4), VIRTIO_NET_OK);
	assert_int_equal(r->net->offloads, NETIF_OFFLOAD_CSUM | NETIF_OFFLOAD_TSO4);
	unsigned calls = r->net->offload_calls;
	assert_int_equal(set_offloads(r, csum | tso4), VIRTIO_NET_OK);
	assert_int_equal(r->net->offload_calls, calls); /* that was no change */
	assert_int_equal(set_offloads(r, csum | uso4), VIRTIO_NET_OK);
	assert_int_equal(r->net->offloads, NETIF_OFFLOAD_CSUM);
	assert_int_equal(set_offloads(r, csum | ecn | uso4 | uso6), VIRTIO_NET_OK);
	assert_int_equal(r->net->offloads, NETIF_OFFLOAD_CSUM | NETIF_OFFLOAD_USO);
	assert_int_equal(set_offloads(r, tso4), VIRTIO_NET_OK);
	assert_int_equal(r->net->offloads, 0);
	assert_int_equal(set_offloads(r, 1ULL << VIRTIO_NET_F_GUEST_TSO6), VIRTIO_NET_ERR);
	assert_int_equal(set_offloads(r, 1ULL << VIRTIO_NET_F_MAC), VIRTIO_NET_ERR);
	assert_int_equal(set_offloads(r, UINT64_MAX), VIRTIO_NET_ERR);
	nr_start(r);
	assert_int_equal(r->net->offloads, NR_ALL_OFFLOADS & ~NETIF_OFFLOAD_TSO6);
}

/* --- link --------------------------------------------------------------------------------------------------------- */

static void the_link(void **state)
{
	struct nr *r = *state;
	start_with_buffers(r);
	unsigned interrupts = r->config_interrupts;
	virtio_net_set_link(r->dev, false);
	assert_int_equal(nr_config(r).status, 0);
	assert_int_equal(r->config_interrupts, interrupts + 1);
	virtio_net_set_link(r->dev, false);
	assert_int_equal(r->config_interrupts, interrupts + 1);
	nr_send(r, 0, 1, 100);
	nr_wait_sent(r, 0);
	assert_int_equal(r->net->sent, 0);
	assert_false(lets_in(r, NR_MAC));

	virtio_net_set_link(r->dev, true);
	assert_int_equal(nr_config(r).status, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(r->config_interrupts, interrupts + 2);
	assert_int_equal(nr_command(r, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0), VIRTIO_NET_OK);
	assert_int_equal(nr_config(r).status, VIRTIO_NET_S_LINK_UP);
	nr_send(r, 0, 1, 100);
	nr_wait_sent(r, 0);
	assert_int_equal(r->net->sent, 1);
	assert_true(lets_in(r, NR_MAC));
}

/* Up is what both the owner and the back end say is up. */
static void the_back_ends_link(void **state)
{
	struct nr *r = *state;
	r->without = 1ULL << VIRTIO_NET_F_GUEST_ANNOUNCE;
	nr_start(r);
	netif_set_link(&r->net->netif, false);
	nr_settle(r);
	assert_int_equal(nr_config(r).status, 0);
	nr_send(r, 0, 1, 100);
	nr_wait_sent(r, 0);
	assert_int_equal(r->net->sent, 0);
	virtio_net_set_link(r->dev, false);
	netif_set_link(&r->net->netif, true);
	nr_settle(r);
	assert_int_equal(nr_config(r).status, 0);
	virtio_net_set_link(r->dev, true);
	assert_int_equal(nr_config(r).status, VIRTIO_NET_S_LINK_UP);
	netif_set_link(&r->net->netif, false); /* and nobody looks before the device is gone */
	nr_renew_device(r);
	assert_int_equal(nr_config(r).status, 0);
}

/* --- rates -------------------------------------------------------------------------------------------------------- */

static void limit(struct nr *r, struct rate_limit_config config)
{
	r->init.limit = config;
	nr_renew_device(r);
	start_with_buffers(r);
}

static void check_took(uint64_t begin_ns, uint64_t at_least_ms)
{
	uint64_t ms = (loop_now_ns() - begin_ns) / NR_MS;
	if (ms < at_least_ms)
		fail_msg("%llu ms instead of %llu", (unsigned long long)ms, (unsigned long long)at_least_ms);
}

static void rates_out(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		limit(r, kind ? (struct rate_limit_config){.ops_per_s = 500, .ops_burst = 5}
			      : (struct rate_limit_config){.bytes_per_s = 500000, .bytes_burst = 5000});
		uint64_t begin_ns = loop_now_ns();
		r->net->sent = 0;
		for (unsigned i = 0; i < 30; i++)
			nr_send(r, 0, i, 1000 + HEADER);
		for (unsigned i = 0; i < 30; i++)
			nr_wait_sent(r, 0);
		check_took(begin_ns, 48);
		assert_int_equal(r->net->sent, 30);
	}
}

static void rates_in(void **state)
{
	struct nr *r = *state;
	for (unsigned kind = 0; kind < 2; kind++) {
		limit(r, kind ? (struct rate_limit_config){.ops_per_s = 500, .ops_burst = 5}
			      : (struct rate_limit_config){.bytes_per_s = 500000, .bytes_burst = 5000});
		uint64_t begin_ns = loop_now_ns();
		for (unsigned i = 0, got = 0; got < 30;) {
			if (i < 30 && nr_inject(r, 0, i, 1000 + HEADER))
				i++;
			assert_int_equal(loop_wait(r->loop, NR_MS), 0);
			for (; virtq_driver_has_used(&r->drivers[0]); got++)
				nr_expect_packet(r, 0, got, 1000 + HEADER);
		}
		check_took(begin_ns, 48);
	}
}

static void reset(struct nr *r)
{
	nr_write_status(r, 0);
	assert_int_equal(r->net->netif.in_flight, 0);
}

/* An hour to go; the reset does not wait for it. */
static void a_reset_while_throttled(void **state)
{
	struct nr *r = *state;
	limit(r, (struct rate_limit_config){.ops_per_s = 1, .ops_burst = 1});
	assert_int_equal(set_pairs(r, 2), VIRTIO_NET_OK);
	nr_give_buffers(r, 1, 200, 1536);
	for (unsigned i = 0; i < 10; i++)
		nr_send(r, i % 2, i, 100);
	nr_settle(r);
	for (unsigned i = 0; i < 6; i++)
		(void)nr_inject(r, i % 2, i, 100);
	nr_settle(r);
	assert_true(r->net->sent < 5);
	nr_on_vcpu(r, reset);
	start_with_buffers(r);
	assert_true(r->net->posted_count[0] == 4);
}

/* A pair that always has packets does not keep the other from its share. */
static void pairs_share_the_rate(void **state)
{
	struct nr *r = *state;
	unsigned sent[NR_PAIRS] = {0};
	limit(r, (struct rate_limit_config){.ops_per_s = 1000, .ops_burst = 1});
	assert_int_equal(set_pairs(r, 2), VIRTIO_NET_OK);
	for (unsigned i = 0; i < 120; i++)
		nr_send(r, i % 2, i, 100);
	while (sent[0] + sent[1] < 40) {
		assert_int_equal(loop_wait(r->loop, 100 * NR_MS), 0);
		for (unsigned pair = 0; pair < NR_PAIRS; pair++) {
			while (nr_take_sent(r, pair))
				sent[pair]++;
		}
	}
	if (sent[0] < 10 || sent[1] < 10)
		fail_msg("of the first 40, pair 0 had %u and pair 1 %u", sent[0], sent[1]);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, nr_setup, nr_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_driver_that_says_nothing_gets_all),
		TEST(modes),
		TEST(tables),
		TEST(the_address),
		TEST(garbage_is_answered),
		TEST(no_room_for_the_answer),
		TEST(what_was_not_negotiated),
		TEST(pairs_come_and_go),
		TEST(pairs_under_load),
		TEST(offloads_change),
		TEST(the_link),
		TEST(the_back_ends_link),
		TEST(rates_out),
		TEST(rates_in),
		TEST(a_reset_while_throttled),
		TEST(pairs_share_the_rate),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
