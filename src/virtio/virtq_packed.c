/* Packed virtqueues (virtio 1.3, 2.8): to be written. */
#include <errno.h>

#include "virtio/virtq_impl.h"

static int packed_map(struct virtq *q, struct err *err)
{
	(void)q;
	return err_set(err, -EINVAL, "packed rings are not there yet");
}

const struct virtq_ops virtq_packed_ops = {.map = packed_map};
