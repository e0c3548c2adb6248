/* Registers of the boot vCPU at a kernel's first instruction. */
#pragma once

#include "err.h"
#include "gmem.h"
#include "loader/loader.h"

int bootregs_set(int vcpu_fd, struct gmem *gmem, const struct load_result *boot, struct err *err);
