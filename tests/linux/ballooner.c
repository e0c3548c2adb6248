/*
 * A program that embeds libvmlet and works a Linux guest's balloon:
 *
 *	ballooner KERNEL CMDLINE INITRD...
 *
 * The guest has 512 MiB, and runs scripts/ballooner. As soon as its driver has said how it is, the balloon is asked for
 * half of the memory, and when it has that, and the guest has seen it, for nothing again. Says what the process had of
 * its own before and after ("pss: BEFORE AFTER", MiB), and what the guest said of itself ("total:" and "free:").
 */
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmlet.h>

static const uint64_t MEMORY = (uint64_t)512 << 20, HALF = (uint64_t)256 << 20, MIB = 1 << 20;

static const char SEEN[] = "balloon: full";

enum { STEP_MS = 100, INITRDS_MAX = 8 };

struct owner {
	struct vmlet *vm;
	enum { WAITS_FOR_DRIVER, INFLATES, WAITS_FOR_GUEST, DEFLATES, DONE } step;
	size_t matched; /* of SEEN, in what the guest has printed last */
	bool has_seen;
	unsigned long pss_before, pss_after;
	struct vmlet_balloon_info before, after;
};

static _Noreturn void fail(const char *what, const char *why)
{
	fprintf(stderr, "ballooner: %s: %s\n", what, why);
	exit(1);
}

/* What this process has of its own, in MiB. */
static unsigned long pss_mib(void)
{
	char line[256];
	unsigned long kib = 0;
	FILE *file = fopen("/proc/self/smaps_rollup", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "Pss:", 4) == 0)
			kib = strtoul(line + 4, NULL, 10);
	}
	if (file)
		fclose(file);
	return kib / 1024;
}

static void ask_for(const struct owner *owner, uint64_t bytes)
{
	if (vmlet_set_balloon(owner->vm, MEMORY + 4096) == 0 || vmlet_set_balloon(owner->vm, 1) == 0)
		fail("a target that cannot be", "it was taken");
	if (vmlet_set_balloon(owner->vm, bytes) < 0)
		fail("vmlet_set_balloon", "it was refused");
}

/* Each time that it is looked at the guest is asked for newer statistics. */
static void look(struct owner *owner)
{
	struct vmlet_balloon_info info;

	if (owner->step == DONE)
		return;
	if (vmlet_get_balloon(owner->vm, &info) < 0)
		fail("vmlet_get_balloon", "it was refused");
	if (owner->step == WAITS_FOR_DRIVER && info.stats_ns) {
		owner->before = info;
		owner->pss_before = pss_mib();
		ask_for(owner, HALF);
		owner->step = INFLATES;
	} else if (owner->step == INFLATES && info.actual_bytes == HALF) {
		owner->pss_after = pss_mib();
		owner->after = info;
		owner->step = WAITS_FOR_GUEST;
	} else if (owner->step == WAITS_FOR_GUEST && owner->has_seen && info.stats_ns > owner->after.stats_ns) {
		owner->after = info; /* said after the balloon was full */
		ask_for(owner, 0);
		owner->step = DEFLATES;
	} else if (owner->step == DEFLATES && info.actual_bytes == 0) {
		owner->step = DONE;
	}
}

static void guest_prints(void *ctx, const uint8_t *data, size_t size_bytes)
{
	struct owner *owner = ctx;

	for (size_t i = 0; i < size_bytes && !owner->has_seen; i++) {
		char c = (char)data[i];

		owner->matched = c == SEEN[owner->matched] ? owner->matched + 1 : c == SEEN[0];
		owner->has_seen = SEEN[owner->matched] == '\0';
	}
}

static struct vmlet *start(struct owner *owner, char **arguments)
{
	struct vmlet_config config;
	struct vmlet_error error;
	const char *initrds[INITRDS_MAX];

	vmlet_config_init(&config);
	config.kernel = arguments[0];
	config.cmdline = arguments[1];
	config.initrds = initrds;
	for (char **at = arguments + 2; *at && config.initrd_count < INITRDS_MAX; at++)
		initrds[config.initrd_count++] = *at;
	config.memory_bytes = MEMORY;
	config.serial.kind = VMLET_SERIAL_FD;
	config.serial.out_fd = 1;
	config.serial.output_tap = guest_prints;
	config.serial.output_tap_ctx = owner;
	config.balloon.enabled = true;
	struct vmlet *vm = vmlet_new(&config, &error);
	if (!vm || vmlet_start(vm, &error) < 0)
		fail("the VM", error.text);
	return vm;
}

static void serve(struct owner *owner)
{
	int r;

	do {
		struct pollfd pollfd = {.fd = vmlet_get_fd(owner->vm), .events = POLLIN};

		(void)poll(&pollfd, 1, STEP_MS);
		r = vmlet_dispatch(owner->vm);
		if (r == 0)
			look(owner);
	} while (r == 0);
	if (r < 0)
		fail("vmlet_dispatch", strerror(-r));
}

int main(int argc, char **argv)
{
	struct owner owner = {.step = WAITS_FOR_DRIVER};
	struct vmlet_result result;

	if (argc < 3)
		fail("usage", "ballooner KERNEL CMDLINE INITRD...");
	owner.vm = start(&owner, argv + 1);
	serve(&owner);
	vmlet_get_result(owner.vm, &result);
	vmlet_free(owner.vm);
	if (result.end != VMLET_END_POWEROFF)
		fail("the guest's end", result.text);
	if (owner.step != DONE)
		fail("the balloon", "the guest ended before it was empty again");
	printf("pss: %lu %lu\n", owner.pss_before, owner.pss_after);
	printf("total: %" PRIu64 " %" PRIu64 "\n", owner.before.total_bytes / MIB, owner.after.total_bytes / MIB);
	printf("free: %" PRIu64 " %" PRIu64 "\n", owner.before.free_bytes / MIB, owner.after.free_bytes / MIB);
	return 0;
}
