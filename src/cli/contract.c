#include "cli/contract.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/exit_status.h"
#include "cli/report.h"
#include "cli/script.h"
#include "cli/terminal.h"

/* How long the end may take after --timeout, and how often a guest that does not read is tried. */
static const uint64_t GRACE_NS = 5000000000, TYPE_AGAIN_NS = 10000000;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* --- watching -------------------------------------------------------------------------------------------- */

static void type_more(struct contract *contract)
{
	int n;

	if (contract->typed_bytes == 0)
		return;
	n = contract->vm ? 0 : -EINVAL;
	if (n == 0)
		n = vmlet_type(contract->vm, contract->console, contract->typed, contract->typed_bytes);
	if (n < 0)
		contract->typed_bytes = 0; /* nobody is there any more */
	if (n <= 0)
		return;
	contract->typed_bytes -= (size_t)n;
	memmove(contract->typed, contract->typed + n, contract->typed_bytes);
}

static void send_text(void *ctx, const char *text, size_t size_bytes)
{
	struct contract *contract = ctx;
	char *grown;

	if (size_bytes > TYPED_MAX_BYTES - contract->typed_bytes) {
		report("warning: the guest does not read what is sent to it");
		return;
	}
	grown = realloc(contract->typed, contract->typed_bytes + size_bytes + 1);
	if (!grown) {
		report("warning: what should be sent is lost: out of memory");
		return;
	}
	contract->typed = grown;
	memcpy(grown + contract->typed_bytes, text, size_bytes);
	contract->typed_bytes += size_bytes;
	type_more(contract);
}

static void tell_met(void *ctx, const char *pattern)
{
	struct contract *contract = ctx;

	event_stream_met(&contract->events, now(), pattern);
}

static void log_console(struct contract *contract, const uint8_t *data, size_t size)
{
	while (size > 0 && contract->console_log >= 0) {
		ssize_t n = write(contract->console_log, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			contract->console_log_failed = -errno;
			report("warning: console log '%.400s': %s", contract->options->console_log_path,
			       strerror(errno));
			close(contract->console_log);
			contract->console_log = -1;
			return;
		}
		data += n;
		size -= (size_t)n;
	}
}

static void stop_on_verdict(struct contract *contract)
{
	if (contract->vm && expect_verdict(contract->expect) != EXPECT_OPEN)
		vmlet_stop(contract->vm, STOP_VALUE_VERDICT);
}

static void watch(void *ctx, const uint8_t *data, size_t size_bytes)
{
	struct contract *contract = ctx;

	if (contract->also_tap)
		contract->also_tap(contract->also_tap_ctx, data, size_bytes);
	log_console(contract, data, size_bytes);
	if (!contract->expect)
		return;
	expect_feed(contract->expect, data, size_bytes, now());
	stop_on_verdict(contract);
}

static void on_event(void *ctx, const struct vmlet_event *event)
{
	event_stream_write(ctx, event);
}

/* --- the deadline ---------------------------------------------------------------------------------------- */

/* What we hang in may be a write to just this. -1: nothing to wait for. */
static bool is_ready(int fd)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLOUT};

	return fd < 0 || (poll(&pollfd, 1, 0) > 0 && (pollfd.revents & POLLOUT) != 0);
}

/* Everything else has failed to end in time. Async-signal-safe. */
static void write_last_words(void *ctx)
{
	static const char text[] = "vmlet: it did not end in time after --timeout\n";
	const struct contract *contract = ctx;

	if (!contract->closing && is_ready(contract->status.fd))
		status_file_write(&contract->status, contract->status.last_words, contract->status.last_words_bytes);
	if (is_ready(STDERR_FILENO) && write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		return;
}

static void set_deadline(struct contract *contract, uint64_t grace_ns)
{
	uint64_t timeout_ns = contract->options->timeout_ns, deadline_ns = contract->started_ns + timeout_ns + grace_ns;
	struct outcome outcome = {.status = VMLET_EXIT_TIMEOUT, .reason = "timeout", .end = VMLET_END_TIMEOUT};

	if (timeout_ns == 0)
		return;
	snprintf(outcome.text, sizeof(outcome.text), "it did not end in time after --timeout");
	contract->status.last_words_bytes =
		status_file_render(contract->status.last_words, sizeof(contract->status.last_words), &outcome, NULL,
				   contract->started_ns, deadline_ns);
	terminal_set_deadline(deadline_ns, write_last_words, contract);
}

/* --- setting up ------------------------------------------------------------------------------------------ */

static int add_expectations(struct contract *contract, struct cli_error *error)
{
	const struct string_list *list = &contract->options->expects;
	char why[128] = "";

	for (size_t i = 0; i < list->count; i++) {
		int r = expect_add_pattern(contract->expect, EXPECT_DIALOGUE, list->items[i], 0, why, sizeof(why));

		if (r < 0)
			snprintf(error->text, sizeof(error->text), "--expect: '%.80s' is not a regular expression: %s",
				 list->items[i], r == -ENOMEM ? "out of memory" : why);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_fail_ons(struct contract *contract, struct cli_error *error)
{
	const struct string_list *list = &contract->options->fail_ons;
	char why[128] = "";

	for (size_t i = 0; i < list->count; i++) {
		int r = expect_add_fail_on(contract->expect, EXPECT_SEQUENCES, list->items[i], why, sizeof(why));

		if (r < 0)
			snprintf(error->text, sizeof(error->text), "--fail-on: '%.80s' is not a regular expression: %s",
				 list->items[i], r == -ENOMEM ? "out of memory" : why);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_replies(struct contract *contract, struct cli_error *error)
{
	const struct string_list *list = &contract->options->sends;

	for (size_t i = 0; i < list->count; i++) {
		int r = script_add_reply(list->items[i], contract->expect, error);

		if (r < 0)
			return r;
	}
	return 0;
}

static int make_expect(struct contract *contract, struct cli_error *error)
{
	const struct contract_options *options = contract->options;
	struct expect_actions actions = {.send = send_text, .met = tell_met, .ctx = contract};
	int r = 0;

	if (options->expects.count + options->fail_ons.count + options->sends.count == 0 && !options->script_path)
		return 0;
	contract->expect = expect_new(&actions);
	if (!contract->expect) {
		snprintf(error->text, sizeof(error->text), "out of memory");
		return -ENOMEM;
	}
	if (options->script_path)
		r = script_read(options->script_path, contract->expect, error);
	if (r == 0)
		r = add_expectations(contract, error);
	if (r == 0)
		r = add_fail_ons(contract, error);
	return r == 0 ? add_replies(contract, error) : r;
}

static int open_console_log(struct contract *contract, struct cli_error *error)
{
	const char *path = contract->options->console_log_path;
	int r;

	if (!path)
		return 0;
	contract->console_log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
	if (contract->console_log >= 0)
		return 0;
	r = -errno;
	snprintf(error->text, sizeof(error->text), "console log '%.400s': %s", path, strerror(-r));
	return r;
}

/*
 * The status file can tell of all the rest; but a descriptor that was not given must not be found to be there because
 * it is one of ours.
 */
int contract_open(struct contract *contract, const struct contract_options *options, struct cli_error *error)
{
	struct cli_error events_error = {0};
	int r, events;

	*contract = (struct contract){
		.options = options, .started_ns = now(), .console_log = -1, .events = {.fd = -1}, .status = {.fd = -1}};
	contract->status.dir_fd = contract->also_fd = -1;
	set_deadline(contract, 0);
	events = event_stream_open(&contract->events, options->events_target, &events_error);
	r = status_file_open(&contract->status, options->status_path, error);
	if (r == 0 && events < 0) {
		*error = events_error;
		return events;
	}
	if (r == 0)
		r = make_expect(contract, error);
	return r == 0 ? open_console_log(contract, error) : r;
}

void contract_fill(struct contract *contract, struct vmlet_config *config, struct vmlet_serial *watched, int console)
{
	uint64_t timeout_ns = contract->options->timeout_ns, elapsed_ns = now() - contract->started_ns;

	contract->console = console;
	if (contract->expect || contract->console_log >= 0) {
		contract->also_tap = watched->output_tap;
		contract->also_tap_ctx = watched->output_tap_ctx;
		watched->output_tap = watch;
		watched->output_tap_ctx = contract;
	}
	if (contract->events.fd >= 0) {
		config->event = on_event;
		config->event_ctx = &contract->events;
	}
	if (timeout_ns != 0)
		config->timeout_ns = timeout_ns > elapsed_ns ? timeout_ns - elapsed_ns : 1;
}

void contract_set_vm(struct contract *contract, struct vmlet *vm)
{
	contract->vm = vm;
}

/* --- serving --------------------------------------------------------------------------------------------- */

static void tick(struct contract *contract, uint64_t now_ns)
{
	type_more(contract);
	if (!contract->expect)
		return;
	if (expect_deadline(contract->expect) > now_ns)
		return;
	expect_tick(contract->expect, now_ns);
	stop_on_verdict(contract);
}

static uint64_t next_deadline_ns(const struct contract *contract, uint64_t now_ns)
{
	uint64_t deadline_ns = contract->expect ? expect_deadline(contract->expect) : UINT64_MAX;

	if (contract->typed_bytes > 0 && deadline_ns > now_ns + TYPE_AGAIN_NS)
		deadline_ns = now_ns + TYPE_AGAIN_NS;
	return deadline_ns;
}

/* Until the VM has something to do, or we have. */
static void wait_for_work(struct contract *contract)
{
	struct pollfd fds[] = {
		{.fd = vmlet_get_fd(contract->vm), .events = POLLIN},
		{.fd = contract->also_fd, .events = POLLIN},
	};
	uint64_t now_ns = now(), deadline_ns = next_deadline_ns(contract, now_ns), left_ns;
	struct timespec left;

	left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
	left.tv_sec = (time_t)(left_ns / 1000000000);
	left.tv_nsec = (long)(left_ns % 1000000000);
	if (ppoll(fds, 2, deadline_ns == UINT64_MAX ? NULL : &left, NULL) > 0 && fds[1].revents != 0)
		contract->also(contract->also_ctx);
}

static void look_at_console(struct contract *contract)
{
	if (!contract->expect)
		return;
	expect_tick(contract->expect, now());
	stop_on_verdict(contract);
}

static int serve_and_watch(struct contract *contract)
{
	int r;

	look_at_console(contract);
	while ((r = vmlet_dispatch(contract->vm)) == 0) {
		tick(contract, now());
		wait_for_work(contract);
	}
	if (contract->expect)
		expect_end(contract->expect, now());
	return r < 0 ? r : 0;
}

void contract_serve_also(struct contract *contract, int fd, void (*act)(void *ctx), void *ctx)
{
	contract->also_fd = fd;
	contract->also = act;
	contract->also_ctx = ctx;
}

int contract_serve(struct contract *contract, struct outcome *ret_outcome)
{
	struct vmlet_result result = {0};
	int r;

	set_deadline(contract, GRACE_NS);
	r = contract->expect || contract->also_fd >= 0 ? serve_and_watch(contract) : vmlet_run(contract->vm, &result);
	if (r < 0)
		return r;
	vmlet_get_result(contract->vm, &result);
	vmlet_get_stats(contract->vm, &contract->stats);
	contract->ran = true;
	outcome_of_result(ret_outcome, &result, contract->expect);
	return 0;
}

/* --- the end --------------------------------------------------------------------------------------------- */

static void add_failures(struct contract *contract, struct outcome *outcome)
{
	char text[512];

	if (contract->console_log_failed != 0) {
		snprintf(text, sizeof(text), "console log '%.400s': %s", contract->options->console_log_path,
			 strerror(-contract->console_log_failed));
		outcome_add_incomplete(outcome, text);
	}
	if (contract->events.failed != 0) {
		snprintf(text, sizeof(text), "events '%.400s': %s", contract->options->events_target,
			 strerror(-contract->events.failed));
		report("warning: %s", text);
		outcome_add_incomplete(outcome, text);
	}
}

static void write_status(struct contract *contract, struct outcome *outcome, uint64_t now_ns)
{
	char text[STATUS_FILE_MAX_BYTES], complaint[512];
	size_t size = status_file_render(text, sizeof(text), outcome, contract->ran ? &contract->stats : NULL,
					 contract->started_ns, now_ns);
	int r = status_file_write(&contract->status, text, size);

	if (r == 0)
		return;
	snprintf(complaint, sizeof(complaint), "status file '%.400s': %s", contract->status.path, strerror(-r));
	report("%s", complaint);
	outcome_add_incomplete(outcome, complaint);
}

int contract_close(struct contract *contract, struct outcome *outcome)
{
	uint64_t now_ns = now();

	add_failures(contract, outcome);
	event_stream_ended(&contract->events, contract->ran ? contract->stats.ended_ns : now_ns, outcome);
	contract->closing = 1;
	write_status(contract, outcome, now_ns);
	terminal_set_deadline(0, NULL, NULL);
	event_stream_close(&contract->events);
	status_file_close(&contract->status);
	if (contract->console_log >= 0)
		close(contract->console_log);
	expect_free(contract->expect);
	free(contract->typed);
	return outcome->status;
}
