/*
 * The two rates of a virtio-net device.
 *
 * A packet that is refused is the first in line: while it waits no other of its way takes anything, or small packets
 * would keep the bucket from ever filling up for a large one. What is to go out waits in its ring. What has come in
 * waits in its receive, and no new receives are posted, so that the rest waits in the back end.
 */
#include "util.h"
#include "virtio/net_impl.h"

static void wait_until(struct virtio_net *net, struct net_limit *limit, uint64_t time_ns)
{
	limit->waiting = true;
	loop_timer_arm(net->dev.loop, &limit->timer, time_ns);
}

/* --- out ------------------------------------------------------------------------------------------------------ */

bool net_limit_tx(struct virtio_net *net, unsigned pair, uint32_t packet_bytes)
{
	struct net_limit *limit = &net->tx_limit;
	if (!rate_limit_is_set(&limit->rate))
		return true;
	uint64_t again_ns = rate_limit_take(&limit->rate, 1, packet_bytes - NETIF_HEADER_BYTES, loop_now_ns());
	if (!again_ns)
		return true;
	net->tx_first = pair;
	wait_until(net, limit, again_ns);
	return false;
}

/* First the packet that has waited, then the pairs behind its own: one that always has packets cannot take all. */
static void serve_in_turn(struct virtio_net *net)
{
	unsigned first = net->tx_first;
	net_tx_serve(&net->tx[first], 1);
	for (unsigned i = 1; i <= net->pairs_max && !net->tx_limit.waiting; i++)
		net_tx_serve(&net->tx[(first + i) % net->pairs_max], UINT32_MAX);
}

static void tx_passed(struct loop_timer *timer)
{
	struct virtio_net *net = container_of(timer, struct virtio_net, tx_limit.timer);
	virtio_lock(&net->dev);
	net->tx_limit.waiting = false;
	serve_in_turn(net);
	virtio_unlock(&net->dev);
}

/* Its queue is stopped: whatever it wanted, the others need not wait for. */
void net_limit_forget_tx(struct virtio_net *net, unsigned pair)
{
	if (net->tx_limit.waiting && net->tx_first == pair)
		wait_until(net, &net->tx_limit, loop_now_ns());
}

/* --- in ------------------------------------------------------------------------------------------------------- */

bool net_limit_rx(struct net_receive *receive, uint32_t packet_bytes)
{
	struct virtio_net *net = receive->rx->net;
	struct net_limit *limit = &net->rx_limit;
	if (!rate_limit_is_set(&limit->rate))
		return true;
	uint32_t size_bytes = packet_bytes - NETIF_HEADER_BYTES;
	uint64_t again_ns = net->held ? 0 : rate_limit_take(&limit->rate, 1, size_bytes, loop_now_ns());
	if (!net->held && !again_ns)
		return true;
	if (!net->held)
		wait_until(net, limit, again_ns);
	receive->held_bytes = packet_bytes;
	receive->next = NULL;
	*net->held_tail = receive;
	net->held_tail = &receive->next;
	return false;
}

static struct net_receive *take_held(struct virtio_net *net)
{
	struct net_receive *receive = net->held;
	net->held = receive->next;
	if (!net->held)
		net->held_tail = &net->held;
	return receive;
}

static void rx_passed(struct loop_timer *timer)
{
	struct virtio_net *net = container_of(timer, struct virtio_net, rx_limit.timer);
	struct net_limit *limit = &net->rx_limit;
	virtio_lock(&net->dev);
	limit->waiting = false;
	while (net->held && !limit->waiting) {
		uint32_t size_bytes = net->held->held_bytes - NETIF_HEADER_BYTES;
		uint64_t again_ns = rate_limit_take(&limit->rate, 1, size_bytes, loop_now_ns());
		if (again_ns)
			wait_until(net, limit, again_ns);
		else
			net_rx_release(take_held(net));
	}
	for (unsigned i = 0; i < net->pairs && !limit->waiting; i++)
		virtio_kick(&net->dev, net->rx[i].queue);
	virtio_unlock(&net->dev);
}

void net_limit_forget_rx(struct net_rx *rx)
{
	struct virtio_net *net = rx->net;
	struct net_receive *receive = net->held;
	net->held = NULL;
	net->held_tail = &net->held;
	while (receive) {
		struct net_receive *next = receive->next;
		if (receive->rx == rx) {
			net_rx_discard(receive);
		} else {
			receive->next = NULL;
			*net->held_tail = receive;
			net->held_tail = &receive->next;
		}
		receive = next;
	}
	if (net->rx_limit.waiting && !net->held)
		wait_until(net, &net->rx_limit, loop_now_ns()); /* the other queues go on */
}

/* --- life ------------------------------------------------------------------------------------------------------- */

void net_limit_init(struct virtio_net *net, const struct rate_limit_config *config)
{
	rate_limit_init(&net->tx_limit.rate, config, loop_now_ns());
	rate_limit_init(&net->rx_limit.rate, config, loop_now_ns());
	net->tx_limit.timer.fn = tx_passed;
	net->rx_limit.timer.fn = rx_passed;
	net->held_tail = &net->held;
}

void net_limit_reset(struct virtio_net *net)
{
	loop_timer_disarm(net->dev.loop, &net->tx_limit.timer);
	loop_timer_disarm(net->dev.loop, &net->rx_limit.timer);
	net->tx_limit.waiting = net->rx_limit.waiting = false;
}
