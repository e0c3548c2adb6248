#include "nets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "netif.h"

/* IEEE 802, 8.2: of the first byte of an address. */
enum { MAC_GROUP = 1 << 0, MAC_LOCAL = 1 << 1 };

/* --- names --------------------------------------------------------------------------------------------------- */

const char *nets_name(const struct vmlet_config *config, unsigned index, char ret_name[DEVICE_NAME_MAX])
{
	return config_device_name(config->nets[index]->id, "net", index, ret_name);
}

int nets_find(const struct vmlet_config *config, const char *name)
{
	char candidate[DEVICE_NAME_MAX];
	for (unsigned i = 0; i < config->net_count; i++) {
		if (strcmp(nets_name(config, i, candidate), name) == 0)
			return (int)i;
	}
	return -ENOENT;
}

/* --- opening --------------------------------------------------------------------------------------------------- */

static bool is_socket(int fd)
{
	int type;
	socklen_t size = sizeof(type);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

/* Asked once: a descriptor that changes its mind must not change ours. */
static bool is_tap(const struct vmlet_net *net)
{
	return net->kind == VMLET_NET_TAP || (net->kind == VMLET_NET_FD && !is_socket(net->fd));
}

static struct netif *open_tap(const struct vmlet_net *net, struct loop *loop, const struct log *log, struct err *err)
{
	struct netif_tap_config config = {
		.interface = net->path,
		.queues = net->queues,
		.mtu = net->mtu,
		.fd = net->kind == VMLET_NET_FD ? net->fd : -1,
	};
	return netif_tap_open(loop, log, &config, err);
}

static struct netif *open_stream(const struct vmlet_net *net, struct loop *loop, const struct log *log, struct err *err)
{
	struct netif_stream_config config = {
		.path = net->path,
		.listen = net->kind == VMLET_NET_LISTEN,
		.fd = net->kind == VMLET_NET_FD ? net->fd : -1,
	};
	return netif_stream_open(loop, log, &config, err);
}

static struct netif *open_passt(const struct vmlet_net *net, struct loop *loop, const struct log *log, struct err *err)
{
	struct netif_passt_config config = {
		.program = net->path,
		.publish = net->publish,
		.publish_count = (unsigned)net->publish_count,
		.mtu = net->mtu,
	};
	return netif_passt_open(loop, log, &config, err);
}

static struct netif *open_netif(const struct vmlet_net *net, bool tap, struct loop *loop, const struct log *log,
				struct err *err)
{
	if (net->kind == VMLET_NET_PASST)
		return open_passt(net, loop, log, err);
	return tap ? open_tap(net, loop, log, err) : open_stream(net, loop, log, err);
}

/* The same over a guest's restart; another one for each VM, so that two of them can be on one network. */
static int choose_mac(const struct vmlet_net *net, uint8_t ret_mac[NETIF_MAC_BYTES], struct err *err)
{
	static const uint8_t none[NETIF_MAC_BYTES];
	memcpy(ret_mac, net->mac, NETIF_MAC_BYTES);
	if (memcmp(ret_mac, none, NETIF_MAC_BYTES) != 0)
		return 0;
	if (getrandom(ret_mac, NETIF_MAC_BYTES, 0) != NETIF_MAC_BYTES)
		return err_set(err, -EIO, "a MAC address: getrandom: %s", err_name(errno));
	ret_mac[0] = (uint8_t)((ret_mac[0] & ~MAC_GROUP) | MAC_LOCAL);
	return 0;
}

static int open_net(struct nets *nets, unsigned index, const struct vmlet_config *config, struct loop *loop,
		    const struct log *log, struct err *err)
{
	const struct vmlet_net *net = config->nets[index];
	struct board_net *board = &nets->list[index];
	*board = (struct board_net){
		.name = nets_name(config, index, nets->names[index]),
		.init =
			{
				.mtu = net->mtu,
				.packed = net->packed,
				.link_down = net->link_down,
				.limit =
					{
						.ops_per_s = net->packets_per_s,
						.bytes_per_s = net->bandwidth_bytes,
						.ops_burst = net->packets_burst,
						.bytes_burst = net->bandwidth_burst_bytes,
					},
			},
	};
	int r = choose_mac(net, board->init.mac, err);
	if (r < 0)
		return r;
	bool tap = is_tap(net);
	board->netif = open_netif(net, tap, loop, log, err);
	if (!board->netif)
		return err->code;
	if (tap)
		nets->interfaces[index] = netif_tap_interface(board->netif);
	nets->count++;
	return 0;
}

int nets_open(struct nets *nets, const struct vmlet_config *config, struct loop *loop, const struct log *log,
	      struct err *err)
{
	*nets = (struct nets){0};
	nets->list = calloc(config->net_count + 1, sizeof(*nets->list));
	nets->names = calloc(config->net_count + 1, sizeof(*nets->names));
	nets->interfaces = calloc(config->net_count + 1, sizeof(*nets->interfaces));
	if (!nets->list || !nets->names || !nets->interfaces)
		return err_set(err, -ENOMEM, "network cards: %s", err_name(ENOMEM));
	int r = 0;
	for (unsigned i = 0; r == 0 && i < config->net_count; i++)
		r = open_net(nets, i, config, loop, log, err);
	return r;
}

void nets_close(struct nets *nets)
{
	while (nets->count)
		netif_free(nets->list[--nets->count].netif);
	free(nets->list);
	free(nets->names);
	free(nets->interfaces);
	*nets = (struct nets){0};
}

void nets_set_link(struct nets *nets, unsigned index, struct virtio_device *dev, bool up)
{
	nets->list[index].init.link_down = !up;
	virtio_net_set_link(dev, up);
}

const char *nets_interface(const struct nets *nets, unsigned index)
{
	return nets->interfaces[index];
}
