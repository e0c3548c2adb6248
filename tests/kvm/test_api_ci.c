/* What scripts ask a VM for: to end in time, to tell what happens, to show its output and to be typed at. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --- the tap --- */

struct tap {
	struct vmlet *vm;
	size_t size, room;
	char *text; /* NUL-terminated */
	const char *answer, *question;
	unsigned answers;
};

static void tap_output(void *ctx, const uint8_t *data, size_t size)
{
	struct tap *tap = ctx;

	if (tap->size + size + 1 > tap->room) {
		tap->room = (tap->size + size + 1) * 2;
		tap->text = realloc(tap->text, tap->room);
		CHECK(tap->text, "out of memory");
	}
	memcpy(tap->text + tap->size, data, size);
	tap->size += size;
	tap->text[tap->size] = '\0';
	if (tap->question && strstr(tap->text, tap->question)) {
		tap->question = NULL;
		CHECK(vmlet_type(tap->vm, VMLET_SERIAL_PORT, tap->answer, strlen(tap->answer)) ==
			      (int)strlen(tap->answer),
		      "typed");
	}
}

static void set_tap(struct machine *machine, struct tap *tap)
{
	*tap = (struct tap){0};
	machine->config.serial.output_tap = tap_output;
	machine->config.serial.output_tap_ctx = tap;
}

static void check_tap_is_output(struct machine *machine, struct tap *tap)
{
	CHECK(tap->text && strcmp(tap->text, machine_output(machine)) == 0, "the tap saw %zu bytes, the pipe %zu",
	      tap->size, strlen(machine_output(machine)));
	free(tap->text);
}

static void run_tap(const void *arg)
{
	struct machine machine;
	struct tap tap;

	(void)arg;
	machine_init(&machine, "flood", "kib=64");
	set_tap(&machine, &tap);
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	CHECK(tap.size == 64 << 10, "%zu bytes", tap.size);
	check_tap_is_output(&machine, &tap);
	machine_free(&machine);

	/* What nobody else wants, and what came right before the end. */
	machine_init(&machine, "flood", "kib=64");
	set_tap(&machine, &tap);
	machine.config.serial.kind = VMLET_SERIAL_NULL;
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	CHECK(tap.size == 64 << 10 && strncmp(tap.text, "00000000 ", 9) == 0 &&
		      strstr(tap.text, "\n000007ff abcdefghijklmnopqrstuv\n"),
	      "%zu bytes", tap.size);
	free(tap.text);
	machine_free(&machine);
}

/* A reader that stands still, with more output than a pipe holds: the tap sees all of it. */
static void run_tap_stalled(const void *arg)
{
	static char taken[100 << 10];
	struct machine machine;
	struct tap tap;
	int out[2];
	ssize_t size;

	(void)arg;
	CHECK(pipe2(out, O_CLOEXEC) == 0, "pipe");
	machine_init(&machine, "flood", "kib=100");
	set_tap(&machine, &tap);
	machine.config.serial.out_fd = out[1];
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	CHECK(tap.size == 100 << 10, "the tap saw %zu bytes", tap.size);
	size = read(out[0], taken, sizeof(taken));
	CHECK(size > 4096 && size < 100 << 10 && memcmp(taken, tap.text, (size_t)size) == 0, "%zd bytes in the pipe",
	      size);
	close(out[0]);
	close(out[1]);
	free(tap.text);
	machine_free(&machine);
}

static unsigned count_text(const char *text, const char *what)
{
	unsigned count = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		count++;
	return count;
}

struct watch {
	struct vmlet *vm;
	unsigned count, resets_left;
	enum vmlet_event_kind kinds[64];
	uint64_t ns[64];
	char text[64][300];
};

static void watch_event(void *ctx, const struct vmlet_event *event)
{
	struct watch *watch = ctx;

	CHECK(watch->count < 64, "too many events");
	watch->kinds[watch->count] = event->kind;
	watch->ns[watch->count] = event->monotonic_ns;
	snprintf(watch->text[watch->count], sizeof(watch->text[0]), "%s", event->text);
	watch->count++;
}

static void set_watch(struct machine *machine, struct watch *watch)
{
	memset(watch, 0, sizeof(*watch));
	machine->config.event = watch_event;
	machine->config.event_ctx = watch;
}

static void stop_after_resets(void *ctx, const struct vmlet_event *event)
{
	struct watch *watch = ctx;

	watch_event(ctx, event);
	if (event->kind == VMLET_EVENT_RESET && --watch->resets_left == 0)
		vmlet_stop(watch->vm, 7);
}

/* The tap goes on where it was, and everything before each reset is seen. */
static void run_tap_restart(const void *arg)
{
	struct machine machine;
	struct vmlet_stats stats;
	struct watch watch;
	struct tap tap;

	(void)arg;
	machine_init(&machine, "reset", "how=i8042");
	set_tap(&machine, &tap);
	set_watch(&machine, &watch);
	machine.config.event = stop_after_resets;
	watch.resets_left = 5;
	machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine_start(&machine);
	watch.vm = machine.vm;
	machine_run(&machine);
	vmlet_get_stats(machine.vm, &stats);
	machine_end(&machine);
	CHECK(machine.result.end == VMLET_END_STOPPED && machine.result.value == 7, "%s", end_name(machine.result.end));
	CHECK(stats.restarts == 5 || stats.restarts == 4, "%u restarts", (unsigned)stats.restarts);
	CHECK(count_text(tap.text, "reset by i8042\n") >= 5, "%s", tap.text);
	CHECK(stats.console_bytes == tap.size, "%u bytes", (unsigned)stats.console_bytes);
	check_tap_is_output(&machine, &tap);
	machine_free(&machine);
}

/* --- typing --- */

static void run_type(const void *arg)
{
	struct machine machine;
	struct tap tap;

	machine_init(&machine, "echo", arg);
	set_tap(&machine, &tap);
	tap.question = "\n"; /* its first line */
	tap.answer = "typed by the tap\n";
	machine_start(&machine);
	tap.vm = machine.vm;
	machine_serve_until(&machine, "typed by the tap\n");
	write_all(machine.serial_in, "from the pipe\n", 14);
	machine_serve_until(&machine, "from the pipe\n");
	CHECK(vmlet_type(machine.vm, VMLET_SERIAL_PORT, "\4", 1) == 1, "typed");
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT && machine.result.value == 0, "%s",
	      end_name(machine.result.end));
	CHECK(vmlet_type(machine.vm, VMLET_SERIAL_PORT, "x", 1) == -EINVAL, "it has ended");
	machine_end(&machine);
	check_tap_is_output(&machine, &tap);
	machine_free(&machine);
}

/* A serial port with nothing behind it, and more text than fits at once. */
static void run_type_long(const void *arg)
{
	enum { SIZE = 3000 };
	static char text[70000];
	struct machine machine;
	struct tap tap;

	(void)arg;
	memset(text, 'x', sizeof(text));
	machine_init(&machine, "hang", NULL);
	machine_start(&machine);
	CHECK(vmlet_type(machine.vm, VMLET_SERIAL_PORT, text, sizeof(text)) == 65536, "64 KiB are taken");
	CHECK(vmlet_type(machine.vm, VMLET_SERIAL_PORT, text, 1) == 0, "and no more");
	vmlet_stop(machine.vm, 0);
	machine_run(&machine);
	machine_free(&machine);

	for (int i = 0; i < SIZE; i++)
		text[i] = (char)('a' + i % 23);
	text[SIZE] = 4;
	machine_init(&machine, "echo", "irq=ioapic");
	set_tap(&machine, &tap);
	machine.config.serial.kind = VMLET_SERIAL_NULL;
	machine_start(&machine);
	CHECK(vmlet_type(machine.vm, VMLET_SERIAL_PORT, text, SIZE + 1) == SIZE + 1, "typed before it listens");
	machine_run(&machine);
	machine_end(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT, "%s", end_name(machine.result.end));
	text[SIZE] = '\0';
	CHECK(strstr(tap.text, text), "%s", tap.text);
	free(tap.text);
	machine_free(&machine);
}

/* --- the timeout --- */

static void check_timeout(struct machine *machine, uint64_t begin_ms, unsigned ms)
{
	uint64_t took = now_ms() - begin_ms;

	CHECK(machine->result.end == VMLET_END_TIMEOUT && machine->result.value == 0, "%s",
	      end_name(machine->result.end));
	CHECK(machine->result.text[0], "it has a sentence");
	CHECK(took >= ms && took < ms + 5000, "it took %u ms", (unsigned)took);
}

static void run_timeout(const void *arg)
{
	struct machine machine;
	uint64_t begin;

	machine_init(&machine, "hang", arg);
	machine.config.timeout_ns = 300 * 1000000ULL;
	machine.config.cpus = 2;
	begin = now_ms();
	machine_start(&machine);
	machine_run(&machine);
	check_timeout(&machine, begin, 300);
	machine_end(&machine);
	CHECK(strstr(machine_output(&machine), "hanging"), "what it wrote before is there");
	machine_free(&machine);
}

static void run_timeout_paused(const void *arg)
{
	struct machine machine;
	uint64_t begin;

	(void)arg;
	machine_init(&machine, "hang", "how=spin");
	machine.config.timeout_ns = 400 * 1000000ULL;
	begin = now_ms();
	machine_start(&machine);
	machine_serve_until(&machine, "hanging");
	CHECK(vmlet_pause(machine.vm) == 0, "pause");
	machine_run(&machine);
	check_timeout(&machine, begin, 400);
	machine_free(&machine);
}

/* A guest that resets for ever is over in time as well. */
static void run_timeout_restarts(const void *arg)
{
	struct machine machine;
	uint64_t begin;

	(void)arg;
	machine_init(&machine, "reset", "how=i8042");
	machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine.config.timeout_ns = 500 * 1000000ULL;
	begin = now_ms();
	machine_start(&machine);
	machine_run(&machine);
	check_timeout(&machine, begin, 500);
	machine_free(&machine);
}

/* The first end counts; and a time that never comes does no harm. */
static void run_timeout_late(const void *arg)
{
	static const uint64_t times[] = {20 * 1000000000ULL, UINT64_MAX, UINT64_MAX - 1};
	struct machine machine;

	(void)arg;
	for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		machine_init(&machine, "exit-status", "status=9");
		machine.config.timeout_ns = times[i];
		machine_expect(&machine, VMLET_END_DEBUG_EXIT, 9);
		machine_free(&machine);
	}
	/* It is over before anybody comes to serve, and so is the guest: that one was first. */
	machine_init(&machine, "exit-status", "status=9");
	machine.config.timeout_ns = 100 * 1000000ULL;
	machine_start(&machine);
	sleep_ms(400);
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT && machine.result.value == 9, "%s",
	      end_name(machine.result.end));
	machine_free(&machine);
	/* A whole run in no time at all. */
	machine_init(&machine, "hang", NULL);
	machine.config.timeout_ns = 1;
	machine_expect(&machine, VMLET_END_TIMEOUT, 0);
	machine_free(&machine);
}

/* --- events and statistics --- */

static void check_events(const struct watch *watch, const enum vmlet_event_kind *kinds, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		CHECK(i < watch->count && watch->kinds[i] == kinds[i], "event %u of %u is %d and not %d", i,
		      watch->count, i < watch->count ? (int)watch->kinds[i] : 0, (int)kinds[i]);
		CHECK(i == 0 || watch->ns[i] >= watch->ns[i - 1], "event %u is earlier than the one before", i);
	}
	CHECK(watch->count == count, "%u events", watch->count);
}

static void run_events(const void *arg)
{
	static const struct {
		const char *guest, *cmdline;
		enum vmlet_end end;
		enum vmlet_event_kind middle;
	} cases[] = {
		{"exit-status", "status=3", VMLET_END_DEBUG_EXIT, 0},
		{"panic", NULL, VMLET_END_PANIC, VMLET_EVENT_PANIC},
		{"reset", "how=acpi", VMLET_END_REBOOT, VMLET_EVENT_RESET},
		{"triple-fault", NULL, VMLET_END_TRIPLE_FAULT, VMLET_EVENT_RESET},
	};

	(void)arg;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum vmlet_event_kind kinds[8] = {VMLET_EVENT_CREATED, VMLET_EVENT_KERNEL_LOADED, VMLET_EVENT_RUNNING};
		unsigned count = 3;
		struct vmlet_stats stats;
		struct machine machine;
		struct watch watch;
		uint64_t begin = now_ns();

		machine_init(&machine, cases[i].guest, cases[i].cmdline);
		set_watch(&machine, &watch);
		machine_start(&machine);
		machine_run(&machine);
		vmlet_get_stats(machine.vm, &stats);
		machine_end(&machine);
		CHECK(machine.result.end == cases[i].end, "%s", end_name(machine.result.end));
		if (machine_output(&machine)[0])
			kinds[count++] = VMLET_EVENT_CONSOLE;
		if (cases[i].middle)
			kinds[count++] = cases[i].middle;
		kinds[count++] = VMLET_EVENT_ENDED;
		check_events(&watch, kinds, count);
		CHECK(strcmp(watch.text[count - 1], machine.result.text) == 0, "%s", watch.text[count - 1]);
		CHECK(watch.ns[0] >= begin && watch.ns[count - 1] <= now_ns(), "the times are those of this run");

		CHECK(stats.created_ns == watch.ns[0] && stats.loaded_ns == watch.ns[1] &&
			      stats.running_ns == watch.ns[2] && stats.ended_ns == watch.ns[count - 1],
		      "the statistics have the same times");
		CHECK(!stats.console_ns == !machine_output(&machine)[0] && stats.console_ns < stats.ended_ns,
		      "and that of the first byte");
		CHECK(stats.console_bytes == strlen(machine_output(&machine)) && stats.restarts == 0, "%u, %u",
		      (unsigned)stats.console_bytes, (unsigned)stats.restarts);
		machine_free(&machine);
	}
}

/* Nothing has happened yet; and a VM that never starts has no end. */
static void run_events_early(const void *arg)
{
	static const enum vmlet_event_kind created[] = {VMLET_EVENT_CREATED};
	struct vmlet_stats stats;
	struct machine machine;
	struct watch watch;
	struct vmlet *vm;

	(void)arg;
	machine_init(&machine, "hang", NULL);
	set_watch(&machine, &watch);
	vm = vmlet_new(&machine.config, NULL);
	CHECK(vm, "new");
	vmlet_get_stats(vm, &stats);
	CHECK(stats.created_ns && !stats.loaded_ns && !stats.running_ns && !stats.console_ns && !stats.ended_ns, "new");
	CHECK(vmlet_type(vm, VMLET_SERIAL_PORT, "x", 1) == -EINVAL, "it does not run");
	CHECK(vmlet_set_window_size(vm, 1, 1) == -EINVAL, "it has no streams");
	vmlet_free(vm);
	check_events(&watch, created, 1);
	machine.config.kernel = "/nonexistent";
	CHECK(!vmlet_new(&machine.config, NULL), "no such file");
	CHECK(watch.count == 1, "what could not be made is no event");
	machine_free(&machine);
}

static void run_events_restart(const void *arg)
{
	static const enum vmlet_event_kind kinds[] = {
		VMLET_EVENT_CREATED, VMLET_EVENT_KERNEL_LOADED, VMLET_EVENT_RUNNING,
		VMLET_EVENT_CONSOLE, VMLET_EVENT_RESET,         VMLET_EVENT_KERNEL_LOADED,
		VMLET_EVENT_RUNNING, VMLET_EVENT_RESET,         VMLET_EVENT_ENDED,
	};
	struct vmlet_stats stats;
	struct machine machine;
	struct watch watch;

	(void)arg;
	machine_init(&machine, "reset", "how=triple");
	set_watch(&machine, &watch);
	machine.config.event = stop_after_resets;
	watch.resets_left = 2;
	machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine_start(&machine);
	watch.vm = machine.vm;
	machine_run(&machine);
	vmlet_get_stats(machine.vm, &stats);
	CHECK(machine.result.end == VMLET_END_STOPPED, "%s", end_name(machine.result.end));
	check_events(&watch, kinds, sizeof(kinds) / sizeof(kinds[0]));
	CHECK(stats.restarts == 1, "%u", (unsigned)stats.restarts);
	machine_free(&machine);
}

/* A driver that breaks rule after rule; the disk is on the thread of vmlet_run, or has one of its own. */
static void run_device_broken(const void *arg)
{
	static uint8_t zeroes[4 << 20];
	struct vmlet_disk disk;
	const struct vmlet_disk *disks[] = {&disk};
	struct machine machine;
	struct watch watch;
	char path[256];
	unsigned broken = 0;

	(void)arg;
	for (unsigned iothreads = 0; iothreads < 2; iothreads++, broken = 0) {
		temp_path(path, sizeof(path), "disk");
		write_file(path, zeroes, sizeof(zeroes));
		vmlet_disk_init(&disk);
		disk.path = path;
		disk.id = "root";
		machine_init(&machine, "blk-check", "what=bad");
		machine.config.disks = disks;
		machine.config.disk_count = 1;
		machine.config.iothreads = iothreads;
		set_watch(&machine, &watch);
		machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
		for (unsigned i = 0; i < watch.count; i++) {
			CHECK(i == 0 || watch.ns[i] >= watch.ns[i - 1] || watch.kinds[i] == VMLET_EVENT_CONSOLE,
			      "event %u (%d) is earlier than the one before", i, (int)watch.kinds[i]);
			if (watch.kinds[i] != VMLET_EVENT_DEVICE_BROKEN)
				continue;
			broken++;
			CHECK(strncmp(watch.text[i], "virtio-blk 'root': queue 0", 26) == 0, "%s", watch.text[i]);
		}
		CHECK(broken >= 4 && broken < 30, "%u events: enough, and not one for each", broken);
		CHECK(watch.kinds[watch.count - 1] == VMLET_EVENT_ENDED, "the end comes last");
		machine_free(&machine);
		temp_remove();
	}
}

static const struct test tests[] = {
	TEST("tap", run_tap, NULL),
	TEST("tap-stalled", run_tap_stalled, NULL),
	TEST("tap-restart", run_tap_restart, NULL),
	TEST("type", run_type, NULL),
	TEST("type-irq", run_type, "irq=ioapic"),
	TEST("type-long", run_type_long, NULL),
	TEST("timeout-hlt", run_timeout, "how=hlt"),
	TEST("timeout-spin", run_timeout, "how=spin"),
	TEST("timeout-paused", run_timeout_paused, NULL),
	TEST("timeout-restarts", run_timeout_restarts, NULL),
	TEST("timeout-late", run_timeout_late, NULL),
	TEST("events", run_events, NULL),
	TEST("events-early", run_events_early, NULL),
	TEST("events-restart", run_events_restart, NULL),
	TEST("device-broken", run_device_broken, NULL),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
