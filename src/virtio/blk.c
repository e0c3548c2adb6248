#include "virtio/blk.h"
