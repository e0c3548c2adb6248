#include "cli/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/contract.h"
#include "cli/device_config.h"
#include "cli/escape.h"
#include "cli/exec.h"
#include "cli/exit_status.h"
#include "cli/help.h"
#include "cli/log_sink.h"
#include "cli/report.h"
#include "cli/terminal.h"
#include "cli/window.h"

struct session {
	const struct options *options;
	struct vmlet *vm;
	struct log_sink log;
	struct contract contract;
	struct escape escape;
	bool interactive;  /* the guest's terminal is the one that we are in the foreground of */
	int window_fd;     /* readable when that has another size; -1: the guest does not want to know */
	struct exec *exec; /* NULL: it is no command that is run */
};

static void stop_by_signal(void *ctx, int signo)
{
	vmlet_stop(ctx, (uint32_t)signo);
}

static void show_line(void *ctx, const char *text)
{
	(void)ctx;
	report_plain(text);
}

static void act_on_key(void *ctx, enum escape_action action)
{
	struct session *session = ctx;
	int r;

	switch (action) {
	case ESCAPE_LEAVE:
		vmlet_stop(session->vm, STOP_VALUE_LEFT);
		break;
	case ESCAPE_POWER_BUTTON:
		r = vmlet_press_power_button(session->vm);
		if (r < 0)
			report("cannot press the power button: %s", strerror(-r));
		break;
	case ESCAPE_HELP:
		report_plain(""); /* the guest's line need not have ended */
		help_keys(show_line, NULL);
		break;
	}
}

static void follow_window(void *ctx)
{
	struct session *session = ctx;
	uint16_t rows, columns;

	window_take(session->window_fd);
	window_get_size(&rows, &columns);
	vmlet_set_window_size(session->vm, rows, columns);
}

/* -1 when `fd` is not open for that direction; main opened the closed ones the wrong way round. */
static int fd_if_open_for(int fd, int wrong_mode)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || (flags & O_ACCMODE) == wrong_mode ? -1 : fd;
}

/*
 * A terminal that another job has in its foreground is not read: that would stop the whole process, and so the
 * guest, until somebody notices. A background VM writes but gets no input.
 */
static void fill_stdio(struct session *session, struct vmlet_serial *serial)
{
	serial->in_fd = fd_if_open_for(STDIN_FILENO, O_WRONLY);
	serial->out_fd = fd_if_open_for(STDOUT_FILENO, O_RDONLY);
	session->interactive = terminal_is_ours(STDIN_FILENO);
	if (session->interactive) {
		session->escape = (struct escape){.act = act_on_key, .ctx = session};
		serial->input_filter = escape_filter;
		serial->input_filter_ctx = &session->escape;
	} else if (isatty(STDIN_FILENO)) {
		serial->in_fd = -1;
	}
}

/* The console of a command is no place to type at. */
static void fill_console_of_exec(struct vmlet_serial *serial)
{
	serial->in_fd = -1;
	serial->out_fd = fd_if_open_for(STDERR_FILENO, O_RDONLY);
}

static void fill_streams(struct session *session, struct vmlet_streams *streams)
{
	streams->in_fd = fd_if_open_for(STDIN_FILENO, O_WRONLY);
	streams->out_fd = fd_if_open_for(STDOUT_FILENO, O_RDONLY);
	streams->err_fd = fd_if_open_for(STDERR_FILENO, O_RDONLY);
	if (session->interactive) {
		session->escape = (struct escape){.act = act_on_key, .ctx = session};
		streams->input_filter = escape_filter;
		streams->input_filter_ctx = &session->escape;
	} else if (isatty(STDIN_FILENO) && !terminal_is_ours(STDIN_FILENO)) {
		streams->in_fd = -1;
	}
}

/* A console that is a terminal knows its size. */
static void fill_console(struct session *session, struct vmlet_console *console)
{
	fill_stdio(session, &console->backend);
	if (!session->interactive)
		return;
	session->window_fd = window_open();
	window_get_size(&console->rows, &console->columns);
}

static void fill_config(struct session *session, struct vmlet_config *config)
{
	const struct options *options = session->options;

	vmlet_config_init(config);
	config->kernel = options->kernel;
	config->initrds = options->initrds;
	config->initrd_count = options->initrd_count;
	config->cmdline = options->cmdline;
	if (options->memory_bytes != 0)
		config->memory_bytes = options->memory_bytes;
	if (options->cpus != 0)
		config->cpus = options->cpus;
	config->cpu_features = options->cpu_features;
	config->boot_protocol = options->boot;
	config->on_reboot = options->on_reboot;
	config->serial.kind = options->serial;
	config->serial.path = options->serial_path;
	if (options->serial == VMLET_SERIAL_FD && session->exec)
		fill_console_of_exec(&config->serial);
	else if (options->serial == VMLET_SERIAL_FD)
		fill_stdio(session, &config->serial);
	if (session->exec) {
		fill_streams(session, &config->streams);
		exec_fill_config(session->exec, config);
	}
	config->debugcon.kind = options->debugcon;
	config->debugcon.path = options->debugcon_path;
	if (options->debugcon == VMLET_SERIAL_FD)
		config->debugcon.out_fd = fd_if_open_for(STDERR_FILENO, O_RDONLY);
	config->log_level = options->log_level;
	config->log = log_sink_write;
	config->log_ctx = &session->log;
}

static int fail(struct outcome *outcome, const struct vmlet_error *error)
{
	outcome_of_error(outcome, error);
	report("%s", error->text);
	return -EIO;
}

static int fail_devices(struct outcome *outcome, int code, const struct cli_error *error)
{
	outcome_of_failure(outcome, code == -EBADF ? VMLET_EXIT_CONFIG : VMLET_EXIT_HOST, error->text);
	report("%s", error->text);
	return code;
}

static void watch_vm(struct session *session)
{
	contract_set_vm(&session->contract, session->vm);
	if (session->window_fd >= 0)
		contract_serve_also(&session->contract, session->window_fd, follow_window, session);
	terminal_catch_signals(stop_by_signal, session->vm);
}

/* 0, or negative with the outcome told and filled, as are those below. */
static int make_vm(struct session *session, struct outcome *outcome)
{
	struct vmlet_serial *watched;
	struct device_config devices;
	struct vmlet_config config;
	struct vmlet_error error = {0};
	struct cli_error why;
	int r;

	fill_config(session, &config);
	r = device_config_fill(&devices, session->options, &config, &why);
	if (r < 0)
		return fail_devices(outcome, r, &why);
	watched = &config.serial;
	if (devices.stdio_console >= 0) {
		fill_console(session, &devices.consoles[devices.stdio_console]);
		watched = &devices.consoles[devices.stdio_console].backend;
	}
	contract_fill(&session->contract, &config, watched, devices.stdio_console);
	session->vm = vmlet_new(&config, &error);
	if (!session->vm)
		return fail(outcome, &error);
	watch_vm(session);
	if (session->options->serial == VMLET_SERIAL_PTY)
		report("serial port is %s", vmlet_serial_path(session->vm));
	device_config_report(&devices, &config, session->vm);
	return 0;
}

static int start(struct session *session, struct outcome *outcome)
{
	struct vmlet_error error = {0};
	int r = make_vm(session, outcome);

	if (r < 0)
		return r;
	if (vmlet_start(session->vm, &error) < 0)
		return fail(outcome, &error);
	return 0;
}

/* The guest had no chance to end its line when it was ended from outside. */
static void report_end(const struct session *session, const struct outcome *outcome)
{
	if (session->interactive && (outcome->end == VMLET_END_STOPPED || outcome->end == VMLET_END_TIMEOUT))
		report_plain("");
	if (outcome->text[0] != '\0')
		report("%s", outcome->text);
}

static void serve(struct session *session, struct outcome *outcome)
{
	int r;

	if (session->interactive) {
		r = terminal_enter_raw(STDIN_FILENO);
		if (r < 0)
			report("the terminal cannot be made raw: %s", strerror(-r));
	}
	r = contract_serve(&session->contract, outcome);
	terminal_leave_raw();
	if (r < 0) {
		char text[128];

		snprintf(text, sizeof(text), "the VM cannot be served: %s", strerror(-r));
		outcome_of_failure(outcome, VMLET_EXIT_HOST, text);
	}
	if (session->exec)
		exec_conclude(session->exec, outcome);
	report_end(session, outcome);
	if (session->exec)
		exec_show_console(session->exec, outcome);
}

static int open_files(struct session *session, struct outcome *outcome)
{
	struct cli_error error;
	int r = contract_open(&session->contract, &session->options->contract, &error);

	if (r == 0)
		r = log_sink_open(&session->log, session->options->log_path, &error);
	if (r == 0)
		return 0;
	outcome_of_failure(outcome, r == -ENOMEM ? VMLET_EXIT_HOST : VMLET_EXIT_CONFIG, error.text);
	report("%s", error.text);
	return r;
}

static void free_vm(struct session *session)
{
	terminal_forget_stop();
	contract_set_vm(&session->contract, NULL);
	vmlet_free(session->vm);
}

static int prepare_exec(struct session *session, struct outcome *outcome)
{
	if (session->options->command != COMMAND_EXEC)
		return 0;
	session->exec = exec_new(session->options, terminal_is_ours(STDIN_FILENO), outcome);
	if (!session->exec) {
		report("%s", outcome->text);
		return -EIO;
	}
	session->options = &session->exec->options;
	session->interactive = session->exec->terminal.stdio;
	if (session->interactive)
		session->window_fd = window_open();
	return 0;
}

int run(const struct options *options)
{
	struct session session = {.options = options, .log = {.fd = STDERR_FILENO}, .window_fd = -1};
	struct outcome outcome;
	int status;

	terminal_ignore_write_signals();
	if (open_files(&session, &outcome) == 0 && prepare_exec(&session, &outcome) == 0 &&
	    start(&session, &outcome) == 0)
		serve(&session, &outcome);
	free_vm(&session);
	exec_free(session.exec);
	if (session.window_fd >= 0)
		close(session.window_fd);
	status = contract_close(&session.contract, &outcome);
	log_sink_close(&session.log);
	return status;
}
