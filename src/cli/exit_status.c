#include "cli/exit_status.h"

#include <signal.h>
#include <stdio.h>

const struct exit_status_entry exit_status_table[] = {
	{"0", "the guest powered off, or all that was expected was shown", VMLET_EXIT_POWEROFF, VMLET_END_POWEROFF,
	 "the guest powered off"},
	{"N", "the guest wrote N (0 to 255) to its debug-exit port", -1, VMLET_END_DEBUG_EXIT, NULL},
	{"1", "the host failed: no /dev/kvm, no permission, no memory, a system call", VMLET_EXIT_HOST,
	 VMLET_END_HOST_ERROR, "the host failed under the VM"},
	{"2", "the command line or the configuration cannot be", VMLET_EXIT_CONFIG, VMLET_END_NONE, NULL},
	{"79", "exec: the guest ended before the command had a status", VMLET_EXIT_NO_STATUS, VMLET_END_NONE, NULL},
	{"80", "the guest asked for a reset, with --on-reboot exit", VMLET_EXIT_REBOOT, VMLET_END_REBOOT,
	 "the guest asked for a reset"},
	{"81", "the guest's kernel panicked and said so through pvpanic", VMLET_EXIT_PANIC, VMLET_END_PANIC,
	 "the guest's kernel panicked"},
	{"82", "the guest ended in a triple fault, with --on-reboot exit", VMLET_EXIT_TRIPLE_FAULT,
	 VMLET_END_TRIPLE_FAULT, "the guest ended in a triple fault"},
	{"83", "KVM cannot run the guest", VMLET_EXIT_KVM, VMLET_END_KVM_ERROR, "KVM cannot run the guest"},
	{"84", "the console did not show what was expected, or showed a --fail-on", VMLET_EXIT_EXPECT, VMLET_END_NONE,
	 NULL},
	{"85", "left with Ctrl-A x", VMLET_EXIT_LEFT, VMLET_END_NONE, NULL},
	{"124", "it took longer than --timeout", VMLET_EXIT_TIMEOUT, VMLET_END_TIMEOUT,
	 "it took longer than --timeout allows"},
	{"128+N", "ended by signal N", -1, VMLET_END_STOPPED, NULL},
	{"134", "a bug in vmlet (SIGABRT)", VMLET_EXIT_BUG, VMLET_END_NONE, NULL},
	{0},
};

/* NULL: `end` is none, or not one that this program knows. */
static const struct exit_status_entry *find_end(enum vmlet_end end)
{
	for (const struct exit_status_entry *entry = exit_status_table; entry->label; entry++)
		if (entry->end == end && end != VMLET_END_NONE)
			return entry;
	return NULL;
}

int exit_status_of_error(const struct vmlet_error *error)
{
	switch (error->kind) {
	case VMLET_ERROR_CONFIG:
		return VMLET_EXIT_CONFIG;
	case VMLET_ERROR_KVM:
		return VMLET_EXIT_KVM;
	case VMLET_ERROR_HOST:
	default:
		return VMLET_EXIT_HOST;
	}
}

int exit_status_of_result(const struct vmlet_result *result)
{
	const struct exit_status_entry *entry = find_end(result->end);

	if (result->end == VMLET_END_DEBUG_EXIT)
		return (int)(result->value & 0xff);
	if (result->end == VMLET_END_STOPPED)
		return result->value == STOP_VALUE_LEFT ? VMLET_EXIT_LEFT : VMLET_EXIT_SIGNAL + (int)result->value;
	return entry ? entry->status : VMLET_EXIT_HOST;
}

static const char *signal_name(uint32_t signo)
{
	switch (signo) {
	case SIGHUP:
		return " (SIGHUP)";
	case SIGINT:
		return " (SIGINT)";
	case SIGTERM:
		return " (SIGTERM)";
	default:
		return "";
	}
}

static void sentence_of_stop(uint32_t value, char *ret_text, size_t size_bytes)
{
	if (value == STOP_VALUE_LEFT)
		snprintf(ret_text, size_bytes, "left with Ctrl-A x");
	else
		snprintf(ret_text, size_bytes, "ended by signal %u%s", value, signal_name(value));
}

bool exit_status_sentence(const struct vmlet_result *result, char *ret_text, size_t size_bytes)
{
	const struct exit_status_entry *entry = find_end(result->end);
	bool has_text = result->text[0] != '\0';

	if (result->end == VMLET_END_DEBUG_EXIT && result->value == 0)
		return false;
	if (result->end == VMLET_END_DEBUG_EXIT)
		snprintf(ret_text, size_bytes, "the guest wrote %u to its debug-exit port", result->value);
	else if (result->end == VMLET_END_STOPPED)
		sentence_of_stop(result->value, ret_text, size_bytes);
	else if (has_text && (result->end == VMLET_END_KVM_ERROR || result->end == VMLET_END_HOST_ERROR))
		snprintf(ret_text, size_bytes, "%s", result->text);
	else
		snprintf(ret_text, size_bytes, "%s", entry ? entry->sentence : "the VM ended without saying how");
	return true;
}
