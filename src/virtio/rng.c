#include "virtio/rng.h"

#include <errno.h>

struct virtio_device *virtio_rng_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     const struct virtio_rng_init *init, struct err *err)
{
	(void)loop;
	(void)gmem;
	(void)log;
	(void)init;
	err_set(err, -ENOTSUP, "not built yet");
	return NULL;
}
