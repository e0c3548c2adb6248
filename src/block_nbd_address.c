#include "block_nbd_address.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <string.h>
#include <sys/un.h>

static const char SYNTAX[] = "expected unix:PATH[:EXPORT], HOST:PORT[:EXPORT] or [IPV6]:PORT[:EXPORT]";

/* `size` with the terminating NUL. */
static int copy_part(char *ret, size_t size, const char *begin, size_t length, const char *what, struct err *err)
{
	if (length >= size)
		return err_config(err, -ENAMETOOLONG, "%s has more than %zu characters", what, size - 1);
	memcpy(ret, begin, length);
	ret[length] = '\0';
	return 0;
}

/* What follows the address: nothing, or a colon and a name that may hold anything. */
static int set_export(struct nbd_address *address, const char *rest, struct err *err)
{
	if (*rest == ':')
		rest++;
	return copy_part(address->export_name, sizeof(address->export_name), rest, strlen(rest), "the export's name",
			 err);
}

static int resolve_unix(const char *path, struct nbd_address *address, struct err *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t length = strcspn(path, ":");
	if (length == 0)
		return err_config(err, -EINVAL, "%s", SYNTAX);
	int r = copy_part(un.sun_path, sizeof(un.sun_path), path, length, "the socket's path", err);
	if (r < 0)
		return r;
	memcpy(&address->endpoints[0].addr, &un, sizeof(un));
	address->endpoints[0].size_bytes = sizeof(un);
	address->count = 1;
	return set_export(address, path + length, err);
}

static int look_up(const char *host, const char *port, struct nbd_address *address, struct err *err)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *list;
	int r = getaddrinfo(host, port, &hints, &list);
	if (r)
		return err_config(err, -EHOSTUNREACH, "look up host '%s', port '%s': %s", host, port, gai_strerror(r));

	address->count = 0;
	for (const struct addrinfo *at = list; at && address->count < NBD_ENDPOINTS_MAX; at = at->ai_next) {
		struct nbd_endpoint *endpoint = &address->endpoints[address->count];
		if (at->ai_addrlen > sizeof(endpoint->addr))
			continue;
		memcpy(&endpoint->addr, at->ai_addr, at->ai_addrlen);
		endpoint->size_bytes = at->ai_addrlen;
		address->count++;
	}
	freeaddrinfo(list);
	return address->count ? 0 : err_config(err, -EHOSTUNREACH, "host '%s' has no address", host);
}

static int resolve_host(const char *text, struct nbd_address *address, struct err *err)
{
	bool bracketed = *text == '[';
	const char *host = text + bracketed;
	size_t host_length = strcspn(host, bracketed ? "]" : ":");
	const char *rest = host + host_length;
	if (bracketed && *rest == ']')
		rest++;
	if (host_length == 0 || *rest != ':')
		return err_config(err, -EINVAL, "%s", SYNTAX);
	const char *port = rest + 1;
	size_t port_length = strcspn(port, ":");
	if (port_length == 0)
		return err_config(err, -EINVAL, "%s", SYNTAX);

	char host_text[256], port_text[32];
	int r = copy_part(host_text, sizeof(host_text), host, host_length, "the host's name", err);
	if (r == 0)
		r = copy_part(port_text, sizeof(port_text), port, port_length, "the port", err);
	if (r == 0)
		r = set_export(address, port + port_length, err);
	return r < 0 ? r : look_up(host_text, port_text, address, err);
}

int nbd_address_resolve(const char *text, struct nbd_address *ret_address, struct err *err)
{
	static const char UNIX_PREFIX[] = "unix:";
	size_t prefix = sizeof(UNIX_PREFIX) - 1;
	if (strncmp(text, UNIX_PREFIX, prefix) == 0)
		return resolve_unix(text + prefix, ret_address, err);
	return resolve_host(text, ret_address, err);
}
