#include "vsock_host.h"

#include <errno.h>

struct vsock_host *vsock_host_new(struct loop *loop, const struct log *log, const char *path, struct err *err)
{
	(void)loop;
	(void)log;
	(void)path;
	err_set(err, -ENOTSUP, "not built yet");
	return NULL;
}

void vsock_host_free(struct vsock_host *host)
{
	(void)host;
}
