#include "virtio/net.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "iothread.h"
#include "util.h"
#include "virtio/net_impl.h"

enum {
	PCI_CLASS_NETWORK_ETHERNET = 0x020000,
	MTU_MIN = 68,    /* 5.1.4.1 */
	SPEED = 10000,   /* Mbit/s: what a tap says of itself */
	DUPLEX_FULL = 1, /* 5.1.4 */
	MTU_USUAL = 1500,
	ETHERNET_BYTES = 18, /* header and a VLAN tag */
	CONFIG_BYTES = offsetof(struct virtio_net_config, rss_max_key_size),
};
/* Longer than a busy host keeps a vCPU from refilling its ring; a driver that is really poor waits once. */
static const uint64_t STARVED_NS = 10000000;

static uint64_t bit(unsigned feature)
{
	return 1ULL << feature;
}

static struct virtio_net *to_net(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_net, dev);
}

static struct virtio_net_config *config_of(struct virtio_net *net)
{
	return (void *)net->dev.config;
}

/* --- offloads -------------------------------------------------------------------------------------------------- */

/* What each needs to have something to stand on comes before it (5.1.3.1). */
static const struct {
	unsigned offload;
	uint64_t host, guest; /* features */
} OFFLOADS[] = {
	{NETIF_OFFLOAD_CSUM, 1ULL << VIRTIO_NET_F_CSUM, 1ULL << VIRTIO_NET_F_GUEST_CSUM},
	{NETIF_OFFLOAD_TSO4, 1ULL << VIRTIO_NET_F_HOST_TSO4, 1ULL << VIRTIO_NET_F_GUEST_TSO4},
	{NETIF_OFFLOAD_TSO6, 1ULL << VIRTIO_NET_F_HOST_TSO6, 1ULL << VIRTIO_NET_F_GUEST_TSO6},
	{NETIF_OFFLOAD_TSO_ECN, 1ULL << VIRTIO_NET_F_HOST_ECN, 1ULL << VIRTIO_NET_F_GUEST_ECN},
	{NETIF_OFFLOAD_USO, 1ULL << NET_F_HOST_USO, 1ULL << NET_F_GUEST_USO4 | 1ULL << NET_F_GUEST_USO6},
};

/* Without what an offload stands on, there is none. */
static unsigned supported(unsigned offloads)
{
	if (!(offloads & NETIF_OFFLOAD_CSUM))
		return 0;
	if (!(offloads & (NETIF_OFFLOAD_TSO4 | NETIF_OFFLOAD_TSO6)))
		offloads &= ~(unsigned)NETIF_OFFLOAD_TSO_ECN;
	return offloads;
}

unsigned net_guest_offloads(uint64_t features)
{
	unsigned offloads = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(OFFLOADS); i++) {
		if ((features & OFFLOADS[i].guest) == OFFLOADS[i].guest)
			offloads |= OFFLOADS[i].offload;
	}
	return supported(offloads);
}

uint64_t net_accepted_guest_features(const struct virtio_net *net)
{
	uint64_t all = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(OFFLOADS); i++)
		all |= OFFLOADS[i].guest;
	return all & net->dev.driver_features;
}

/* A back end may ask the kernel: only when it makes a difference. */
void net_set_offloads(struct virtio_net *net, unsigned offloads)
{
	if (net->offloads != offloads)
		netif_set_offloads(net->netif, offloads);
	net->offloads = offloads;
}

/* --- pairs, address --------------------------------------------------------------------------------------------- */

void net_set_pairs(struct virtio_net *net, unsigned pairs)
{
	if (net->pairs != pairs)
		netif_set_queues(net->netif, pairs);
	net->pairs = pairs;
	for (unsigned i = 0; i < 2 * pairs; i++)
		virtio_kick(&net->dev, i); /* those that were not in use may have waited */
}

void net_set_mac(struct virtio_net *net, const uint8_t *mac)
{
	memcpy(config_of(net)->mac, mac, NETIF_MAC_BYTES);
	net->filter.mac = net_filter_pack(mac);
}

/* --- link -------------------------------------------------------------------------------------------------------- */

void net_acknowledge_announce(struct virtio_net *net)
{
	config_of(net)->status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
}

/* Up: the network may have changed, so the guest is asked to say where it is (5.1.6.5.4). */
static void update_link(struct virtio_net *net)
{
	struct virtio_net_config *config = config_of(net);
	bool up = net->plugged && net->netif->info.link_up;
	if (up == !!(config->status & VIRTIO_NET_S_LINK_UP))
		return;
	bool announces = up && virtio_has_feature(&net->dev, VIRTIO_NET_F_GUEST_ANNOUNCE);
	config->status = (uint16_t)((up ? VIRTIO_NET_S_LINK_UP : 0) | (announces ? VIRTIO_NET_S_ANNOUNCE : 0));
	virtio_config_changed(&net->dev);
}

static void link_changed(struct loop_task *task)
{
	struct virtio_net *net = container_of(task, struct virtio_net, link_task);
	virtio_lock(&net->dev);
	update_link(net);
	virtio_unlock(&net->dev);
}

/* Later: a back end may find out in the middle of a call of ours, which has the lock. */
static void netif_link(void *ctx, bool up)
{
	struct virtio_net *net = ctx;
	(void)up;
	loop_defer(net->dev.loop, &net->link_task);
}

void virtio_net_set_link(struct virtio_device *dev, bool up)
{
	struct virtio_net *net = to_net(dev);
	virtio_lock(dev);
	net->plugged = up;
	update_link(net);
	virtio_unlock(dev);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static void starved(struct loop_timer *timer)
{
	struct virtio_net *net = container_of(timer, struct virtio_net, starved_timer);
	virtio_lock(&net->dev);
	net->starved = false;
	for (unsigned i = 0; i < net->pairs; i++)
		net_rx_starved(&net->rx[i]);
	virtio_unlock(&net->dev);
}

void net_watch(struct virtio_net *net)
{
	if (net->starved)
		return;
	net->starved = true;
	loop_timer_arm(net->dev.loop, &net->starved_timer, loop_now_ns() + STARVED_NS);
}

/* Segments are merged, or it is not known how large frames are: the largest. */
static uint32_t receive_bytes(const struct virtio_net *net)
{
	unsigned mtu = net->mtu;
	if (!virtio_has_feature(&net->dev, VIRTIO_NET_F_MRG_RXBUF))
		return 0;
	if (!mtu || (net->offloads & ~(unsigned)NETIF_OFFLOAD_CSUM))
		return NETIF_PACKET_MAX_BYTES;
	return (uint32_t)min_u64(NETIF_HEADER_BYTES + max_u64(mtu, MTU_USUAL) + ETHERNET_BYTES, NETIF_PACKET_MAX_BYTES);
}

/* 5.1.4.1: what is larger than the MTU that the driver knows, and is not to be segmented, must not get to it. */
static uint32_t frame_max_bytes(const struct virtio_net *net)
{
	return virtio_has_feature(&net->dev, VIRTIO_NET_F_MTU) ? net->mtu + (uint32_t)ETHERNET_BYTES : UINT32_MAX;
}

/* What the driver before this one had asked of the back end is forgotten. */
static void net_start(struct virtio_device *dev)
{
	struct virtio_net *net = to_net(dev);
	bool has_mq = virtio_has_feature(dev, VIRTIO_NET_F_MQ);
	net->control_queue = has_mq ? 2 * net->pairs_max : 2;
	net->zero_flags = !virtio_has_feature(dev, VIRTIO_NET_F_GUEST_CSUM);
	net->offloads = net_guest_offloads(net_accepted_guest_features(net));
	net->receive_bytes = receive_bytes(net);
	net->frame_max_bytes = frame_max_bytes(net);
	net->pairs = 1;
	netif_set_offloads(net->netif, net->offloads);
	netif_set_queues(net->netif, net->pairs);
}

/* Does it move packets? Without MQ there are three queues, whatever the device has. */
static bool is_packet_queue(const struct virtio_net *net, unsigned queue)
{
	return queue < net->control_queue;
}

static void net_serve(struct virtio_device *dev, unsigned queue)
{
	struct virtio_net *net = to_net(dev);
	if (queue == net->control_queue)
		net_control_serve(net, queue);
	else if (is_packet_queue(net, queue) && queue % 2)
		net_tx_serve(&net->tx[queue / 2], UINT32_MAX);
	else if (is_packet_queue(net, queue))
		net_rx_serve(&net->rx[queue / 2]);
}

static void net_cancel(struct virtio_device *dev, unsigned queue)
{
	struct virtio_net *net = to_net(dev);
	if (is_packet_queue(net, queue) && queue % 2)
		net_tx_cancel(&net->tx[queue / 2]);
	else if (is_packet_queue(net, queue))
		net_rx_cancel(&net->rx[queue / 2]);
}

/* The back end is told when the next driver starts: this may be a vCPU's thread. */
static void net_reset(struct virtio_device *dev)
{
	struct virtio_net *net = to_net(dev);
	net_limit_reset(net);
	loop_timer_disarm(dev->loop, &net->starved_timer);
	net->starved = false;
	net->pairs = 1;
	net_filter_init(&net->filter, net->mac);
	net_set_mac(net, net->mac);
	net_acknowledge_announce(net);
}

static void disconnect(void *ctx)
{
	struct virtio_net *net = ctx;
	netif_set_client(net->netif, NULL);
	loop_unpost(net->dev.loop, &net->link_task);
	loop_timer_disarm(net->dev.loop, &net->starved_timer);
	net_limit_reset(net);
}

static void free_net(struct virtio_net *net)
{
	for (unsigned i = 0; i < net->pairs_max; i++) {
		net_tx_fini(&net->tx[i]);
		net_rx_fini(&net->rx[i]);
	}
	free(net);
}

static void net_destroy(struct virtio_device *dev)
{
	struct virtio_net *net = to_net(dev);
	loop_call(dev->loop, disconnect, net);
	free_net(net);
}

static const struct virtio_model net_model = {
	.id = VIRTIO_ID_NET,
	.name = "virtio-net",
	.pci_class = PCI_CLASS_NETWORK_ETHERNET,
	.start = net_start,
	.serve = net_serve,
	.cancel = net_cancel,
	.reset = net_reset,
	.destroy = net_destroy,
	.batch = NET_BATCH,
};

/* --- what it is ----------------------------------------------------------------------------------------------------
 */

static uint64_t offload_features(unsigned offloads)
{
	uint64_t features = 0;
	offloads = supported(offloads);
	for (unsigned i = 0; i < ARRAY_SIZE(OFFLOADS); i++) {
		if (offloads & OFFLOADS[i].offload)
			features |= OFFLOADS[i].host | OFFLOADS[i].guest;
	}
	return features ? features | bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) : 0;
}

static uint64_t features_of(const struct virtio_net *net)
{
	uint64_t features = bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS) | bit(VIRTIO_NET_F_MRG_RXBUF) |
			    bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_RX) | bit(VIRTIO_NET_F_CTRL_RX_EXTRA) |
			    bit(VIRTIO_NET_F_CTRL_MAC_ADDR) | bit(VIRTIO_NET_F_GUEST_ANNOUNCE) |
			    bit(VIRTIO_NET_F_SPEED_DUPLEX);
	if (net->mtu)
		features |= bit(VIRTIO_NET_F_MTU);
	if (net->pairs_max > 1)
		features |= bit(VIRTIO_NET_F_MQ);
	return features | offload_features(net->netif->info.offloads);
}

static void init_config(struct virtio_net *net)
{
	struct virtio_net_config config = {
		.status = net->plugged && net->netif->info.link_up ? VIRTIO_NET_S_LINK_UP : 0,
		.max_virtqueue_pairs = (uint16_t)net->pairs_max,
		.mtu = net->mtu,
		.speed = SPEED,
		.duplex = DUPLEX_FULL,
	};
	memcpy(net->dev.config, &config, CONFIG_BYTES);
	net_set_mac(net, net->mac);
}

static int init_device(struct virtio_net *net, struct loop *loop, const struct gmem *gmem, const struct log *log,
		       bool packed, struct err *err)
{
	struct virtio_init virtio = {
		.model = &net_model,
		.loop = loop,
		.gmem = gmem,
		.log = log,
		.features = features_of(net),
		.packed = packed,
		.queue_count = 2 * net->pairs_max + 1,
		.queue_size_max = NET_QUEUE_SIZE,
		.config_size_bytes = CONFIG_BYTES,
	};
	for (unsigned i = 0; i < net->pairs_max; i++) {
		if (net_tx_init(net, i) < 0 || net_rx_init(net, i) < 0)
			return err_set(err, -ENOMEM, "virtio-net: %s", err_name(ENOMEM));
	}
	int r = virtio_init(&net->dev, &virtio, err);
	if (r == 0)
		init_config(net);
	return r;
}

struct virtio_device *virtio_net_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     struct netif *netif, const struct virtio_net_init *init, struct err *err)
{
	uint16_t mtu = init->mtu ? init->mtu : netif->info.mtu;
	if (mtu && mtu < MTU_MIN) {
		err_set(err, -EINVAL, "virtio-net: an MTU of %u, which is less than %d", mtu, MTU_MIN);
		return NULL;
	}
	struct virtio_net *net = calloc(1, sizeof(*net));
	if (!net) {
		err_set(err, -ENOMEM, "virtio-net: %s", err_name(ENOMEM));
		return NULL;
	}
	net->netif = netif;
	net->pairs_max = netif->info.queues;
	net->pairs = 1;
	net->mtu = mtu;
	net->plugged = !init->link_down;
	net->link_task.fn = link_changed;
	net->starved_timer.fn = starved;
	memcpy(net->mac, init->mac, sizeof(net->mac));
	net_filter_init(&net->filter, net->mac);
	net_limit_init(net, &init->limit);
	if (init_device(net, loop, gmem, log, init->packed, err) < 0) {
		free_net(net);
		return NULL;
	}
	netif_set_client(netif, &(struct netif_client){netif_link, net});
	return &net->dev;
}
