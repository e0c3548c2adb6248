/* The MMIO transport (virtio 1.3, 4.2), version 2 only: one page of registers and one level interrupt. */
#pragma once

#include "bus.h"
#include "device.h"
#include "err.h"
#include "irq.h"
#include "virtio/virtio.h"

enum { VIRTIO_MMIO_SIZE = 0x1000 };

/*
 * Takes the device over, also on failure. To be mapped at `base` of `mmio` by the caller; the two are for the
 * doorbells. NULL with `err` set. [setup]
 */
struct device *virtio_mmio_new(struct virtio_device *dev, struct bus *mmio, uint64_t base, struct irq_line irq,
			       struct err *err);
