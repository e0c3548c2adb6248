#include "virtio/net.h"

#include <errno.h>

struct virtio_device *virtio_net_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     struct netif *netif, const struct virtio_net_init *init, struct err *err)
{
	(void)loop;
	(void)gmem;
	(void)log;
	(void)init;
	(void)netif;
	err_set(err, -ENOTSUP, "not built yet");
	return NULL;
}
