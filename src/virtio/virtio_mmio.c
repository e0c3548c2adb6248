#include "virtio/virtio_mmio.h"
