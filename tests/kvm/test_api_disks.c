/* Disks through the library, with a bare-metal guest that drives them: both transports, I/O threads, errors, life. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit/nbd_server.h"
#include "machine.h"
#include "runner.h"

#define MMIO_ARGS "transport=mmio mmio=0xe8000000 "

enum { DISKS_MAX = 32, MIB = 1 << 20, IMAGE_MIB = 4 };

struct rig {
	struct machine machine;
	struct vmlet_disk disks[DISKS_MAX];
	const struct vmlet_disk *list[DISKS_MAX];
	char paths[DISKS_MAX][128];
	char cmdline[256];
};

static struct rig rig;

static void make_image(const char *path, unsigned mib)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)mib * MIB) == 0, "%s: %s", path, strerror(errno));
	close(fd);
}

/* A machine with `count` images of their own. */
static void rig_init(const char *guest, const char *cmdline, unsigned count)
{
	memset(&rig, 0, sizeof(rig));
	snprintf(rig.cmdline, sizeof(rig.cmdline), "%s", cmdline);
	machine_init(&rig.machine, guest, rig.cmdline);
	if (strstr(cmdline, "transport=mmio"))
		rig.machine.config.transport = VMLET_TRANSPORT_MMIO;
	for (unsigned i = 0; i < count; i++) {
		char name[32];

		snprintf(name, sizeof(name), "disk%u.img", i);
		temp_path(rig.paths[i], sizeof(rig.paths[i]), name);
		make_image(rig.paths[i], IMAGE_MIB);
		vmlet_disk_init(&rig.disks[i]);
		rig.disks[i].path = rig.paths[i];
		rig.list[i] = &rig.disks[i];
	}
	rig.machine.config.disks = rig.list;
	rig.machine.config.disk_count = count;
}

static void rig_ends_well(void)
{
	machine_expect(&rig.machine, VMLET_END_DEBUG_EXIT, 0);
	machine_free(&rig.machine);
}

static bool has_thread(const char *name)
{
	char command[128];

	snprintf(command, sizeof(command), "grep -qx '%s' /proc/%d/task/*/comm", name, (int)getpid());
	return system(command) == 0; /* NOLINT: a test's own words */
}

/* --- a guest that looks at everything --- */

struct check {
	const char *cmdline;
	unsigned count, iothreads;
	bool packed, direct, read_only, overlay;
	unsigned queues;
};

static void run_check(const void *arg)
{
	const struct check *check = arg;

	rig_init("blk-check", check->cmdline, check->count);
	rig.machine.config.iothreads = check->iothreads;
	for (unsigned i = 0; i < check->count; i++) {
		rig.disks[i].packed = check->packed;
		rig.disks[i].direct = check->direct;
		rig.disks[i].read_only = check->read_only;
		rig.disks[i].overlay = check->overlay;
		rig.disks[i].serial = "number 20 bytes long";
		if (check->queues)
			rig.disks[i].queues = check->queues;
	}
	rig_ends_well();
	temp_remove();
}

static const struct check pci = {.cmdline = "expect-sectors=8192", .count = 1};
static const struct check mmio = {.cmdline = MMIO_ARGS, .count = 1};
static const struct check read_only = {.cmdline = "", .count = 1, .read_only = true};
static const struct check overlay = {.cmdline = "", .count = 1, .overlay = true};
static const struct check queues = {.cmdline = "", .count = 1, .queues = 16, .packed = true};
static const struct check first_iothread = {.cmdline = "disk=0", .count = 2, .iothreads = 2};
static const struct check second_iothread = {.cmdline = "disk=1", .count = 2, .iothreads = 2};
static const struct check mmio_iothread = {
	.cmdline = MMIO_ARGS "what=info,write,verify,reset", .count = 1, .iothreads = 1};
static const struct check last_of_31 = {
	.cmdline = "disk=30 what=info,write,verify,reset,msix", .count = 31, .iothreads = 3};

/* --- errors --- */

static void refuse(const char *format, const char *path)
{
	char want[512];
	struct vmlet_error error = {0};

	snprintf(want, sizeof(want), format, path);
	CHECK(!vmlet_new(&rig.machine.config, &error), "'%s' is opened", path);
	CHECK(strstr(error.text, want) && error.code < 0, "'%s' (%d) instead of '%s'", error.text, error.code, want);
}

static void run_errors(const void *arg)
{
	unsigned fds = count_fds(), threads = count_threads();

	(void)arg;
	rig_init("exit", "", 3);
	rig.machine.config.iothreads = 2;
	rig.disks[2].path = "/nonexistent/image";
	refuse("disk '%s'", "/nonexistent/image");
	refuse("%s", "No such file or directory");
	rig.disks[2].path = temp_dir();
	refuse("disk '%s'", temp_dir());
	rig.disks[2].path = rig.paths[2];
	chmod(rig.paths[2], 0400);
	rig.disks[2].overlay = true;
	rig.disks[2].overlay_path = "/nonexistent/overlay";
	refuse("%s", "/nonexistent/overlay");
	rig.disks[2].overlay = false;
	rig.disks[2].overlay_path = NULL;
	rig.disks[2].kind = VMLET_DISK_NBD;
	rig.disks[2].path = "unix:/nonexistent/socket";
	refuse("%s", "/nonexistent/socket");
	rig.disks[2].kind = VMLET_DISK_RAW;
	rig.disks[2].path = rig.paths[1]; /* twice in one machine */
	refuse("%s", rig.paths[1]);
	machine_free(&rig.machine);
	CHECK(count_fds() == fds, "%u descriptors were %u", count_fds(), fds);
	CHECK(count_threads() <= threads + 1, "%u threads were %u", count_threads(), threads);
	temp_remove();
}

static void run_two_vms(const void *arg)
{
	struct vmlet_error error = {0};
	struct vmlet *first, *second;

	(void)arg;
	rig_init("exit", "", 1);
	first = vmlet_new(&rig.machine.config, &error);
	CHECK(first, "%s", error.text);
	refuse("%s", rig.paths[0]);
	rig.disks[0].read_only = true;
	refuse("%s", rig.paths[0]);
	vmlet_free(first);
	first = vmlet_new(&rig.machine.config, &error);
	second = vmlet_new(&rig.machine.config, &error);
	CHECK(first && second, "two readers: %s", error.text);
	rig.disks[0].read_only = false;
	refuse("%s", rig.paths[0]);
	vmlet_free(first);
	vmlet_free(second);
	first = vmlet_new(&rig.machine.config, &error);
	CHECK(first, "%s", error.text);
	vmlet_free(first);
	machine_free(&rig.machine);
	temp_remove();
}

/* --- life --- */

static void run_reboot(const void *arg)
{
	const struct check *check = arg;
	unsigned fds = count_fds(), threads = count_threads();

	rig_init("blk-check", check->cmdline, check->count);
	rig.machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	rig.machine.config.iothreads = check->iothreads;
	rig_ends_well();
	CHECK(count_fds() == fds, "%u descriptors were %u", count_fds(), fds);
	CHECK(count_threads() <= threads + 1, "%u threads were %u", count_threads(), threads);
	temp_remove();
}

static const struct check reboot_pci = {.cmdline = "what=reboot", .count = 2};
static const struct check reboot_iothreads = {.cmdline = "what=reboot disk=1", .count = 2, .iothreads = 2};
static const struct check reboot_mmio = {.cmdline = MMIO_ARGS "what=reboot", .count = 1, .iothreads = 1};

static uint64_t requests_of(const char *id)
{
	struct vmlet_disk_counters counters;
	int r = vmlet_get_disk_counters(rig.machine.vm, id, &counters);

	CHECK(r == 0, "%s: %d", id, r);
	return counters.requests;
}

static void start_bench(const struct check *check)
{
	char cmdline[200];

	snprintf(cmdline, sizeof(cmdline), "%s hold op=randwrite bs=4096 depth=32 seconds=1000 tsc-khz=2000000",
		 check->cmdline);
	rig_init("blk-bench", cmdline, check->count);
	rig.machine.config.iothreads = check->iothreads;
	machine_start(&rig.machine);
	machine_serve_until(&rig.machine, "ready");
	write_all(rig.machine.serial_in, "g", 1);
	for (unsigned i = 0; i < 1000 && requests_of("disk0") + requests_of(check->count > 1 ? "disk1" : "disk0") < 100;
	     i++)
		machine_serve_ms(&rig.machine, 10);
	CHECK(requests_of("disk0") + requests_of(check->count > 1 ? "disk1" : "disk0") >= 100, "it does not run");
}

/* While it is paused, nothing new is asked for; then it goes on; then it is stopped, or just freed. */
static void run_io(const void *arg)
{
	const struct check *check = arg;
	const char *id = strstr(check->cmdline, "disk=1") ? "disk1" : "disk0";
	unsigned fds = count_fds(), threads = count_threads();
	uint64_t before;

	start_bench(check);
	for (unsigned i = 0; i < check->iothreads; i++)
		CHECK(has_thread(i ? "vmlet-io1" : "vmlet-io0"), "I/O thread %u", i);
	for (unsigned i = 0; i < 5; i++) {
		CHECK(vmlet_pause(rig.machine.vm) == 0, "pause");
		machine_serve_ms(&rig.machine, 30);
		before = requests_of(id);
		machine_serve_ms(&rig.machine, 50);
		CHECK(requests_of(id) == before, "a paused machine asks for more");
		CHECK(vmlet_resume(rig.machine.vm) == 0, "resume");
		for (unsigned ms = 0; ms < 5000 && requests_of(id) == before; ms += 10)
			machine_serve_ms(&rig.machine, 10);
		CHECK(requests_of(id) > before, "it does not go on");
	}
	if (!check->overlay) {
		vmlet_stop(rig.machine.vm, 7);
		machine_run(&rig.machine);
		CHECK(rig.machine.result.end == VMLET_END_STOPPED && rig.machine.result.value == 7, "stopped");
	}
	machine_free(&rig.machine);
	CHECK(count_fds() == fds, "%u descriptors were %u", count_fds(), fds);
	CHECK(count_threads() <= threads + 1, "%u threads were %u", count_threads(), threads);
	temp_remove();
}

static const struct check io_pci = {.cmdline = "", .count = 1};
static const struct check io_free = {.cmdline = "", .count = 1, .overlay = true};
static const struct check io_mmio = {.cmdline = MMIO_ARGS, .count = 1};
static const struct check io_iothreads = {.cmdline = "disk=1", .count = 2, .iothreads = 2};
static const struct check io_iothreads_free = {.cmdline = "disk=1", .count = 2, .iothreads = 2, .overlay = true};

/* The device is reset over and over with reads under way, while the machine is paused, resumed, and freed. */
static void run_storm(const void *arg)
{
	const struct check *check = arg;

	rig_init("blk-check", check->cmdline, check->count);
	rig.machine.config.iothreads = check->iothreads;
	machine_start(&rig.machine);
	machine_serve_until(&rig.machine, "storm");
	for (unsigned i = 0; i < 40; i++) {
		machine_serve_ms(&rig.machine, i % 7);
		CHECK(vmlet_pause(rig.machine.vm) == 0, "pause");
		(void)requests_of("disk0");
		CHECK(vmlet_resize_disk(rig.machine.vm, "disk0", &rig.machine.error) == 0, "resize");
		CHECK(vmlet_resume(rig.machine.vm) == 0, "resume");
	}
	if (check->overlay)
		vmlet_stop(rig.machine.vm, 0);
	machine_free(&rig.machine);
	temp_remove();
}

static const struct check storm_pci = {.cmdline = "what=storm", .count = 1};
static const struct check storm_mmio = {.cmdline = MMIO_ARGS "what=storm", .count = 1, .overlay = true};
static const struct check storm_iothread = {.cmdline = "what=storm", .count = 1, .iothreads = 1};
static const struct check storm_mmio_iothread = {
	.cmdline = MMIO_ARGS "what=storm", .count = 1, .iothreads = 1, .overlay = true};

/* --- a disk that never answers --- */

/* Takes requests, and answers none but the first few. */
static void deaf_script(struct nbd_server *server, int fd, unsigned number)
{
	static struct nbd_server_request request;

	(void)number;
	if (!nbd_server_handshake(server, fd))
		return;
	while (nbd_server_take(server, fd, &request)) {
		if (server->script_data)
			nbd_server_answer(server, fd, &request);
	}
}

/* A reset, a stop and a free with requests that will never be answered by the server. */
static void run_deaf(const void *arg)
{
	const struct check *check = arg;
	struct nbd_server *server = nbd_server_new();
	uint64_t begin;

	server->script = deaf_script;
	nbd_server_start(server);
	rig_init("blk-check", check->cmdline, 1);
	rig.machine.config.iothreads = check->iothreads;
	rig.disks[0].kind = VMLET_DISK_NBD;
	rig.disks[0].path = server->address;
	machine_start(&rig.machine);
	machine_serve_until(&rig.machine, "storm");
	machine_serve_ms(&rig.machine, 100);
	begin = now_ms();
	CHECK(vmlet_pause(rig.machine.vm) == 0, "pause");
	CHECK(vmlet_resume(rig.machine.vm) == 0, "resume");
	machine_serve_ms(&rig.machine, 20);
	vmlet_stop(rig.machine.vm, 1);
	machine_run(&rig.machine);
	machine_free(&rig.machine);
	CHECK(now_ms() - begin < 10000, "it took %llu ms", (unsigned long long)(now_ms() - begin));
	nbd_server_stop(server);
	temp_remove();
}

static const struct check deaf_iothread = {.cmdline = "what=storm", .iothreads = 1};

/* --- looking at it from outside --- */

static void run_resize(const void *arg)
{
	const struct check *check = arg;
	struct vmlet_error error = {0};

	rig_init("blk-check", check->cmdline, 2);
	rig.machine.config.iothreads = check->iothreads;
	rig.disks[0].id = "root";
	machine_start(&rig.machine);
	machine_serve_until(&rig.machine, "resize now");
	CHECK(vmlet_resize_disk(rig.machine.vm, "disk0", &error) == -ENOENT, "there is no disk0");
	CHECK(strcmp(error.text, "disk 'disk0': this VM has no disk of that id") == 0, "%s", error.text);
	make_image(rig.paths[0], 2 * IMAGE_MIB);
	CHECK(vmlet_resize_disk(rig.machine.vm, "root", &error) == 0, "%s", error.text);
	machine_run(&rig.machine);
	CHECK(rig.machine.result.end == VMLET_END_DEBUG_EXIT && rig.machine.result.value == 0, "value %u",
	      rig.machine.result.value);
	machine_free(&rig.machine);
	temp_remove();
}

static const struct check resize_pci = {.cmdline = "what=resize resize-to=16384"};
static const struct check resize_mmio = {.cmdline = MMIO_ARGS "what=resize resize-to=16384", .iothreads = 1};

static void run_counters(const void *arg)
{
	struct vmlet_disk_counters counters = {0};
	struct vmlet_error error;

	(void)arg;
	rig_init("blk-check", "what=write,verify,msix", 2);
	rig.machine.vm = vmlet_new(&rig.machine.config, &error);
	CHECK(rig.machine.vm, "%s", error.text);
	CHECK(vmlet_get_disk_counters(rig.machine.vm, "disk0", &counters) < 0, "before the start");
	CHECK(vmlet_resize_disk(rig.machine.vm, "disk0", &error) < 0, "before the start");
	vmlet_free(rig.machine.vm);
	machine_start(&rig.machine);
	machine_run(&rig.machine);
	CHECK(vmlet_get_disk_counters(rig.machine.vm, "disk0", &counters) == 0, "counters");
	CHECK(counters.requests >= 2 * 4096 / 128 + 50 && counters.doorbells > 0 && counters.interrupts >= 50 &&
		      counters.interrupts + counters.interrupts_spared == counters.requests,
	      "requests %llu, doorbells %llu, interrupts %llu + %llu", (unsigned long long)counters.requests,
	      (unsigned long long)counters.doorbells, (unsigned long long)counters.interrupts,
	      (unsigned long long)counters.interrupts_spared);
	CHECK(vmlet_get_disk_counters(rig.machine.vm, "disk1", &counters) == 0 && counters.requests == 0, "disk1");
	CHECK(vmlet_get_disk_counters(rig.machine.vm, "disk2", &counters) == -ENOENT, "disk2");
	machine_free(&rig.machine);
	temp_remove();
}

/* Made by one thread, run and freed by another. */
static void *serve_elsewhere(void *arg)
{
	struct machine *machine = arg;

	CHECK(vmlet_start(machine->vm, &machine->error) == 0, "%s", machine->error.text);
	machine_run(machine);
	vmlet_free(machine->vm);
	machine->vm = NULL;
	return NULL;
}

static void run_other_thread(const void *arg)
{
	pthread_t thread;

	(void)arg;
	rig_init("blk-check", "what=info,write,verify", 2);
	rig.disks[0].overlay = true;
	rig.disks[1].overlay = true;
	rig.disks[1].overlay_path = rig.paths[2];
	temp_path(rig.paths[2], sizeof(rig.paths[2]), "overlay");
	rig.machine.serial = pump_start(rig.machine.read_fds[0], rig.machine.pace);
	rig.machine.debugcon = pump_start(rig.machine.read_fds[1], rig.machine.pace);
	rig.machine.vm = vmlet_new(&rig.machine.config, &rig.machine.error);
	CHECK(rig.machine.vm, "%s", rig.machine.error.text);
	CHECK(pthread_create(&thread, NULL, serve_elsewhere, &rig.machine) == 0, "thread");
	pthread_join(thread, NULL);
	CHECK(rig.machine.result.end == VMLET_END_DEBUG_EXIT && rig.machine.result.value == 0, "value %u",
	      rig.machine.result.value);
	machine_end(&rig.machine);
	machine_free(&rig.machine);
	temp_remove();
}

static const struct test tests[] = {
	TEST("pci", run_check, &pci),
	TEST("mmio", run_check, &mmio),
	TEST("read-only", run_check, &read_only),
	TEST("overlay", run_check, &overlay),
	TEST("queues", run_check, &queues),
	TEST("first-iothread", run_check, &first_iothread),
	TEST("second-iothread", run_check, &second_iothread),
	TEST("mmio-iothread", run_check, &mmio_iothread),
	TEST("last-of-31", run_check, &last_of_31),
	TEST("errors", run_errors, NULL),
	TEST("two-vms", run_two_vms, NULL),
	TEST("reboot", run_reboot, &reboot_pci),
	TEST("reboot-iothreads", run_reboot, &reboot_iothreads),
	TEST("reboot-mmio", run_reboot, &reboot_mmio),
	TEST("io", run_io, &io_pci),
	TEST("io-free", run_io, &io_free),
	TEST("io-mmio", run_io, &io_mmio),
	TEST("io-iothreads", run_io, &io_iothreads),
	TEST("io-iothreads-free", run_io, &io_iothreads_free),
	TEST("storm", run_storm, &storm_pci),
	TEST("storm-mmio", run_storm, &storm_mmio),
	TEST("storm-iothread", run_storm, &storm_iothread),
	TEST("storm-mmio-iothread", run_storm, &storm_mmio_iothread),
	TEST("deaf", run_deaf, &storm_pci),
	TEST("deaf-iothread", run_deaf, &deaf_iothread),
	TEST("resize", run_resize, &resize_pci),
	TEST("resize-mmio", run_resize, &resize_mmio),
	TEST("counters", run_counters, NULL),
	TEST("other-thread", run_other_thread, NULL),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
