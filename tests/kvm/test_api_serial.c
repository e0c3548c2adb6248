/* The kinds of serial port: nothing, a file, a pseudo-terminal and a Unix socket, with peers that come, go and stall.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

static void expect_exit(struct machine *machine, uint32_t value)
{
	CHECK(machine->result.end == VMLET_END_DEBUG_EXIT && machine->result.value == value, "%s, %u",
	      end_name(machine->result.end), machine->result.value);
}

/* Serves the VM until `text` has been read from `fd`, which does not block. */
static void serve_until_read(struct machine *machine, int fd, const char *text)
{
	char got[4096] = "";
	size_t size = 0;
	uint64_t end = now_ms() + 10000;

	while (!memmem(got, size, text, strlen(text))) {
		ssize_t n = read(fd, got + size, sizeof(got) - size);

		CHECK(n > 0 || (n < 0 && errno == EAGAIN), "read: %s; until then '%.*s'", n ? strerror(errno) : "end",
		      (int)size, got);
		if (n > 0)
			size += (size_t)n;
		CHECK(now_ms() < end && size < sizeof(got), "no '%s' in '%.*s'", text, (int)size, got);
		machine_serve_ms(machine, 5);
	}
}

static void run_null(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "flood", "kib=8");
	machine.config.serial.kind = VMLET_SERIAL_NULL;
	machine.config.debugcon.kind = VMLET_SERIAL_NULL;
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	CHECK(machine_output(&machine)[0] == '\0', "the descriptors are not used");
	machine_free(&machine);
}

static void run_file(const void *arg)
{
	struct machine machine;
	char path[256], debug_path[256], text[65536 + 1];
	ssize_t n;
	int fd;

	(void)arg;
	temp_path(path, sizeof(path), "serial");
	temp_path(debug_path, sizeof(debug_path), "debugcon");
	memset(text, 'x', sizeof(text));
	write_file(path, text, sizeof(text)); /* longer than what comes: it is truncated */
	machine_init(&machine, "flood", "kib=16");
	machine.config.serial = (struct vmlet_serial){.kind = VMLET_SERIAL_FILE, .path = path};
	machine.config.debugcon = (struct vmlet_serial){.kind = VMLET_SERIAL_FILE, .path = debug_path};
	machine_start(&machine);
	CHECK(strcmp(vmlet_serial_path(machine.vm), path) == 0, "%s", vmlet_serial_path(machine.vm));
	machine_run(&machine);
	fd = open(path, O_RDONLY | O_CLOEXEC); /* all is there when vmlet_run returns */
	n = read(fd, text, sizeof(text));
	close(fd);
	CHECK(n == 16384, "%zd bytes", n);
	CHECK(memcmp(text + n - 32, "000001ff abcdefghijklmnopqrstuv\n", 32) == 0, "the last line");
	expect_exit(&machine, 0);
	CHECK(access(debug_path, F_OK) == 0, "the debug console's file");
	machine_free(&machine);
	temp_remove();
}

static int open_pty(const struct machine *machine)
{
	const char *path = vmlet_serial_path(machine->vm);
	int fd;

	CHECK(path && strncmp(path, "/dev/pts/", 9) == 0, "%s", path ? path : "no path");
	fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

static void run_pty(const void *arg)
{
	struct machine machine;
	struct termios modes;
	int fd;

	(void)arg;
	machine_init(&machine, "echo", NULL);
	machine.config.serial = (struct vmlet_serial){.kind = VMLET_SERIAL_PTY};
	machine_start(&machine);
	fd = open_pty(&machine);
	CHECK(tcgetattr(fd, &modes) == 0 && !(modes.c_lflag & (ECHO | ICANON)) && !(modes.c_oflag & OPOST),
	      "the pseudo-terminal is raw");
	machine_serve_ms(&machine, 250);
	write_all(fd, "ping\r\n\3\n", 8);
	serve_until_read(&machine, fd, "ping\r\n\3\n");
	write_all(fd, "\4", 1);
	machine_run(&machine);
	expect_exit(&machine, 0);
	close(fd);
	machine_free(&machine);
}

/* Nobody is there at first, then somebody, then nobody, then somebody again. */
static void run_pty_reopened(const void *arg)
{
	struct machine machine;
	int fd;

	(void)arg;
	machine_init(&machine, "echo", "irq=pic");
	machine.config.serial = (struct vmlet_serial){.kind = VMLET_SERIAL_PTY};
	machine_start(&machine);
	machine_serve_ms(&machine, 200);
	for (int i = 0; i < 3; i++) {
		char text[32];
		int size = snprintf(text, sizeof(text), "visit %d\n", i);

		fd = open_pty(&machine);
		write_all(fd, text, (size_t)size);
		serve_until_read(&machine, fd, text);
		close(fd);
		machine_serve_ms(&machine, 150);
	}
	fd = open_pty(&machine);
	write_all(fd, "\4", 1);
	machine_run(&machine);
	expect_exit(&machine, 0);
	close(fd);
	machine_free(&machine);
}

static int connect_unix(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0 && strlen(path) < sizeof(address.sun_path), "socket");
	memcpy(address.sun_path, path, strlen(path));
	CHECK(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s", path, strerror(errno));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void init_unix(struct machine *machine, const char *guest, const char *cmdline, char path[256])
{
	temp_path(path, 256, "socket");
	machine_init(machine, guest, cmdline);
	machine->config.serial = (struct vmlet_serial){.kind = VMLET_SERIAL_UNIX, .path = path};
}

static void run_unix(const void *arg)
{
	struct machine machine;
	char path[256];
	int fd;

	(void)arg;
	init_unix(&machine, "echo", NULL, path);
	machine_start(&machine);
	CHECK(strcmp(vmlet_serial_path(machine.vm), path) == 0, "%s", vmlet_serial_path(machine.vm));
	fd = connect_unix(path); /* before anything is served: it listens */
	write_all(fd, "hello\n", 6);
	serve_until_read(&machine, fd, "hello\n");
	write_all(fd, "\4", 1);
	machine_run(&machine);
	expect_exit(&machine, 0);
	CHECK(access(path, F_OK) == 0, "the socket is there as long as the VM");
	machine_free(&machine);
	CHECK(access(path, F_OK) < 0, "and then it is gone");
	CHECK(read(fd, path, 1) == 0, "and the peer sees the end");
	close(fd);
	temp_remove();
}

static void run_unix_reconnect(const void *arg)
{
	struct machine machine;
	char path[256];
	int fd, second;

	(void)arg;
	init_unix(&machine, "echo", "irq=ioapic", path);
	machine_start(&machine);
	for (int i = 0; i < 5; i++) {
		char text[32];
		int size = snprintf(text, sizeof(text), "visit %d\n", i);

		fd = connect_unix(path);
		write_all(fd, text, (size_t)size);
		serve_until_read(&machine, fd, text);
		close(fd);
	}
	/* One at a time: the second waits until the first has gone. */
	fd = connect_unix(path);
	second = connect_unix(path);
	write_all(second, "second\n", 7);
	write_all(fd, "first\n", 6);
	serve_until_read(&machine, fd, "first\n");
	close(fd);
	serve_until_read(&machine, second, "second\n");
	write_all(second, "\4", 1);
	machine_run(&machine);
	expect_exit(&machine, 0);
	machine_free(&machine);
	close(second);
	temp_remove();
}

/* A peer that goes while output is on its way, and does not read: the guest goes on. */
static void run_unix_vanishes(const void *arg)
{
	struct machine machine;
	char path[256];
	int fd;

	(void)arg;
	init_unix(&machine, "flood", "kib=32", path);
	machine_start(&machine);
	fd = connect_unix(path);
	serve_until_read(&machine, fd, " abcdef"); /* what came before the accept is lost */
	close(fd);                                 /* with unread data: the library gets ECONNRESET or EPIPE */
	fd = connect_unix(path);
	serve_until_read(&machine, fd, " abcdef");
	close(fd);
	machine_run(&machine);
	expect_exit(&machine, 0);
	machine_free(&machine);
	temp_remove();
}

/* A peer that never reads: the guest ends, and the end waits for the peer a little, not for ever. */
static void run_unix_deaf(const void *arg)
{
	struct machine machine;
	char path[256], byte;
	uint64_t start;
	int fd;

	(void)arg;
	init_unix(&machine, "flood", "kib=64", path); /* far more than a socket takes in writes of a few bytes */
	machine_start(&machine);
	fd = connect_unix(path);
	start = now_ms();
	machine_run(&machine);
	expect_exit(&machine, 0);
	CHECK(now_ms() - start > 1000, "it waited only %u ms", (unsigned)(now_ms() - start));
	CHECK(now_ms() - start < 20000, "the end took %u ms", (unsigned)(now_ms() - start));
	CHECK(read(fd, &byte, 1) == 1, "what was taken can be read");
	machine_free(&machine);
	close(fd);
	temp_remove();
}

/* --- the input filter, missing descriptors, the end of input --- */

static size_t drop_vowels(void *ctx, uint8_t *data, size_t size)
{
	size_t kept = 0;

	*(size_t *)ctx += size;
	for (size_t i = 0; i < size; i++)
		if (!strchr("aeiou", data[i]))
			data[kept++] = data[i] == '!' ? 4 : data[i];
	return kept;
}

static void run_filter(const void *arg)
{
	struct machine machine;
	size_t seen = 0;

	(void)arg;
	machine_init(&machine, "echo", NULL);
	machine.config.serial.input_filter = drop_vowels;
	machine.config.serial.input_filter_ctx = &seen;
	machine_start(&machine);
	machine_serve_until(&machine, "\n");
	write_all(machine.serial_in, "aaaa", 4); /* nothing is left of this */
	machine_serve_ms(&machine, 50);
	write_all(machine.serial_in, "lorem ipsum dolor\n!", 19);
	machine_run(&machine);
	machine_end(&machine);
	expect_exit(&machine, 0);
	CHECK(strstr(machine_output(&machine), "\nlrm psm dlr\n"), "%s", machine_output(&machine));
	CHECK(seen == 23, "the filter saw %zu bytes", seen);
	machine_free(&machine);
}

static void run_no_descriptors(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "flood", "kib=4");
	machine.config.serial = (struct vmlet_serial){.kind = VMLET_SERIAL_FD, .in_fd = -1, .out_fd = -1};
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	machine_free(&machine);

	machine_init(&machine, "exit-status", "status=3");
	machine.config.serial.in_fd = 999999; /* not open */
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 3);
	machine_free(&machine);

	machine_init(&machine, "exit-status", "status=4");
	machine.config.serial.out_fd = machine.read_fds[0]; /* not for writing */
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 4);
	machine_free(&machine);
}

/* The end of input is not the end of the VM, and costs no time. */
static void run_input_end(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "flood", "kib=8");
	close(machine.serial_in);
	machine.serial_in = -1;
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, 0);
	CHECK(strlen(machine_output(&machine)) == 8192, "%zu bytes", strlen(machine_output(&machine)));
	machine_free(&machine);
}

static const struct test tests[] = {
	TEST("null", run_null, NULL),
	TEST("file", run_file, NULL),
	TEST("pty", run_pty, NULL),
	TEST("pty-reopened", run_pty_reopened, NULL),
	TEST("unix", run_unix, NULL),
	TEST("unix-reconnect", run_unix_reconnect, NULL),
	TEST("unix-vanishes", run_unix_vanishes, NULL),
	TEST("unix-deaf", run_unix_deaf, NULL),
	TEST("filter", run_filter, NULL),
	TEST("no-descriptors", run_no_descriptors, NULL),
	TEST("input-end", run_input_end, NULL),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
