#include "cli/net_option.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/values.h"

enum { FD_MIN = 3, FD_MAX = 1 << 20, PORT_MAX = 65535 };

#define SOURCES "passt[=SOCKET], tap[=NAME], stream=PATH, listen=PATH, fd=N or none"

/* --- settings -------------------------------------------------------------------------------------------- */

/* -1: not a digit. */
static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "52:54:00:12:34:56". A card's address is one station's, so it has no multicast bit, and is not zero. */
static int apply_mac(void *item, char *value)
{
	uint8_t mac[NET_MAC_BYTES];
	unsigned any = 0;

	for (int i = 0; i < NET_MAC_BYTES; i++, value += 3) {
		int high = hex_digit(value[0]), low = high < 0 ? -1 : hex_digit(value[1]);

		if (low < 0 || value[2] != (i < NET_MAC_BYTES - 1 ? ':' : '\0'))
			return -EINVAL;
		mac[i] = (uint8_t)(high << 4 | low);
		any |= mac[i];
	}
	if (any == 0 || (mac[0] & 1) != 0)
		return -EINVAL;
	memcpy(((struct net_option *)item)->mac, mac, sizeof(mac));
	return 0;
}

static int apply_mtu(void *item, char *value)
{
	return settings_take_number(value, NET_MTU_MIN, NET_MTU_MAX, &((struct net_option *)item)->mtu);
}

static int apply_queues(void *item, char *value)
{
	return settings_take_number(value, 1, NET_QUEUES_MAX, &((struct net_option *)item)->queues);
}

static int apply_id(void *item, char *value)
{
	return settings_take_id(item, value);
}

static int apply_bw(void *item, char *value)
{
	struct net_option *net = item;

	return settings_take_bandwidth(value, &net->bandwidth_bytes, &net->bandwidth_burst_bytes);
}

static int apply_pps(void *item, char *value)
{
	struct net_option *net = item;

	return settings_take_rate(value, &net->packets_per_s, &net->packets_burst);
}

static bool is_address(const char *text)
{
	struct in6_addr address;

	return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* Cuts `text` up: [ADDRESS/]HOSTPORT[:GUESTPORT][/udp]. */
static bool is_forward(char *text)
{
	size_t size = strlen(text);
	char *slash, *colon;
	unsigned port;

	if (size > 4 && strcmp(text + size - 4, "/udp") == 0)
		text[size - 4] = '\0';
	slash = strrchr(text, '/');
	if (slash) {
		*slash = '\0';
		if (!is_address(text))
			return false;
		text = slash + 1;
	}
	colon = strchr(text, ':');
	if (colon) {
		*colon = '\0';
		if (settings_take_number(colon + 1, 1, PORT_MAX, &port) < 0)
			return false;
	}
	return settings_take_number(text, 1, PORT_MAX, &port) == 0;
}

static int apply_publish(void *item, char *value)
{
	struct net_option *net = item;
	char copy[INET6_ADDRSTRLEN + 20];

	if (strlen(value) >= sizeof(copy) || net->publish_count == NET_PUBLISH_MAX)
		return -EINVAL;
	snprintf(copy, sizeof(copy), "%s", value);
	if (!is_forward(copy))
		return -EINVAL;
	net->publish[net->publish_count++] = value;
	return 0;
}

static int apply_link(void *item, char *value)
{
	static const struct value_choice choices[] = {{"up", false}, {"down", true}, {NULL, 0}};
	int down;

	if (value_choice(value, choices, &down) < 0)
		return -EINVAL;
	((struct net_option *)item)->link_down = down;
	return 0;
}

static const struct setting settings[] = {
	{"mac", SETTING_REQUIRED, "mac=ADDRESS", "the card's address; default: one is made up",
	 "six bytes such as 52:54:00:12:34:56, not zero and not multicast", apply_mac, false},
	{"mtu", SETTING_REQUIRED, "mtu=N", "tell the guest this MTU, 68 to 65535", "a number from 68 to 65535",
	 apply_mtu, false},
	{"queues", SETTING_REQUIRED, "queues=N", "1 to 8 pairs of queues, of a tap; default 1", "a number from 1 to 8",
	 apply_queues, false},
	{"id", SETTING_REQUIRED, "id=NAME", "its name in messages; default net0, net1, ...", "a name of up to 32 bytes",
	 apply_id, false},
	{"bw", SETTING_REQUIRED, "bw=SIZE[:BURST]", "SIZE bytes a second each way, BURST at once",
	 "a size such as 100M, or two with ':' between", apply_bw, false},
	{"pps", SETTING_REQUIRED, "pps=N[:BURST]", "N packets a second each way, BURST at once",
	 "a number of packets, or two with ':' between", apply_pps, false},
	{"publish", SETTING_REQUIRED, "publish=P[:Q]", "of passt: the host's port P is the guest's Q; may repeat",
	 "[ADDRESS/]HOSTPORT[:GUESTPORT][/udp], at most 64 of them", apply_publish, true},
	SETTING_PACKED,
	{"link", SETTING_REQUIRED, "link=down", "the cable is not plugged in at first", "down or up", apply_link,
	 false},
	{NULL, SETTING_NONE, NULL, NULL, NULL, NULL, false},
};

/* --- sources --------------------------------------------------------------------------------------------- */

static bool is_ifname(const char *text)
{
	size_t size = strlen(text);

	return size > 0 && size <= NET_IFNAME_MAX_BYTES && !strpbrk(text, "/: \t\n%") && strcmp(text, ".") != 0 &&
	       strcmp(text, "..") != 0;
}

static int take_path(const struct settings_parser *parser, struct net_option *net, enum vmlet_net_kind kind,
		     const char *path)
{
	net->kind = kind;
	net->path = path;
	if (*path == '\0')
		return settings_fail(parser, "there is no path after '='");
	return 0;
}

static int take_fd(const struct settings_parser *parser, struct net_option *net, const char *value)
{
	net->kind = VMLET_NET_FD;
	if (settings_take_number(value, FD_MIN, FD_MAX, &net->fd) < 0)
		return settings_fail(
			parser, "fd cannot be '" TYPED "'; it is the number of an open descriptor, 3 or more", value);
	return 0;
}

static int take_tap(const struct settings_parser *parser, struct net_option *net, const char *name)
{
	net->kind = VMLET_NET_TAP;
	net->path = name;
	if (name && !is_ifname(name))
		return settings_fail(parser, "tap cannot be '" TYPED "'; it is an interface's name of up to 15 bytes",
				     name);
	return 0;
}

static int take_source(const struct settings_parser *parser, void *item, char *field)
{
	struct net_option *net = item;
	const char *value;

	net->is_none = strcmp(field, "none") == 0;
	if (net->is_none)
		return 0;
	if (strcmp(field, "tap") == 0)
		return take_tap(parser, net, NULL);
	value = settings_after(field, "tap");
	if (value)
		return take_tap(parser, net, value);
	net->kind = VMLET_NET_PASST;
	if (strcmp(field, "passt") == 0)
		return 0;
	value = settings_after(field, "passt");
	if (!value)
		value = settings_after(field, "stream");
	if (value)
		return take_path(parser, net, VMLET_NET_STREAM, value);
	value = settings_after(field, "listen");
	if (value)
		return take_path(parser, net, VMLET_NET_LISTEN, value);
	value = settings_after(field, "fd");
	if (value)
		return take_fd(parser, net, value);
	return settings_fail(parser, "it begins with " SOURCES);
}

/* --- together -------------------------------------------------------------------------------------------- */

static int check_others(const struct settings_parser *parser, const struct net_option *nets, size_t index)
{
	for (size_t i = 0; i < index; i++) {
		if (nets[i].is_none || nets[index].is_none)
			return settings_fail(parser, "none is no card at all; it cannot be beside another --net");
		if (nets[i].kind == VMLET_NET_FD && nets[index].kind == VMLET_NET_FD && nets[i].fd == nets[index].fd)
			return settings_fail(parser, "descriptor %u is another card's already", nets[i].fd);
	}
	return 0;
}

static int check(const struct settings_parser *parser, const void *items, size_t index)
{
	const struct net_option *nets = items, *net = &nets[index];

	if (net->is_none && parser->given != 0)
		return settings_fail(parser, "none has no settings");
	if (net->publish_count > 0 && net->kind != VMLET_NET_PASST)
		return settings_fail(parser, "publish is for a passt that vmlet starts: --net passt,publish=...");
	if (net->queues > 1 && net->kind != VMLET_NET_TAP)
		return settings_fail(parser, "more than one pair of queues is for a tap");
	return check_others(parser, nets, index);
}

const struct settings_kind net_kind = {
	.option = "--net",
	.topic = "net",
	.item_bytes = sizeof(struct net_option),
	.count_max = NETS_MAX,
	.noun = "network card",
	.id_stem = "net",
	.settings = settings,
	.take_source = take_source,
	.check = check,
};
