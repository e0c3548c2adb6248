#include "netif_passt_args.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

enum {
	ADDRESS_MAX = INET6_ADDRSTRLEN,
	SPEC_MAX = ADDRESS_MAX + 16, /* "ADDRESS/65535:65535" */
	FIXED_WORDS = 8,             /* besides what is published */
	FIXED_BYTES = 16,
};
static const char UDP_SUFFIX[] = "/udp";

/* --- what is published ------------------------------------------------------------------------------------------- */

/* 1 to 65535 in decimal digits and nothing else, up to `end`; 0: it is not. */
static unsigned parse_port(const char *text, const char *end)
{
	unsigned port = 0;
	if (text == end || *text == '0')
		return 0;
	for (; text < end; text++) {
		if (*text < '0' || *text > '9')
			return 0;
		port = port * 10 + (unsigned)(*text - '0');
		if (port > 65535)
			return 0;
	}
	return port;
}

static bool is_address(const char *text)
{
	struct in6_addr address;
	return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* "[ADDRESS/]HOSTPORT[:GUESTPORT][/udp]" to passt's "[ADDRESS/]HOSTPORT:GUESTPORT". */
static int parse_publish(const char *text, char ret_spec[static SPEC_MAX], bool *ret_udp)
{
	const char *end = text + strlen(text), *suffix = end - strlen(UDP_SUFFIX);
	*ret_udp = strlen(text) > strlen(UDP_SUFFIX) && strcmp(suffix, UDP_SUFFIX) == 0;
	if (*ret_udp)
		end = suffix;

	char address[ADDRESS_MAX + 1] = "";
	const char *slash = memchr(text, '/', (size_t)(end - text));
	if (slash) {
		size_t length = (size_t)(slash - text);
		if (length >= ADDRESS_MAX)
			return -EINVAL;
		memcpy(address, text, length);
		if (!is_address(address))
			return -EINVAL;
		address[length] = '/';
		text = slash + 1;
	}
	const char *colon = memchr(text, ':', (size_t)(end - text));
	unsigned host = parse_port(text, colon ? colon : end), guest = colon ? parse_port(colon + 1, end) : host;
	if (!host || !guest)
		return -EINVAL;
	(void)snprintf(ret_spec, SPEC_MAX, "%s%u:%u", address, host, guest);
	return 0;
}

/* --- the command line ----------------------------------------------------------------------------------------------
 */

/* passt takes -t and -u as often as one likes; one of each with commas it takes only without addresses. */
static int add_publish(const char **argv, char *spec, const char *text, struct err *err)
{
	bool udp;
	if (parse_publish(text, spec, &udp) < 0)
		return err_config(
			err, -EINVAL,
			"publish '%s': expected [ADDRESS/]HOSTPORT[:GUESTPORT][/udp], with an IP address, and "
			"ports from 1 to 65535",
			text);
	argv[0] = udp ? "-u" : "-t";
	argv[1] = spec;
	return 0;
}

static int fill(struct netif_passt_args *args, const struct netif_passt_config *config, struct err *err)
{
	const char **at = args->argv;
	char *words = args->words;
	*at++ = config->program;
	*at++ = "--foreground";
	*at++ = "--quiet";
	*at++ = "--fd";
	(void)snprintf(words, FIXED_BYTES, "%d", PASST_FD);
	*at++ = words;
	words += FIXED_BYTES;
	if (config->mtu) {
		(void)snprintf(words, FIXED_BYTES, "%u", (unsigned)config->mtu);
		*at++ = "-m";
		*at++ = words;
		words += FIXED_BYTES;
	}
	for (unsigned i = 0; i < config->publish_count; i++, at += 2, words += SPEC_MAX) {
		int r = add_publish(at, words, config->publish[i], err);
		if (r < 0)
			return r;
	}
	memcpy(words, config->program, strlen(config->program) + 1);
	args->argv[0] = words;
	return 0;
}

int netif_passt_args_init(struct netif_passt_args *ret_args, const struct netif_passt_config *config, struct err *err)
{
	size_t bytes = (size_t)2 * FIXED_BYTES + (size_t)config->publish_count * SPEC_MAX + strlen(config->program) + 1;
	struct netif_passt_args args = {calloc(FIXED_WORDS + (size_t)2 * config->publish_count, sizeof(char *)),
					calloc(1, bytes)};
	int r = args.argv && args.words ? fill(&args, config, err) : err_set(err, -ENOMEM, "%s", err_name(ENOMEM));
	if (r < 0)
		netif_passt_args_fini(&args);
	else
		*ret_args = args;
	return r;
}

void netif_passt_args_fini(struct netif_passt_args *args)
{
	free(args->argv);
	free(args->words);
	*args = (struct netif_passt_args){0};
}
