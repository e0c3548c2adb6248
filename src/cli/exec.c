#include "cli/exec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/report.h"
#include "cli/values.h"
#include "cli/window.h"

enum { SHOWN_LINES = 24, LINE_MAX_BYTES = 400 };

/*
 * In front of the user's words, so that those count. A panic ends the VM instead of waiting for somebody; on the serial
 * port there is little with "quiet" but what is worth to be shown when the command has no status.
 */
static const char KERNEL_WORDS[] = "rdinit=" EXEC_INIT_PATH " console=ttyS0 quiet panic=-1 cryptomgr.notests";

/* --- making ----------------------------------------------------------------------------------------------- */

static int fail_memory(struct outcome *outcome)
{
	outcome_of_failure(outcome, VMLET_EXIT_HOST, "out of memory");
	return -ENOMEM;
}

/* 126 and 127 are what the guest would say of such a command. */
static int fail_job(struct outcome *outcome, int code, const char *text)
{
	outcome_of_failure(outcome, code == -ENOMEM ? VMLET_EXIT_HOST : VMLET_EXIT_CONFIG, text);
	if (code < 0)
		return code;
	outcome->status = code;
	outcome->reason = "exit";
	outcome->has_value = true;
	outcome->value = (uint32_t)code;
	return -ENOEXEC;
}

static int add_words(struct exec *exec, const struct options *given, struct outcome *outcome)
{
	exec->options.cmdline = NULL;
	if (value_join(&exec->options.cmdline, ' ', KERNEL_WORDS) < 0)
		return fail_memory(outcome);
	if (given->cmdline && value_join(&exec->options.cmdline, ' ', given->cmdline) < 0)
		return fail_memory(outcome);
	return 0;
}

/* Ours comes last: what is unpacked later replaces what was there. */
static int add_initrd(struct exec *exec, const struct options *given, struct outcome *outcome)
{
	const char **initrds = calloc(given->initrd_count + 1, sizeof(*initrds));
	struct cli_error error;
	int r;

	exec->options.initrds = initrds;
	if (!initrds)
		return fail_memory(outcome);
	r = exec_job_write(given, &exec->terminal, (const char *const *)environ, &exec->initrd, &error);
	if (r != 0)
		return fail_job(outcome, r, error.text);
	snprintf(exec->initrd_path, sizeof(exec->initrd_path), "/proc/self/fd/%d", exec->initrd.fd);
	for (size_t i = 0; i < given->initrd_count; i++)
		initrds[i] = given->initrds[i];
	initrds[given->initrd_count] = exec->initrd_path;
	exec->options.initrd_count = given->initrd_count + 1;
	return 0;
}

struct exec *exec_new(const struct options *options, bool interactive, struct outcome *outcome)
{
	struct exec *exec = calloc(1, sizeof(*exec));

	if (!exec) {
		(void)fail_memory(outcome);
		return NULL;
	}
	exec->options = *options;
	exec->options.initrds = NULL;
	exec->options.cmdline = NULL;
	exec->initrd.fd = -1;
	exec->terminal.stdio = interactive && isatty(STDOUT_FILENO);
	exec->terminal.error = isatty(STDERR_FILENO);
	if (add_words(exec, options, outcome) < 0 || add_initrd(exec, options, outcome) < 0) {
		exec_free(exec);
		return NULL;
	}
	return exec;
}

void exec_free(struct exec *exec)
{
	if (!exec)
		return;
	initrd_cpio_fini(&exec->initrd);
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

void exec_fill_config(struct exec *exec, struct vmlet_config *config)
{
	config->streams.enabled = true;
	if (exec->terminal.stdio)
		window_get_size(&config->streams.rows, &config->streams.columns);
	config->serial.output_tap = keep_console;
	config->serial.output_tap_ctx = exec;
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

static void set(struct outcome *outcome, int status, const char *reason, const char *text)
{
	outcome->status = status;
	outcome->reason = reason;
	snprintf(outcome->text, sizeof(outcome->text), "%s", text);
}

/* The kernel's own words about its panic; without a driver for pvpanic, they and a reset are all that is known of it.
 */
static bool find_panic(const struct exec *exec, char *ret_text, size_t size_bytes)
{
	char *console = console_text(exec);
	const char *line = console ? strstr(console, "Kernel panic - not syncing") : NULL;

	if (line)
		snprintf(ret_text, size_bytes, "the guest's kernel panicked: %.*s",
			 (int)(strcspn(line, "\n") < LINE_MAX_BYTES ? strcspn(line, "\n") : LINE_MAX_BYTES), line);
	free(console);
	return line != NULL;
}

/* What the console was expected to show, a signal and a timeout have their own reasons. */
void exec_conclude(const struct exec *exec, struct outcome *outcome)
{
	bool panicked = strcmp(outcome->reason, "panic") == 0 || strcmp(outcome->reason, "reboot") == 0;
	char text[sizeof(outcome->text)];

	if (strcmp(outcome->reason, "debug-exit") == 0)
		set(outcome, outcome->status, "exit", "");
	else if (strcmp(outcome->reason, "poweroff") == 0)
		set(outcome, VMLET_EXIT_NO_STATUS, "no-status",
		    "the guest powered off before the command had a status");
	else if (panicked && find_panic(exec, text, sizeof(text)))
		set(outcome, VMLET_EXIT_PANIC, "panic", text);
}

void exec_show_console(const struct exec *exec, const struct outcome *outcome)
{
	static const char *const plain[] = {"exit", "expected", "fail-on", "expect", "left", "signal"};
	char *console;

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		if (strcmp(outcome->reason, plain[i]) == 0)
			return;
	console = console_text(exec);
	if (console)
		show_lines(console);
	free(console);
}
