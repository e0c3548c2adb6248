/*
 * Every system call and allocation of the library fails once: vmlet_new, vmlet_start and vmlet_run are repeated, with
 * the first, the second, ... of them failing, until a whole run needs no more of them. Each time: an error with a
 * sentence or a good run, no descriptor, thread, mapping or memory lost, no crash, no hang.
 *
 * The functions are wrapped by the linker (-Wl,--wrap). Failures that the library may bear are listed in may_go_on.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

/* --- injection --- */

static atomic_bool armed;
static atomic_uint calls; /* since it was armed */
static unsigned fail_at;
static const char *failed_call; /* NULL: none yet */
static unsigned long failed_detail;
static atomic_long balance; /* allocations less frees */

static bool fails(const char *call, unsigned long detail)
{
	if (!atomic_load(&armed) || atomic_fetch_add(&calls, 1) + 1 != fail_at)
		return false;
	failed_call = call;
	failed_detail = detail;
	return true;
}

/* `error` is what such a call gives on a machine that is out of something. */
#define FAIL_WITH(error, value)                                                                                        \
	do {                                                                                                           \
		errno = (error);                                                                                       \
		return (value);                                                                                        \
	} while (0)

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	if (fails("malloc", size))
		FAIL_WITH(ENOMEM, NULL);
	void *p = __real_malloc(size);
	atomic_fetch_add(&balance, p != NULL);
	return p;
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
	if (fails("calloc", count * size))
		FAIL_WITH(ENOMEM, NULL);
	void *p = __real_calloc(count, size);
	atomic_fetch_add(&balance, p != NULL);
	return p;
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
	if (fails("realloc", size))
		FAIL_WITH(ENOMEM, NULL);
	void *p = __real_realloc(old, size);
	atomic_fetch_add(&balance, !old && p);
	return p;
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	if (fails("strdup", 0))
		FAIL_WITH(ENOMEM, NULL);
	char *p = __real_strdup(text);
	atomic_fetch_add(&balance, p != NULL);
	return p;
}

void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p)
{
	atomic_fetch_sub(&balance, p != NULL);
	__real_free(p);
}

/* A wrapper of a function that returns an int, -1 with errno. */
#define WRAP_INT(name, error, detail, parameters, arguments)                                                           \
	int __real_##name parameters;                                                                                  \
	int __wrap_##name parameters;                                                                                  \
	int __wrap_##name parameters                                                                                   \
	{                                                                                                              \
		if (fails(#name, (unsigned long)(detail)))                                                             \
			FAIL_WITH(error, -1);                                                                          \
		return __real_##name arguments;                                                                        \
	}

WRAP_INT(ftruncate, ENOSPC, 0, (int fd, off_t size), (fd, size))
WRAP_INT(ftruncate64, ENOSPC, 0, (int fd, off_t size), (fd, size))
WRAP_INT(eventfd, EMFILE, 0, (unsigned count, int flags), (count, flags))
WRAP_INT(timerfd_create, EMFILE, 0, (int clock, int flags), (clock, flags))
WRAP_INT(fstat, EIO, 0, (int fd, struct stat *st), (fd, st))
WRAP_INT(fstat64, EIO, 0, (int fd, struct stat *st), (fd, st))
WRAP_INT(socket, EMFILE, 0, (int domain, int type, int protocol), (domain, type, protocol))
WRAP_INT(bind, EACCES, 0, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size))
WRAP_INT(listen, EADDRINUSE, 0, (int fd, int backlog), (fd, backlog))
WRAP_INT(posix_openpt, ENOSPC, 0, (int flags), (flags))
WRAP_INT(grantpt, EACCES, 0, (int fd), (fd))
WRAP_INT(unlockpt, EIO, 0, (int fd), (fd))
WRAP_INT(tcgetattr, EIO, 0, (int fd, struct termios *modes), (fd, modes))
WRAP_INT(tcsetattr, EIO, 0, (int fd, int when, const struct termios *modes), (fd, when, modes))

WRAP_INT(getsockopt, ENOBUFS, 0, (int fd, int level, int name, void *value, socklen_t *size),
	 (fd, level, name, value, size))
WRAP_INT(fchmod, EPERM, 0, (int fd, mode_t mode), (fd, mode))

static int fcntl_with(int (*real)(int, int, ...), int fd, int what, va_list args)
{
	if (fails("fcntl", (unsigned)what))
		FAIL_WITH(EMFILE, -1);
	return real(fd, what, va_arg(args, long));
}

#define WRAP_FCNTL(name)                                                                                               \
	int __real_##name(int fd, int what, ...);                                                                      \
	int __wrap_##name(int fd, int what, ...);                                                                      \
	int __wrap_##name(int fd, int what, ...)                                                                       \
	{                                                                                                              \
		va_list args;                                                                                          \
		va_start(args, what);                                                                                  \
		int r = fcntl_with(__real_##name, fd, what, args);                                                     \
		va_end(args);                                                                                          \
		return r;                                                                                              \
	}

WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)

ssize_t __real_getrandom(void *data, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags)
{
	if (fails("getrandom", size))
		FAIL_WITH(ENOSYS, -1);
	return __real_getrandom(data, size, flags);
}

int __real_ptsname_r(int fd, char *name, size_t size);
int __wrap_ptsname_r(int fd, char *name, size_t size);
int __wrap_ptsname_r(int fd, char *name, size_t size)
{
	if (fails("ptsname_r", 0))
		FAIL_WITH(ENOTTY, ENOTTY);
	return __real_ptsname_r(fd, name, size);
}

ssize_t __real_pread64(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *data, size_t size, off_t offset)
{
	if (fails("pread", size))
		FAIL_WITH(EIO, -1);
	return __real_pread64(fd, data, size, offset);
}

off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
	if (fails("lseek", 0))
		FAIL_WITH(ESPIPE, -1);
	return __real_lseek64(fd, offset, whence);
}

ssize_t __real_pread(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset)
{
	if (fails("pread", size))
		FAIL_WITH(EIO, -1);
	return __real_pread(fd, data, size, offset);
}

off_t __real_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence)
{
	if (fails("lseek", 0))
		FAIL_WITH(ESPIPE, -1);
	return __real_lseek(fd, offset, whence);
}

void *__real_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	if (fails("mmap", (unsigned long)flags))
		FAIL_WITH(ENOMEM, MAP_FAILED);
	return __real_mmap(at, size, prot, flags, fd, offset);
}

void *__real_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	if (fails("mmap", (unsigned long)flags))
		FAIL_WITH(ENOMEM, MAP_FAILED);
	return __real_mmap64(at, size, prot, flags, fd, offset);
}

static int open_with_mode(int (*real)(const char *, int, ...), const char *path, int flags, va_list args)
{
	if (fails("open", 0))
		FAIL_WITH(EMFILE, -1);
	return flags & O_CREAT ? real(path, flags, va_arg(args, mode_t)) : real(path, flags);
}

#define WRAP_OPEN(name)                                                                                                \
	int __real_##name(const char *path, int flags, ...);                                                           \
	int __wrap_##name(const char *path, int flags, ...);                                                           \
	int __wrap_##name(const char *path, int flags, ...)                                                            \
	{                                                                                                              \
		va_list args;                                                                                          \
		va_start(args, flags);                                                                                 \
		int r = open_with_mode(__real_##name, path, flags, args);                                              \
		va_end(args);                                                                                          \
		return r;                                                                                              \
	}

WRAP_OPEN(open)
WRAP_OPEN(open64)

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	/* The compiler may or may not have widened the request. */
	if (fails("ioctl", request & 0xffffffff))
		FAIL_WITH(ENOMEM, -1);
	return __real_ioctl(fd, request, arg);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return fails("pthread_create", 0) ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}

int __real_pthread_attr_init(pthread_attr_t *attr);
int __wrap_pthread_attr_init(pthread_attr_t *attr);
int __wrap_pthread_attr_init(pthread_attr_t *attr)
{
	return fails("pthread_attr_init", 0) ? ENOMEM : __real_pthread_attr_init(attr);
}

int __real_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
	return fails("io_uring_queue_init_params", 0) ? -EPERM
						      : __real_io_uring_queue_init_params(entries, ring, params);
}

int __real_io_uring_register(unsigned fd, unsigned opcode, const void *arg, unsigned count);
int __wrap_io_uring_register(unsigned fd, unsigned opcode, const void *arg, unsigned count);
int __wrap_io_uring_register(unsigned fd, unsigned opcode, const void *arg, unsigned count)
{
	return fails("io_uring_register", opcode) ? -EINVAL : __real_io_uring_register(fd, opcode, arg, count);
}

/* --- what may fail without the VM --- */

static bool may_go_on(void)
{
	if (strcmp(failed_call, "mmap") == 0) /* a file that cannot be mapped is read */
		return failed_detail & MAP_FIXED;
	if (strcmp(failed_call, "fcntl") == 0) /* the mode of a socket or file that is open already */
		return failed_detail == F_SETFL;
	if (strcmp(failed_call, "ioctl") != 0)
		return false;
	switch (failed_detail) {
	case (unsigned)KVM_CHECK_EXTENSION: /* a capability that is not there */
	case (unsigned)KVM_SET_MSRS:        /* an MSR that KVM does not know */
		return true;
	case (unsigned)KVM_RUN:      /* the VM ends with an error of KVM */
	case (unsigned)KVM_IRQ_LINE: /* or of the host */
		return true;
	default:
		return false;
	}
}

static const char *describe_call(void)
{
	static char text[96];

	if (!failed_call)
		return "nothing";
	snprintf(text, sizeof(text), "%s (%#lx), call %u", failed_call, failed_detail, fail_at);
	return text;
}

/* --- one attempt --- */

struct state {
	unsigned fds, threads, mappings;
	long balance;
};

static unsigned count_mappings(void)
{
	static char data[1 << 20]; /* stdio would allocate */
	size_t size = 0;
	ssize_t n;
	unsigned lines = 0;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0, "maps");
	while ((n = read(fd, data + size, sizeof(data) - size)) > 0)
		size += (size_t)n;
	close(fd);
	/* Only the library's own: thread stacks are kept by libc. */
	for (char *line = data; line < data + size; line = strchr(line, '\n') + 1) {
		char *end = strchr(line, '\n');

		if (!end)
			break;
		lines += memmem(line, (size_t)(end - line), "kvm-vcpu", 8) != NULL ||
			 memmem(line, (size_t)(end - line), "io_uring", 8) != NULL;
	}
	return lines;
}

/* Guest RAM has no name; but nothing else here is kept from children. */
static unsigned count_guest_ram(void)
{
	char line[4096];
	unsigned count = 0;
	FILE *smaps = fopen("/proc/self/smaps", "re");

	CHECK(smaps, "smaps");
	while (fgets(line, sizeof(line), smaps))
		count += strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dc ") != NULL;
	fclose(smaps);
	return count;
}

static struct state take_state(void)
{
	unsigned mappings = count_mappings() + count_guest_ram();
	return (struct state){count_fds(), count_threads(), mappings, atomic_load(&balance)};
}

static void check_state(const struct state *before)
{
	struct state now = take_state();

	CHECK(now.fds == before->fds, "after %s: %u descriptors were %u", describe_call(), now.fds, before->fds);
	CHECK(now.threads <= before->threads + 1, "after %s: %u threads were %u", describe_call(), now.threads,
	      before->threads);
	CHECK(now.mappings == before->mappings, "after %s: %u mappings were %u", describe_call(), now.mappings,
	      before->mappings);
	CHECK(now.balance == before->balance, "after %s: %ld allocations are not freed", describe_call(),
	      now.balance - before->balance);
}

static void check_error(const struct vmlet_error *error, int code)
{
	CHECK(code < 0, "after %s: the code is %d: %s", describe_call(), code, error->text);
	CHECK(strlen(error->text) > 8, "after %s: no sentence: '%s'", describe_call(), error->text);
	CHECK(!strchr(error->text, '\n'), "a newline in '%s'", error->text);
	CHECK(failed_call, "it failed by itself: %s", error->text);
	if (getenv("VMLET_TEST_VERBOSE"))
		fprintf(stderr, "%s: kind %d: %s\n", describe_call(), (int)error->kind, error->text);
}

struct variant {
	struct vmlet_serial serial;
	const char *path; /* in the test's directory */
	unsigned cpus;
	bool initrd, new_only;
	bool devices; /* network cards by a socket pair and on a path, console, port, balloon, vsock and random numbers
		       */
	enum vmlet_boot_protocol protocol;
};

static char kernel[4096], serial_path[256], initrd_path[256];

/* What a configuration with devices points to. */
struct devices {
	struct vmlet_net nets[2];
	const struct vmlet_net *net_list[2];
	struct vmlet_console consoles[2];
	const struct vmlet_console *console_list[2];
	char net_path[256], vsock_path[256];
	int fds[2];
};

static void devices_init(struct devices *devices)
{
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, devices->fds) == 0, "socketpair");
	temp_path(devices->net_path, sizeof(devices->net_path), "net");
	temp_path(devices->vsock_path, sizeof(devices->vsock_path), "vsock");
	for (unsigned i = 0; i < 2; i++) {
		vmlet_net_init(&devices->nets[i]);
		vmlet_console_init(&devices->consoles[i]);
		devices->net_list[i] = &devices->nets[i];
		devices->console_list[i] = &devices->consoles[i];
	}
	devices->nets[0].kind = VMLET_NET_FD;
	devices->nets[0].fd = devices->fds[0];
	devices->nets[1].kind = VMLET_NET_LISTEN;
	devices->nets[1].path = devices->net_path;
	devices->consoles[1].name = "org.test.port";
}

static void devices_fini(const struct devices *devices)
{
	close(devices->fds[0]);
	close(devices->fds[1]);
}

static void add_devices(struct vmlet_config *config, const struct devices *devices)
{
	config->nets = devices->net_list;
	config->net_count = 2;
	config->consoles = devices->console_list;
	config->console_count = 2;
	config->balloon = (struct vmlet_balloon){.enabled = true, .reporting = true};
	config->vsock.path = devices->vsock_path;
	config->rng.enabled = true;
}

static void fill_config(struct vmlet_config *config, const struct variant *variant, const char *const *initrds)
{
	vmlet_config_init(config);
	config->kernel = kernel;
	config->cmdline = "quiet";
	config->cpus = variant->cpus;
	config->boot_protocol = variant->protocol;
	config->cpu_features = "-x2apic";
	config->serial = variant->serial;
	config->serial.path = variant->path ? serial_path : NULL;
	config->debugcon = (struct vmlet_serial){.kind = VMLET_SERIAL_FD, .in_fd = -1, .out_fd = -1};
	if (variant->initrd) {
		config->initrds = initrds;
		config->initrd_count = 2;
	}
}

static void try_run(struct vmlet *vm)
{
	struct vmlet_result result = {0};
	int r = vmlet_run(vm, &result);

	if (r < 0) {
		CHECK(failed_call && strcmp(failed_call, "io_uring_register") == 0, "vmlet_run after %s: %s",
		      describe_call(), strerror(-r));
		return;
	}
	if (result.end == VMLET_END_DEBUG_EXIT) {
		CHECK(result.value == 0, "after %s: %u", describe_call(), result.value);
		return;
	}
	CHECK(result.end == VMLET_END_KVM_ERROR || result.end == VMLET_END_HOST_ERROR, "after %s: %s", describe_call(),
	      end_name(result.end));
	CHECK(failed_call && strlen(result.text) > 8, "after %s: '%s'", describe_call(), result.text);
}

static struct devices devices;

/* False once the run did not reach the call that was to fail. */
static bool try_once(const struct variant *variant, unsigned k)
{
	const char *const initrds[] = {initrd_path, kernel};
	struct state before = take_state();
	struct vmlet_error error = {0};
	struct vmlet_config config;
	struct vmlet *vm;
	int r = 0;

	fill_config(&config, variant, initrds);
	if (variant->devices)
		add_devices(&config, &devices);
	fail_at = k;
	failed_call = NULL;
	atomic_store(&calls, 0);
	atomic_store(&armed, true);
	vm = vmlet_new(&config, &error);
	if (!vm) {
		check_error(&error, error.code);
	} else if (!variant->new_only) {
		r = vmlet_start(vm, &error);
		if (r < 0)
			check_error(&error, r);
		else
			try_run(vm);
	}
	atomic_store(&armed, false);
	vmlet_free(vm);
	CHECK(!failed_call || !vm || r < 0 || may_go_on() || variant->new_only ||
		      strcmp(failed_call, "io_uring_register") == 0,
	      "the failure of %s was not noticed", describe_call());
	CHECK(!failed_call || !vm || !variant->new_only || may_go_on(), "vmlet_new did not notice the failure of %s",
	      describe_call());
	check_state(&before);
	CHECK(!variant->devices || (access(devices.net_path, F_OK) < 0 && access(devices.vsock_path, F_OK) < 0),
	      "after %s: a socket's file is left", describe_call());
	return failed_call != NULL;
}

enum { ATTEMPTS_MAX = 400 };

static void run_variant(const void *arg)
{
	static char initrd[300000];
	const struct variant *variant = arg;
	unsigned k = 1;

	guest_path(kernel, sizeof(kernel), "exit");
	temp_path(initrd_path, sizeof(initrd_path), "initrd");
	write_file(initrd_path, initrd, sizeof(initrd));
	if (variant->path)
		temp_path(serial_path, sizeof(serial_path), variant->path);
	devices_init(&devices);
	/* Once without failures: libc's own lazy allocations. */
	try_once(variant, 0);
	while (try_once(variant, k))
		CHECK(++k < ATTEMPTS_MAX, "no end of calls");
	CHECK(k > 8, "only %u calls were made to fail: is the wrapping in effect?", k - 1);
	printf("%u calls failed, one by one\n", k - 1);
	devices_fini(&devices);
	temp_remove();
}

#define SERIAL_FD                                                                                                      \
	{                                                                                                              \
		.kind = VMLET_SERIAL_FD, .in_fd = -1, .out_fd = 2                                                      \
	}

static const struct variant plain = {.serial = SERIAL_FD, .cpus = 1};
static const struct variant smp = {.serial = {.kind = VMLET_SERIAL_NULL}, .cpus = 2};
static const struct variant linux64 = {
	.serial = {.kind = VMLET_SERIAL_NULL}, .cpus = 1, .initrd = true, .protocol = VMLET_BOOT_LINUX64};
static const struct variant new_fd = {.serial = SERIAL_FD, .cpus = 1, .initrd = true, .new_only = true};
static const struct variant new_pty = {.serial = {.kind = VMLET_SERIAL_PTY}, .cpus = 1, .new_only = true};
static const struct variant new_file = {
	.serial = {.kind = VMLET_SERIAL_FILE}, .path = "serial", .cpus = 1, .new_only = true};
static const struct variant new_unix = {
	.serial = {.kind = VMLET_SERIAL_UNIX}, .path = "socket", .cpus = 1, .new_only = true};
static const struct variant devices_run = {.serial = SERIAL_FD, .cpus = 1, .devices = true};
static const struct variant run_pty = {.serial = {.kind = VMLET_SERIAL_PTY}, .cpus = 1};

static const struct test tests[] = {
	TEST_LONG("new-fd", run_variant, &new_fd, 120),
	TEST_LONG("new-pty", run_variant, &new_pty, 120),
	TEST_LONG("new-file", run_variant, &new_file, 120),
	TEST_LONG("new-unix", run_variant, &new_unix, 120),
	TEST_LONG("run", run_variant, &plain, 120),
	TEST_LONG("run-smp", run_variant, &smp, 120),
	TEST_LONG("run-linux64-initrd", run_variant, &linux64, 120),
	TEST_LONG("run-devices", run_variant, &devices_run, 120),
	TEST_LONG("run-pty", run_variant, &run_pty, 120),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
