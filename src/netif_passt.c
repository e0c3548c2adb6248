#include "netif.h"

#include <errno.h>

struct netif *netif_passt_open(struct loop *loop, const struct log *log, const struct netif_passt_config *config,
			       struct err *err)
{
	(void)loop;
	(void)log;
	(void)config;
	err_set(err, -ENOTSUP, "not built yet");
	return NULL;
}
