#include "netif.h"

#include <assert.h>
#include <errno.h>

#include "util.h"

/* By subtraction, so that nothing wraps whatever the lengths are. */
static bool is_possible(const struct netif *netif, const struct netif_packet *packet)
{
	uint32_t left = packet->size_bytes;
	if (packet->queue >= netif->info.queues || packet->iov_count > NETIF_IOV_MAX || left > NETIF_PACKET_MAX_BYTES)
		return false;
	for (unsigned i = 0; i < packet->iov_count; i++) {
		if (packet->iov[i].iov_len > left)
			return false;
		left -= (uint32_t)packet->iov[i].iov_len;
	}
	return left == 0 && packet->size_bytes >= NETIF_HEADER_BYTES + NETIF_FRAME_MIN_BYTES;
}

/* --- ends -------------------------------------------------------------------------------------------------- */

/* The list is detached first: a `done` may submit again, and the last one may free the back end. */
static void end_packets(struct loop_task *task)
{
	struct netif *netif = container_of(task, struct netif, ended_task);
	struct netif_packet *packet = netif->ended;
	netif->ended = NULL;
	netif->ended_tail = &netif->ended;
	while (packet) {
		struct netif_packet *next = packet->next;
		netif_complete(packet, packet->result);
		packet = next;
	}
}

void netif_complete_later(struct netif_packet *packet, int res)
{
	struct netif *netif = packet->netif;
	assert(!packet->ended);
	packet->ended = true;
	packet->result = res;
	packet->next = NULL;
	*netif->ended_tail = packet;
	netif->ended_tail = &packet->next;
	loop_defer(netif->loop, &netif->ended_task);
}

void netif_drop(struct netif_packet *packet)
{
	packet->dropped = true;
	netif_complete_later(packet, 0);
}

static void count(struct netif *netif, const struct netif_packet *packet, int res)
{
	struct netif_counters *counters = &netif->counters;
	if (packet->dropped) {
		counters->dropped++;
	} else if (packet->receiving && res > NETIF_HEADER_BYTES) {
		counters->received++;
		counters->received_bytes += (unsigned)res - NETIF_HEADER_BYTES;
	} else if (!packet->receiving && res == 0) {
		counters->sent++;
		counters->sent_bytes += packet->size_bytes - NETIF_HEADER_BYTES;
	}
}

void netif_complete(struct netif_packet *packet, int res)
{
	struct netif *netif = packet->netif;
	assert(netif && netif->in_flight);
	count(netif, packet, res);
	netif->in_flight--;
	packet->netif = NULL;
	packet->done(packet, res);
}

/* --- the door ------------------------------------------------------------------------------------------------ */

void netif_init(struct netif *netif, const struct netif_ops *ops, struct loop *loop)
{
	netif->ops = ops;
	netif->loop = loop;
	netif->in_flight = 0;
	netif->ended = NULL;
	netif->ended_tail = &netif->ended;
	netif->ended_task = (struct loop_task){.fn = end_packets};
}

static bool begin(struct netif *netif, struct netif_packet *packet, bool receiving)
{
	assert(!packet->netif && packet->done);
	packet->netif = netif;
	packet->next = NULL;
	packet->progress_bytes = 0;
	packet->receiving = receiving;
	packet->cancelled = packet->dropped = packet->ended = false;
	netif->in_flight++;
	if (is_possible(netif, packet))
		return true;
	netif_complete_later(packet, -EINVAL);
	return false;
}

void netif_send(struct netif *netif, struct netif_packet *packet)
{
	if (!begin(netif, packet, false))
		return;
	if (netif->info.link_up)
		netif->ops->send(netif, packet);
	else
		netif_drop(packet);
}

void netif_receive(struct netif *netif, struct netif_packet *packet)
{
	if (begin(netif, packet, true))
		netif->ops->receive(netif, packet);
}

void netif_cancel(struct netif *netif, struct netif_packet *packet)
{
	if (packet->netif != netif || packet->ended || packet->cancelled)
		return;
	packet->cancelled = true;
	netif->ops->cancel(netif, packet);
}

void netif_set_client(struct netif *netif, const struct netif_client *client)
{
	netif->client = client ? *client : (struct netif_client){0};
}

void netif_set_offloads(struct netif *netif, unsigned offloads)
{
	assert((offloads & ~netif->info.offloads) == 0);
	if (netif->ops->set_offloads)
		netif->ops->set_offloads(netif, offloads);
}

void netif_set_queues(struct netif *netif, unsigned pairs)
{
	assert(pairs >= 1 && pairs <= netif->info.queues);
	if (netif->ops->set_queues)
		netif->ops->set_queues(netif, pairs);
}

void netif_set_link(struct netif *netif, bool up)
{
	if (netif->info.link_up == up)
		return;
	netif->info.link_up = up;
	if (netif->client.link)
		netif->client.link(netif->client.ctx, up);
}

void netif_free(struct netif *netif)
{
	if (!netif)
		return;
	assert(netif->in_flight == 0);
	netif->ops->destroy(netif);
}
