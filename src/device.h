/*
 * A device as the fabric sees it: registers at offsets, behind one lock and one door.
 *
 * A device's struct embeds `struct device` and its functions get at themselves with container_of. It knows
 * offsets, its wires (irq_line, guest_event_sink) and its back end; never an address, never the machine.
 *
 * The lock is taken here, at the door: `read` and `write` run with it held, on a vCPU thread. A device's own
 * callbacks from the street side (loop thread) take it with device_lock.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

struct device;

struct device_ops {
	const char *name;
	unsigned access_sizes; /* OR of the sizes in bytes that registers accept: 1, 2, 4, 8 */

	/* Register access: the door has checked the size and that the range lies inside the mapping. [vcpu] */
	uint64_t (*read)(struct device *dev, uint64_t offset, unsigned size_bytes);
	void (*write)(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value);

	/* Free the device. No vCPU runs, nothing of it is in flight. [setup] */
	void (*destroy)(struct device *dev);
};

struct device {
	const struct device_ops *ops;
	pthread_mutex_t mutex; /* private: device_lock, device_unlock */
};

void device_init(struct device *dev, const struct device_ops *ops);
void device_fini(struct device *dev);

void device_lock(struct device *dev);
void device_unlock(struct device *dev);

/* Wait for a condition that is changed under the device's lock; the lock is free meanwhile. [vcpu] */
void device_wait(struct device *dev, pthread_cond_t *condition);

/* The door. A refused size reads as all-ones (of that size) and its write is dropped. [vcpu] */
uint64_t device_read(struct device *dev, uint64_t offset, unsigned size_bytes);
void device_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value);

/* Calls ops->destroy; NULL is accepted. */
void device_free(struct device *dev);
