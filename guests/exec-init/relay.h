/* Bytes between the command and the stream port, until the command has ended. */
#pragma once

#include "command.h"

/* The command's status. All that it has written was taken by the port, or nobody will ever read it. */
int relay_run(struct command *command);
