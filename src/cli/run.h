/* `vmlet run`: one VM from its options to an exit status. */
#pragma once

#include "cli/options.h"

int run(const struct options *options);
