/* Exits with the status that the command line names: proves that the command line and the status pass. */
#include "guest.h"

int guest_main(void)
{
	boot_check();
	print("command line: '%s'\n", boot_cmdline());
	check(arg_has("status"), 0xe1, "the command line has status=N");
	return (int)arg_u64("status", 0);
}
