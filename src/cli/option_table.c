#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/values.h"

enum { CPUS_MAX = 254, IOTHREADS_MAX = 16, MEMORY_MIN_BYTES = 2 << 20, MEMORY_STEP_BYTES = 4096, FD_MAX = 1 << 20 };

static int apply_path(const char **path, const char *value)
{
	if (*value == '\0')
		return -EINVAL;
	*path = value;
	return 0;
}

static int apply_kernel(struct options *options, const char *value)
{
	return apply_path(&options->kernel, value);
}

static int apply_to_list(const char ***list, size_t *count, const char *value)
{
	const char **grown;

	if (*value == '\0')
		return -EINVAL;
	grown = realloc(*list, (*count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[(*count)++] = value;
	*list = grown;
	return 0;
}

static int apply_initrd(struct options *options, const char *value)
{
	return apply_to_list(&options->initrds, &options->initrd_count, value);
}

/* What they say is looked at when all of them are known. */
static int apply_device(struct options *options, enum device device, const char *value)
{
	struct string_list *values = &options->devices[device].values;

	if (device >= DEVICE_BALLOON)
		values->count = 0; /* the last counts */
	return apply_to_list(&values->items, &values->count, value);
}

static int apply_disk(struct options *options, const char *value)
{
	return apply_device(options, DEVICE_DISK, value);
}

static int apply_net(struct options *options, const char *value)
{
	return apply_device(options, DEVICE_NET, value);
}

static int apply_console(struct options *options, const char *value)
{
	return apply_device(options, DEVICE_CONSOLE, value);
}

static int apply_balloon(struct options *options, const char *value)
{
	return apply_device(options, DEVICE_BALLOON, value);
}

static int apply_vsock(struct options *options, const char *value)
{
	return apply_device(options, DEVICE_VSOCK, value);
}

static int apply_rng(struct options *options, const char *value)
{
	return apply_device(options, DEVICE_RNG, value);
}

static int apply_transport(struct options *options, const char *value)
{
	static const struct value_choice choices[] = {
		{"pci", VMLET_TRANSPORT_PCI},
		{"mmio", VMLET_TRANSPORT_MMIO},
		{NULL, 0},
	};
	int transport;

	if (value_choice(value, choices, &transport) < 0)
		return -EINVAL;
	options->transport = (enum vmlet_transport)transport;
	return 0;
}

static int apply_iothreads(struct options *options, const char *value)
{
	uint64_t iothreads;

	if (value_number(value, 0, IOTHREADS_MAX, &iothreads) < 0)
		return -EINVAL;
	options->iothreads = (unsigned)iothreads;
	return 0;
}

static int apply_cmdline(struct options *options, const char *value)
{
	return value_join(&options->cmdline, ' ', value);
}

static int apply_memory(struct options *options, const char *value)
{
	uint64_t bytes;

	if (value_size(value, 1 << 20, &bytes) < 0 || bytes < MEMORY_MIN_BYTES || bytes % MEMORY_STEP_BYTES != 0)
		return -EINVAL;
	options->memory_bytes = bytes;
	return 0;
}

static int apply_cpus(struct options *options, const char *value)
{
	uint64_t cpus;

	if (value_number(value, 1, CPUS_MAX, &cpus) < 0)
		return -EINVAL;
	options->cpus = (unsigned)cpus;
	return 0;
}

static int apply_cpu_features(struct options *options, const char *value)
{
	if (value_features(value) < 0)
		return -EINVAL;
	return value_join(&options->cpu_features, ',', value);
}

static int apply_serial(struct options *options, const char *value)
{
	static const struct value_choice choices[] = {
		{"stdio", VMLET_SERIAL_FD},
		{"null", VMLET_SERIAL_NULL},
		{"pty", VMLET_SERIAL_PTY},
		{NULL, 0},
	};

	options->serial_is_given = true;
	return value_place(value, choices, &options->serial, &options->serial_path);
}

static int apply_debugcon(struct options *options, const char *value)
{
	static const struct value_choice choices[] = {
		{"stderr", VMLET_SERIAL_FD},
		{"null", VMLET_SERIAL_NULL},
		{NULL, 0},
	};

	return value_place(value, choices, &options->debugcon, &options->debugcon_path);
}

static int apply_boot(struct options *options, const char *value)
{
	static const struct value_choice choices[] = {
		{"auto", VMLET_BOOT_AUTO},
		{"linux64", VMLET_BOOT_LINUX64},
		{"pvh", VMLET_BOOT_PVH},
		{NULL, 0},
	};
	int boot;

	if (value_choice(value, choices, &boot) < 0)
		return -EINVAL;
	options->boot = (enum vmlet_boot_protocol)boot;
	return 0;
}

static int apply_on_reboot(struct options *options, const char *value)
{
	static const struct value_choice choices[] = {
		{"exit", VMLET_ON_REBOOT_EXIT},
		{"restart", VMLET_ON_REBOOT_RESTART},
		{NULL, 0},
	};
	int on_reboot;

	if (value_choice(value, choices, &on_reboot) < 0)
		return -EINVAL;
	options->on_reboot = (enum vmlet_on_reboot)on_reboot;
	return 0;
}

static int apply_log_level(struct options *options, const char *value)
{
	static const struct value_choice choices[] = {
		{"error", VMLET_LOG_ERROR},
		{"warn", VMLET_LOG_WARN},
		{"info", VMLET_LOG_INFO},
		{"debug", VMLET_LOG_DEBUG},
		{NULL, 0},
	};
	int level;

	if (value_choice(value, choices, &level) < 0)
		return -EINVAL;
	options->log_level = (enum vmlet_log_level)level;
	return 0;
}

static int apply_log_file(struct options *options, const char *value)
{
	return apply_path(&options->log_path, value);
}

static int apply_timeout(struct options *options, const char *value)
{
	return value_duration(value, &options->contract.timeout_ns);
}

static int apply_to_strings(struct string_list *list, const char *value)
{
	return apply_to_list(&list->items, &list->count, value);
}

static int apply_expect(struct options *options, const char *value)
{
	return apply_to_strings(&options->contract.expects, value);
}

static int apply_fail_on(struct options *options, const char *value)
{
	return apply_to_strings(&options->contract.fail_ons, value);
}

static int apply_send(struct options *options, const char *value)
{
	const char *arrow = strstr(value, "=>");

	if (!arrow || arrow == value)
		return -EINVAL;
	return apply_to_strings(&options->contract.sends, value);
}

static int apply_script(struct options *options, const char *value)
{
	return apply_path(&options->contract.script_path, value);
}

static int apply_console_log(struct options *options, const char *value)
{
	return apply_path(&options->contract.console_log_path, value);
}

static int apply_status_file(struct options *options, const char *value)
{
	return apply_path(&options->contract.status_path, value);
}

static int apply_events(struct options *options, const char *value)
{
	uint64_t fd;

	if (strncmp(value, "fd:", 3) == 0 && value_number(value + 3, 0, FD_MAX, &fd) < 0)
		return -EINVAL;
	return apply_path(&options->contract.events_target, value);
}

static int apply_module(struct options *options, const char *value)
{
	return apply_to_strings(&options->exec.modules, value);
}

static int apply_variable(struct options *options, const char *value)
{
	return *value == '=' ? -EINVAL : apply_to_strings(&options->exec.variables, value);
}

static int apply_directory(struct options *options, const char *value)
{
	return *value == '/' ? apply_path(&options->exec.directory, value) : -EINVAL;
}

static int apply_help(struct options *options, const char *value)
{
	(void)value;
	options->help_topic = options->command == COMMAND_EXEC ? "exec" : "run";
	options->command = COMMAND_HELP;
	return 0;
}

const struct option_spec options_table[] = {
	{"kernel", 'k', "FILE", "the kernel: a bzImage (vmlinuz) or ELF file (vmlinux)", "a file", apply_kernel, NULL,
	 false},
	{"initrd", 'i', "FILE", "an initial RAM disk; several are concatenated", "a file", apply_initrd, NULL, false},
	{"disk", 'd', "PATH[,...]", "a disk, up to 31 of them; see 'vmlet help disk'",
	 "a path, or nbd=ADDRESS, and settings; see 'vmlet help disk'", apply_disk, NULL, false},
	{"net", 0, "HOW[,...]", "a network card; see 'vmlet help net'",
	 "passt, tap, tap=NAME, stream=PATH, listen=PATH, fd=N or none, and settings; see 'vmlet help net'", apply_net,
	 NULL, false},
	{"console", 0, "WHERE", "a virtio console or port; see 'vmlet help console'",
	 "stdio, pty, null, file=PATH, unix=PATH, port=NAME:WHERE or status", apply_console, NULL, false},
	{"cmdline", 'p', "TEXT", "for the kernel's command line; several are joined", "text", apply_cmdline, NULL,
	 false},
	{"append", 0, "TEXT", NULL, "text", apply_cmdline, NULL, false},
	{"memory", 'm', "SIZE", "512 or 512M, 2G, ...; default 256M",
	 "a size such as 512, 512M or 2G, at least 2M and a multiple of 4K", apply_memory, NULL, false},
	{"cpus", 'c', "N", "1 to 254 CPUs; default 1", "a number from 1 to 254", apply_cpus, NULL, false},
	{"cpu-features", 0, "LIST", "+name or -name, with commas: add or hide CPU features",
	 "a list such as +avx2,-x2apic", apply_cpu_features, NULL, false},
	{"serial", 0, "WHERE", "stdio (the default), null, pty, file=PATH, unix=PATH",
	 "stdio, null, pty, file=PATH or unix=PATH", apply_serial, NULL, false},
	{"debugcon", 0, "WHERE", "ports 0xe9, 0x402: null (default), stderr, file=PATH",
	 "null, stderr, file=PATH or unix=PATH", apply_debugcon, "devices", false},
	{"transport", 0, "HOW", "how devices are attached: pci (default) or mmio", "pci or mmio", apply_transport,
	 "devices", false},
	{"iothreads", 0, "N", "0 to 16 threads that serve the disks; default 0", "a number from 0 to 16",
	 apply_iothreads, "devices", false},
	{"balloon", 0, "SIZE[,...]", "take so much of the guest's memory; it may be 0",
	 "a size such as 512M or 0, and settings", apply_balloon, "devices", false},
	{"vsock", 0, "PATH[,...]", "a Unix socket to reach the guest's vsock by, and back",
	 "the path of a socket to make, and settings", apply_vsock, "devices", false},
	{"rng", 0, "bw=SIZE", "random bytes from the host", "on, and settings", apply_rng, "devices", true},
	{"boot", 0, "HOW", "auto, linux64 or pvh; default auto", "auto, linux64 or pvh", apply_boot, NULL, false},
	{"on-reboot", 0, "WHAT", "exit or restart; default exit", "exit or restart", apply_on_reboot, NULL, false},
	{"log-level", 0, "LEVEL", "error, warn, info or debug; default warn", "error, warn, info or debug",
	 apply_log_level, NULL, false},
	{"log-file", 0, "PATH", "append vmlet's own messages to a file", "a file", apply_log_file, NULL, false},
	{"timeout", 0, "DURATION", "end with status 124 after 90, 90s, 1.5m, 500ms, 2h",
	 "a time such as 90, 90s, 1.5m, 500ms or 2h, more than 0", apply_timeout, "ci", false},
	{"expect", 0, "REGEX", "success once the console has shown this; in order", "a regular expression",
	 apply_expect, "ci", false},
	{"fail-on", 0, "REGEX", "failure, status 84, once the console shows this", "a regular expression",
	 apply_fail_on, "ci", false},
	{"send", 0, "REGEX=>TEXT", "type TEXT once the console has shown REGEX; in order",
	 "a regular expression, =>, and a text with \\n, \\r, \\t, \\\\ and \\xHH", apply_send, "ci", false},
	{"script", 0, "FILE", "a dialogue: expect, send, timeout, fail-on, sleep", "a file", apply_script, "ci", false},
	{"console-log", 0, "FILE", "write what the console prints to a file too", "a file", apply_console_log, "ci",
	 false},
	{"status-file", 0, "FILE", "how it ended, as JSON, written at once at the end", "a file", apply_status_file,
	 "ci", false},
	{"events", 0, "WHERE", "FILE or fd:N: what happens, as lines of JSON", "a file, or fd: and a descriptor",
	 apply_events, "ci", false},
	{"module", 0, "FILE", "a module to load first; several, in order", "a file", apply_module, "exec", false},
	{"env", 'e', "NAME[=VALUE]", "a variable for the command; without VALUE, the host's", "NAME=VALUE, or NAME",
	 apply_variable, "exec", false},
	{"cwd", 0, "DIR", "the guest's directory to run in; default /", "an absolute path", apply_directory, "exec",
	 false},
	{"help", 'h', NULL, "show this", NULL, apply_help, NULL, false},
	{NULL, 0, NULL, NULL, NULL, NULL, NULL, false},
};
