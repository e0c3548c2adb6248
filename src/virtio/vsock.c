#include "virtio/vsock.h"

#include <errno.h>

struct virtio_device *virtio_vsock_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				       struct vsock_host *host, const struct virtio_vsock_init *init, struct err *err)
{
	(void)loop;
	(void)gmem;
	(void)log;
	(void)init;
	(void)host;
	err_set(err, -ENOTSUP, "not built yet");
	return NULL;
}
