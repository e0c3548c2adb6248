#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config_impl.h"
#include "util.h"

enum {
	MEMORY_DEFAULT_MIB = 256,
	VSOCK_CID_DEFAULT = 3,
};

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
		.vsock = {.cid = VSOCK_CID_DEFAULT},
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

void vmlet_net_init_sized(struct vmlet_net *net, size_t struct_size)
{
	struct vmlet_net defaults = {.struct_size = struct_size, .fd = -1, .queues = 1};
	memset(net, 0, struct_size);
	memcpy(net, &defaults, min_u64(struct_size, sizeof(defaults)));
}

void vmlet_console_init_sized(struct vmlet_console *console, size_t struct_size)
{
	struct vmlet_console defaults = {.struct_size = struct_size, .backend = {.in_fd = -1, .out_fd = -1}};
	memset(console, 0, struct_size);
	memcpy(console, &defaults, min_u64(struct_size, sizeof(defaults)));
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
	if (config->vsock.cid == 0)
		config->vsock.cid = VSOCK_CID_DEFAULT;
	int r = config_own(config, err);
	return r < 0 ? r : config_check(config, err);
}

void config_fini(struct vmlet_config *config)
{
	config_disown(config);
}

const char *config_device_name(const char *id, const char *kind, unsigned index, char ret_name[DEVICE_NAME_MAX])
{
	if (id)
		(void)snprintf(ret_name, DEVICE_NAME_MAX, "%s", id);
	else
		(void)snprintf(ret_name, DEVICE_NAME_MAX, "%s%u", kind, index);
	return ret_name;
}
