/* Serving a VM, and how it ends. */
#include "vmlet.h"

#include <errno.h>
#include <stdio.h>

#include "api_impl.h"
#include "util.h"

/* How long the end waits for a console reader that does not read at all. */
static const uint64_t DRAIN_PATIENCE_NS = 2000000000;

static const uint64_t STOP_REQUESTED = 1ULL << 32;

/* --- telling ---------------------------------------------------------------------------------------------- */

void api_tell(struct vmlet *vm, enum vmlet_event_kind kind, uint64_t *first_ns, uint64_t ns, const char *text)
{
	if (first_ns && !*first_ns)
		*first_ns = ns;
	events_emit(&vm->events, kind, ns, text);
}

void api_tell_console(void *ctx)
{
	struct vmlet *vm = ctx;
	uint64_t ns = street_first_output_ns(&vm->street);
	if (ns && !vm->stats.console_ns)
		api_tell(vm, VMLET_EVENT_CONSOLE, &vm->stats.console_ns, ns, "");
}

/* --- the end -------------------------------------------------------------------------------------------- */

void api_time_is_over(struct loop_timer *timer)
{
	container_of(timer, struct vmlet, timeout_timer)->timed_out = true;
}

bool api_is_running(const struct vmlet *vm)
{
	return vm->machine.board && vm->result.end == VMLET_END_NONE;
}

/* What a program that has ended by itself has written is its result, and its reader may take the time it wants. */
static bool waits_for_streams(const struct vmlet *vm)
{
	bool own_end = vm->result.end == VMLET_END_DEBUG_EXIT || vm->result.end == VMLET_END_POWEROFF;
	return own_end && street_streams_pending(&vm->street) && !vm->timed_out && !atomic_load(&vm->stop);
}

void api_drain_timeout(struct loop_timer *timer)
{
	struct vmlet *vm = container_of(timer, struct vmlet, drain_timer);
	size_t pending = street_pending(&vm->street);
	if (pending >= vm->drain_pending && !waits_for_streams(vm)) {
		vm->drained = true; /* nobody reads */
		return;
	}
	vm->drain_pending = pending;
	loop_timer_arm(vm->loop, timer, loop_now_ns() + DRAIN_PATIENCE_NS);
}

static void finish(struct vmlet *vm, enum vmlet_end end, uint32_t value, const char *text)
{
	vm->result.end = end;
	vm->result.value = value;
	(void)snprintf(vm->result.text, sizeof(vm->result.text), "%s", text);
	vm_stop(&vm->machine.vm);
	vm->stats.ended_ns = loop_now_ns();

	vm->drain_pending = street_pending(&vm->street);
	loop_timer_arm(vm->loop, &vm->drain_timer, loop_now_ns() + DRAIN_PATIENCE_NS);
}

struct end_words {
	enum vmlet_end end;
	const char *text;
};

static struct end_words end_words(const struct vm_end *end)
{
	switch (end->reason) {
	case VM_END_POWEROFF:
		return (struct end_words){VMLET_END_POWEROFF, "the guest powered off"};
	case VM_END_RESET:
		return (struct end_words){VMLET_END_REBOOT, "the guest asked for a reboot"};
	case VM_END_PANIC:
		return (struct end_words){VMLET_END_PANIC, "the guest's kernel panicked"};
	case VM_END_TRIPLE_FAULT:
		return (struct end_words){VMLET_END_TRIPLE_FAULT, "the guest ended in a triple fault"};
	case VM_END_DEBUG_EXIT:
		return (struct end_words){VMLET_END_DEBUG_EXIT, "the guest wrote its status to the debug-exit port"};
	case VM_END_KVM_ERROR:
		return (struct end_words){VMLET_END_KVM_ERROR, end->text};
	default:
		return (struct end_words){VMLET_END_HOST_ERROR, end->text};
	}
}

/* Every piece of state of the old machine is gone: what a reset leaves behind, nobody has to remember. */
static void restart(struct vmlet *vm)
{
	struct err err = {0};
	vm->stats.restarts++;
	api_machine_free(&vm->machine);
	if (api_machine_create(vm, &err) == 0) {
		loop_wake(vm->loop); /* come round again, to submit what the new devices have queued */
		return;
	}
	vm->result.end = VMLET_END_HOST_ERROR;
	(void)snprintf(vm->result.text, sizeof(vm->result.text), "restart: %.500s", err.text);
	vm->stats.ended_ns = loop_now_ns();
	api_machine_free(&vm->machine);
	vm->drained = true;
}

/* What the guest itself did is told before what comes of it. */
static void tell_guest_end(struct vmlet *vm, const struct vm_end *end)
{
	api_tell_console(vm);
	if (end->reason == VM_END_PANIC)
		api_tell(vm, VMLET_EVENT_PANIC, NULL, end->monotonic_ns, end_words(end).text);
	else if (end->reason == VM_END_RESET || end->reason == VM_END_TRIPLE_FAULT)
		api_tell(vm, VMLET_EVENT_RESET, NULL, end->monotonic_ns, end_words(end).text);
}

static void describe_timeout(const struct vmlet *vm, char *ret_text, size_t size)
{
	uint64_t ms = vm->config.timeout_ns / 1000000;
	(void)snprintf(ret_text, size, "it had not ended after %llu.%03llu s", (unsigned long long)(ms / 1000),
		       (unsigned long long)(ms % 1000));
}

/* What came first counts: a stop that finds the guest ended changes nothing; one that finds it restarting ends it. */
static void look_for_end(struct vmlet *vm)
{
	struct vm_end end = vm_get_end(&vm->machine.vm);
	bool is_reset = end.reason == VM_END_RESET || end.reason == VM_END_TRIPLE_FAULT;
	bool restarts = is_reset && vm->config.on_reboot == VMLET_ON_REBOOT_RESTART;
	if (end.reason != VM_END_NONE)
		tell_guest_end(vm, &end);
	uint64_t stop = atomic_load(&vm->stop);
	if (end.reason != VM_END_NONE && !restarts) {
		struct end_words words = end_words(&end);
		finish(vm, words.end, end.value, words.text);
	} else if (stop) {
		finish(vm, VMLET_END_STOPPED, (uint32_t)stop, "stopped from outside");
	} else if (vm->timed_out) {
		char text[128];
		describe_timeout(vm, text, sizeof(text));
		finish(vm, VMLET_END_TIMEOUT, 0, text);
	} else if (restarts) {
		restart(vm);
	}
}

/* 1 once the VM has ended and its console is written out. */
static int has_ended(struct vmlet *vm)
{
	if (api_is_running(vm))
		look_for_end(vm);
	if (vm->result.end == VMLET_END_NONE)
		return 0;
	if (!vm->drained && street_pending(&vm->street))
		return 0;
	loop_timer_disarm(vm->loop, &vm->drain_timer);
	loop_timer_disarm(vm->loop, &vm->timeout_timer);
	if (!vm->end_told) {
		vm->end_told = true;
		api_tell_console(vm);
		api_tell(vm, VMLET_EVENT_ENDED, NULL, vm->stats.ended_ns, vm->result.text);
	}
	return 1;
}

/* --- serving -------------------------------------------------------------------------------------------- */

int vmlet_get_fd(struct vmlet *vm)
{
	return loop_get_fd(vm->loop);
}

int vmlet_dispatch(struct vmlet *vm)
{
	int r = loop_dispatch(vm->loop);
	if (r < 0)
		return r;
	return vm->machine.board || vm->result.end != VMLET_END_NONE ? has_ended(vm) : -EINVAL;
}

int vmlet_run(struct vmlet *vm, struct vmlet_result *ret_result)
{
	if (!vm->machine.board && vm->result.end == VMLET_END_NONE)
		return -EINVAL;
	while (!has_ended(vm)) {
		int r = loop_wait(vm->loop, UINT64_MAX);
		if (r < 0)
			return r;
	}
	if (ret_result)
		vmlet_get_result(vm, ret_result);
	return 0;
}

void vmlet_get_result(const struct vmlet *vm, struct vmlet_result *ret_result)
{
	*ret_result = vm->result;
}

void vmlet_stop(struct vmlet *vm, uint32_t value)
{
	uint64_t none = 0;
	atomic_compare_exchange_strong(&vm->stop, &none, STOP_REQUESTED | value);
	loop_wake(vm->loop);
}

int vmlet_pause(struct vmlet *vm)
{
	if (!api_is_running(vm))
		return -EINVAL;
	vm_pause(&vm->machine.vm);
	return 0;
}

int vmlet_resume(struct vmlet *vm)
{
	if (!api_is_running(vm))
		return -EINVAL;
	vm_resume(&vm->machine.vm);
	return 0;
}

int vmlet_press_power_button(struct vmlet *vm)
{
	if (!api_is_running(vm))
		return -EINVAL;
	board_press_power_button(vm->machine.board);
	return 0;
}
