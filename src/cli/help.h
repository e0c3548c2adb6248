/* What `vmlet help` and `vmlet version` print. */
#pragma once

#include <stdio.h>

#include "cli/options.h"

/* Print a topic (NULL: the overview). 0, or -EINVAL with a sentence when there is no such topic. */
int help_print(FILE *out, const char *topic, struct cli_error *error);

/* The keys as lines without newline, each handed to `line`. */
void help_keys(void (*line)(void *ctx, const char *text), void *ctx);
