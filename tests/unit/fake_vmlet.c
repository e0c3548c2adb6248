/*
 * A libvmlet without KVM, for the tests of the command line. Its "guest" is in the kernel's name: "poweroff",
 * "exit:N" and so on end at once; "echo" writes its input back until it reads 'q' (and says OPEN first, then the end
 * of its input); "disks", "nets" and "consoles" write down what they were given; "hvc" writes to the first console the
 * size that it is told, until it reads 'q' there; "abort" and "segv" are our own bugs; "nokernel", "nokvm" and
 * "nostart" fail.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <vmlet.h>

struct vmlet {
	struct vmlet_config config;
	int pipe[2];
	struct vmlet_result result;
	char disks[1024], nets[1024], consoles[1024];
	struct vmlet_console hvc0;
	int epoll; /* of "hvc": readable when it has something to do */
	int typed[2];
	int has_begun;
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

void vmlet_net_init_sized(struct vmlet_net *net, size_t struct_size)
{
	memset(net, 0, struct_size);
	net->struct_size = struct_size;
	net->fd = -1;
	net->queues = 1;
}

static void describe_nets(const struct vmlet_config *config, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "%zu cards\r\n", config->net_count);

	for (size_t i = 0; i < config->net_count && used < size; i++) {
		const struct vmlet_net *n = config->nets[i];

		used += (size_t)snprintf(
			text + used, size - used,
			"%d %s fd%d id=%s mac..%02x mtu%u queues%u down%d packed%d %llu:%llu %llu:%llu", n->kind,
			n->path ? n->path : "-", n->fd, n->id ? n->id : "-", n->mac[5], n->mtu, n->queues, n->link_down,
			n->packed, (unsigned long long)n->packets_per_s, (unsigned long long)n->packets_burst,
			(unsigned long long)n->bandwidth_bytes, (unsigned long long)n->bandwidth_burst_bytes);
		for (size_t j = 0; j < n->publish_count && used < size; j++)
			used += (size_t)snprintf(text + used, size - used, " %s", n->publish[j]);
		if (used < size)
			used += (size_t)snprintf(text + used, size - used, "\r\n");
	}
}

void vmlet_console_init_sized(struct vmlet_console *console, size_t struct_size)
{
	memset(console, 0, struct_size);
	console->struct_size = struct_size;
	console->backend.in_fd = console->backend.out_fd = -1;
}

static void describe_consoles(const struct vmlet_config *config, char *text, size_t size)
{
	size_t used = (size_t)snprintf(
		text, size,
		"serial %d status%d balloon%d:%llu:%d:%d vsock %s:%u:%llu:%llu:%llu:%llu rng%d:%llu packed%d%d%d%d\r\n",
		config->serial.kind, config->status_port, config->balloon.enabled,
		(unsigned long long)config->balloon.target_bytes, config->balloon.deflate_on_oom,
		config->balloon.reporting, config->vsock.path ? config->vsock.path : "-", config->vsock.cid,
		(unsigned long long)config->vsock.bandwidth_bytes,
		(unsigned long long)config->vsock.bandwidth_burst_bytes,
		(unsigned long long)config->vsock.packets_per_s, (unsigned long long)config->vsock.packets_burst,
		config->rng.enabled, (unsigned long long)config->rng.bandwidth_bytes, config->consoles_packed,
		config->balloon.packed, config->vsock.packed, config->rng.packed);

	for (size_t i = 0; i < config->console_count && used < size; i++) {
		const struct vmlet_console *c = config->consoles[i];

		used += (size_t)snprintf(
			text + used, size - used, "%s %d %s in%d out%d bw%llu:%llu\r\n", c->name ? c->name : "-",
			c->backend.kind, c->backend.path ? c->backend.path : "-", c->backend.in_fd, c->backend.out_fd,
			(unsigned long long)c->bandwidth_bytes, (unsigned long long)c->bandwidth_burst_bytes);
	}
}

const char *vmlet_net_interface(const struct vmlet *vm, const char *id)
{
	static char name[32]; /* the process has one VM */

	(void)vm;
	snprintf(name, sizeof(name), "tap-of-%s", id);
	return name;
}

const char *vmlet_console_path(const struct vmlet *vm, unsigned console)
{
	static char path[32]; /* the same */

	(void)vm;
	snprintf(path, sizeof(path), "/dev/pts/fake%u", console);
	return path;
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
	if (!vm || pipe(vm->pipe) < 0 || pipe(vm->typed) < 0)
		abort();
	vm->config = *config;
	describe_disks(config, vm->disks, sizeof(vm->disks));
	describe_nets(config, vm->nets, sizeof(vm->nets));
	describe_consoles(config, vm->consoles, sizeof(vm->consoles));
	if (config->console_count > 0)
		vm->hvc0 = *config->consoles[0];
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

/* Past the serial port, which may go nowhere. */
static void tell(struct vmlet *vm, const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		abort();
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
		tell(vm, vm->disks);
	else if (strcmp(kernel, "nets") == 0)
		tell(vm, vm->nets);
	else if (strcmp(kernel, "consoles") == 0)
		tell(vm, vm->consoles);
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

/* --- "hvc", which is served in small steps --- */

static void put_on_hvc(struct vmlet *vm, const char *text, size_t size)
{
	const struct vmlet_serial *backend = &vm->hvc0.backend;

	if (write(backend->out_fd, text, size) < 0)
		abort();
	if (backend->output_tap)
		backend->output_tap(backend->output_tap_ctx, (const uint8_t *)text, size);
}

static void begin_hvc(struct vmlet *vm)
{
	char text[64];

	vm->has_begun = 1;
	put_on_hvc(vm, text, (size_t)snprintf(text, sizeof(text), "OPEN %ux%u\r\n", vm->hvc0.rows, vm->hvc0.columns));
}

static int is_readable(int fd)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};

	return poll(&pollfd, 1, 0) > 0;
}

static void serve_hvc(struct vmlet *vm)
{
	const struct vmlet_serial *backend = &vm->hvc0.backend;
	uint8_t data[16];
	ssize_t n;

	if (!vm->has_begun)
		begin_hvc(vm);
	if (is_readable(vm->pipe[0])) {
		vm->result.end = VMLET_END_STOPPED;
		if (read(vm->pipe[0], &vm->result.value, 4) != 4)
			abort();
	}
	if (is_readable(vm->typed[0])) {
		n = read(vm->typed[0], data, sizeof(data));
		put_on_hvc(vm, (const char *)data, (size_t)n);
	}
	if (backend->in_fd < 0 || !is_readable(backend->in_fd))
		return;
	n = read(backend->in_fd, data, sizeof(data));
	if (n > 0 && backend->input_filter)
		n = (ssize_t)backend->input_filter(backend->input_filter_ctx, data, (size_t)n);
	if (n > 0 && memchr(data, 'q', (size_t)n))
		vm->result.end = VMLET_END_POWEROFF;
	if (n > 0)
		put_on_hvc(vm, (const char *)data, (size_t)n);
}

static int is_hvc(const struct vmlet *vm)
{
	return strcmp(vm->config.kernel, "hvc") == 0;
}

/* The others serve themselves in vmlet_run only; nothing watches them. */
int vmlet_get_fd(struct vmlet *vm)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (!is_hvc(vm))
		return vm->pipe[0];
	if (vm->epoll == 0) {
		vm->epoll = epoll_create1(0);
		epoll_ctl(vm->epoll, EPOLL_CTL_ADD, vm->pipe[0], &event);
		epoll_ctl(vm->epoll, EPOLL_CTL_ADD, vm->typed[0], &event);
		epoll_ctl(vm->epoll, EPOLL_CTL_ADD, vm->hvc0.backend.in_fd, &event); /* not of a file */
	}
	return vm->epoll;
}

int vmlet_dispatch(struct vmlet *vm)
{
	if (!is_hvc(vm))
		return vmlet_run(vm, &vm->result) < 0 ? -EIO : 1;
	serve_hvc(vm);
	return vm->result.end != VMLET_END_NONE;
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
	char text[64];

	int n = snprintf(text, sizeof(text), "typed at %d: %.*s\r\n", console, (int)size, (const char *)data);

	if (write(vm->typed[1], text, (size_t)n) != n)
		abort();
	return (int)size;
}

void vmlet_free(struct vmlet *vm)
{
	if (!vm)
		return;
	close(vm->pipe[0]);
	close(vm->pipe[1]);
	close(vm->typed[0]);
	close(vm->typed[1]);
	free(vm);
}

int vmlet_set_window_size(struct vmlet *vm, uint16_t rows, uint16_t columns)
{
	char text[64];

	if (is_hvc(vm))
		put_on_hvc(vm, text, (size_t)snprintf(text, sizeof(text), "SIZE %ux%u\r\n", rows, columns));
	return 0;
}
