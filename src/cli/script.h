/*
 * A script for the console: one step a line, run in order.
 *
 *	# a comment; empty lines count for nothing
 *	timeout 30s             for each `expect` after it; "timeout none" ends that
 *	expect REGEX            wait until the console has shown this
 *	send TEXT               type this; \n \r \t \\ and \xHH are understood, nothing is added
 *	fail-on REGEX           from here on the console must not show this
 *	sleep 500ms             what is sent next waits so long
 *
 * What follows a word and one blank is taken as it is, blanks at its end too.
 */
#pragma once

#include <stddef.h>

#include "cli/expect.h"
#include "cli/options.h"

enum { SCRIPT_MAX_BYTES = 1 << 20 };

/* Add the steps to the dialogue. 0, or -EINVAL/-ENOMEM with "NAME:LINE: ..." in `error`. Pure. */
int script_parse(const char *name, const char *text, size_t size_bytes, struct expect *expect, struct cli_error *error);

/* The same of a file; also -errno. */
int script_read(const char *path, struct expect *expect, struct cli_error *error);

/* Replace the escapes in place; the text may then hold NULs. 0 with its size, or -EINVAL. */
int script_unescape(char *text, size_t *ret_size_bytes);

/* Add a --send, "REGEX=>TEXT", to the replies. 0, or -EINVAL/-ENOMEM with a sentence. */
int script_add_reply(const char *value, struct expect *expect, struct cli_error *error);
