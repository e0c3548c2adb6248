/* Every guest of guests/ on /dev/kvm, through the library: how it ends, with which status, and what it prints. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

enum { LINES_MAX = 5 };

struct guest_case {
	const char *guest, *cmdline;
	const char *lines[LINES_MAX]; /* each must be in the output */
	unsigned cpus;                /* 0: 1 */
	uint64_t memory_kib;          /* 0: the default */
	const char *cpu_features;
	enum vmlet_end end; /* none: a debug exit */
	uint32_t value;
};

static void check_lines(const struct machine *machine, const char *const lines[LINES_MAX])
{
	for (int i = 0; i < LINES_MAX && lines[i]; i++)
		CHECK(strstr(machine_output(machine), lines[i]), "the output has no '%s'", lines[i]);
}

static void run_by(const struct guest_case *guest, enum vmlet_boot_protocol protocol)
{
	struct machine machine;

	machine_init(&machine, guest->guest, guest->cmdline);
	machine.config.boot_protocol = protocol;
	machine.config.cpu_features = guest->cpu_features;
	if (guest->cpus)
		machine.config.cpus = guest->cpus;
	if (guest->memory_kib)
		machine.config.memory_bytes = guest->memory_kib << 10;
	machine_expect(&machine, guest->end ? guest->end : VMLET_END_DEBUG_EXIT, guest->value);
	check_lines(&machine, guest->lines);
	machine_free(&machine);
}

/* The plain cases: by both boot protocols. */
static void run_case(const void *arg)
{
	run_by(arg, VMLET_BOOT_PVH);
	run_by(arg, VMLET_BOOT_LINUX64);
}

static void run_case_once(const void *arg)
{
	run_by(arg, VMLET_BOOT_AUTO);
}

#define CASE(variable, name, words, ...)                                                                               \
	static const struct guest_case variable = {.guest = (name), .cmdline = (words), __VA_ARGS__}
#define LINES(...) .lines = {__VA_ARGS__}

CASE(exit_case, "exit", NULL, .value = 0);
CASE(status_0, "exit-status", "status=0", LINES("command line: 'status=0'"));
CASE(status_1, "exit-status", "status=1", .value = 1);
CASE(status_77, "exit-status", "quiet  status=77 \"a b\"", LINES("command line: 'quiet  status=77 \"a b\"'"),
     .value = 77);
CASE(status_255, "exit-status", "status=255", .value = 255);
CASE(status_none, "exit-status", NULL, LINES("command line: ''\n"), .value = 0xe1);
CASE(serial_check, "serial-check", "strict", LINES("THRE interrupt after a byte has gone: 2 of 2"));
CASE(pit_speaker, "pit", "first=speaker", LINES("OUT is high after 20 ms"));
CASE(pit_speaker_write, "pit", "first=speaker-write", LINES("OUT is high after 20 ms"));
CASE(pit_control, "pit", "first=control", LINES("OUT is high after 20 ms"));
CASE(pit_latch, "pit", "first=latch", LINES("OUT is high after 20 ms"));
CASE(pit_read_back, "pit", "first=read-back", LINES("OUT is high after 20 ms"));
CASE(pit_counter, "pit", "first=counter", LINES("OUT is high after 20 ms"));
CASE(pio_mmio, "pio-mmio", NULL, LINES("outw over the start of debug-exit is ignored"));
CASE(timer_irq, "timer-irq", NULL,
     LINES("PIT through the PIC", "PIT through the IOAPIC (pin 0)", "periodic APIC timer: 5 ticks"));
CASE(ipi_1, "ipi", "cpus=1", LINES("cpus 1\n"));
CASE(ipi_2, "ipi", "cpus=2", LINES("1 of 1 others answer"), .cpus = 2);
CASE(ipi_8, "ipi", "cpus=8", LINES("7 of 7 others answer"), .cpus = 8);
CASE(ipi_8_x2apic, "ipi", "cpus=8 x2apic", LINES("CPUID has x2APIC", "7 of 7 others answer"), .cpus = 8);
CASE(ipi_64, "ipi", "cpus=64", LINES("63 of 63 others answer"), .cpus = 64);
CASE(ram_default, "high-ram", "hole=0xc0000000 total-mib=256", LINES("words keep what was written: 0 do not"));
CASE(ram_2m, "high-ram", "hole=0xc0000000 total-mib=2", LINES("words keep"), .memory_kib = 2 << 10);
CASE(ram_3g, "high-ram", "hole=0xc0000000 total-mib=3072", LINES("00000000bfffffff type 1"), .memory_kib = 3 << 20);
CASE(ram_3g_page, "high-ram", "hole=0xc0000000", LINES("0000000100000000 0000000100000fff type 1"),
     .memory_kib = (3 << 20) + 4);
CASE(ram_6g, "high-ram", "hole=0xc0000000 total-mib=6144", LINES("0000000100000000 00000001bfffffff type 1"),
     .memory_kib = 6 << 20);
CASE(triple_fault, "triple-fault", NULL, LINES("triple fault\n"), .end = VMLET_END_TRIPLE_FAULT);
CASE(reset_i8042, "reset", "how=i8042", LINES("reset by i8042"), .end = VMLET_END_REBOOT);
CASE(reset_acpi, "reset", "how=acpi", LINES("reset register: space 1"), .end = VMLET_END_REBOOT);
CASE(reset_triple, "reset", "how=triple", LINES("reset by triple"), .end = VMLET_END_TRIPLE_FAULT);
CASE(poweroff, "poweroff", NULL, LINES("_S5_ says sleep type"), .end = VMLET_END_POWEROFF);
CASE(panic, "panic", NULL, LINES("panic\n"), .end = VMLET_END_PANIC);
CASE(ring3, "ring3", "irq", LINES("ok: this is ring 3", "interrupts from here and back"));
CASE(acpi_1, "acpi", "cpus=1", LINES("RSDP: extended checksum", "the MADT lists 1 CPUs"));
CASE(acpi_254, "acpi", "cpus=254", LINES("the MADT lists 254 CPUs"), .cpus = 254);
CASE(mptable_1, "mptable", "cpus=1", LINES("pointer: checksum", "the table lists 1 CPUs"));
CASE(mptable_254, "mptable", "cpus=254", LINES("the table lists 254 CPUs"), .cpus = 254);
CASE(e820_pvh, "e820", "sorted", LINES("entry: pvh", "0000000000100000 000000000fffffff 1"));
CASE(cpuid_default, "cpuid", "present=apic,hypervisor,lm,nx,sse2,syscall signature=KVMKVMKVM",
     LINES("hypervisor 'KVMKVMKVM"));
/* A software-only KVM shows the host's other bits whatever it is told; these two it does hide. */
CASE(cpuid_absent, "cpuid", "absent=x2apic,cx16 present=sse2", LINES("x2apic is not there"),
     .cpu_features = "-x2apic,-cx16");
CASE(cpuid_smp, "cpuid", "present=ht", LINES("leaf 1: APIC id 0, logical CPUs 4"), .cpus = 3);

/* --- end without a machine's help --- */

static void run_hang(const void *arg)
{
	struct machine machine;
	uint64_t start;

	machine_init(&machine, "hang", arg);
	machine.config.cpus = 2; /* one of them waits for its SIPI */
	machine_start(&machine);
	machine_serve_until(&machine, "hanging");
	start = now_ms();
	vmlet_stop(machine.vm, 42);
	machine_run(&machine);
	CHECK(now_ms() - start < 1000, "it took %u ms", (unsigned)(now_ms() - start));
	CHECK(machine.result.end == VMLET_END_STOPPED && machine.result.value == 42, "%s, %u",
	      end_name(machine.result.end), machine.result.value);
	machine_free(&machine);
}

/* --- restart --- */

enum { RESTARTS = 4 };

static void run_restart(const void *arg)
{
	struct machine machine;

	machine_init(&machine, "reset", arg);
	machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine.config.cpus = 2;
	machine_start(&machine);
	machine_serve_until_times(&machine, "reset by", RESTARTS + 1);
	vmlet_stop(machine.vm, 3);
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_STOPPED && machine.result.value == 3, "%s, %u",
	      end_name(machine.result.end), machine.result.value);
	machine_free(&machine);
}

/* --- echo --- */

/* All bytes but Ctrl-D, which ends the guest, so often. */
static size_t fill_bytes(char *data, unsigned rounds)
{
	size_t size = 0;

	for (unsigned i = 0; i < rounds * 256; i++)
		if ((i & 0xff) != 4)
			data[size++] = (char)i;
	return size;
}

static void run_echo(const void *arg)
{
	static char data[4 * 256];
	size_t size = fill_bytes(data, 4), got;
	struct machine machine;
	const char *line_end;

	machine_init(&machine, "echo", arg);
	machine_start(&machine);
	machine_serve_until(&machine, "\n");
	write_all(machine.serial_in, data, size);
	write_all(machine.serial_in, "\4", 1);
	machine_run(&machine);
	machine_end(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT && machine.result.value == 0, "a debug exit of 0");
	got = pump_size(machine.serial);
	line_end = strchr(machine_output(&machine), '\n') + 1;
	got -= (size_t)(line_end - machine_output(&machine));
	CHECK(got == size, "%zu bytes came back, not %zu", got, size);
	CHECK(memcmp(line_end, data, size) == 0, "the bytes differ");
	machine_free(&machine);
}

/* --- flood --- */

struct flood_case {
	const char *cmdline;
	unsigned lines;
	struct pump_pace pace;
};

static void check_flood(const char *text, unsigned lines)
{
	char want[33];

	CHECK(strlen(text) == 32 * (size_t)lines, "%zu bytes, not %u", strlen(text), 32 * lines);
	for (unsigned i = 0; i < lines; i++) {
		snprintf(want, sizeof(want), "%08x abcdefghijklmnopqrstuv\n", i);
		CHECK(memcmp(text + 32 * (size_t)i, want, 32) == 0, "line %u differs", i);
	}
}

static void run_flood(const void *arg)
{
	const struct flood_case *flood = arg;
	struct machine machine;

	machine_init(&machine, "flood", flood->cmdline);
	machine.pace = flood->pace;
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	check_flood(machine_output(&machine), flood->lines);
	machine_free(&machine);
}

static const struct flood_case flood_fast = {"kib=32", 1024, {0}};
static const struct flood_case flood_bytes = {"kib=8 burst=1", 256, {0}};
static const struct flood_case flood_slow = {"kib=96", 3072, {.pause_us = 500, .chunk = 512}};
static const struct flood_case flood_stalled = {"kib=96", 3072, {.stall_ms = 1000}};
/* More than the pipe and the library's own queue hold: the guest has to wait. */
static const struct flood_case flood_full = {"kib=1280", 40960, {.stall_ms = 45000}};

/* --- initrd --- */

static uint32_t make_initrd(const char *name, size_t size, unsigned seed)
{
	unsigned char *data = malloc(size + 1);
	char path[128];
	uint32_t sum = 0;

	CHECK(data, "out of memory");
	for (size_t i = 0; i < size; i++) {
		data[i] = (unsigned char)((i * 2654435761u + seed) >> 13);
		sum += data[i];
	}
	temp_path(path, sizeof(path), name);
	write_file(path, data, size);
	free(data);
	return sum;
}

static void run_initrds(unsigned count, const size_t *sizes, enum vmlet_boot_protocol protocol, uint64_t memory_bytes)
{
	static char paths[4][128];
	static const char *list[4];
	struct machine machine;
	char cmdline[64], name[16];
	size_t total = 0;
	uint32_t sum = 0;

	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "initrd%u", i);
		sum += make_initrd(name, sizes[i], i);
		/* Each begins on a page. */
		total = ((total + 4095) & ~(size_t)4095) + sizes[i];
		temp_path(paths[i], sizeof(paths[i]), name);
		list[i] = paths[i];
	}
	snprintf(cmdline, sizeof(cmdline), "len=%zu sum=%u", total, sum);
	machine_init(&machine, "initrd", cmdline);
	machine.config.initrds = list;
	machine.config.initrd_count = count;
	machine.config.boot_protocol = protocol;
	machine.config.memory_bytes = memory_bytes;
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	machine_free(&machine);
	temp_remove();
}

static void run_initrd_none(const void *arg)
{
	CASE(none, "initrd", "none", LINES("ok: no initrd"));

	(void)arg;
	run_case(&none);
}

static void run_initrd_one(const void *arg)
{
	static const size_t one[] = {300001}, tiny[] = {1}, big[] = {5 << 20};

	(void)arg;
	run_initrds(1, one, VMLET_BOOT_PVH, 256 << 20);
	run_initrds(1, tiny, VMLET_BOOT_LINUX64, 256 << 20);
	run_initrds(1, big, VMLET_BOOT_LINUX64, 16 << 20);
	run_initrds(1, one, VMLET_BOOT_PVH, 5ull << 30);
}

static void run_initrd_several(const void *arg)
{
	static const size_t sizes[] = {4096, 513, 262144 + 8192, 100};

	(void)arg;
	run_initrds(4, sizes, VMLET_BOOT_PVH, 256 << 20);
	run_initrds(4, sizes, VMLET_BOOT_LINUX64, 256 << 20);
}

/* --- the rest --- */

static void run_internal_error(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "internal-error", NULL);
	machine_start(&machine);
	machine_run(&machine);
	machine_end(&machine);
	if (machine.result.end == VMLET_END_DEBUG_EXIT) {
		CHECK(machine.result.value == 0, "hardware runs cmpxchg16b");
	} else {
		CHECK(machine.result.end == VMLET_END_KVM_ERROR, "a KVM error");
		CHECK(strstr(machine.result.text, "-cx16"), "the sentence names the feature to mask");
		CHECK(strstr(machine.log, "rip") && strstr(machine.log, "code at rip: f0 48 0f c7"),
		      "the log has registers and code");
	}
	machine_free(&machine);
}

static void run_rtc(const void *arg)
{
	struct machine machine;
	char cmdline[64];

	(void)arg;
	snprintf(cmdline, sizeof(cmdline), "epoch=%lld slack=5", (long long)time(NULL));
	machine_init(&machine, "rtc", cmdline);
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	machine_free(&machine);
}

static void run_e820_linux(const void *arg)
{
	CASE(linux64, "e820", "sorted", LINES("entry: linux64", "0000000000100000 000000000fffffff 1"));

	(void)arg;
	run_by(&linux64, VMLET_BOOT_LINUX64);
}

static void run_debugcon(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "pio-mmio", NULL);
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	CHECK(strcmp(machine_debug_output(&machine), "\nstring I/O\n") == 0, "it has '%s'",
	      machine_debug_output(&machine));
	CHECK(!strstr(machine_output(&machine), "string I/O\n\n"), "and the serial port does not");
	machine_free(&machine);
}

static void run_power_button(const void *arg)
{
	struct machine machine;
	int r;

	machine_init(&machine, "power-button", arg);
	machine_start(&machine);
	machine_serve_until(&machine, "press\n");
	r = vmlet_press_power_button(machine.vm);
	CHECK(r == 0, "%s", strerror(-r));
	machine_run(&machine);
	machine_end(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT && machine.result.value == 0, "the guest saw it");
	machine_free(&machine);
}

static const struct test tests[] = {
	TEST("exit", run_case, &exit_case),
	TEST("exit-status-0", run_case, &status_0),
	TEST("exit-status-1", run_case, &status_1),
	TEST("exit-status-77", run_case, &status_77),
	TEST("exit-status-255", run_case, &status_255),
	TEST("exit-status-none", run_case, &status_none),
	TEST("echo-polled", run_echo, NULL),
	TEST("echo-irq-pic", run_echo, "irq=pic"),
	TEST("echo-irq-ioapic", run_echo, "irq=ioapic"),
	TEST("serial-check", run_case, &serial_check),
	TEST("pio-mmio", run_case, &pio_mmio),
	TEST("pit-speaker", run_case_once, &pit_speaker),
	TEST("pit-speaker-write", run_case_once, &pit_speaker_write),
	TEST("pit-control", run_case_once, &pit_control),
	TEST("pit-latch", run_case_once, &pit_latch),
	TEST("pit-read-back", run_case_once, &pit_read_back),
	TEST("pit-counter", run_case_once, &pit_counter),
	TEST("debugcon", run_debugcon, NULL),
	TEST("timer-irq", run_case_once, &timer_irq),
	TEST("ipi-1", run_case, &ipi_1),
	TEST("ipi-2", run_case, &ipi_2),
	TEST("ipi-8", run_case, &ipi_8),
	TEST("ipi-8-x2apic", run_case, &ipi_8_x2apic),
	TEST("ipi-64", run_case_once, &ipi_64),
	TEST("high-ram-default", run_case, &ram_default),
	TEST("high-ram-2m", run_case, &ram_2m),
	TEST("high-ram-3g", run_case, &ram_3g),
	TEST("high-ram-3g-and-a-page", run_case, &ram_3g_page),
	TEST("high-ram-6g", run_case, &ram_6g),
	TEST("triple-fault", run_case, &triple_fault),
	TEST("reset-i8042", run_case, &reset_i8042),
	TEST("reset-acpi", run_case, &reset_acpi),
	TEST("reset-triple", run_case, &reset_triple),
	TEST("restart-i8042", run_restart, "how=i8042"),
	TEST("restart-acpi", run_restart, "how=acpi"),
	TEST("restart-triple", run_restart, "how=triple"),
	TEST("poweroff", run_case, &poweroff),
	TEST("power-button", run_power_button, NULL),
	TEST("power-button-irq", run_power_button, "irq"),
	TEST("panic", run_case, &panic),
	TEST("ring3", run_case, &ring3),
	TEST("internal-error", run_internal_error, NULL),
	TEST("flood", run_flood, &flood_fast),
	TEST("flood-bytes", run_flood, &flood_bytes),
	TEST("flood-slow-reader", run_flood, &flood_slow),
	TEST("flood-stalled-reader", run_flood, &flood_stalled),
	TEST_LONG("flood-full-queue", run_flood, &flood_full, 300),
	TEST("rtc", run_rtc, NULL),
	TEST("acpi", run_case, &acpi_1),
	TEST("acpi-254", run_case_once, &acpi_254),
	TEST("mptable", run_case, &mptable_1),
	TEST("mptable-254", run_case_once, &mptable_254),
	TEST("e820-pvh", run_case_once, &e820_pvh),
	TEST("e820-linux64", run_e820_linux, NULL),
	TEST("cpuid", run_case, &cpuid_default),
	TEST("cpuid-absent", run_case, &cpuid_absent),
	TEST("cpuid-smp", run_case, &cpuid_smp),
	TEST("hang-hlt", run_hang, "how=hlt"),
	TEST("hang-spin", run_hang, "how=spin"),
	TEST("initrd-none", run_initrd_none, NULL),
	TEST("initrd-one", run_initrd_one, NULL),
	TEST("initrd-several", run_initrd_several, NULL),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
