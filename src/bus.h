/*
 * An address space of device registers (one for PIO, one for MMIO): who answers at which address.
 *
 * An access goes to a device only if all of it lies inside one mapping. Everything else (nobody there, half
 * outside, a size that the device does not take) reads as all-ones and writes nothing, as on a PC's bus.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "device.h"
#include "err.h"

enum { BUS_RANGES_MAX = 128 };

struct bus_range {
	uint64_t first, last; /* inclusive */
	struct device *dev;
	uint64_t offset; /* the device's offset at `first` */
};

struct bus {
	const char *name;
	uint64_t last; /* highest valid address */
	pthread_rwlock_t lock;
	unsigned count;
	struct bus_range ranges[BUS_RANGES_MAX]; /* ascending, disjoint */
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

/* size_bytes is 1, 2, 4 or 8; a read's value is zero-extended. [vcpu] */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size_bytes);
void bus_write(struct bus *bus, uint64_t addr, unsigned size_bytes, uint64_t value);
