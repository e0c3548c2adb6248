/* Where the board's virtio devices are: on the PCI bus, or as virtio-mmio pages. */
#pragma once

#include "arch/board.h"
#include "err.h"
#include "loader/acpi.h"
#include "loader/mptable.h"
#include "virtio/virtio.h"
#include "vm.h"

struct board_virtio;

/* Make the transport's part of the machine, without devices. NULL with `err` set. [setup] */
struct board_virtio *board_virtio_new(struct vm *vm, enum board_transport transport, struct err *err);
void board_virtio_free(struct board_virtio *virtio); /* with the devices; NULL is accepted */

/* Plug a device in. Takes it over, also on failure; NULL: its constructor has set `err`. 0 or -errno. [setup] */
int board_virtio_add(struct board_virtio *virtio, struct virtio_device *dev, struct err *err);

/* What the guest has to be told. `address_bits` is how far physical addresses reach. [setup] */
void board_virtio_describe(const struct board_virtio *virtio, unsigned address_bits, struct acpi_config *acpi);
void board_virtio_describe_mptable(const struct board_virtio *virtio, struct mptable_config *mptable);
