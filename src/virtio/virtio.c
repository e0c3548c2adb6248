#include "virtio/virtio.h"
