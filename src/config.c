#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/board.h"
#include "arch/cpu.h"
#include "disks.h"
#include "gmem.h"
#include "util.h"

enum {
	MEMORY_DEFAULT_MIB = 256,
	MEMORY_MIN_MIB = 2,
	IOTHREADS_MAX = 16,
	SERIAL_MAX = 20, /* VIRTIO_BLK_ID_BYTES */
};

_Static_assert((int)BOARD_TRANSPORT_MMIO == VMLET_TRANSPORT_MMIO, "the two enums agree");

void vmlet_config_init_sized(struct vmlet_config *config, size_t struct_size)
{
	struct vmlet_config defaults = {
		.struct_size = struct_size,
		.memory_bytes = MIB(MEMORY_DEFAULT_MIB),
		.cpus = 1,
		.serial = {.in_fd = -1, .out_fd = -1},
		.debugcon = {.in_fd = -1, .out_fd = -1},
		.streams = {.in_fd = -1, .out_fd = -1, .err_fd = -1},
		.log_level = VMLET_LOG_WARN,
	};
	memset(config, 0, struct_size);
	memcpy(config, &defaults, min_u64(struct_size, sizeof(defaults)));
}

void vmlet_disk_init_sized(struct vmlet_disk *disk, size_t struct_size)
{
	struct vmlet_disk defaults = {.struct_size = struct_size, .queues = 1};
	memset(disk, 0, struct_size);
	memcpy(disk, &defaults, min_u64(struct_size, sizeof(defaults)));
}

static int check_serial(const struct vmlet_serial *serial, const char *name, struct err *err)
{
	if ((unsigned)serial->kind > VMLET_SERIAL_UNIX)
		return err_config(err, -EINVAL, "%s: kind %d is not one that this library knows", name, serial->kind);
	bool needs_path = serial->kind == VMLET_SERIAL_FILE || serial->kind == VMLET_SERIAL_UNIX;
	if (needs_path && (!serial->path || !*serial->path))
		return err_config(err, -EINVAL, "%s: no path is given", name);
	return 0;
}

static int check_machine(const struct vmlet_config *config, struct err *err)
{
	if (!config->kernel)
		return err_config(err, -EINVAL, "no kernel is given");
	if (config->cpus < 1 || config->cpus > board_max_cpus())
		return err_config(err, -EINVAL, "%u vCPUs: a machine has 1 to %u", config->cpus, board_max_cpus());
	if (config->memory_bytes < MIB(MEMORY_MIN_MIB))
		return err_config(err, -EINVAL, "%llu bytes of memory: a machine has at least %d MiB",
				  (unsigned long long)config->memory_bytes, MEMORY_MIN_MIB);
	if (config->memory_bytes % GMEM_PAGE_SIZE)
		return err_config(err, -EINVAL, "%llu bytes of memory: not a multiple of 4 KiB",
				  (unsigned long long)config->memory_bytes);
	if ((unsigned)config->boot_protocol > VMLET_BOOT_PVH)
		return err_config(err, -EINVAL, "boot protocol %d is not one that this library knows",
				  config->boot_protocol);
	if ((unsigned)config->on_reboot > VMLET_ON_REBOOT_RESTART)
		return err_config(err, -EINVAL, "on_reboot %d is not one that this library knows", config->on_reboot);
	if ((unsigned)config->transport > VMLET_TRANSPORT_MMIO)
		return err_config(err, -EINVAL, "transport %d is not one that this library knows", config->transport);
	if (config->iothreads > IOTHREADS_MAX)
		return err_config(err, -EINVAL, "%u I/O threads: at most %d", config->iothreads, IOTHREADS_MAX);
	return cpu_features_check(config->cpu_features, err);
}

static int check_disk(const struct vmlet_disk *disk, const char *name, struct err *err)
{
	if ((unsigned)disk->kind > VMLET_DISK_NBD || (unsigned)disk->cache > VMLET_DISK_CACHE_UNSAFE)
		return err_config(err, -EINVAL, "disk '%s': a kind or cache mode that this library does not know",
				  name);
	if (!disk->path || !*disk->path)
		return err_config(err, -EINVAL, "disk '%s': no path is given", name);
	if (disk->queues < 1 || disk->queues > VIRTIO_BLK_QUEUES_MAX)
		return err_config(err, -EINVAL, "disk '%s': %u queues: a disk has 1 to %d", name, disk->queues,
				  VIRTIO_BLK_QUEUES_MAX);
	if (disk->serial && strlen(disk->serial) > SERIAL_MAX)
		return err_config(err, -EINVAL, "disk '%s': serial number '%s': it has at most %d bytes", name,
				  disk->serial, SERIAL_MAX);
	if (disk->overlay && disk->read_only)
		return err_config(err, -EINVAL, "disk '%s': an overlay is for writes, and the disk is read-only", name);
	if (disk->overlay_path && !disk->overlay)
		return err_config(err, -EINVAL, "disk '%s': a path for the overlay, and no overlay is asked for", name);
	if (disk->kind == VMLET_DISK_NBD && disk->direct)
		return err_config(err, -EINVAL, "disk '%s': direct I/O is a matter of the NBD server", name);
	return 0;
}

static int check_disks(const struct vmlet_config *config, struct err *err)
{
	char name[DISK_NAME_MAX];
	unsigned max = board_max_virtio_devices((enum board_transport)config->transport);
	if (config->disk_count > max)
		return err_config(err, -EINVAL, "%zu disks: a machine has room for %u devices", config->disk_count,
				  max);
	for (unsigned i = 0; i < config->disk_count; i++) {
		const struct vmlet_disk *disk = config->disks[i];
		if (disk->id && (!*disk->id || strlen(disk->id) >= DISK_NAME_MAX))
			return err_config(err, -EINVAL, "disk %u: an id has 1 to %d bytes", i, DISK_NAME_MAX - 1);
		int r = check_disk(disk, disks_name(config, i, name), err);
		if (r < 0)
			return r;
		if (disks_find(config, name) != (int)i)
			return err_config(err, -EINVAL, "disk '%s': there are two of that id", name);
	}
	return 0;
}

static int check_streams(const struct vmlet_streams *streams, struct err *err)
{
	const int fds[] = {streams->in_fd, streams->out_fd, streams->err_fd};
	for (unsigned i = 0; streams->enabled && i < ARRAY_SIZE(fds); i++) {
		if (fds[i] < -1)
			return err_config(err, -EINVAL, "streams: %d is not a descriptor, nor -1 for none", fds[i]);
	}
	return 0;
}

static int check(const struct vmlet_config *config, struct err *err)
{
	int r = check_machine(config, err);
	if (r == 0)
		r = check_disks(config, err);
	if (r == 0)
		r = check_serial(&config->serial, "serial port", err);
	if (r == 0)
		r = check_serial(&config->debugcon, "debug console", err);
	if (r == 0)
		r = check_streams(&config->streams, err);
	return r;
}

/* --- owning -------------------------------------------------------------------------------------------- */

enum { STRING_COUNT = 5 };

static void list_strings(struct vmlet_config *config, const char **ret_strings[STRING_COUNT])
{
	ret_strings[0] = &config->kernel;
	ret_strings[1] = &config->cmdline;
	ret_strings[2] = &config->cpu_features;
	ret_strings[3] = &config->serial.path;
	ret_strings[4] = &config->debugcon.path;
}

/* The struct's strings are const for its users; here they are what strdup returned. */
static void free_string(const char *string)
{
	free((void *)(uintptr_t)string);
}

static void free_disk(const struct vmlet_disk *disk)
{
	free_string(disk->path);
	free_string(disk->id);
	free_string(disk->serial);
	free_string(disk->overlay_path);
	free((void *)(uintptr_t)disk);
}

static int copy_string(const char **to, const char *from, struct err *err)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? err_set(err, -ENOMEM, "configuration: %s", err_name(ENOMEM)) : 0;
}

static int copy_initrds(struct vmlet_config *config, const char *const *from, size_t count, struct err *err)
{
	if (!count)
		return 0;
	const char **paths = calloc(count, sizeof(*paths));
	if (!paths)
		return err_set(err, -ENOMEM, "configuration: %s", err_name(ENOMEM));
	config->initrds = paths;
	for (; config->initrd_count < count; config->initrd_count++) {
		int r = copy_string(&paths[config->initrd_count], from[config->initrd_count], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct vmlet_disk *copy_disk(const struct vmlet_disk *from, struct err *err)
{
	struct vmlet_disk *disk = malloc(sizeof(*disk));
	if (!disk) {
		err_set(err, -ENOMEM, "configuration: %s", err_name(ENOMEM));
		return NULL;
	}
	vmlet_disk_init(disk);
	memcpy(disk, from, from->struct_size);
	/* From here on the copy is looked at: `from` may end before these. */
	const struct vmlet_disk originals = *disk;
	disk->path = disk->id = disk->serial = disk->overlay_path = NULL;
	int r = copy_string(&disk->path, originals.path, err);
	if (r == 0)
		r = copy_string(&disk->id, originals.id, err);
	if (r == 0)
		r = copy_string(&disk->serial, originals.serial, err);
	if (r == 0)
		r = copy_string(&disk->overlay_path, originals.overlay_path, err);
	if (r == 0)
		return disk;
	free_disk(disk);
	return NULL;
}

static int copy_disks(struct vmlet_config *config, const struct vmlet_disk *const *from, size_t count, struct err *err)
{
	if (!count)
		return 0;
	const struct vmlet_disk **disks = calloc(count, sizeof(struct vmlet_disk *));
	if (!disks)
		return err_set(err, -ENOMEM, "configuration: %s", err_name(ENOMEM));
	config->disks = disks;
	for (; config->disk_count < count; config->disk_count++) {
		const struct vmlet_disk *disk = from[config->disk_count];
		if (disk->struct_size < sizeof(disk->struct_size) || disk->struct_size > sizeof(*disk))
			return err_config(err, -EINVAL,
					  "disk %zu: its struct_size is %zu; this library knows up to %zu "
					  "(call vmlet_disk_init, or use a newer library)",
					  config->disk_count, disk->struct_size, sizeof(*disk));
		disks[config->disk_count] = copy_disk(disk, err);
		if (!disks[config->disk_count])
			return err->code;
	}
	return 0;
}

/* Replace every pointer into the caller's memory by a copy; on failure those not yet copied are NULL. */
static int own_strings(struct vmlet_config *config, struct err *err)
{
	const char *const *initrds = config->initrds;
	size_t initrd_count = config->initrd_count;
	config->initrds = NULL;
	config->initrd_count = 0;
	const struct vmlet_disk *const *disks = config->disks;
	size_t disk_count = config->disk_count;
	config->disks = NULL;
	config->disk_count = 0;

	const char **strings[STRING_COUNT];
	const char *originals[STRING_COUNT];
	list_strings(config, strings);
	for (size_t i = 0; i < STRING_COUNT; i++) {
		originals[i] = *strings[i];
		*strings[i] = NULL;
	}
	int r = 0;
	for (size_t i = 0; r == 0 && i < STRING_COUNT; i++)
		r = copy_string(strings[i], originals[i], err);
	if (r == 0)
		r = copy_initrds(config, initrds, initrd_count, err);
	return r < 0 ? r : copy_disks(config, disks, disk_count, err);
}

int config_init(struct vmlet_config *config, const struct vmlet_config *from, struct err *err)
{
	vmlet_config_init(config);
	if (from->struct_size < sizeof(from->struct_size) || from->struct_size > sizeof(*config))
		return err_config(err, -EINVAL,
				  "the configuration's struct_size is %zu; this library knows up to %zu "
				  "(call vmlet_config_init, or use a newer library)",
				  from->struct_size, sizeof(*config));
	memcpy(config, from, from->struct_size);
	int r = own_strings(config, err);
	return r < 0 ? r : check(config, err);
}

void config_fini(struct vmlet_config *config)
{
	const char **strings[STRING_COUNT];
	list_strings(config, strings);
	for (size_t i = 0; i < STRING_COUNT; i++)
		free_string(*strings[i]);
	for (size_t i = 0; i < config->initrd_count; i++)
		free_string(config->initrds[i]);
	free((void *)(uintptr_t)config->initrds);
	for (size_t i = 0; i < config->disk_count; i++)
		free_disk(config->disks[i]);
	free((void *)(uintptr_t)config->disks);
}
