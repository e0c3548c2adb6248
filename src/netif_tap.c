/* Opening a tap, sending, and what a device asks for. How packets are moved, and why so: netif_tap_receive.c. */
#include "netif_tap_impl.h"

#include <errno.h>
#include <stdlib.h>

static struct tap *tap_of(struct netif *netif)
{
	return container_of(netif, struct tap, netif);
}

/* --- lists ---------------------------------------------------------------------------------------------------- */

static void list_init(struct tap_list *list)
{
	*list = (struct tap_list){.tail = &list->head};
}

void tap_list_append(struct tap_list *list, struct netif_packet *packet)
{
	packet->next = NULL;
	*list->tail = packet;
	list->tail = &packet->next;
	list->count++;
}

void tap_list_prepend(struct tap_list *list, struct netif_packet *packet)
{
	packet->next = list->head;
	list->head = packet;
	if (!packet->next)
		list->tail = &packet->next;
	list->count++;
}

struct netif_packet *tap_list_pop(struct tap_list *list)
{
	struct netif_packet *packet = list->head;
	list->head = packet->next;
	if (!list->head)
		list->tail = &list->head;
	list->count--;
	return packet;
}

bool tap_list_remove(struct tap_list *list, const struct netif_packet *packet)
{
	for (struct netif_packet **at = &list->head; *at; at = &(*at)->next) {
		if (*at != packet)
			continue;
		*at = packet->next;
		if (!*at)
			list->tail = at;
		list->count--;
		return true;
	}
	return false;
}

/* --- sending -------------------------------------------------------------------------------------------------- */

static void send_done(struct loop_op *op, int res)
{
	struct netif_packet *packet = container_of(op, struct netif_packet, loop_op);
	if (res >= 0) {
		netif_complete_later(packet, 0);
		return;
	}
	tap_failed(tap_of(packet->netif), "send", res);
	netif_drop(packet);
}

static bool submit_send(struct tap_queue *queue, struct netif_packet *packet)
{
	return loop_writev(queue->tap->netif.loop, &packet->loop_op, queue->file, packet->iov, packet->iov_count, 0) ==
	       0;
}

static void send_unsent(struct loop_task *task)
{
	struct tap_queue *queue = container_of(task, struct tap_queue, unsent_task);
	while (queue->unsent.head && submit_send(queue, queue->unsent.head))
		(void)tap_list_pop(&queue->unsent);
	if (queue->unsent.head)
		loop_post(queue->tap->netif.loop, task);
}

static void tap_send(struct netif *netif, struct netif_packet *packet)
{
	struct tap_queue *queue = tap_queue_of(netif, packet);
	packet->loop_op.done = send_done;
	if (!queue->unsent.head && submit_send(queue, packet))
		return;
	tap_list_append(&queue->unsent, packet);
	loop_post(netif->loop, &queue->unsent_task);
}

/* --- what the device asks for --------------------------------------------------------------------------------- */

/* A send that the kernel has is over at the end of the round. */
static void tap_cancel(struct netif *netif, struct netif_packet *packet)
{
	struct tap_queue *queue = tap_queue_of(netif, packet);
	if (tap_list_remove(packet->receiving ? &queue->waiting : &queue->unsent, packet))
		netif_complete_later(packet, -ECANCELED);
	else if (packet->receiving)
		tap_receive_cancel(queue, packet);
}

static void tap_set_offloads(struct netif *netif, unsigned offloads)
{
	struct tap *tap = tap_of(netif);
	tap->offloads = offloads;
	int r = tap->is_gone ? 0 : netif_tap_device_set_offloads(&tap->device, offloads);
	if (r < 0)
		log_guest(tap->log, &tap->error_limit, "tap '%s': set offloads: %s", tap->device.name, err_name(r));
}

static void tap_set_queues(struct netif *netif, unsigned pairs)
{
	struct tap *tap = tap_of(netif);
	int r = tap->is_gone ? 0 : netif_tap_device_set_queues(&tap->device, tap->pairs, pairs);
	tap->pairs = pairs;
	if (r < 0)
		log_guest(tap->log, &tap->error_limit, "tap '%s': set queues: %s", tap->device.name, err_name(r));
}

/* --- opening, and again --------------------------------------------------------------------------------------- */

void tap_add_files(struct tap *tap)
{
	for (unsigned i = 0; i < tap->device.queues; i++)
		tap->queues[i].file = loop_add_file(tap->netif.loop, tap->device.fds[i]);
}

void tap_close_device(struct tap *tap)
{
	for (unsigned i = 0; i < tap->device.queues; i++)
		loop_remove_file(tap->netif.loop, tap->queues[i].file);
	netif_tap_device_close(&tap->device);
}

static void tap_destroy(struct netif *netif)
{
	struct tap *tap = tap_of(netif);
	tap_link_stop(tap);
	for (unsigned i = 0; i < netif->info.queues; i++) {
		loop_unpost(netif->loop, &tap->queues[i].receive_task);
		loop_unpost(netif->loop, &tap->queues[i].unsent_task);
	}
	tap_close_device(tap);
	free(tap);
}

static const struct netif_ops TAP_OPS = {
	.name = "tap",
	.send = tap_send,
	.receive = tap_receive,
	.cancel = tap_cancel,
	.set_offloads = tap_set_offloads,
	.set_queues = tap_set_queues,
	.destroy = tap_destroy,
};

static void init_queue(struct tap *tap, struct tap_queue *queue)
{
	queue->tap = tap;
	queue->unsent_task.fn = send_unsent;
	list_init(&queue->waiting);
	list_init(&queue->unsent);
	tap_receive_init(queue);
}

static void init(struct tap *tap, struct loop *loop, const struct log *log)
{
	netif_init(&tap->netif, &TAP_OPS, loop);
	tap->log = log;
	tap->pairs = 1;
	for (unsigned i = 0; i < tap->device.queues; i++)
		init_queue(tap, &tap->queues[i]);
	tap_add_files(tap);
	tap->netif.info = (struct netif_info){
		.queues = tap->device.queues,
		.offloads = tap->device.offloads,
		.mtu = tap->device.mtu,
		.link_up = true,
	};
	tap_link_init(tap);
}

struct netif *netif_tap_open(struct loop *loop, const struct log *log, const struct netif_tap_config *config,
			     struct err *err)
{
	struct netif_tap_device device;
	if (netif_tap_device_open(&device, config, true, err) < 0)
		return NULL;
	struct tap *tap = calloc(1, sizeof(*tap) + device.queues * sizeof(tap->queues[0]));
	if (!tap) {
		netif_tap_device_close(&device);
		err_set(err, -ENOMEM, "tap '%s': %s", device.name, err_name(ENOMEM));
		return NULL;
	}
	tap->device = device;
	init(tap, loop, log);
	return &tap->netif;
}

const char *netif_tap_interface(const struct netif *netif)
{
	return container_of(netif, const struct tap, netif)->device.name;
}
