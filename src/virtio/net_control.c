/*
 * The control queue (5.1.6.5): commands of the driver. Each is carried out and answered at once. What was not
 * negotiated, what is too short or too long, and what cannot be is answered with VIRTIO_NET_ERR and changes nothing.
 */
#include <errno.h>

#include "iov.h"
#include "util.h"
#include "virtio/net_impl.h"

/* A command's data. */
struct command {
	uint8_t cmd;
	const struct iovec *iov;
	unsigned iov_count;
	uint32_t size_bytes; /* of the data */
};

static const uint32_t HEADER_BYTES = sizeof(struct virtio_net_ctrl_hdr);

static bool has(const struct virtio_net *net, unsigned feature)
{
	return virtio_has_feature(&net->dev, feature);
}

/* False: the data ends before. */
static bool read_at(const struct command *command, uint64_t offset, void *ret_data, size_t size_bytes)
{
	if (offset > command->size_bytes || size_bytes > command->size_bytes - offset)
		return false;
	iov_read(command->iov, command->iov_count, HEADER_BYTES + offset, ret_data, size_bytes);
	return true;
}

static bool read_all(const struct command *command, void *ret_data, size_t size_bytes)
{
	return command->size_bytes == size_bytes && read_at(command, 0, ret_data, size_bytes);
}

/* --- receive modes (5.1.6.5.1) ---------------------------------------------------------------------------------- */

static bool *mode_of(struct net_filter *filter, uint8_t cmd)
{
	switch (cmd) {
	case VIRTIO_NET_CTRL_RX_PROMISC:
		return &filter->promisc;
	case VIRTIO_NET_CTRL_RX_ALLMULTI:
		return &filter->allmulti;
	case VIRTIO_NET_CTRL_RX_ALLUNI:
		return &filter->alluni;
	case VIRTIO_NET_CTRL_RX_NOMULTI:
		return &filter->nomulti;
	case VIRTIO_NET_CTRL_RX_NOUNI:
		return &filter->nouni;
	case VIRTIO_NET_CTRL_RX_NOBCAST:
		return &filter->nobcast;
	default:
		return NULL;
	}
}

static bool set_mode(struct virtio_net *net, const struct command *command)
{
	uint8_t on;
	bool is_extra = command->cmd > VIRTIO_NET_CTRL_RX_ALLMULTI;
	bool *mode = mode_of(&net->filter, command->cmd);
	if (!mode || !has(net, is_extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX))
		return false;
	if (!read_all(command, &on, sizeof(on)))
		return false;
	*mode = on;
	return true;
}

/* --- addresses (5.1.6.5.2) -------------------------------------------------------------------------------------- */

/* One of the two tables, at *offset, which goes on behind it. False: it is not all there. */
static bool read_table(const struct command *command, uint64_t *offset, struct net_mac_table *table)
{
	uint32_t entries;
	if (!read_at(command, *offset, &entries, sizeof(entries)))
		return false;
	*offset += sizeof(entries);
	uint64_t size_bytes = (uint64_t)entries * NET_FILTER_MAC_BYTES;
	if (size_bytes > command->size_bytes - *offset)
		return false;
	table->overflow = entries > NET_FILTER_MACS_MAX;
	table->count = table->overflow ? 0 : entries;
	for (unsigned i = 0; i < table->count; i++) {
		uint8_t mac[NET_FILTER_MAC_BYTES];
		read_at(command, *offset + (uint64_t)i * sizeof(mac), mac, sizeof(mac));
		table->macs[i] = net_filter_pack(mac);
	}
	*offset += size_bytes;
	return true;
}

static bool set_tables(struct virtio_net *net, const struct command *command)
{
	struct net_mac_table unicast = {0}, multicast = {0};
	uint64_t offset = 0;
	if (!has(net, VIRTIO_NET_F_CTRL_RX))
		return false;
	if (!read_table(command, &offset, &unicast) || !read_table(command, &offset, &multicast))
		return false;
	if (offset != command->size_bytes)
		return false;
	net->filter.unicast = unicast;
	net->filter.multicast = multicast;
	return true;
}

static bool set_address(struct virtio_net *net, const struct command *command)
{
	uint8_t mac[NETIF_MAC_BYTES];
	if (!has(net, VIRTIO_NET_F_CTRL_MAC_ADDR) || !read_all(command, mac, sizeof(mac)))
		return false;
	net_set_mac(net, mac);
	return true;
}

static bool set_mac(struct virtio_net *net, const struct command *command)
{
	switch (command->cmd) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		return set_tables(net, command);
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		return set_address(net, command);
	default:
		return false;
	}
}

/* --- the others --------------------------------------------------------------------------------------------------- */

/* 5.1.6.5.4 */
static bool acknowledge_announce(struct virtio_net *net, const struct command *command)
{
	if (command->cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK || command->size_bytes ||
	    !has(net, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return false;
	net_acknowledge_announce(net);
	return true;
}

/* 5.1.6.5.5 */
static bool set_pairs(struct virtio_net *net, const struct command *command)
{
	uint16_t pairs;
	if (command->cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !has(net, VIRTIO_NET_F_MQ))
		return false;
	if (!read_all(command, &pairs, sizeof(pairs)) || pairs == 0 || pairs > net->pairs_max)
		return false;
	net_set_pairs(net, pairs);
	return true;
}

/* 5.1.6.5.6: some of those that were negotiated. */
static bool set_offloads(struct virtio_net *net, const struct command *command)
{
	uint64_t features;
	if (command->cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || !has(net, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
		return false;
	if (!read_all(command, &features, sizeof(features)) || (features & ~net_accepted_guest_features(net)))
		return false;
	net_set_offloads(net, net_guest_offloads(features));
	return true;
}

/* --- the queue ---------------------------------------------------------------------------------------------------- */

static bool carry_out(struct virtio_net *net, uint8_t class, const struct command *command)
{
	switch (class) {
	case VIRTIO_NET_CTRL_RX:
		return set_mode(net, command);
	case VIRTIO_NET_CTRL_MAC:
		return set_mac(net, command);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return acknowledge_announce(net, command);
	case VIRTIO_NET_CTRL_MQ:
		return set_pairs(net, command);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return set_offloads(net, command);
	default:
		return false;
	}
}

static uint8_t answer_to(struct virtio_net *net, const struct virtq_chain *chain)
{
	struct virtio_net_ctrl_hdr header;
	if (chain->out_bytes < HEADER_BYTES)
		return VIRTIO_NET_ERR;
	iov_read(chain->iov, chain->out_count, 0, &header, sizeof(header));
	const struct command command = {header.cmd, chain->iov, chain->out_count, chain->out_bytes - HEADER_BYTES};
	return carry_out(net, header.class, &command) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

void net_control_serve(struct virtio_net *net, unsigned queue)
{
	struct virtq_chain chain;
	while (has(net, VIRTIO_NET_F_CTRL_VQ) && virtio_pop(&net->dev, queue, &chain) == 1) {
		uint32_t written_bytes = 0;
		if (chain.in_bytes < sizeof(virtio_net_ctrl_ack)) {
			virtio_break(&net->dev, "queue %u: a command without room for its answer", queue);
		} else {
			virtio_net_ctrl_ack ack = answer_to(net, &chain);
			written_bytes =
				(uint32_t)iov_write(chain.iov + chain.out_count, chain.in_count, 0, &ack, sizeof(ack));
		}
		virtio_push(&net->dev, queue, &chain, written_bytes);
	}
}
