#include "virtio/virtio_pci.h"
