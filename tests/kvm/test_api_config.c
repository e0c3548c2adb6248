/* vmlet_new and the configuration: what is refused, with which code, kind and sentence; callers of other versions. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

static char kernel[4096];

static struct vmlet_config good_config(void)
{
	struct vmlet_config config;

	vmlet_config_init(&config);
	guest_path(kernel, sizeof(kernel), "exit");
	config.kernel = kernel;
	return config;
}

static void expect_refusal(const struct vmlet_config *config, int code, enum vmlet_error_kind kind, const char *word)
{
	unsigned fds = count_fds();
	struct vmlet_error error = {.code = 1};
	struct vmlet *vm = vmlet_new(config, &error);

	CHECK(!vm, "%s: it was accepted", word);
	CHECK(error.code == code, "%s: code %d, not %d: %s", word, error.code, code, error.text);
	CHECK(error.kind == kind, "%s: kind %d, not %d: %s", word, (int)error.kind, (int)kind, error.text);
	CHECK(strstr(error.text, word), "the sentence does not name '%s': %s", word, error.text);
	CHECK(!strchr(error.text, '\n'), "a newline in '%s'", error.text);
	CHECK(count_fds() == fds, "%s: a descriptor leaks", word);
	CHECK(!vmlet_new(config, NULL), "and without an error to fill");
}

#define REFUSED(member, value, code, word)                                                                             \
	do {                                                                                                           \
		struct vmlet_config bad = good_config();                                                               \
		bad.member = (value);                                                                                  \
		expect_refusal(&bad, code, VMLET_ERROR_CONFIG, word);                                                  \
	} while (0)

static void run_values(const void *arg)
{
	(void)arg;
	REFUSED(kernel, NULL, -EINVAL, "kernel");
	REFUSED(cpus, 0, -EINVAL, "0 vCPUs");
	REFUSED(cpus, 255, -EINVAL, "255 vCPUs");
	REFUSED(cpus, 0xffffffff, -EINVAL, "4294967295 vCPUs");
	REFUSED(memory_bytes, 0, -EINVAL, "0 bytes of memory");
	REFUSED(memory_bytes, (2 << 20) - 4096, -EINVAL, "2093056 bytes of memory");
	REFUSED(memory_bytes, (256 << 20) + 1, -EINVAL, "268435457 bytes of memory");
	REFUSED(cpu_features, "avx2", -EINVAL, "'avx2'");
	REFUSED(cpu_features, "+no_such_feature", -EINVAL, "'no_such_feature'");
	REFUSED(cpu_features, "-x2apic,,", -EINVAL, "CPU features");
	REFUSED(cpu_features, "+", -EINVAL, "CPU features");
	REFUSED(boot_protocol, (enum vmlet_boot_protocol)3, -EINVAL, "3");
	REFUSED(boot_protocol, (enum vmlet_boot_protocol) - 1, -EINVAL, "-1");
	REFUSED(on_reboot, (enum vmlet_on_reboot)2, -EINVAL, "2");
	REFUSED(serial.kind, (enum vmlet_serial_kind)5, -EINVAL, "serial port");
	REFUSED(debugcon.kind, (enum vmlet_serial_kind)99, -EINVAL, "debug console");
	REFUSED(serial.kind, VMLET_SERIAL_FILE, -EINVAL, "serial port");
	REFUSED(serial.kind, VMLET_SERIAL_UNIX, -EINVAL, "serial port");
	REFUSED(debugcon.kind, VMLET_SERIAL_FILE, -EINVAL, "debug console");
}

/* --- files --- */

static void run_kernels(const void *arg)
{
	static const char text[8192] = "#!/bin/sh\n";
	char path[256], fifo[256];

	(void)arg;
	REFUSED(kernel, "/nonexistent/vmlinuz", -ENOENT, "/nonexistent/vmlinuz");
	REFUSED(kernel, "", -ENOENT, "kernel");
	REFUSED(kernel, temp_dir(), -EISDIR, temp_dir());
	REFUSED(kernel, "/dev/null", -EINVAL, "/dev/null");
	temp_path(path, sizeof(path), "script");
	write_file(path, text, sizeof(text));
	REFUSED(kernel, path, -ENOEXEC, "script");
	write_file(path, text, 0);
	REFUSED(kernel, path, -ENOEXEC, "script");
	write_file(path, "\177ELF", 4);
	REFUSED(kernel, path, -ENOEXEC, "script");
	temp_path(fifo, sizeof(fifo), "fifo");
	CHECK(mkfifo(fifo, 0600) == 0, "%s", strerror(errno));
	REFUSED(kernel, fifo, -EINVAL, "fifo");
	temp_remove();
}

static void run_initrds(const void *arg)
{
	const char *paths[2] = {kernel, "/nonexistent/initrd"};
	struct vmlet_config config = good_config();

	(void)arg;
	config.initrds = paths;
	config.initrd_count = 2;
	expect_refusal(&config, -ENOENT, VMLET_ERROR_CONFIG, "/nonexistent/initrd");
	paths[1] = "/";
	expect_refusal(&config, -EISDIR, VMLET_ERROR_CONFIG, "initrd '/'");
}

static void run_consoles(const void *arg)
{
	char path[256], longer[200];
	struct vmlet_config config = good_config();

	(void)arg;
	config.serial.kind = VMLET_SERIAL_FILE;
	config.serial.path = "/nonexistent/log";
	expect_refusal(&config, -ENOENT, VMLET_ERROR_CONFIG, "/nonexistent/log");
	config.serial.path = "/";
	expect_refusal(&config, -EISDIR, VMLET_ERROR_CONFIG, "'/'");
	temp_path(path, sizeof(path), "fifo");
	CHECK(mkfifo(path, 0600) == 0, "%s", strerror(errno));
	config.serial.path = path; /* nobody reads it */
	expect_refusal(&config, -ENXIO, VMLET_ERROR_CONFIG, "fifo");

	config.serial.kind = VMLET_SERIAL_UNIX;
	config.serial.path = "/nonexistent/socket";
	expect_refusal(&config, -ENOENT, VMLET_ERROR_CONFIG, "/nonexistent/socket");
	config.serial.path = path; /* a file is there */
	expect_refusal(&config, -EADDRINUSE, VMLET_ERROR_CONFIG, "fifo");
	CHECK(access(path, F_OK) == 0, "somebody else's file is still there");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	config.serial.path = longer;
	expect_refusal(&config, -ENAMETOOLONG, VMLET_ERROR_CONFIG, "107");
	temp_remove();
}

/* --- what only vmlet_start can know --- */

static void expect_start_refusal(const struct vmlet_config *config, int code, enum vmlet_error_kind kind,
				 const char *word)
{
	unsigned fds = count_fds(), threads = count_threads();
	struct vmlet_error error = {0};
	struct vmlet_result result = {0};
	struct vmlet *vm = vmlet_new(config, &error);
	int r;

	CHECK(vm, "%s", error.text);
	r = vmlet_start(vm, &error);
	CHECK(r == code && error.code == code && error.kind == kind, "%s: %d, kind %d: %s", word, r, (int)error.kind,
	      error.text);
	CHECK(strstr(error.text, word), "no '%s' in '%s'", word, error.text);
	CHECK(vmlet_run(vm, &result) == -EINVAL && vmlet_dispatch(vm) == -EINVAL, "it can only be freed");
	CHECK(vmlet_pause(vm) == -EINVAL && vmlet_resume(vm) == -EINVAL && vmlet_press_power_button(vm) == -EINVAL,
	      "it does not run");
	CHECK(vmlet_start(vm, NULL) < 0, "nor started again");
	vmlet_free(vm);
	CHECK(count_fds() == fds && count_threads() == threads, "nothing is left");
}

static void run_start(const void *arg)
{
	struct vmlet_config config = good_config();
	const char *paths[1];
	char path[256];

	(void)arg;
	config.cpu_features = "+vmx,+xop";
	expect_start_refusal(&config, -EINVAL, VMLET_ERROR_CONFIG, "CPU features");

	config = good_config();
	temp_path(path, sizeof(path), "initrd");
	write_file(path, "x", 1);
	CHECK(truncate(path, 64 << 20) == 0, "%s", strerror(errno));
	paths[0] = path;
	config.initrds = paths;
	config.initrd_count = 1;
	config.memory_bytes = 32 << 20;
	expect_start_refusal(&config, -ENOSPC, VMLET_ERROR_CONFIG, "initrd");
	CHECK(truncate(path, 0) == 0, "%s", strerror(errno));
	expect_start_refusal(&config, -EINVAL, VMLET_ERROR_CONFIG, "empty");

	config = good_config();
	config.memory_bytes = 1ull << 60;
	expect_start_refusal(&config, -EINVAL, VMLET_ERROR_CONFIG, "1099511627776 MiB of memory");
	temp_remove();
}

static void run_cmdline(const void *arg)
{
	static char line[70000];
	struct vmlet_config config = good_config();

	(void)arg;
	memset(line, 'x', sizeof(line) - 1);
	config.cmdline = line;
	expect_start_refusal(&config, -E2BIG, VMLET_ERROR_CONFIG, "command line");
}

/* --- callers of other versions --- */

static void run_sizes(const void *arg)
{
	struct {
		struct vmlet_config config;
		char more[64];
	} newer;
	struct vmlet_config config = good_config();
	struct vmlet_error error;
	struct vmlet *vm;

	(void)arg;
	/* An older caller knows the members up to cpus: what it does not know has its default. */
	vmlet_config_init_sized(&config, offsetof(struct vmlet_config, cpu_features));
	memset((char *)&config + config.struct_size, 0xa5, sizeof(config) - config.struct_size);
	config.kernel = kernel;
	vm = vmlet_new(&config, &error);
	CHECK(vm, "%s", error.text);
	vmlet_free(vm);

	/* A newer caller's defaults are zero, and the library says that it does not know them. */
	vmlet_config_init_sized(&newer.config, sizeof(newer));
	for (size_t i = 0; i < sizeof(newer.more); i++)
		CHECK(newer.more[i] == 0, "byte %zu", i);
	newer.config.kernel = kernel;
	vm = vmlet_new(&newer.config, &error);
	if (vm) /* members that are all zero may be accepted, too */
		vmlet_free(vm);
	else
		CHECK(error.kind == VMLET_ERROR_CONFIG && strstr(error.text, "struct_size"), "%s", error.text);

	REFUSED(struct_size, 0, -EINVAL, "struct_size");
	REFUSED(struct_size, 3, -EINVAL, "struct_size");
	/* A size that ends before the kernel member. */
	config = good_config();
	config.struct_size = sizeof(size_t);
	expect_refusal(&config, -EINVAL, VMLET_ERROR_CONFIG, "kernel");
}

/* The caller may free everything that it gave as soon as vmlet_new has returned. */
static void run_strings(const void *arg)
{
	char *own_kernel, *cmdline = strdup("len=1 sum=120"), *path = malloc(256), *features = strdup("-x2apic");
	const char **list = calloc(1, sizeof(*list));
	struct vmlet_config *config = malloc(sizeof(*config));
	struct vmlet_result result;
	struct vmlet_error error;
	struct vmlet *vm;

	(void)arg;
	CHECK(cmdline && path && features && list && config, "out of memory");
	own_kernel = malloc(4096);
	guest_path(own_kernel, 4096, "initrd");
	vmlet_config_init(config);
	temp_path(path, 256, "x");
	write_file(path, "x", 1);
	list[0] = path;
	config->kernel = own_kernel;
	config->cmdline = cmdline;
	config->cpu_features = features;
	config->initrds = list;
	config->initrd_count = 1;
	vm = vmlet_new(config, &error);
	CHECK(vm, "%s", error.text);
	memset(own_kernel, 'k', strlen(own_kernel));
	memset(cmdline, 'c', strlen(cmdline));
	memset(features, 'f', strlen(features));
	memset(path, 'p', strlen(path));
	free(own_kernel);
	free(cmdline);
	free(features);
	free(path);
	free(list);
	free(config);
	CHECK(vmlet_start(vm, &error) == 0, "%s", error.text);
	CHECK(vmlet_run(vm, &result) == 0 && result.end == VMLET_END_DEBUG_EXIT && result.value == 0, "%s: %u",
	      result.text, result.value);
	vmlet_free(vm);
	temp_remove();
}

static const struct test tests[] = {
	TEST("values", run_values, NULL),     TEST("kernels", run_kernels, NULL), TEST("initrds", run_initrds, NULL),
	TEST("consoles", run_consoles, NULL), TEST("start", run_start, NULL),     TEST("cmdline", run_cmdline, NULL),
	TEST("sizes", run_sizes, NULL),       TEST("strings", run_strings, NULL), {0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
