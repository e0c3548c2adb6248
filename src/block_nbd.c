#include "block.h"

#include <errno.h>

/* In the making. */
struct block *block_nbd_open(struct loop *loop, const struct log *log, const struct block_nbd_config *config,
			     struct err *err)
{
	(void)loop, (void)log, (void)config;
	err_config(err, -ENOTSUP, "NBD is not built yet");
	return NULL;
}
