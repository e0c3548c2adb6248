#include "cli/window.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

void window_get_size(uint16_t *ret_rows, uint16_t *ret_columns)
{
	struct winsize window = {0};

	ioctl(STDIN_FILENO, TIOCGWINSZ, &window);
	*ret_rows = window.ws_row ? window.ws_row : 24;
	*ret_columns = window.ws_col ? window.ws_col : 80;
}

int window_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void window_take(int fd)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		;
}
