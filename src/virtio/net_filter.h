/*
 * Which frames a virtio-net device lets in (virtio 1.3, 5.1.6.5.1 and 5.1.6.5.2): by their destination. Pure.
 *
 * A driver that says nothing gets everything; one that has CTRL_RX says what it wants.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
	NET_FILTER_MAC_BYTES = 6,
	NET_FILTER_MACS_MAX = 64, /* what a driver wants beyond that, it gets with everything else of its kind */
};

struct net_mac_table {
	bool overflow; /* there were more: all are let in */
	unsigned count;
	uint64_t macs[NET_FILTER_MACS_MAX]; /* as net_filter_pack */
};

struct net_filter {
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	uint64_t mac; /* the card's own */
	struct net_mac_table unicast, multicast;
};

/* Six bytes as one number, for comparing. */
uint64_t net_filter_pack(const uint8_t *mac);

/* The state after a reset: everything is let in. */
void net_filter_init(struct net_filter *filter, const uint8_t *mac);

bool net_filter_accepts(const struct net_filter *filter, const uint8_t *destination);
