/* Which virtio devices a machine has; where they are is board_virtio's business. */
#pragma once

#include "arch/board.h"
#include "arch/x86/board_virtio.h"
#include "err.h"
#include "virtio/virtio.h"

/* All zero at first. The devices are board_virtio's. */
struct board_models {
	struct virtio_device **disks, **nets;    /* as in the configuration */
	struct virtio_device *console, *balloon; /* NULL: there is none */
};

/* Make what `config` asks for and put it on the bus. 0, or -errno with a sentence; board_models_free is due either way.
 * [setup] */
int board_models_add(struct board_models *models, struct vm *vm, const struct board_config *config,
		     struct board_virtio *virtio, struct err *err);
void board_models_free(struct board_models *models);
