/* What the library leaves behind and what it does to its host program: no descriptors, threads, output or signals. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

enum { CYCLES = 50 };

static long resident_kib(void)
{
	long total = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	CHECK(file && fscanf(file, "%ld %ld", &total, &resident) == 2, "statm");
	fclose(file);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static unsigned count_mappings(void)
{
#ifdef __SANITIZE_THREAD__
	return 0; /* and its shadow memory grows */
#endif
	unsigned lines = 0;
	int c;
	FILE *file = fopen("/proc/self/maps", "re");

	CHECK(file, "maps");
	while ((c = getc(file)) != EOF)
		lines += c == '\n';
	fclose(file);
	return lines;
}

static void one_cycle(int i)
{
	static const struct vmlet_serial kinds[] = {{.kind = VMLET_SERIAL_NULL},
						    {.kind = VMLET_SERIAL_PTY},
						    {.kind = VMLET_SERIAL_FILE},
						    {.kind = VMLET_SERIAL_UNIX}};
	struct vmlet_config config;
	struct vmlet_error error;
	struct vmlet_result result;
	struct vmlet *vm;
	char kernel[4096], path[256];

	guest_path(kernel, sizeof(kernel), "exit-status");
	temp_path(path, sizeof(path), "serial");
	unlink(path);
	vmlet_config_init(&config);
	config.kernel = kernel;
	config.cmdline = "status=0";
	config.cpus = 1 + (unsigned)i % 3;
	config.serial = kinds[i % 4];
	config.serial.path = path;
	vm = vmlet_new(&config, &error);
	CHECK(vm, "%s", error.text);
	CHECK(vmlet_start(vm, &error) == 0, "%s", error.text);
	CHECK(vmlet_run(vm, &result) == 0 && result.end == VMLET_END_DEBUG_EXIT, "%s", result.text);
	vmlet_free(vm);
}

static void run_leaks(const void *arg)
{
	unsigned fds = count_fds(), threads = count_threads(), mappings;
	long resident;

	(void)arg;
	for (int i = 0; i < 4; i++) /* libc and kernel workers settle */
		one_cycle(i);
	mappings = count_mappings();
	resident = resident_kib();
	for (int i = 0; i < CYCLES; i++)
		one_cycle(i);
	CHECK(count_fds() == fds, "%u more descriptors", count_fds() - fds);
	CHECK(count_threads() <= threads + 1, "%u more threads", count_threads() - threads);
	CHECK(count_mappings() <= mappings + 8, "%u more mappings", count_mappings() - mappings);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which keep what is freed for a while */
	CHECK(resident_kib() - resident < 1024, "%ld KiB more memory", resident_kib() - resident);
#else
	(void)resident;
#endif
	temp_remove();
}

static void run_restart_leaks(const void *arg)
{
	struct machine machine;
	unsigned fds = 0, threads = 0;

	(void)arg;
	machine_init(&machine, "reset", NULL);
	machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine_start(&machine);
	machine_serve_until(&machine, "reset by");
	fds = count_fds();
	threads = count_threads();
	machine_serve_until_times(&machine, "reset by", 12);
	CHECK(count_fds() <= fds && count_threads() <= threads + 1, "%u descriptors were %u, %u threads were %u",
	      count_fds(), fds, count_threads(), threads);
	machine_free(&machine);
}

/* --- nothing on the program's own descriptors --- */

static void run_silent(const void *arg)
{
	struct machine machine;
	char path[256];
	struct stat st;
	int out = dup(1), err = dup(2), fd;

	(void)arg;
	temp_path(path, sizeof(path), "output");
	fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && out >= 0 && err >= 0, "%s", strerror(errno));
	dup2(fd, 1);
	dup2(fd, 2);
	machine_init(&machine, "triple-fault", NULL); /* it dumps registers, at log level error */
	machine.config.log_level = VMLET_LOG_DEBUG;
	machine_expect(&machine, VMLET_END_TRIPLE_FAULT, 0);
	machine_free(&machine);
	machine_init(&machine, "reset", "how=acpi");
	machine.config.log = NULL;
	machine_expect(&machine, VMLET_END_REBOOT, 0);
	machine.config.kernel = "/nonexistent";
	CHECK(!vmlet_new(&machine.config, NULL), "no kernel");
	machine_free(&machine);
	fflush(NULL);
	dup2(out, 1);
	dup2(err, 2);
	CHECK(fstat(fd, &st) == 0 && st.st_size == 0, "the library wrote %lld bytes", (long long)st.st_size);
	close(fd);
	close(out);
	close(err);
	temp_remove();
}

/* --- SIGPIPE, at its default action --- */

static void check_no_signal_handlers(void)
{
	for (int signo = 1; signo <= 64; signo++) {
		struct sigaction action;

		if (sigaction(signo, NULL, &action) == 0 && signo < 32)
			CHECK(action.sa_handler == SIG_DFL || signo == SIGALRM || signo == SIGPIPE ||
				      action.sa_handler == SIG_IGN || signo == SIGSEGV || signo == SIGBUS ||
				      signo == SIGFPE,
			      "somebody handles signal %d", signo);
	}
}

/* The reader of the guest's output has gone: the guest goes on, and this process does not die. */
static void run_sigpipe(const void *arg)
{
	struct machine machine;

	(void)arg;
	signal(SIGPIPE, SIG_DFL);
	machine_init(&machine, "flood", "kib=16");
	close(machine.read_fds[0]);
	machine.read_fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	check_no_signal_handlers();
	machine_free(&machine);
}

static void run_sigpipe_socket(const void *arg)
{
	struct machine machine;
	int pair[2];

	(void)arg;
	signal(SIGPIPE, SIG_DFL);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "%s", strerror(errno));
	close(pair[1]);
	machine_init(&machine, "flood", "kib=16");
	machine.config.serial.out_fd = pair[0];
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	machine_free(&machine);
	close(pair[0]);
}

static void run_full_device(const void *arg)
{
	struct machine machine;
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)arg;
	machine_init(&machine, "flood", "kib=16");
	machine.config.serial.out_fd = full;
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	CHECK(strstr(machine.log, "No space left"), "a warning in the log: %s", machine.log);
	machine_free(&machine);
	close(full);
}

static void start_halted(struct machine *machine)
{
	machine_init(machine, "hang", "how=hlt");
	machine->config.cpus = 2;
	machine_start(machine);
	machine_serve_ms(machine, 50); /* it is in KVM_RUN and stays there */
}

/* The C library sends every thread a signal of its own for this, and waits for all of them. */
static void run_change_of_user(const void *arg)
{
	struct machine machine;

	(void)arg;
	start_halted(&machine);
	CHECK(setgid(getgid()) == 0, "setgid: %s", strerror(errno));
	machine_free(&machine);
}

/* RLIMIT_SIGPENDING counts all of a user's processes; when they have used it up, a VM still stops. */
static void run_no_queued_signals(const void *arg)
{
	struct machine machine;
	struct rlimit saved, none = {0, 0};

	(void)arg;
	start_halted(&machine);
	CHECK(getrlimit(RLIMIT_SIGPENDING, &saved) == 0, "getrlimit");
	none.rlim_max = saved.rlim_max;
	CHECK(setrlimit(RLIMIT_SIGPENDING, &none) == 0, "setrlimit");
	CHECK(vmlet_pause(machine.vm) == 0, "pause");
	CHECK(vmlet_resume(machine.vm) == 0, "resume");
	machine_free(&machine);
	CHECK(setrlimit(RLIMIT_SIGPENDING, &saved) == 0, "setrlimit back");
}

static const struct test tests[] = {
	TEST("leaks", run_leaks, NULL),
	TEST("restart-leaks", run_restart_leaks, NULL),
	TEST("silent", run_silent, NULL),
	TEST("sigpipe", run_sigpipe, NULL),
	TEST("sigpipe-socket", run_sigpipe_socket, NULL),
	TEST("full-device", run_full_device, NULL),
	TEST("change-of-user", run_change_of_user, NULL),
	TEST("no-queued-signals", run_no_queued_signals, NULL),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
