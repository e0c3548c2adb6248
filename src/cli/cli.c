#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/exit_status.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/run.h"
#include "cli/test_command.h"

/*
 * No file that is opened later may become descriptor 0, 1 or 2. A closed one is opened on /dev/null, standard input
 * for writing and standard output for reading, so that using it fails as it should. open takes the lowest number.
 */
static bool reserve_std_fds(void)
{
	static const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY};

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
			return false;
	return true;
}

/* What was printed is worth status 0 only when it got there. */
static int finish_stdout(void)
{
	int r = ferror(stdout) ? -EIO : 0;

	if (fflush(stdout) != 0)
		r = -errno;
	if (r == 0)
		return 0;
	report("standard output cannot be written: %s", strerror(-r));
	return VMLET_EXIT_HOST;
}

static int print_help(const char *topic)
{
	struct cli_error error;

	if (help_print(stdout, topic, &error) < 0) {
		report("%s", error.text);
		return VMLET_EXIT_CONFIG;
	}
	return finish_stdout();
}

static int print_version(void)
{
	printf("vmlet %s\n", vmlet_version());
	return finish_stdout();
}

static int execute(const struct options *options)
{
	switch (options->command) {
	case COMMAND_VERSION:
		return print_version();
	case COMMAND_HELP:
		return print_help(options->help_topic);
	case COMMAND_TEST:
		return test_command(options->test_arg_count, options->test_args, "/proc/self/exe");
	case COMMAND_RUN:
	case COMMAND_EXEC:
	default:
		return run(options);
	}
}

int cli_main(int argc, const char *const *argv)
{
	struct options options;
	struct cli_error error;
	int status;

	if (!reserve_std_fds())
		return VMLET_EXIT_HOST;
	status = options_parse(&options, argc, argv, &error);
	if (status < 0) {
		report("%s", error.text);
		return status == -ENOMEM ? VMLET_EXIT_HOST : VMLET_EXIT_CONFIG;
	}
	status = execute(&options);
	options_free(&options);
	return status;
}
