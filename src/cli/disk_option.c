#include "cli/disk_option.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/suggest.h"
#include "cli/values.h"

#define NBD_PREFIX "nbd="

enum { ID_MAX_BYTES = 32 };

struct disk_parser {
	const char *typed;
	struct disk_option *disk;
	unsigned given; /* which of disk_settings, bit by bit */
	struct cli_error *error;
};

/* %s of what the user typed is cut to this, so that the rest of the sentence is always there. */
#define TYPED "%.80s"

static int fail(const struct disk_parser *parser, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(const struct disk_parser *parser, const char *fmt, ...)
{
	struct cli_error *error = parser->error;
	int used = snprintf(error->text, sizeof(error->text), "--disk '" TYPED "': ", parser->typed);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error->text + used, sizeof(error->text) - (size_t)used, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* --- settings -------------------------------------------------------------------------------------------- */

static int apply_ro(struct disk_option *disk, char *value)
{
	(void)value;
	disk->read_only = true;
	return 0;
}

static int apply_overlay(struct disk_option *disk, char *value)
{
	if (value && *value == '\0')
		return -EINVAL;
	disk->overlay = true;
	disk->overlay_path = value;
	return 0;
}

static int apply_id(struct disk_option *disk, char *value)
{
	size_t size = strlen(value);

	if (size == 0 || size > ID_MAX_BYTES)
		return -EINVAL;
	disk->id = value;
	return 0;
}

static int apply_serial(struct disk_option *disk, char *value)
{
	size_t size = strlen(value);

	if (size == 0 || size > DISK_SERIAL_MAX_BYTES)
		return -EINVAL;
	disk->serial = value;
	return 0;
}

static int apply_cache(struct disk_option *disk, char *value)
{
	static const struct value_choice choices[] = {
		{"writeback", VMLET_DISK_CACHE_WRITEBACK},
		{"unsafe", VMLET_DISK_CACHE_UNSAFE},
		{NULL, 0},
	};
	int cache;

	if (value_choice(value, choices, &cache) < 0)
		return -EINVAL;
	disk->cache = (enum vmlet_disk_cache)cache;
	return 0;
}

static int apply_direct(struct disk_option *disk, char *value)
{
	(void)value;
	disk->direct = true;
	return 0;
}

static int apply_queues(struct disk_option *disk, char *value)
{
	uint64_t queues;

	if (value_number(value, 1, DISK_QUEUES_MAX, &queues) < 0)
		return -EINVAL;
	disk->queues = (unsigned)queues;
	return 0;
}

static int apply_packed(struct disk_option *disk, char *value)
{
	(void)value;
	disk->packed = true;
	return 0;
}

static int parse_requests(const char *text, uint64_t *ret_number)
{
	return value_number(text, 1, UINT64_MAX, ret_number);
}

static int parse_bytes(const char *text, uint64_t *ret_bytes)
{
	uint64_t bytes;

	if (value_size(text, 1, &bytes) < 0 || bytes == 0)
		return -EINVAL;
	*ret_bytes = bytes;
	return 0;
}

/* LIMIT[:BURST] */
static int apply_limit(char *value, int (*parse)(const char *text, uint64_t *ret_number), uint64_t *limit,
		       uint64_t *burst)
{
	char *colon = strchr(value, ':');
	uint64_t rate, at_once = 0;

	if (colon)
		*colon = '\0';
	if (parse(value, &rate) < 0 || (colon && parse(colon + 1, &at_once) < 0))
		return -EINVAL;
	*limit = rate;
	*burst = at_once;
	return 0;
}

static int apply_iops(struct disk_option *disk, char *value)
{
	return apply_limit(value, parse_requests, &disk->iops, &disk->iops_burst);
}

static int apply_bw(struct disk_option *disk, char *value)
{
	return apply_limit(value, parse_bytes, &disk->bandwidth_bytes, &disk->bandwidth_burst_bytes);
}

const struct disk_setting disk_settings[] = {
	{"ro", DISK_VALUE_NONE, "ro", "the guest can only read it", NULL, apply_ro},
	{"overlay", DISK_VALUE_OPTIONAL, "overlay[=FILE]", "keep the image; write to FILE, or for this run only",
	 "a file", apply_overlay},
	{"id", DISK_VALUE_REQUIRED, "id=NAME", "its name in messages; default disk0, disk1, ...",
	 "a name of up to 32 bytes", apply_id},
	{"serial", DISK_VALUE_REQUIRED, "serial=ID", "the serial number that the guest sees", "1 to 20 bytes",
	 apply_serial},
	{"cache", DISK_VALUE_REQUIRED, "cache=HOW", "writeback (default), or unsafe: flushes do nothing",
	 "writeback or unsafe", apply_cache},
	{"direct", DISK_VALUE_NONE, "direct", "past the host's page cache (O_DIRECT)", NULL, apply_direct},
	{"queues", DISK_VALUE_REQUIRED, "queues=N", "1 to 16 request queues; default 1", "a number from 1 to 16",
	 apply_queues},
	{"packed", DISK_VALUE_NONE, "packed", "offer packed rings to the guest", NULL, apply_packed},
	{"iops", DISK_VALUE_REQUIRED, "iops=N[:BURST]", "N requests a second, BURST of them at once",
	 "a number of requests, or two with ':' between", apply_iops},
	{"bw", DISK_VALUE_REQUIRED, "bw=SIZE[:BURST]", "SIZE bytes a second, such as 100M, BURST at once",
	 "a size such as 100M, or two with ':' between", apply_bw},
	{NULL, DISK_VALUE_NONE, NULL, NULL, NULL, NULL},
};

/* --- one disk -------------------------------------------------------------------------------------------- */

/*
 * Cut the next field off, with its doubled commas made single in place. NULL: there is none. After the last field
 * *rest is NULL; an empty field after a last comma is a field.
 */
static char *take_field(char **rest)
{
	char *field = *rest, *from = field, *to = field;

	if (!field)
		return NULL;
	while (*from != '\0' && (from[0] != ',' || from[1] == ',')) {
		from += *from == ',';
		*to++ = *from++;
	}
	*rest = *from == ',' ? from + 1 : NULL;
	*to = '\0';
	return field;
}

static const struct disk_setting *find_setting(const char *name)
{
	for (const struct disk_setting *setting = disk_settings; setting->name; setting++)
		if (strcmp(setting->name, name) == 0)
			return setting;
	return NULL;
}

static int fail_unknown_setting(const struct disk_parser *parser, const char *name)
{
	struct suggest suggest;

	if (*name == '\0')
		return fail(parser, "there is a comma without a setting; in a name a comma is written ',,'");
	suggest_init(&suggest, name, strlen(name));
	for (const struct disk_setting *setting = disk_settings; setting->name; setting++)
		suggest_consider(&suggest, setting->name);
	if (suggest.best)
		return fail(parser, "unknown setting '" TYPED "'; did you mean '%s'?", name, suggest.best);
	return fail(parser, "unknown setting '" TYPED "'; 'vmlet help disk' lists the settings", name);
}

static int apply(struct disk_parser *parser, const struct disk_setting *setting, char *value)
{
	char typed[81] = "";

	if (value && setting->value == DISK_VALUE_NONE)
		return fail(parser, "%s takes no value, not '" TYPED "'", setting->name, value);
	if (!value && setting->value == DISK_VALUE_REQUIRED)
		return fail(parser, "%s needs a value: %s", setting->name, setting->accepts);
	if (value)
		snprintf(typed, sizeof(typed), TYPED, value);
	if (setting->apply(parser->disk, value) < 0)
		return fail(parser, "%s cannot be '%s'; it is %s", setting->name, typed, setting->accepts);
	return 0;
}

static int parse_setting(struct disk_parser *parser, char *field)
{
	char *value = strchr(field, '=');
	const struct disk_setting *setting;
	unsigned bit;

	if (value)
		*value++ = '\0';
	setting = find_setting(field);
	if (!setting)
		return fail_unknown_setting(parser, field);
	bit = 1U << (setting - disk_settings);
	if (parser->given & bit)
		return fail(parser, "%s is given twice", setting->name);
	parser->given |= bit;
	return apply(parser, setting, value);
}

/* unix:PATH[:EXPORT], HOST:PORT[:EXPORT] or [IPV6]:PORT[:EXPORT]; the library looks closer. */
static bool is_nbd_address(const char *text)
{
	const char *colon = strchr(text, ':');

	return colon && colon != text && colon[1] != '\0' && (strncmp(text, "unix:", 5) != 0 || colon[1] != ':');
}

static int parse_source(struct disk_parser *parser, const char *field)
{
	struct disk_option *disk = parser->disk;

	disk->path = field;
	if (*field == '\0')
		return fail(parser, "it begins with the image's path, or with nbd= and a server's address");
	if (strncmp(field, NBD_PREFIX, strlen(NBD_PREFIX)) != 0)
		return 0;
	disk->kind = VMLET_DISK_NBD;
	disk->path = field + strlen(NBD_PREFIX);
	if (!is_nbd_address(disk->path))
		return fail(parser, "nbd cannot be '" TYPED "'; it is unix:PATH[:EXPORT] or HOST:PORT[:EXPORT]",
			    disk->path);
	return 0;
}

static int check(const struct disk_parser *parser)
{
	const struct disk_option *disk = parser->disk;

	if (disk->read_only && disk->overlay)
		return fail(parser, "it is ro or has an overlay, not both: what is never written needs none");
	if (disk->kind == VMLET_DISK_NBD && disk->direct)
		return fail(parser, "direct is for files; the cache of an NBD server is the server's");
	return 0;
}

static int parse_disk(struct disk_parser *parser)
{
	char *rest = parser->disk->text, *field = take_field(&rest);
	int r = parse_source(parser, field);

	while (r == 0 && (field = take_field(&rest)))
		r = parse_setting(parser, field);
	return r < 0 ? r : check(parser);
}

/* --- all disks ------------------------------------------------------------------------------------------- */

/* What a disk is called: the library names those without an id by their places. */
static const char *id_of(const struct disk_option *disks, size_t index, char buffer[ID_MAX_BYTES])
{
	if (disks[index].id)
		return disks[index].id;
	snprintf(buffer, ID_MAX_BYTES, "disk%zu", index);
	return buffer;
}

static int check_id(const struct disk_parser *parser, const struct disk_option *disks, size_t index)
{
	char buffer[ID_MAX_BYTES], other[ID_MAX_BYTES];
	const char *id = id_of(disks, index, buffer);

	for (size_t i = 0; i < index; i++)
		if (strcmp(id, id_of(disks, i, other)) == 0)
			return fail(parser, "its id '%s' is another disk's already", id);
	return 0;
}

static int parse_all(const char *const *values, size_t count, struct disk_option *disks, struct cli_error *error)
{
	for (size_t i = 0; i < count; i++) {
		struct disk_parser parser = {.typed = values[i], .disk = &disks[i], .error = error};
		int r;

		disks[i].text = strdup(values[i]);
		if (!disks[i].text)
			return -ENOMEM;
		r = parse_disk(&parser);
		if (r == 0)
			r = check_id(&parser, disks, i);
		if (r < 0)
			return r;
	}
	return 0;
}

int disk_options_parse(const char *const *values, size_t count, struct disk_option **ret_disks, struct cli_error *error)
{
	struct disk_option *disks = NULL;
	int r = 0;

	if (count > DISKS_MAX) {
		snprintf(error->text, sizeof(error->text), "--disk is given %zu times; a machine has at most %d disks",
			 count, DISKS_MAX);
		return -EINVAL;
	}
	if (count > 0) {
		disks = calloc(count, sizeof(*disks));
		r = disks ? parse_all(values, count, disks, error) : -ENOMEM;
	}
	if (r == -ENOMEM)
		snprintf(error->text, sizeof(error->text), "--disk: out of memory");
	if (r < 0)
		disk_options_free(disks, count);
	else
		*ret_disks = disks;
	return r;
}

void disk_options_free(struct disk_option *disks, size_t count)
{
	for (size_t i = 0; disks && i < count; i++)
		free(disks[i].text);
	free(disks);
}
