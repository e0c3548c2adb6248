/*
 * A tap interface, as descriptors: making it or attaching to it, what the kernel can do for it, and the sentences for
 * when that fails. Knows no packets and no loop. [setup], unless it says otherwise.
 */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "netif.h"

struct netif_tap_device {
	char name[IFNAMSIZ];
	int fds[NETIF_QUEUES_MAX]; /* one per pair, O_NONBLOCK */
	unsigned queues;
	unsigned offloads; /* NETIF_OFFLOAD_* that the kernel has; none is on */
	uint16_t mtu;      /* 0: not known */
	bool is_made;      /* here: it goes when the last descriptor is closed */
	bool is_given;     /* by config.fd: it cannot be opened again */
};

enum netif_tap_state {
	NETIF_TAP_UP,
	NETIF_TAP_DOWN, /* exists, and is not up */
	NETIF_TAP_GONE, /* was deleted */
};

/*
 * Every queue is open, the first is attached. An error leaves nothing open; one that is made here is up. One that is
 * busy is waited for, for up to two seconds, by who is `patient`: the kernel closes the files of an io_uring some time
 * after us (Linux 6.1: a second after loop_remove_file), and who starts a VM again at once would be told that its tap
 * is in use.
 */
int netif_tap_device_open(struct netif_tap_device *ret_device, const struct netif_tap_config *config, bool patient,
			  struct err *err);
void netif_tap_device_close(struct netif_tap_device *device);

/* In the manner of poll(2) with POLLOUT, whose bits are `poll_events`; and asked for now. [any] */
enum netif_tap_state netif_tap_state_of(uint32_t poll_events);
enum netif_tap_state netif_tap_device_state(const struct netif_tap_device *device);

/* 0 or -errno. What is no part of a sensible whole (TSO without checksums) is left out. [any] */
int netif_tap_device_set_offloads(const struct netif_tap_device *device, unsigned offloads);

/* From `from` attached queues to `to`. [any] */
int netif_tap_device_set_queues(const struct netif_tap_device *device, unsigned from, unsigned to);
