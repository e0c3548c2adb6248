#include "cli/device_option.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "cli/console_option.h"
#include "cli/disk_option.h"
#include "cli/net_option.h"
#include "cli/values.h"

/* The context identifiers 0, 1 and 2 are the hypervisor's, the loopback's and the host's; the last is "any". */
static const uint64_t CID_MIN = 3, CID_MAX = UINT32_MAX - 1;

enum { PAGE_BYTES = 4096 };

/* --- balloon --------------------------------------------------------------------------------------------- */

static int apply_deflate_on_oom(void *item, char *value)
{
	(void)value;
	((struct balloon_option *)item)->deflate_on_oom = true;
	return 0;
}

static int apply_reporting(void *item, char *value)
{
	(void)value;
	((struct balloon_option *)item)->reporting = true;
	return 0;
}

static const struct setting balloon_settings[] = {
	{"deflate-on-oom", SETTING_NONE, "deflate-on-oom", "the guest may take it back when it has no memory left",
	 NULL, apply_deflate_on_oom, false},
	{"reporting", SETTING_NONE, "reporting", "what the guest frees goes back to the host by itself", NULL,
	 apply_reporting, false},
	SETTING_PACKED,
	{NULL, SETTING_NONE, NULL, NULL, NULL, NULL, false},
};

/* [SIZE]: it begins with a digit, which no setting does. */
static int take_balloon(const struct settings_parser *parser, void *item, char *field)
{
	struct balloon_option *balloon = item;

	if (*field == '\0')
		return 0;
	if (*field < '0' || *field > '9')
		return 1;
	if (value_size(field, 1 << 20, &balloon->target_bytes) < 0 || balloon->target_bytes % PAGE_BYTES != 0)
		return settings_fail(parser,
				     "its size cannot be '" TYPED "'; it is a size such as 512, 512M or 2G, a multiple "
				     "of 4K",
				     field);
	return 0;
}

const struct settings_kind balloon_kind = {
	.option = "--balloon",
	.topic = "devices",
	.item_bytes = sizeof(struct balloon_option),
	.count_max = 1,
	.noun = "balloon",
	.settings = balloon_settings,
	.take_source = take_balloon,
};

/* --- vsock ----------------------------------------------------------------------------------------------- */

static int apply_cid(void *item, char *value)
{
	return settings_take_number(value, CID_MIN, CID_MAX, &((struct vsock_option *)item)->cid);
}

static int apply_vsock_bw(void *item, char *value)
{
	struct vsock_option *vsock = item;

	return settings_take_bandwidth(value, &vsock->bandwidth_bytes, &vsock->bandwidth_burst_bytes);
}

static int apply_vsock_pps(void *item, char *value)
{
	struct vsock_option *vsock = item;

	return settings_take_rate(value, &vsock->packets_per_s, &vsock->packets_burst);
}

static const struct setting vsock_settings[] = {
	{"cid", SETTING_REQUIRED, "cid=N", "the guest's address, 3 to 4294967294; default 3",
	 "a number from 3 to 4294967294", apply_cid, false},
	{"bw", SETTING_REQUIRED, "bw=SIZE[:BURST]", "SIZE bytes a second each way, BURST at once",
	 "a size such as 100M, or two with ':' between", apply_vsock_bw, false},
	{"pps", SETTING_REQUIRED, "pps=N[:BURST]", "N packets a second each way, BURST at once",
	 "a number of packets, or two with ':' between", apply_vsock_pps, false},
	SETTING_PACKED,
	{NULL, SETTING_NONE, NULL, NULL, NULL, NULL, false},
};

static int take_vsock(const struct settings_parser *parser, void *item, char *field)
{
	((struct vsock_option *)item)->path = field;
	return *field != '\0' ? 0 : settings_fail(parser, "it begins with the path of a socket to make");
}

const struct settings_kind vsock_kind = {
	.option = "--vsock",
	.topic = "devices",
	.item_bytes = sizeof(struct vsock_option),
	.count_max = 1,
	.noun = "vsock",
	.settings = vsock_settings,
	.take_source = take_vsock,
};

/* --- rng ------------------------------------------------------------------------------------------------- */

static int apply_rng_bw(void *item, char *value)
{
	uint64_t bytes;

	if (value_size(value, 1, &bytes) < 0 || bytes == 0)
		return -EINVAL;
	((struct rng_option *)item)->bandwidth_bytes = bytes;
	return 0;
}

static const struct setting rng_settings[] = {
	{"bw", SETTING_REQUIRED, "bw=SIZE", "SIZE random bytes a second, such as 1M", "a size such as 1M", apply_rng_bw,
	 false},
	SETTING_PACKED,
	{NULL, SETTING_NONE, NULL, NULL, NULL, NULL, false},
};

static int take_rng(const struct settings_parser *parser, void *item, char *field)
{
	(void)item;
	if (*field == '\0')
		return settings_fail(parser, "it begins with on, or a setting");
	return strcmp(field, "on") != 0;
}

const struct settings_kind rng_kind = {
	.option = "--rng",
	.topic = "devices",
	.item_bytes = sizeof(struct rng_option),
	.count_max = 1,
	.noun = "rng",
	.settings = rng_settings,
	.take_source = take_rng,
};

const struct settings_kind *const device_kinds[DEVICE_KINDS] = {
	[DEVICE_DISK] = &disk_kind,       [DEVICE_NET] = &net_kind,     [DEVICE_CONSOLE] = &console_kind,
	[DEVICE_BALLOON] = &balloon_kind, [DEVICE_VSOCK] = &vsock_kind, [DEVICE_RNG] = &rng_kind,
};
