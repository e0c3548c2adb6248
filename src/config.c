#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/board.h"
#include "arch/cpu.h"
#include "gmem.h"
#include "util.h"

enum { MEMORY_DEFAULT_MIB = 256, MEMORY_MIN_MIB = 2 };

void vmlet_config_init_sized(struct vmlet_config *config, size_t struct_size)
{
	struct vmlet_config defaults = {
		.struct_size = struct_size,
		.memory_bytes = MIB(MEMORY_DEFAULT_MIB),
		.cpus = 1,
		.serial = {.in_fd = -1, .out_fd = -1},
		.debugcon = {.in_fd = -1, .out_fd = -1},
		.log_level = VMLET_LOG_WARN,
	};
	memset(config, 0, struct_size);
	memcpy(config, &defaults, min_u64(struct_size, sizeof(defaults)));
}

void vmlet_disk_init_sized(struct vmlet_disk *disk, size_t struct_size)
{
	struct vmlet_disk defaults = {
		.struct_size = struct_size,
		.queues = 1,
	};
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
	return cpu_features_check(config->cpu_features, err);
}

static int check(const struct vmlet_config *config, struct err *err)
{
	int r = check_machine(config, err);
	if (r == 0)
		r = check_serial(&config->serial, "serial port", err);
	if (r == 0)
		r = check_serial(&config->debugcon, "debug console", err);
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

/* Replace every pointer into the caller's memory by a copy; on failure those not yet copied are NULL. */
static int own_strings(struct vmlet_config *config, struct err *err)
{
	const char *const *initrds = config->initrds;
	size_t initrd_count = config->initrd_count;
	config->initrds = NULL;
	config->initrd_count = 0;

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
	return r < 0 ? r : copy_initrds(config, initrds, initrd_count, err);
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

/* The struct's strings are const for its users; here they are what strdup returned. */
static void free_string(const char *string)
{
	free((void *)(uintptr_t)string);
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
}
