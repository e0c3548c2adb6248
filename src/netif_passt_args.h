/* passt's command line, from what the user asked for. */
#pragma once

#include "err.h"
#include "netif.h"

enum { PASST_FD = 3 /* where passt finds its socket */ };

struct netif_passt_args {
	const char **argv; /* ends with NULL */
	char *words;       /* what argv points into */
};

/* Copies what it needs of `config`. 0, or -errno with a sentence: -EINVAL, what cannot be published. [setup] */
int netif_passt_args_init(struct netif_passt_args *ret_args, const struct netif_passt_config *config, struct err *err);
void netif_passt_args_fini(struct netif_passt_args *args); /* all-zero is fine */
