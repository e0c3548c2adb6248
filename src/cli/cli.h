/* The command line as a function: arguments in, exit status out. */
#pragma once

int cli_main(int argc, const char *const *argv);
