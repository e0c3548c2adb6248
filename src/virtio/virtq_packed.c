#include "virtio/virtq.h"
