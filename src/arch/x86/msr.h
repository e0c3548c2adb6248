/* Model-specific registers that firmware would have set. */
#pragma once

#include "err.h"
#include "log.h"

/* Set them; one that this KVM refuses is a debug line, not an end. [setup] */
int msr_init(int vcpu_fd, const struct log *log, struct err *err);
