/*
 * Inside netif_tap: opening, sending and the device's wishes (netif_tap.c), receiving (netif_tap_receive.c), and an
 * interface that is set down or deleted under us (netif_tap_link.c). All of it on the loop's thread.
 */
#pragma once

#include "netif.h"
#include "netif_tap_device.h"
#include "util.h"

enum { TAP_BATCH_MAX = 32 };

/* A receive that the kernel has. */
struct tap_try {
	struct loop_op op;
	struct tap_queue *queue;
	struct netif_packet *packet; /* NULL: this one is free */
	bool waits;
	struct iovec iov[NETIF_IOV_MAX + 1]; /* the packet's and the byte after them */
	uint8_t beyond;
};

struct tap_list {
	struct netif_packet *head, **tail;
	unsigned count;
};

struct tap_queue {
	struct tap *tap;
	int file;                /* what the loop calls the descriptor */
	struct tap_list waiting; /* receives that the kernel does not have */
	struct tap_list unsent;  /* for room in the ring */
	struct loop_task receive_task, unsent_task;
	unsigned batch; /* how many receives are tried next */
	unsigned tried, came;
	unsigned active; /* tries that the kernel has */
	bool failed;     /* the one that waits */
	struct tap_try tries[TAP_BATCH_MAX];
};

struct tap {
	struct netif netif;
	const struct log *log;
	struct netif_tap_device device;
	unsigned offloads, pairs; /* as the device wants them */
	bool cannot_try;          /* no RWF_NOWAIT in this kernel */
	bool is_gone;             /* the interface was deleted */
	struct loop_op watch_op;  /* while it is down: until it is up */
	struct loop_timer again_timer;
	struct log_limit link_limit, error_limit;
	struct tap_queue queues[];
};

static inline struct tap_queue *tap_queue_of(struct netif *netif, const struct netif_packet *packet)
{
	return &container_of(netif, struct tap, netif)->queues[packet->queue]; /* the door has checked it */
}

/* --- lists (netif_tap.c) -------------------------------------------------------------------------------------- */

void tap_list_append(struct tap_list *list, struct netif_packet *packet);
void tap_list_prepend(struct tap_list *list, struct netif_packet *packet);
struct netif_packet *tap_list_pop(struct tap_list *list);                       /* not of an empty one */
bool tap_list_remove(struct tap_list *list, const struct netif_packet *packet); /* false: it was not there */

/* --- receiving ------------------------------------------------------------------------------------------------ */

void tap_receive_init(struct tap_queue *queue);
void tap_receive(struct netif *netif, struct netif_packet *packet);
/* One that does not wait in our list: the kernel has it. */
void tap_receive_cancel(struct tap_queue *queue, const struct netif_packet *packet);
/* Go on after the interface has come back. */
void tap_receive_start(struct tap_queue *queue);

/* --- the link ------------------------------------------------------------------------------------------------- */

void tap_link_init(struct tap *tap);
/* A read or a write has failed: the interface may be the reason, or the packet. */
void tap_failed(struct tap *tap, const char *what, int res);
/* Receive again in a while: what fails now may fail for ever. */
void tap_calm_down(struct tap *tap);
/* The device goes; with nothing of its own in flight. */
void tap_link_stop(struct tap *tap);

/* What the loop knows of the device's descriptors (netif_tap.c). */
void tap_add_files(struct tap *tap);
void tap_close_device(struct tap *tap);
