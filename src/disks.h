/* A VM's disks as the host has them: their back ends, open, on their loops. They outlive a guest's restart. */
#pragma once

#include "vmlet.h"

#include "arch/board.h"
#include "config.h"
#include "err.h"
#include "iothread.h"
#include "log.h"
#include "loop.h"

struct disks {
	unsigned count;
	struct board_disk *list; /* as the board wants them; in the order of the configuration */
	char (*names)[DEVICE_NAME_MAX];
	unsigned iothread_count;
	struct iothread **iothreads;
};

/*
 * Start the I/O threads and open every disk of `config`, which is checked. 0, or -errno with a sentence; disks_close is
 * due either way. [setup]
 */
int disks_open(struct disks *disks, const struct vmlet_config *config, struct loop *loop, const struct log *log,
	       struct err *err);
void disks_close(struct disks *disks); /* no device uses them any more */

/* Look at disk `index`'s size again; `dev` is its device now. 0, or -errno with a sentence. [owner] */
int disks_resize(struct disks *disks, unsigned index, struct virtio_device *dev, struct err *err);

/* The name of disk `index`, its own or the default one, in `ret_name`. */
const char *disks_name(const struct vmlet_config *config, unsigned index, char ret_name[DEVICE_NAME_MAX]);

/* The disk of this name, or -ENOENT. */
int disks_find(const struct vmlet_config *config, const char *name);
