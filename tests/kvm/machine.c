#include "machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"

/* --- time and files --- */

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void sleep_ms(unsigned ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&time, &time) < 0 && errno == EINTR)
		;
}

void write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t n = write(fd, at, size);

		if (n < 0 && errno == EINTR)
			continue;
		CHECK(n > 0, "%s", strerror(errno));
		at += n;
		size -= (size_t)n;
	}
}

static char temp_name[64];

const char *temp_dir(void)
{
	if (!temp_name[0]) {
		strcpy(temp_name, "/tmp/vmlet-test-XXXXXX");
		CHECK(mkdtemp(temp_name), "%s", strerror(errno));
		runner_on_exit = temp_remove;
	}
	return temp_name;
}

void temp_path(char *ret_path, size_t size, const char *name)
{
	CHECK((size_t)snprintf(ret_path, size, "%s/%s", temp_dir(), name) < size, "path too long");
}

void temp_remove(void)
{
	DIR *dir;
	struct dirent *entry;

	if (!temp_name[0])
		return;
	dir = opendir(temp_name);
	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(temp_name);
	temp_name[0] = '\0';
}

void write_file(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	write_all(fd, data, size);
	close(fd);
}

static unsigned count_entries(const char *path)
{
	unsigned count = 0;
	struct dirent *entry;
	DIR *dir = opendir(path);

	CHECK(dir, "%s: %s", path, strerror(errno));
	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

unsigned count_fds(void)
{
	return count_entries("/proc/self/fd") - 1; /* without the directory's own */
}

/* A joined thread may stay in /proc for a moment. */
unsigned count_threads(void)
{
#ifdef __SANITIZE_THREAD__
	return 0; /* ThreadSanitizer starts one of its own, when it likes */
#endif
	unsigned count = count_entries("/proc/self/task");

	for (int i = 0; i < 50 && count > 1; i++) {
		sleep_ms(2);
		count = count_entries("/proc/self/task");
	}
	return count;
}

/* --- pump --- */

struct pump {
	int fd;
	struct pump_pace pace;
	pthread_t thread;
	bool joined;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	char *text; /* NUL-terminated */
	size_t size, room;
	bool ended;
};

static void append(struct pump *pump, const char *data, size_t size)
{
	pthread_mutex_lock(&pump->mutex);
	if (pump->size + size + 1 > pump->room) {
		pump->room = (pump->size + size + 1) * 2;
		pump->text = realloc(pump->text, pump->room);
		CHECK(pump->text, "out of memory");
	}
	memcpy(pump->text + pump->size, data, size);
	pump->size += size;
	pump->text[pump->size] = '\0';
	pthread_cond_broadcast(&pump->changed);
	pthread_mutex_unlock(&pump->mutex);
}

static void *pump_main(void *arg)
{
	struct pump *pump = arg;
	char data[65536];
	size_t chunk = pump->pace.chunk ? pump->pace.chunk : sizeof(data);
	ssize_t n;

	sleep_ms(pump->pace.stall_ms);
	for (;;) {
		if (pump->pace.pause_us)
			usleep(pump->pace.pause_us);
		n = read(pump->fd, data, chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* EIO: the other end of a pseudo-terminal is closed */
			break;
		append(pump, data, (size_t)n);
	}
	close(pump->fd);
	pthread_mutex_lock(&pump->mutex);
	pump->ended = true;
	pthread_cond_broadcast(&pump->changed);
	pthread_mutex_unlock(&pump->mutex);
	return NULL;
}

struct pump *pump_start(int fd, struct pump_pace pace)
{
	struct pump *pump = calloc(1, sizeof(*pump));
	pthread_condattr_t attr;

	CHECK(pump, "out of memory");
	*pump = (struct pump){.fd = fd, .pace = pace, .text = calloc(1, 1), .room = 1};
	pthread_mutex_init(&pump->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pump->changed, &attr);
	CHECK(pthread_create(&pump->thread, NULL, pump_main, pump) == 0, "thread");
	return pump;
}

/* With the mutex held: false at the end of the time or of the input. */
static bool wait_change(struct pump *pump, uint64_t deadline_ms)
{
	struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
				 .tv_nsec = (long)(deadline_ms % 1000) * 1000000};

	return !pump->ended && pthread_cond_timedwait(&pump->changed, &pump->mutex, &until) == 0;
}

static bool has_times(const struct pump *pump, const char *text, unsigned times)
{
	const char *at = pump->text, *end = at + pump->size;

	for (; times && (at = memmem(at, (size_t)(end - at), text, strlen(text))); at += strlen(text))
		times--;
	return times == 0;
}

bool pump_wait(struct pump *pump, const char *text, unsigned times, unsigned timeout_ms)
{
	uint64_t deadline = now_ms() + timeout_ms;
	bool found;

	pthread_mutex_lock(&pump->mutex);
	while (!(found = has_times(pump, text, times)) && wait_change(pump, deadline))
		;
	pthread_mutex_unlock(&pump->mutex);
	return found;
}

size_t pump_size(struct pump *pump)
{
	size_t size;

	pthread_mutex_lock(&pump->mutex);
	size = pump->size;
	pthread_mutex_unlock(&pump->mutex);
	return size;
}

const char *pump_finish(struct pump *pump)
{
	if (!pump->joined)
		pthread_join(pump->thread, NULL);
	pump->joined = true;
	return pump->text;
}

void pump_free(struct pump *pump)
{
	if (!pump)
		return;
	pump_finish(pump);
	pthread_cond_destroy(&pump->changed);
	pthread_mutex_destroy(&pump->mutex);
	free(pump->text);
	free(pump);
}

/* --- machine --- */

static const struct machine *shown; /* what a failure tells about */

static void tell_pump(const char *name, struct pump *pump)
{
	if (!pump)
		return;
	pthread_mutex_lock(&pump->mutex); /* it may still run */
	if (pump->size <= 16384)
		fprintf(stderr, "%s:\n%s\n", name, pump->text);
	pthread_mutex_unlock(&pump->mutex);
}

static void tell_machine(void)
{
	if (!shown)
		return;
	fprintf(stderr, "guest:   %s '%s'\n", shown->kernel, shown->config.cmdline ? shown->config.cmdline : "");
	fprintf(stderr, "error:   %s\n", shown->error.text);
	fprintf(stderr, "end:     %s, value %u, '%s'\n", end_name(shown->result.end), shown->result.value,
		shown->result.text);
	fprintf(stderr, "log:\n%s", shown->log);
	tell_pump("serial port", shown->serial);
	tell_pump("debug console", shown->debugcon);
}

const char *end_name(enum vmlet_end end)
{
	static const char *const names[] = {"none",       "power-off", "reboot",    "panic",      "triple fault",
					    "debug exit", "stopped",   "KVM error", "host error", "timeout"};

	return (unsigned)end < sizeof(names) / sizeof(names[0]) ? names[end] : "?";
}

void guest_path(char *ret_path, size_t size, const char *guest)
{
	CHECK((size_t)snprintf(ret_path, size, "%s/guest-%s", GUESTS_DIR, guest) < size, "path too long");
}

static void keep_log(void *ctx, enum vmlet_log_level level, const char *line)
{
	struct machine *machine = ctx;
	size_t used = strlen(machine->log);

	snprintf(machine->log + used, sizeof(machine->log) - used, "%d %s\n", (int)level, line);
}

void machine_init(struct machine *machine, const char *guest, const char *cmdline)
{
	int serial_in[2], serial_out[2], debug_out[2];

	memset(machine, 0, sizeof(*machine));
	guest_path(machine->kernel, sizeof(machine->kernel), guest);
	CHECK(pipe2(serial_in, O_CLOEXEC) == 0 && pipe2(serial_out, O_CLOEXEC) == 0 && pipe2(debug_out, O_CLOEXEC) == 0,
	      "%s", strerror(errno));
	vmlet_config_init(&machine->config);
	machine->config.kernel = machine->kernel;
	machine->config.cmdline = cmdline;
	machine->config.serial =
		(struct vmlet_serial){.kind = VMLET_SERIAL_FD, .in_fd = serial_in[0], .out_fd = serial_out[1]};
	machine->config.debugcon = (struct vmlet_serial){.kind = VMLET_SERIAL_FD, .in_fd = -1, .out_fd = debug_out[1]};
	machine->config.log = keep_log;
	machine->config.log_ctx = machine;
	machine->borrowed[0] = serial_in[0];
	machine->borrowed[1] = serial_out[1];
	machine->borrowed[2] = debug_out[1];
	machine->serial_in = serial_in[1];
	machine->read_fds[0] = serial_out[0];
	machine->read_fds[1] = debug_out[0];
	shown = machine;
	runner_on_failure = tell_machine;
}

void machine_start(struct machine *machine)
{
	machine->serial = pump_start(machine->read_fds[0], machine->pace);
	machine->debugcon = pump_start(machine->read_fds[1], (struct pump_pace){0});
	machine->vm = vmlet_new(&machine->config, &machine->error);
	CHECK(machine->vm, "vmlet_new: %s", machine->error.text);
	CHECK(vmlet_start(machine->vm, &machine->error) == 0, "vmlet_start: %s", machine->error.text);
}

static void close_pipes(struct machine *machine)
{
	for (int i = 0; i < 3; i++) {
		if (machine->borrowed[i] >= 0)
			close(machine->borrowed[i]);
		machine->borrowed[i] = -1;
	}
	if (machine->serial_in >= 0)
		close(machine->serial_in);
	machine->serial_in = -1;
}

void machine_run(struct machine *machine)
{
	int r = vmlet_run(machine->vm, &machine->result);

	CHECK(r == 0, "vmlet_run: %s", strerror(-r));
}

static void serve_once(struct machine *machine, unsigned timeout_ms)
{
	struct pollfd fd = {.fd = vmlet_get_fd(machine->vm), .events = POLLIN};
	int r;

	poll(&fd, 1, (int)timeout_ms);
	r = vmlet_dispatch(machine->vm);
	vmlet_get_result(machine->vm, &machine->result);
	CHECK(r == 0, "vmlet_dispatch returned %d", r);
}

void machine_serve_until(struct machine *machine, const char *text)
{
	machine_serve_until_times(machine, text, 1);
}

void machine_serve_until_times(struct machine *machine, const char *text, unsigned times)
{
	uint64_t deadline = now_ms() + 20000;

	/* What the pump has to come by is not in our hands, so a short sleep in between. */
	while (!pump_wait(machine->serial, text, times, 1)) {
		CHECK(now_ms() < deadline, "no '%s' in 20 s", text);
		serve_once(machine, 10);
	}
}

void machine_serve_ms(struct machine *machine, unsigned ms)
{
	for (uint64_t end = now_ms() + ms; now_ms() < end;)
		serve_once(machine, 10);
}

void machine_end(struct machine *machine)
{
	vmlet_free(machine->vm);
	machine->vm = NULL;
	close_pipes(machine);
	pump_finish(machine->serial);
	pump_finish(machine->debugcon);
}

void machine_expect(struct machine *machine, enum vmlet_end end, uint32_t value)
{
	machine_start(machine);
	machine_run(machine);
	machine_end(machine);
	CHECK(machine->result.end == end && machine->result.value == value, "expected %s with %u, it was %s with %u",
	      end_name(end), value, end_name(machine->result.end), machine->result.value);
	CHECK(machine->result.text[0], "the result has a sentence");
}

const char *machine_output(const struct machine *machine)
{
	return machine->serial->text;
}

const char *machine_debug_output(const struct machine *machine)
{
	return machine->debugcon->text;
}

void machine_free(struct machine *machine)
{
	if (machine->vm)
		machine_end(machine);
	if (!machine->serial) { /* it was never started */
		close_pipes(machine);
		close(machine->read_fds[0]);
		close(machine->read_fds[1]);
	}
	pump_free(machine->serial);
	pump_free(machine->debugcon);
	machine->serial = machine->debugcon = NULL;
	shown = NULL;
}
