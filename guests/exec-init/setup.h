/* The world that the command finds: file systems, device nodes, modules, the loopback interface. */
#pragma once

#include "sys.h"

void setup_mounts(void);
void setup_loopback(void);

/* 0, or -errno with the reason in `why`. */
long setup_module(const char *path, struct sentence *why);
