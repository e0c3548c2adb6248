/* The devices of a VM, from the options to what vmlet_new takes. */
#pragma once

#include <limits.h>
#include <stddef.h>

#include "cli/console_option.h"
#include "cli/disk_option.h"
#include "cli/net_option.h"
#include "cli/options.h"

/* vmlet_new copies what it is given, so this need not live longer. */
struct device_config {
	struct vmlet_disk disks[DISKS_MAX];
	const struct vmlet_disk *disk_pointers[DISKS_MAX];
	struct vmlet_net nets[NETS_MAX];
	const struct vmlet_net *net_pointers[NETS_MAX];
	struct vmlet_console consoles[CONSOLES_MAX]; /* by the numbers that vmlet_type takes */
	const struct vmlet_console *console_pointers[CONSOLES_MAX];
	int stdio_console; /* which is on standard input and output, to be filled in; VMLET_SERIAL_PORT: none is */
	char passt[PATH_MAX];
};

/*
 * Fill the devices of `config`. 0; -EBADF: a descriptor that a network card should have was not handed to us; -ENOENT:
 * the program passt is not there; each with a sentence.
 */
int device_config_fill(struct device_config *devices, const struct options *options, struct vmlet_config *config,
		       struct cli_error *error);

/* Tell the user what has got its name just now: new tap interfaces, and the pseudo-terminals of consoles. */
void device_config_report(const struct device_config *devices, const struct vmlet_config *config,
			  const struct vmlet *vm);
