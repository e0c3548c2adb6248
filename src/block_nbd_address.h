/* Where an NBD server is: "unix:PATH[:EXPORT]", "HOST:PORT[:EXPORT]" or "[IPV6]:PORT[:EXPORT]". */
#pragma once

#include <sys/socket.h>

#include "block_nbd_proto.h"
#include "err.h"

enum { NBD_ENDPOINTS_MAX = 8 };

struct nbd_address {
	char export_name[NBD_NAME_MAX + 1]; /* "": the server's default export */
	unsigned count;
	struct nbd_endpoint {
		struct sockaddr_storage addr;
		socklen_t size_bytes;
	} endpoints[NBD_ENDPOINTS_MAX];
};

/*
 * Parse, and look a host's name up (which may take as long as the system's resolver likes). 0, or -errno with a
 * sentence that does not repeat the text. [setup]
 */
int nbd_address_resolve(const char *text, struct nbd_address *ret_address, struct err *err);
