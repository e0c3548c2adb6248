/*
 * An interface that is set down, or deleted, under a running guest. The first is seen by a write that fails, and over
 * when the kernel lets us write again; after the second the interface's name is looked for, once a second. Meanwhile
 * the guest's link is down, and its receives wait.
 */
#include "netif_tap_impl.h"

#include <errno.h>
#include <poll.h>

static const uint64_t LOOK_AGAIN_NS = 1000000000;
static const uint64_t CALM_NS = 10000000;

/* --- down, and gone ------------------------------------------------------------------------------------------- */

static void set_gone(struct tap *tap)
{
	if (tap->is_gone)
		return;
	tap->is_gone = true;
	log_guest(tap->log, &tap->link_limit, "tap '%s': the interface was deleted; the guest's link is down%s",
		  tap->device.name, tap->device.is_given ? " for good" : " until there is one of that name again");
	loop_cancel(tap->netif.loop, &tap->watch_op);
	if (!tap->device.is_given)
		loop_timer_arm(tap->netif.loop, &tap->again_timer, loop_now_ns() + LOOK_AGAIN_NS);
	netif_set_link(&tap->netif, false);
}

/* The kernel tells those who want to write when it is up. The ring being full passes. */
static void watch(struct tap *tap)
{
	if (tap->watch_op.state == LOOP_OP_IDLE &&
	    loop_poll(tap->netif.loop, &tap->watch_op, tap->queues[0].file, POLLOUT) < 0)
		loop_timer_arm(tap->netif.loop, &tap->again_timer, loop_now_ns() + LOOK_AGAIN_NS);
}

static void watch_done(struct loop_op *op, int res)
{
	struct tap *tap = container_of(op, struct tap, watch_op);
	if (res == -ECANCELED || tap->is_gone)
		return;
	if (res < 0 || netif_tap_state_of((uint32_t)res) != NETIF_TAP_UP) {
		set_gone(tap);
		return;
	}
	log_info(tap->log, "tap '%s': the interface is up again", tap->device.name);
	netif_set_link(&tap->netif, true);
}

static void set_down(struct tap *tap)
{
	if (tap->is_gone || !tap->netif.info.link_up)
		return;
	log_guest(tap->log, &tap->link_limit,
		  "tap '%s': the interface is down, and so is the guest's link until: ip link set %s up",
		  tap->device.name, tap->device.name);
	watch(tap);
	netif_set_link(&tap->netif, false);
}

void tap_failed(struct tap *tap, const char *what, int res)
{
	enum netif_tap_state state = netif_tap_device_state(&tap->device);
	if (state == NETIF_TAP_GONE)
		set_gone(tap);
	else if (state == NETIF_TAP_DOWN)
		set_down(tap);
	else
		log_guest(tap->log, &tap->error_limit, "tap '%s': %s a packet: %s", tap->device.name, what,
			  err_name(res));
}

void tap_calm_down(struct tap *tap)
{
	if (!tap->is_gone)
		loop_timer_arm(tap->netif.loop, &tap->again_timer, loop_now_ns() + CALM_NS);
}

/* --- back again ----------------------------------------------------------------------------------------------- */

static bool kernel_has_something(const struct tap *tap)
{
	unsigned ours = 0;
	for (unsigned i = 0; i < tap->netif.info.queues; i++)
		ours += tap->queues[i].waiting.count;
	return tap->watch_op.state != LOOP_OP_IDLE || ours != tap->netif.in_flight;
}

/* Only what others have made again: one of our making would stand in their way. */
static bool open_again(struct tap *tap)
{
	struct netif_tap_config config = {.interface = tap->device.name, .queues = tap->netif.info.queues, .fd = -1};
	struct netif_tap_device device;
	if (kernel_has_something(tap) || !if_nametoindex(tap->device.name) ||
	    netif_tap_device_open(&device, &config, false, NULL) < 0)
		return false;
	tap_close_device(tap);
	tap->device = device;
	tap_add_files(tap);
	(void)netif_tap_device_set_offloads(&tap->device, tap->offloads);
	(void)netif_tap_device_set_queues(&tap->device, 1, tap->pairs);
	return true;
}

static void look_again(struct loop_timer *timer)
{
	struct tap *tap = container_of(timer, struct tap, again_timer);
	if (tap->is_gone && !open_again(tap)) {
		loop_timer_arm(tap->netif.loop, timer, loop_now_ns() + LOOK_AGAIN_NS);
		return;
	}
	tap->is_gone = false;
	for (unsigned i = 0; i < tap->netif.info.queues; i++)
		tap_receive_start(&tap->queues[i]);
	if (!tap->netif.info.link_up)
		watch(tap); /* it is up when the interface is */
}

/* --- begin and end -------------------------------------------------------------------------------------------- */

void tap_link_init(struct tap *tap)
{
	tap->watch_op.done = watch_done;
	tap->again_timer.fn = look_again;
	if (netif_tap_device_state(&tap->device) != NETIF_TAP_UP)
		set_down(tap);
}

void tap_link_stop(struct tap *tap)
{
	loop_timer_disarm(tap->netif.loop, &tap->again_timer);
	loop_cancel(tap->netif.loop, &tap->watch_op);
	loop_drain(tap->netif.loop, &tap->watch_op);
}
