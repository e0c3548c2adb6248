#include "virtio/console.h"

#include <errno.h>

struct virtio_device *virtio_console_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
					 const struct virtio_console_init *init, struct err *err)
{
	(void)loop;
	(void)gmem;
	(void)log;
	(void)init;
	err_set(err, -ENOTSUP, "not built yet");
	return NULL;
}
