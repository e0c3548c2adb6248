/* The value of --net: passt[=SOCKET], tap[=IFNAME], stream=PATH, listen=PATH or fd=N, with settings; or none. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/settings.h"

enum {
	NETS_MAX = 31,
	NET_QUEUES_MAX = 8,
	NET_MTU_MIN = 68, /* what IPv4 needs: RFC 791 */
	NET_MTU_MAX = 65535,
	NET_IFNAME_MAX_BYTES = 15,
	NET_PUBLISH_MAX = 64,
	NET_MAC_BYTES = 6,
};

/* Of a number 0, and of a string NULL, stands for the library's default. */
struct net_option {
	struct settings_item base;
	bool is_none; /* no card: the only --net */
	enum vmlet_net_kind kind;
	const char *path; /* of VMLET_NET_PASST NULL: it is still to be found */
	unsigned fd;
	uint8_t mac[NET_MAC_BYTES];
	unsigned mtu, queues;
	const char *publish[NET_PUBLISH_MAX];
	size_t publish_count;
	bool link_down;
	uint64_t packets_per_s, packets_burst;
	uint64_t bandwidth_bytes, bandwidth_burst_bytes;
};

/* settings_parse makes struct net_option of it. */
extern const struct settings_kind net_kind;
