/* Between virtio.c (registers, vCPU side) and virtio_queue.c (rings, loop side). The lock is held. */
#pragma once

#include "virtio/virtio.h"

void virtio_queue_init_tasks(struct virtio_device *dev);

/* Map the ring of an enabled queue; a ring that cannot be breaks the device. The loop has to be told. [vcpu] */
int virtio_queue_start(struct virtio_queue *queue);

/* Nothing of it is in flight: it is no longer enabled. */
void virtio_queue_release(struct virtio_queue *queue);

/* Have the loop start and stop what is to be. [any] */
void virtio_tell_loop(struct virtio_device *dev);

/* No ring is left: everything as after creation. */
void virtio_finish_reset(struct virtio_device *dev);
