/* virtio-console through the library: a guest with a driver of its own talks to a socket and ends by the status port.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

enum { STATUS = 42 };

struct console_test {
	enum vmlet_transport transport;
	bool with_port; /* a named one beside the console, and before it in the configuration */
};

static void add_consoles(struct machine *machine, struct vmlet_console items[2], const struct vmlet_console *list[2],
			 int fd, bool with_port)
{
	vmlet_console_init(&items[0]);
	vmlet_console_init(&items[1]);
	items[0].backend.kind = VMLET_SERIAL_FD;
	items[0].backend.in_fd = items[0].backend.out_fd = fd;
	items[0].rows = 33;
	items[0].columns = 111;
	items[1].name = "org.test.port";
	list[0] = with_port ? &items[1] : &items[0];
	list[1] = &items[0];
	machine->config.consoles = list;
	machine->config.console_count = with_port ? 2 : 1;
}

/* What is typed before anybody listens is not lost. */
static void run_console(const void *arg)
{
	const struct console_test *test = arg;
	bool is_mmio = test->transport == VMLET_TRANSPORT_MMIO;
	struct machine machine;
	struct vmlet_console items[2];
	const struct vmlet_console *list[2];
	char text[256] = "";
	int fds[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "%s", strerror(errno));
	write_all(fds[1], "hello there\n", 12);
	machine_init(&machine, "console", is_mmio ? "status=42 transport=mmio mmio=0xe8000000" : "status=42");
	machine.config.transport = test->transport;
	add_consoles(&machine, items, list, fds[0], test->with_port);
	machine_expect(&machine, VMLET_END_DEBUG_EXIT, STATUS);
	CHECK(strstr(machine_output(&machine), "size 111 x 33\n"), "no size in '%s'", machine_output(&machine));
	machine_free(&machine);
	close(fds[0]);
	for (size_t size = 0; size < sizeof(text) - 1;) {
		ssize_t got = read(fds[1], text + size, sizeof(text) - 1 - size);

		if (got <= 0)
			break;
		size += (size_t)got;
	}
	CHECK(strcmp(text, "say something\nhello there\n") == 0, "'%s' came out", text);
	close(fds[1]);
}

int main(int argc, char **argv)
{
	static const struct console_test pci = {VMLET_TRANSPORT_PCI, false}, mmio = {VMLET_TRANSPORT_MMIO, false},
					 port = {VMLET_TRANSPORT_PCI, true};
	static const struct test tests[] = {
		TEST("pci", run_console, &pci),
		TEST("mmio", run_console, &mmio),
		TEST("port", run_console, &port),
		TEST(NULL, NULL, NULL),
	};

	return runner_main(argc, argv, tests);
}
