/*
 * The PCI transport (virtio 1.3, 4.1): a modern-only function (device id 0x1040 + type) with one BAR that holds the
 * common configuration, ISR, device configuration and notification areas, and MSI-X. No legacy interface.
 */
#pragma once

#include "devices/pci.h"
#include "err.h"
#include "virtio/virtio.h"

/* Takes the device over, also on failure. The function is to be plugged into a host bridge. NULL with `err` set.
 * [setup] */
struct pci_function *virtio_pci_new(struct virtio_device *dev, struct err *err);
