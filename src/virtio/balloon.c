#include "virtio/balloon.h"

#include <errno.h>

struct virtio_device *virtio_balloon_new(struct loop *loop, struct gmem *gmem, const struct log *log,
					 const struct virtio_balloon_init *init, struct err *err)
{
	(void)loop;
	(void)gmem;
	(void)log;
	(void)init;
	err_set(err, -ENOTSUP, "not built yet");
	return NULL;
}
