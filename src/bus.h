/*
 * An address space of device registers (one for PIO, one for MMIO): who answers at which address.
 *
 * An access goes to a device only if all of it lies inside one mapping. Everything else (nobody there, half
 * outside, a size that the device does not take) reads as all-ones and writes nothing, as on a PC's bus.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "err.h"

enum { BUS_RANGES_MAX = 128 };

struct bus_range {
	uint64_t first, last; /* inclusive */
	struct device *dev;
	uint64_t offset; /* the device's offset at `first` */
};

/*
 * A doorbell: a register whose writes do nothing but count up an eventfd. The machine may let the kernel do that
 * without an exit to us; where it cannot, the device's own `write` is called, and has to do the same.
 */
struct bus_doorbell {
	uint64_t addr;
	unsigned size_bytes; /* 0: a write of any size */
	bool has_value;      /* only writes of `value` ring */
	uint32_t value;
	int eventfd;
};

struct bus_doorbell_ops {
	int (*add)(void *ctx, const struct bus_doorbell *doorbell); /* 0 or -errno. [any] */
	void (*remove)(void *ctx, const struct bus_doorbell *doorbell);
};

struct bus {
	const char *name;
	uint64_t last; /* highest valid address */
	pthread_rwlock_t lock;
	unsigned count;
	struct bus_range ranges[BUS_RANGES_MAX];     /* ascending, disjoint */
	const struct bus_doorbell_ops *doorbell_ops; /* NULL: no accelerator. Set before the first device. */
	void *doorbell_ctx;
};

void bus_init(struct bus *bus, const char *name, uint64_t last);
void bus_fini(struct bus *bus);

/*
 * Give [first, last] to `dev`, whose register `offset` stands at `first`. The device is borrowed and must
 * outlive the mapping. -EINVAL for an impossible range, -EEXIST when it overlaps another, -ENOSPC. [any]
 */
int bus_map(struct bus *bus, uint64_t first, uint64_t last, struct device *dev, uint64_t offset, struct err *err);

/* Take away every mapping of `dev`. An access already under way may still finish. [any] */
void bus_unmap(struct bus *bus, const struct device *dev);

/* Take away one of them, the one that begins at `first`; the others do not blink. [any] */
void bus_unmap_range(struct bus *bus, const struct device *dev, uint64_t first);

/* Speed a register up, where the machine can; a failure costs speed only. The same value takes it back. [any] */
void bus_add_doorbell(struct bus *bus, const struct bus_doorbell *doorbell);
void bus_remove_doorbell(struct bus *bus, const struct bus_doorbell *doorbell);

/* size_bytes is 1, 2, 4 or 8; a read's value is zero-extended. [vcpu] */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size_bytes);
void bus_write(struct bus *bus, uint64_t addr, unsigned size_bytes, uint64_t value);
