/* Inside the configuration: config.c (defaults, and the whole), config_own.c (copies), config_check.c (values). */
#pragma once

#include "config.h"

/*
 * Replace every pointer of `config` into the caller's memory by a copy, and complete what its lists point to with
 * defaults. 0, or -errno with a sentence; what is not a copy yet is NULL then, and config_disown is due either way.
 */
int config_own(struct vmlet_config *config, struct err *err);
void config_disown(struct vmlet_config *config);

/* Every value that needs neither a file nor KVM. 0, or -errno with a sentence. */
int config_check(const struct vmlet_config *config, struct err *err);
