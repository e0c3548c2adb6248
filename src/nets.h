/* A VM's network cards as the host has them: their back ends, open. They outlive a guest's restart. */
#pragma once

#include "vmlet.h"

#include "arch/board.h"
#include "config.h"
#include "err.h"
#include "log.h"
#include "loop.h"

struct nets {
	unsigned count;
	struct board_net *list; /* as the board wants them; in the order of the configuration */
	char (*names)[DEVICE_NAME_MAX];
	const char **interfaces; /* the back ends'; NULL: no tap */
};

/* Open every network card of `config`, which is checked. 0, or -errno with a sentence; nets_close is due either way.
 * [setup] */
int nets_open(struct nets *nets, const struct vmlet_config *config, struct loop *loop, const struct log *log,
	      struct err *err);
void nets_close(struct nets *nets); /* no device uses them any more */

/* Pull the cable of card `index`, or plug it in; `dev` is its device now. [owner] */
void nets_set_link(struct nets *nets, unsigned index, struct virtio_device *dev, bool up);

/* The host's interface behind card `index`, or NULL: it is no tap. Valid until nets_close. */
const char *nets_interface(const struct nets *nets, unsigned index);

/* The name of card `index`, its own or the default one, in `ret_name`. */
const char *nets_name(const struct vmlet_config *config, unsigned index, char ret_name[DEVICE_NAME_MAX]);

/* The card of this name, or -ENOENT. */
int nets_find(const struct vmlet_config *config, const char *name);
