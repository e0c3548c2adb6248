#include "cli/outcome.h"

#include <stdio.h>
#include <string.h>

#include "cli/exit_status.h"

static const char *reason_of_status(int status)
{
	switch (status) {
	case VMLET_EXIT_CONFIG:
		return "config";
	case VMLET_EXIT_KVM:
		return "kvm";
	case VMLET_EXIT_HOST:
	default:
		return "host";
	}
}

void outcome_of_failure(struct outcome *outcome, int status, const char *text)
{
	*outcome = (struct outcome){.status = status, .reason = reason_of_status(status)};
	snprintf(outcome->text, sizeof(outcome->text), "%s", text);
}

void outcome_of_error(struct outcome *outcome, const struct vmlet_error *error)
{
	outcome_of_failure(outcome, exit_status_of_error(error), error->text);
}

static const char *reason_of_end(const struct vmlet_result *result)
{
	switch (result->end) {
	case VMLET_END_POWEROFF:
		return "poweroff";
	case VMLET_END_REBOOT:
		return "reboot";
	case VMLET_END_PANIC:
		return "panic";
	case VMLET_END_TRIPLE_FAULT:
		return "triple-fault";
	case VMLET_END_DEBUG_EXIT:
		return "debug-exit";
	case VMLET_END_STOPPED:
		return result->value == STOP_VALUE_LEFT ? "left" : "signal";
	case VMLET_END_KVM_ERROR:
		return "kvm";
	case VMLET_END_TIMEOUT:
		return "timeout";
	case VMLET_END_HOST_ERROR:
	default:
		return "host";
	}
}

static void set(struct outcome *outcome, int status, const char *reason)
{
	outcome->status = status;
	outcome->reason = reason;
}

/* The end is the guest's doing, or ours because of what its console showed. */
static bool expectations_count(const struct vmlet_result *result)
{
	switch (result->end) {
	case VMLET_END_STOPPED:
		return result->value == STOP_VALUE_VERDICT;
	case VMLET_END_POWEROFF:
	case VMLET_END_REBOOT:
	case VMLET_END_PANIC:
	case VMLET_END_TRIPLE_FAULT:
	case VMLET_END_DEBUG_EXIT:
		return true;
	default:
		return false;
	}
}

static void add_unmet(struct outcome *outcome, const char *how)
{
	char text[sizeof(outcome->text)];

	memcpy(text, outcome->text, sizeof(text));
	if (text[0] == '\0')
		snprintf(text, sizeof(text), "the guest wrote 0 to its debug-exit port");
	snprintf(outcome->text, sizeof(outcome->text), "%.250s%s '%.200s'", text, how, outcome->expect.pattern);
}

static void apply_verdict(struct outcome *outcome, enum expect_verdict verdict)
{
	const struct expect_summary *summary = &outcome->expect;
	char *text = outcome->text;

	if (verdict == EXPECT_MET) {
		set(outcome, VMLET_EXIT_POWEROFF, "expected");
		snprintf(text, sizeof(outcome->text), "the console showed all that was expected");
	} else if (verdict == EXPECT_FAILED) {
		set(outcome, VMLET_EXIT_EXPECT, "fail-on");
		snprintf(text, sizeof(outcome->text), "the console showed '%.200s', in the line '%.256s'",
			 summary->pattern, summary->line);
	} else if (verdict == EXPECT_LATE) {
		set(outcome, VMLET_EXIT_EXPECT, "expect");
		snprintf(text, sizeof(outcome->text), "the console did not show '%.200s' in time", summary->pattern);
	} else if (summary->met < summary->total) {
		set(outcome, VMLET_EXIT_EXPECT, "expect");
		add_unmet(outcome, ", but its console never showed");
	}
}

void outcome_of_result(struct outcome *outcome, const struct vmlet_result *result, const struct expect *expect)
{
	*outcome = (struct outcome){
		.status = exit_status_of_result(result), .reason = reason_of_end(result), .end = result->end};
	outcome->has_value = result->end == VMLET_END_DEBUG_EXIT;
	outcome->value = result->value;
	outcome->has_signal = strcmp(outcome->reason, "signal") == 0 && result->value != STOP_VALUE_VERDICT;
	outcome->signal = result->value;
	if (!exit_status_sentence(result, outcome->text, sizeof(outcome->text)))
		outcome->text[0] = '\0';
	if (!expect)
		return;
	expect_summarize(expect, &outcome->expect);
	if (expectations_count(result))
		apply_verdict(outcome, expect_verdict(expect));
	else if (result->end == VMLET_END_TIMEOUT && outcome->expect.pattern)
		add_unmet(outcome, ", and its console had not shown");
}

void outcome_add_incomplete(struct outcome *outcome, const char *text)
{
	if (outcome->status != 0)
		return;
	set(outcome, VMLET_EXIT_HOST, "host");
	snprintf(outcome->text, sizeof(outcome->text), "%s", text);
}
