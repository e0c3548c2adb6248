/*
 * The board: which devices a machine has, where they are, and how it boots. The only place that names
 * concrete devices; one directory under src/arch/ implements it.
 */
#pragma once

#include "chr.h"
#include "err.h"
#include "gmem.h"
#include "loader/loader.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "vm.h"

struct board;

enum board_transport {
	BOARD_TRANSPORT_PCI,
	BOARD_TRANSPORT_MMIO,
};

struct board_disk {
	const char *name;    /* for messages; borrowed */
	struct block *block; /* borrowed */
	struct loop *loop;   /* the block's */
	struct virtio_blk_init init;
};

struct board_net {
	const char *name;    /* for messages; borrowed */
	struct netif *netif; /* borrowed; on the VM's loop */
	struct virtio_net_init init;
};

struct board_config {
	const struct image *kernel;
	const struct image *initrds;
	unsigned initrd_count;
	const char *cmdline;
	enum boot_protocol protocol;
	const char *cpu_features;
	unsigned cpu_count;
	struct chr *serial;   /* COM1; borrowed */
	struct chr *debugcon; /* debug console; borrowed */
	struct board_streams {
		struct chr *in, *out, *err; /* `in` NULL: no stream port; borrowed */
		uint16_t rows, columns;
	} streams;
	enum board_transport transport;
	const struct board_disk *disks;
	unsigned disk_count;
	const struct board_net *nets;
	unsigned net_count;
	const struct virtio_console_port *consoles;
	unsigned console_count;
	bool has_console; /* a virtio-console, if only for its status port */
	bool consoles_packed;
	bool has_rng, has_balloon;
	struct virtio_rng_init rng;
	struct virtio_balloon_init balloon;
	struct vsock_host *vsock_host; /* NULL: no vsock; borrowed */
	struct virtio_vsock_init vsock;
	struct virtio_sink virtio_sink; /* told when a virtio device breaks */
};

/* The most vCPUs that a board takes. */
unsigned board_max_cpus(void);

/* The most virtio devices. */
unsigned board_max_virtio_devices(enum board_transport transport);

/* RAM regions for this much memory, around the hole that devices need. 0, or -EINVAL with a sentence. [setup] */
int board_memory_layout(uint64_t memory_bytes, struct gmem_region *ret_regions, unsigned *ret_count, struct err *err);

/* Put the devices on the VM's buses, make its vCPUs, load the kernel. NULL with `err` set. [setup] */
struct board *board_new(const struct board_config *config, struct vm *vm, struct err *err);
void board_free(struct board *board); /* the VM is stopped */

/* When the kernel was in guest memory, CLOCK_MONOTONIC. */
uint64_t board_loaded_ns(const struct board *board);

/* The device of config->disks[index], of config->nets[index]; the console and the balloon, NULL when there is none. */
struct virtio_device *board_get_disk(struct board *board, unsigned index);
struct virtio_device *board_get_net(struct board *board, unsigned index);
struct virtio_device *board_get_console(struct board *board);
struct virtio_device *board_get_balloon(struct board *board);

void board_press_power_button(struct board *board);

/* A no-op without a stream port. [any] */
void board_set_window_size(struct board *board, uint16_t rows, uint16_t columns);
