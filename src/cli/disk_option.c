#include "cli/disk_option.h"

#include <errno.h>
#include <string.h>

#include "cli/values.h"

static int apply_ro(void *item, char *value)
{
	(void)value;
	((struct disk_option *)item)->read_only = true;
	return 0;
}

static int apply_overlay(void *item, char *value)
{
	struct disk_option *disk = item;

	if (value && *value == '\0')
		return -EINVAL;
	disk->overlay = true;
	disk->overlay_path = value;
	return 0;
}

static int apply_id(void *item, char *value)
{
	return settings_take_id(item, value);
}

static int apply_serial(void *item, char *value)
{
	struct disk_option *disk = item;
	size_t size = strlen(value);

	if (size == 0 || size > DISK_SERIAL_MAX_BYTES)
		return -EINVAL;
	disk->serial = value;
	return 0;
}

static int apply_cache(void *item, char *value)
{
	static const struct value_choice choices[] = {
		{"writeback", VMLET_DISK_CACHE_WRITEBACK},
		{"unsafe", VMLET_DISK_CACHE_UNSAFE},
		{NULL, 0},
	};
	struct disk_option *disk = item;
	int cache;

	if (value_choice(value, choices, &cache) < 0)
		return -EINVAL;
	disk->cache = (enum vmlet_disk_cache)cache;
	return 0;
}

static int apply_direct(void *item, char *value)
{
	(void)value;
	((struct disk_option *)item)->direct = true;
	return 0;
}

static int apply_queues(void *item, char *value)
{
	return settings_take_number(value, 1, DISK_QUEUES_MAX, &((struct disk_option *)item)->queues);
}

static int apply_iops(void *item, char *value)
{
	struct disk_option *disk = item;

	return settings_take_rate(value, &disk->iops, &disk->iops_burst);
}

static int apply_bw(void *item, char *value)
{
	struct disk_option *disk = item;

	return settings_take_bandwidth(value, &disk->bandwidth_bytes, &disk->bandwidth_burst_bytes);
}

static const struct setting settings[] = {
	{"ro", SETTING_NONE, "ro", "the guest can only read it", NULL, apply_ro, false},
	{"overlay", SETTING_OPTIONAL, "overlay[=FILE]", "keep the image; write to FILE, or for this run only", "a file",
	 apply_overlay, false},
	{"id", SETTING_REQUIRED, "id=NAME", "its name in messages; default disk0, disk1, ...",
	 "a name of up to 32 bytes", apply_id, false},
	{"serial", SETTING_REQUIRED, "serial=ID", "the serial number that the guest sees", "1 to 20 bytes",
	 apply_serial, false},
	{"cache", SETTING_REQUIRED, "cache=HOW", "writeback (default), or unsafe: flushes do nothing",
	 "writeback or unsafe", apply_cache, false},
	{"direct", SETTING_NONE, "direct", "past the host's page cache (O_DIRECT)", NULL, apply_direct, false},
	{"queues", SETTING_REQUIRED, "queues=N", "1 to 16 request queues; default 1", "a number from 1 to 16",
	 apply_queues, false},
	SETTING_PACKED,
	{"iops", SETTING_REQUIRED, "iops=N[:BURST]", "N requests a second, BURST of them at once",
	 "a number of requests, or two with ':' between", apply_iops, false},
	{"bw", SETTING_REQUIRED, "bw=SIZE[:BURST]", "SIZE bytes a second, such as 100M, BURST at once",
	 "a size such as 100M, or two with ':' between", apply_bw, false},
	{NULL, SETTING_NONE, NULL, NULL, NULL, NULL, false},
};

/* unix:PATH[:EXPORT], HOST:PORT[:EXPORT] or [IPV6]:PORT[:EXPORT]; the library looks closer. */
static bool is_nbd_address(const char *text)
{
	const char *colon = strchr(text, ':');

	return colon && colon != text && colon[1] != '\0' && (strncmp(text, "unix:", 5) != 0 || colon[1] != ':');
}

static int take_source(const struct settings_parser *parser, void *item, char *field)
{
	const char *address = settings_after(field, "nbd");
	struct disk_option *disk = item;

	disk->path = field;
	if (*field == '\0')
		return settings_fail(parser, "it begins with the image's path, or with nbd= and a server's address");
	if (!address)
		return 0;
	disk->kind = VMLET_DISK_NBD;
	disk->path = address;
	if (!is_nbd_address(address))
		return settings_fail(
			parser, "nbd cannot be '" TYPED "'; it is unix:PATH[:EXPORT] or HOST:PORT[:EXPORT]", address);
	return 0;
}

static int check(const struct settings_parser *parser, const void *items, size_t index)
{
	const struct disk_option *disk = (const struct disk_option *)items + index;

	if (disk->read_only && disk->overlay)
		return settings_fail(parser, "it is ro or has an overlay, not both: what is never written needs none");
	if (disk->kind == VMLET_DISK_NBD && disk->direct)
		return settings_fail(parser, "direct is for files; the cache of an NBD server is the server's");
	return 0;
}

const struct settings_kind disk_kind = {
	.option = "--disk",
	.topic = "disk",
	.item_bytes = sizeof(struct disk_option),
	.count_max = DISKS_MAX,
	.noun = "disk",
	.id_stem = "disk",
	.settings = settings,
	.take_source = take_source,
	.check = check,
};
