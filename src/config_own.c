/* Deep copies of what a caller's configuration points to. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"
#include "util.h"

/* --- strings --------------------------------------------------------------------------------------------- */

/* The structs' strings are const for their users; here they are what strdup returned. */
static void free_const(const void *memory)
{
	free((void *)(uintptr_t)memory);
}

static int no_memory(struct err *err)
{
	return err_set(err, -ENOMEM, "configuration: %s", err_name(ENOMEM));
}

static const char **string_at(void *object, size_t offset)
{
	return (const char **)(void *)((char *)object + offset);
}

/* All of them NULL first, so that after a failure each is either ours or NULL. */
static int own_strings(void *object, const size_t *offsets, size_t count, struct err *err)
{
	enum { STRINGS_MAX = 8 };
	const char *originals[STRINGS_MAX];
	for (size_t i = 0; i < count; i++) {
		originals[i] = *string_at(object, offsets[i]);
		*string_at(object, offsets[i]) = NULL;
	}
	for (size_t i = 0; i < count; i++) {
		const char *copy = originals[i] ? strdup(originals[i]) : NULL;
		if (originals[i] && !copy)
			return no_memory(err);
		*string_at(object, offsets[i]) = copy;
	}
	return 0;
}

static void free_strings(void *object, const size_t *offsets, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free_const(*string_at(object, offsets[i]));
}

static int own_string_list(const char *const **list, size_t *count, struct err *err)
{
	const char *const *from = *list;
	size_t from_count = *count;
	*list = NULL;
	*count = 0;
	if (!from_count)
		return 0;
	const char **copies = calloc(from_count, sizeof(*copies));
	if (!copies)
		return no_memory(err);
	*list = copies;
	for (; *count < from_count; (*count)++) {
		copies[*count] = strdup(from[*count]);
		if (!copies[*count])
			return no_memory(err);
	}
	return 0;
}

static void free_string_list(const char *const *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free_const(list[i]);
	free_const(list);
}

/* --- what comes in lists ------------------------------------------------------------------------------------ */

/* A struct of the API that begins with its struct_size. */
struct item_kind {
	const char *name;
	size_t size_bytes;
	void (*init)(void *item); /* the defaults */
	const size_t *strings;    /* offsets */
	size_t string_count;
	int (*own_more)(void *item, struct err *err); /* NULL: strings are all */
	void (*free_more)(void *item);
};

static void init_disk(void *item)
{
	vmlet_disk_init((struct vmlet_disk *)item);
}

static void init_net(void *item)
{
	vmlet_net_init((struct vmlet_net *)item);
}

static void init_console(void *item)
{
	vmlet_console_init((struct vmlet_console *)item);
}

static int own_publish(void *item, struct err *err)
{
	struct vmlet_net *net = item;
	return own_string_list(&net->publish, &net->publish_count, err);
}

static void free_publish(void *item)
{
	const struct vmlet_net *net = item;
	free_string_list(net->publish, net->publish_count);
}

static const size_t DISK_STRINGS[] = {
	offsetof(struct vmlet_disk, path),
	offsetof(struct vmlet_disk, id),
	offsetof(struct vmlet_disk, serial),
	offsetof(struct vmlet_disk, overlay_path),
};
static const size_t NET_STRINGS[] = {offsetof(struct vmlet_net, path), offsetof(struct vmlet_net, id)};
static const size_t CONSOLE_STRINGS[] = {offsetof(struct vmlet_console, name),
					 offsetof(struct vmlet_console, backend.path)};

static const struct item_kind DISK = {
	.name = "disk",
	.size_bytes = sizeof(struct vmlet_disk),
	.init = init_disk,
	.strings = DISK_STRINGS,
	.string_count = ARRAY_SIZE(DISK_STRINGS),
};
static const struct item_kind NET = {
	.name = "net",
	.size_bytes = sizeof(struct vmlet_net),
	.init = init_net,
	.strings = NET_STRINGS,
	.string_count = ARRAY_SIZE(NET_STRINGS),
	.own_more = own_publish,
	.free_more = free_publish,
};
static const struct item_kind CONSOLE = {
	.name = "console",
	.size_bytes = sizeof(struct vmlet_console),
	.init = init_console,
	.strings = CONSOLE_STRINGS,
	.string_count = ARRAY_SIZE(CONSOLE_STRINGS),
};

static void free_item(const struct item_kind *kind, void *item)
{
	if (!item)
		return;
	free_strings(item, kind->strings, kind->string_count);
	if (kind->free_more)
		kind->free_more(item);
	free(item);
}

static int check_size(const struct item_kind *kind, size_t index, size_t struct_size, struct err *err)
{
	if (struct_size >= sizeof(size_t) && struct_size <= kind->size_bytes)
		return 0;
	return err_config(err, -EINVAL,
			  "%s %zu: its struct_size is %zu; this library knows up to %zu (call vmlet_%s_init, or use a "
			  "newer library)",
			  kind->name, index, struct_size, kind->size_bytes, kind->name);
}

/* NULL with `err` set. The copy's pointers are looked at, not the original's, which may end before them. */
static void *own_item(const struct item_kind *kind, size_t index, const void *from, struct err *err)
{
	size_t struct_size;
	memcpy(&struct_size, from, sizeof(struct_size));
	if (check_size(kind, index, struct_size, err) < 0)
		return NULL;
	void *item = malloc(kind->size_bytes);
	if (!item) {
		no_memory(err);
		return NULL;
	}
	kind->init(item);
	memcpy(item, from, struct_size);
	if (own_strings(item, kind->strings, kind->string_count, err) < 0) {
		free_strings(item, kind->strings, kind->string_count); /* what more there is is still the caller's */
		free(item);
		return NULL;
	}
	if (kind->own_more && kind->own_more(item, err) < 0) {
		free_item(kind, item);
		return NULL;
	}
	return item;
}

/* `list` is the address of a `const struct ... *const *`. */
static int own_list(const struct item_kind *kind, void *list, size_t *count, struct err *err)
{
	const void *const *from;
	size_t from_count = *count;
	const void **items = NULL;
	memcpy(&from, list, sizeof(from));
	memcpy(list, &items, sizeof(items));
	*count = 0;
	if (!from_count)
		return 0;
	items = calloc(from_count, sizeof(*items));
	if (!items)
		return no_memory(err);
	memcpy(list, &items, sizeof(items));
	for (; *count < from_count; (*count)++) {
		items[*count] = own_item(kind, *count, from[*count], err);
		if (!items[*count])
			return err->code;
	}
	return 0;
}

static void free_list(const struct item_kind *kind, const void *list, size_t count)
{
	const void *const *items = list;
	for (size_t i = 0; i < count; i++)
		free_item(kind, (void *)(uintptr_t)items[i]);
	free_const(items);
}

/* --- the whole ------------------------------------------------------------------------------------------------ */

static const size_t CONFIG_STRINGS[] = {
	offsetof(struct vmlet_config, kernel),        offsetof(struct vmlet_config, cmdline),
	offsetof(struct vmlet_config, cpu_features),  offsetof(struct vmlet_config, serial.path),
	offsetof(struct vmlet_config, debugcon.path), offsetof(struct vmlet_config, vsock.path),
};

/* Lists that are still the caller's must look empty when something fails before their turn. */
int config_own(struct vmlet_config *config, struct err *err)
{
	struct vmlet_config from = *config;
	config->initrds = NULL;
	config->disks = NULL;
	config->nets = NULL;
	config->consoles = NULL;
	config->initrd_count = config->disk_count = config->net_count = config->console_count = 0;

	int r = own_strings(config, CONFIG_STRINGS, ARRAY_SIZE(CONFIG_STRINGS), err);
	if (r == 0) {
		config->initrds = from.initrds;
		config->initrd_count = from.initrd_count;
		r = own_string_list(&config->initrds, &config->initrd_count, err);
	}
	if (r == 0) {
		config->disks = from.disks;
		config->disk_count = from.disk_count;
		r = own_list(&DISK, &config->disks, &config->disk_count, err);
	}
	if (r == 0) {
		config->nets = from.nets;
		config->net_count = from.net_count;
		r = own_list(&NET, &config->nets, &config->net_count, err);
	}
	if (r == 0) {
		config->consoles = from.consoles;
		config->console_count = from.console_count;
		r = own_list(&CONSOLE, &config->consoles, &config->console_count, err);
	}
	return r;
}

void config_disown(struct vmlet_config *config)
{
	free_strings(config, CONFIG_STRINGS, ARRAY_SIZE(CONFIG_STRINGS));
	free_string_list(config->initrds, config->initrd_count);
	free_list(&DISK, config->disks, config->disk_count);
	free_list(&NET, config->nets, config->net_count);
	free_list(&CONSOLE, config->consoles, config->console_count);
}
