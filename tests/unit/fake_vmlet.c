/*
 * A libvmlet without KVM, for the tests of the command line. Its "guest" is in the kernel's name: "poweroff",
 * "exit:N" and so on end at once; "echo" writes its input back until it reads 'q' (and says OPEN first, then the end
 * of its input); "disks" writes down what it was given; "abort" and "segv" are our own bugs; "nokernel", "nokvm" and
 * "nostart" fail.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmlet.h>

struct vmlet {
	struct vmlet_config config;
	int pipe[2];
	struct vmlet_result result;
	char disks[1024];
};

const char *vmlet_version(void)
{
	return "0.0.fake";
}

void vmlet_config_init_sized(struct vmlet_config *config, size_t struct_size)
{
	memset(config, 0, struct_size);
	config->struct_size = struct_size;
	config->memory_bytes = 256 << 20;
	config->cpus = 1;
	config->serial.in_fd = config->serial.out_fd = -1;
}

void vmlet_disk_init_sized(struct vmlet_disk *disk, size_t struct_size)
{
	memset(disk, 0, struct_size);
	disk->struct_size = struct_size;
	disk->queues = 1;
}

/* The fake keeps only the configuration, not what it points to. */
static void describe_disks(const struct vmlet_config *config, char *text, size_t size)
{
	size_t used =
		(size_t)snprintf(text, size, "transport %d iothreads %u\r\n", config->transport, config->iothreads);

	for (size_t i = 0; i < config->disk_count && used < size; i++) {
		const struct vmlet_disk *d = config->disks[i];

		used += (size_t)snprintf(
			text + used, size - used,
			"%d %s id=%s serial=%s ro%d direct%d overlay%d=%s cache%d queues%u packed%d %llu:%llu "
			"%llu:%llu\r\n",
			d->kind, d->path, d->id ? d->id : "-", d->serial ? d->serial : "-", d->read_only, d->direct,
			d->overlay, d->overlay_path ? d->overlay_path : "-", d->cache, d->queues, d->packed,
			(unsigned long long)d->iops, (unsigned long long)d->iops_burst,
			(unsigned long long)d->bandwidth_bytes, (unsigned long long)d->bandwidth_burst_bytes);
	}
}

static int refuse(struct vmlet_error *error, enum vmlet_error_kind kind, const char *text)
{
	error->kind = kind;
	error->code = -EINVAL;
	snprintf(error->text, sizeof(error->text), "%s", text);
	return -EINVAL;
}

struct vmlet *vmlet_new(const struct vmlet_config *config, struct vmlet_error *error)
{
	struct vmlet *vm;

	if (strcmp(config->kernel, "nokernel") == 0) {
		refuse(error, VMLET_ERROR_CONFIG, "kernel 'nokernel': not\na kernel");
		return NULL;
	}
	if (strcmp(config->kernel, "nokvm") == 0) {
		refuse(error, VMLET_ERROR_HOST, "open '/dev/kvm': No such file or directory");
		return NULL;
	}
	vm = calloc(1, sizeof(*vm));
	if (!vm || pipe(vm->pipe) < 0)
		abort();
	vm->config = *config;
	describe_disks(config, vm->disks, sizeof(vm->disks));
	return vm;
}

int vmlet_start(struct vmlet *vm, struct vmlet_error *error)
{
	if (strcmp(vm->config.kernel, "nostart") == 0)
		return refuse(error, VMLET_ERROR_KVM, "KVM lacks something");
	return 0;
}

void vmlet_stop(struct vmlet *vm, uint32_t value)
{
	if (write(vm->pipe[1], &value, sizeof(value)) < 0)
		_exit(99);
}

int vmlet_press_power_button(struct vmlet *vm)
{
	vm->result.end = VMLET_END_POWEROFF;
	return 0;
}

const char *vmlet_serial_path(const struct vmlet *vm)
{
	(void)vm;
	return "/dev/pts/fake";
}

static void put(struct vmlet *vm, const void *data, size_t size)
{
	if (write(vm->config.serial.out_fd, data, size) < 0)
		vm->config.serial.out_fd = -1;
}

static void tell_disks(struct vmlet *vm)
{
	put(vm, vm->disks, strlen(vm->disks));
	vm->result.end = VMLET_END_POWEROFF;
}

/* False at the end of the input. */
static int echo_some(struct vmlet *vm)
{
	struct vmlet_serial *serial = &vm->config.serial;
	uint8_t data[16];
	ssize_t n = read(serial->in_fd, data, sizeof(data));
	size_t size;

	if (n <= 0)
		return 0;
	size = (size_t)n;
	if (serial->input_filter)
		size = serial->input_filter(serial->input_filter_ctx, data, size);
	put(vm, data, size);
	if (memchr(data, 'q', size))
		vm->result.end = VMLET_END_POWEROFF;
	return 1;
}

static void echo(struct vmlet *vm)
{
	struct pollfd fds[2] = {
		{.fd = vm->pipe[0], .events = POLLIN},
		{.fd = vm->config.serial.in_fd, .events = POLLIN},
	};

	put(vm, "OPEN", 4);
	while (vm->result.end == VMLET_END_NONE) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents) {
			vm->result.end = VMLET_END_STOPPED;
			if (read(vm->pipe[0], &vm->result.value, 4) != 4)
				abort();
		} else if (!echo_some(vm)) {
			put(vm, "EOF", 3);
			fds[1].fd = -1;
		}
	}
}

/* The first stop is heard, and then nothing happens. */
static void hang(struct vmlet *vm)
{
	put(vm, "OPEN", 4);
	for (;;)
		pause();
}

int vmlet_run(struct vmlet *vm, struct vmlet_result *result)
{
	const char *kernel = vm->config.kernel;

	if (vm->config.log)
		vm->config.log(vm->config.log_ctx, VMLET_LOG_WARN, "a \033 line");
	if (strcmp(kernel, "echo") == 0)
		echo(vm);
	else if (strcmp(kernel, "hang") == 0)
		hang(vm);
	else if (strcmp(kernel, "disks") == 0)
		tell_disks(vm);
	else if (strcmp(kernel, "abort") == 0)
		abort();
	else if (strcmp(kernel, "segv") == 0)
		raise(SIGSEGV);
	else if (strcmp(kernel, "panic") == 0)
		vm->result.end = VMLET_END_PANIC;
	else if (strcmp(kernel, "poweroff") == 0)
		vm->result.end = VMLET_END_POWEROFF;
	else if (strncmp(kernel, "exit:", 5) == 0)
		vm->result = (struct vmlet_result){.end = VMLET_END_DEBUG_EXIT, .value = (uint32_t)atoi(kernel + 5)};
	else
		return -EIO;
	*result = vm->result;
	return 0;
}

/* It serves itself in vmlet_run only; nothing watches it. */
int vmlet_get_fd(struct vmlet *vm)
{
	return vm->pipe[0];
}

int vmlet_dispatch(struct vmlet *vm)
{
	return vmlet_run(vm, &vm->result) < 0 ? -EIO : 1;
}

void vmlet_get_result(const struct vmlet *vm, struct vmlet_result *result)
{
	*result = vm->result;
}

void vmlet_get_stats(const struct vmlet *vm, struct vmlet_stats *stats)
{
	(void)vm;
	*stats = (struct vmlet_stats){0};
}

int vmlet_type(struct vmlet *vm, int console, const void *data, size_t size)
{
	(void)console;
	(void)console;
	(void)vm;
	(void)data;
	return (int)size;
}

void vmlet_free(struct vmlet *vm)
{
	if (!vm)
		return;
	close(vm->pipe[0]);
	close(vm->pipe[1]);
	free(vm);
}

int vmlet_set_window_size(struct vmlet *vm, uint16_t rows, uint16_t columns)
{
	(void)vm;
	(void)rows;
	(void)columns;
	return 0;
}
