/* The library's own copy of a caller's struct vmlet_config: complete, checked, and owned. */
#pragma once

#include "err.h"
#include "vmlet.h"

/*
 * Copy what the caller's struct_size says it knows, fill the rest with defaults, and check every value that
 * needs neither a file nor KVM. 0, or -errno with a sentence; config_fini is due either way. [setup]
 */
int config_init(struct vmlet_config *config, const struct vmlet_config *from, struct err *err);
void config_fini(struct vmlet_config *config);

enum { DEVICE_NAME_MAX = 64 };

/* What a device is called: its own id, or its kind and number ("disk0"), in `ret_name`. */
const char *config_device_name(const char *id, const char *kind, unsigned index, char ret_name[DEVICE_NAME_MAX]);
