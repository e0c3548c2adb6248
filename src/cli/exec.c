#include "cli/exec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/exit_status.h"
#include "cli/report.h"
#include "cli/values.h"

enum { SHOWN_LINES = 24, LINE_MAX_BYTES = 400 };

/*
 * In front of the user's words, so that those count. A panic ends the VM instead of waiting for somebody; on the serial
 * port there is little with "quiet" but what is worth to be shown when the command has no status.
 */
static const char KERNEL_WORDS[] = "rdinit=" EXEC_INIT_PATH " console=ttyS0 quiet panic=-1 cryptomgr.notests";

/* --- making ----------------------------------------------------------------------------------------------- */

static int fail_memory(void)
{
	report("out of memory");
	return VMLET_EXIT_HOST;
}

static int add_words(struct exec *exec, const struct options *given)
{
	exec->options.cmdline = NULL;
	if (value_join(&exec->options.cmdline, ' ', KERNEL_WORDS) < 0)
		return fail_memory();
	if (given->cmdline && value_join(&exec->options.cmdline, ' ', given->cmdline) < 0)
		return fail_memory();
	return 0;
}

/* Ours comes last: what is unpacked later replaces what was there. */
static int add_initrd(struct exec *exec, const struct options *given)
{
	const char **initrds = calloc(given->initrd_count + 1, sizeof(*initrds));
	struct cli_error error;
	int r;

	exec->options.initrds = initrds;
	if (!initrds)
		return fail_memory();
	r = exec_job_write(given, &exec->terminal, (const char *const *)environ, &exec->initrd, &error);
	if (r != 0) {
		report("%s", error.text);
		return r > 0 ? r : r == -ENOMEM ? VMLET_EXIT_HOST : VMLET_EXIT_CONFIG;
	}
	snprintf(exec->initrd_path, sizeof(exec->initrd_path), "/proc/self/fd/%d", exec->initrd.fd);
	for (size_t i = 0; i < given->initrd_count; i++)
		initrds[i] = given->initrds[i];
	initrds[given->initrd_count] = exec->initrd_path;
	exec->options.initrd_count = given->initrd_count + 1;
	return 0;
}

/* Only the thread that serves the VM may tell it the window's size, so the signal becomes readable. */
static int open_window_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

struct exec *exec_new(const struct options *options, bool interactive, int *ret_status)
{
	struct exec *exec = calloc(1, sizeof(*exec));

	if (!exec) {
		*ret_status = fail_memory();
		return NULL;
	}
	exec->options = *options;
	exec->options.initrds = NULL;
	exec->options.cmdline = NULL;
	exec->initrd.fd = exec->window_fd = -1;
	exec->terminal.stdio = interactive && isatty(STDOUT_FILENO);
	exec->terminal.error = isatty(STDERR_FILENO);
	*ret_status = add_words(exec, options);
	if (*ret_status == 0)
		*ret_status = add_initrd(exec, options);
	if (*ret_status != 0) {
		exec_free(exec);
		return NULL;
	}
	if (exec->terminal.stdio)
		exec->window_fd = open_window_fd();
	return exec;
}

void exec_free(struct exec *exec)
{
	if (!exec)
		return;
	initrd_cpio_fini(&exec->initrd);
	if (exec->window_fd >= 0)
		close(exec->window_fd);
	free(exec->options.initrds);
	free(exec->options.cmdline);
	free(exec);
}

/* --- running ---------------------------------------------------------------------------------------------- */

static void keep_console(void *ctx, const uint8_t *data, size_t size_bytes)
{
	struct exec *exec = ctx;

	for (size_t i = 0; i < size_bytes; i++)
		exec->console.bytes[exec->console.size_bytes++ % EXEC_TAIL_BYTES] = data[i];
}

/* A terminal without a size is one all the same. */
static void get_window(uint16_t *ret_rows, uint16_t *ret_columns)
{
	struct winsize window = {0};

	ioctl(STDIN_FILENO, TIOCGWINSZ, &window);
	*ret_rows = window.ws_row ? window.ws_row : 24;
	*ret_columns = window.ws_col ? window.ws_col : 80;
}

void exec_fill_config(struct exec *exec, struct vmlet_config *config)
{
	config->streams.enabled = true;
	if (exec->terminal.stdio)
		get_window(&config->streams.rows, &config->streams.columns);
	if (!config->serial.output_tap) {
		config->serial.output_tap = keep_console;
		config->serial.output_tap_ctx = exec;
	}
}

static void follow_window(const struct exec *exec, struct vmlet *vm)
{
	struct signalfd_siginfo info;
	uint16_t rows, columns;

	if (read(exec->window_fd, &info, sizeof(info)) != sizeof(info))
		return;
	get_window(&rows, &columns);
	vmlet_set_window_size(vm, rows, columns);
}

static int serve_with_window(const struct exec *exec, struct vmlet *vm)
{
	struct pollfd fds[] = {
		{.fd = vmlet_get_fd(vm), .events = POLLIN},
		{.fd = exec->window_fd, .events = POLLIN},
	};
	int r;

	while ((r = vmlet_dispatch(vm)) == 0) {
		if (poll(fds, sizeof(fds) / sizeof(fds[0]), -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[1].revents)
			follow_window(exec, vm);
	}
	return r < 0 ? r : 0;
}

int exec_serve(struct exec *exec, struct vmlet *vm, struct vmlet_result *ret_result)
{
	int r;

	if (exec->window_fd < 0)
		return vmlet_run(vm, ret_result);
	r = serve_with_window(exec, vm);
	if (r == 0)
		vmlet_get_result(vm, ret_result);
	return r;
}

/* --- the end ---------------------------------------------------------------------------------------------- */

/* The last bytes as text, without the carriage returns of a serial line; allocated, or NULL. */
static char *console_text(const struct exec *exec)
{
	uint64_t end = exec->console.size_bytes;
	uint64_t at = end > EXEC_TAIL_BYTES ? end - EXEC_TAIL_BYTES : 0;
	char *text = malloc((size_t)(end - at) + 1);
	size_t length = 0;

	for (; text && at < end; at++) {
		char c = (char)exec->console.bytes[at % EXEC_TAIL_BYTES];

		if (c != '\r' && c != '\0')
			text[length++] = c;
	}
	if (text)
		text[length] = '\0';
	return text;
}

static void show_lines(char *text)
{
	size_t length = strlen(text);
	char *at = text + length, *rest;
	unsigned lines = 0;

	while (at > text && lines <= SHOWN_LINES)
		lines += *--at == '\n';
	if (length > 0)
		report("the console's last lines:");
	for (char *line = strtok_r(at, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char shown[LINE_MAX_BYTES + 8];

		snprintf(shown, sizeof(shown), "  %.*s", LINE_MAX_BYTES, line);
		report_plain(shown);
	}
}

static bool has_own_status(const struct vmlet_result *result)
{
	return result->end == VMLET_END_DEBUG_EXIT;
}

/* Where the kernel's log went elsewhere, nobody knows of its panic but by the reset that panic=-1 makes of it. */
static int status_without_command(const struct vmlet_result *result, const char *console)
{
	if (result->end == VMLET_END_POWEROFF)
		return VMLET_EXIT_NO_STATUS;
	if (result->end == VMLET_END_REBOOT && console && strstr(console, "Kernel panic - not syncing"))
		return VMLET_EXIT_PANIC;
	return exit_status_of_result(result);
}

static void report_end(const struct vmlet_result *result, int status)
{
	char sentence[sizeof(result->text)];

	if (status == VMLET_EXIT_NO_STATUS)
		report("the guest powered off before the command had a status");
	else if (status == VMLET_EXIT_PANIC)
		report("the guest's kernel panicked");
	else if (exit_status_sentence(result, sentence, sizeof(sentence)))
		report("%s", sentence);
}

int exec_end(const struct exec *exec, const struct vmlet_result *result)
{
	char *console;
	int status;

	if (has_own_status(result))
		return exit_status_of_result(result);
	console = console_text(exec);
	status = status_without_command(result, console);
	report_end(result, status);
	if (console && result->end != VMLET_END_STOPPED)
		show_lines(console);
	free(console);
	return status;
}
