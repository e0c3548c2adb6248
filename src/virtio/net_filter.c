#include "virtio/net_filter.h"

#include <string.h>

static const uint64_t BROADCAST = 0xffffffffffff;

uint64_t net_filter_pack(const uint8_t *mac)
{
	uint64_t packed = 0;
	memcpy(&packed, mac, NET_FILTER_MAC_BYTES);
	return packed;
}

void net_filter_init(struct net_filter *filter, const uint8_t *mac)
{
	*filter = (struct net_filter){.promisc = true, .mac = net_filter_pack(mac)};
}

static bool has(const struct net_mac_table *table, uint64_t mac)
{
	for (unsigned i = 0; i < table->count; i++) {
		if (table->macs[i] == mac)
			return true;
	}
	return table->overflow;
}

/* "no" goes before "all", and promiscuous before either. */
bool net_filter_accepts(const struct net_filter *filter, const uint8_t *destination)
{
	if (filter->promisc)
		return true;
	uint64_t mac = net_filter_pack(destination);
	if (mac == BROADCAST)
		return !filter->nobcast;
	if (destination[0] & 1)
		return !filter->nomulti && (filter->allmulti || has(&filter->multicast, mac));
	return !filter->nouni && (mac == filter->mac || filter->alluni || has(&filter->unicast, mac));
}
