/*
 * The NBD client against servers that others wrote: qemu-nbd with a qcow2 image behind it, which is killed and started
 * again in the middle; nbdkit with filters that make it slow and faulty. Exit status 77 where none is installed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block.h"
#include "util.h"

enum {
	DISK_BYTES = 16 << 20,
	BLOCK_BYTES = 4096,
	BLOCKS = DISK_BYTES / BLOCK_BYTES,
	SKIPPED = 77,
};
static const uint64_t LIMIT_NS = 20000000000;

extern char **environ;

static struct loop *loop;
static struct block *block;
static char dir[64], socket_path[96], address[128], image[96];
static pid_t server_pid;

/* --- processes ------------------------------------------------------------------------------------------------ */

static bool is_installed(const char *name)
{
	static const char *const PLACES[] = {"/usr/bin",        "/usr/sbin", "/usr/local/bin",
					     "/usr/local/sbin", "/bin",      "/sbin"};
	for (size_t i = 0; i < ARRAY_SIZE(PLACES); i++) {
		char path[128];
		(void)snprintf(path, sizeof(path), "%s/%s", PLACES[i], name);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

static pid_t start(const char *const *argv)
{
	pid_t pid;
	posix_spawn_file_actions_t quiet;
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	assert_int_equal(posix_spawnp(&pid, argv[0], &quiet, NULL, (char *const *)argv, environ), 0);
	posix_spawn_file_actions_destroy(&quiet);
	return pid;
}

static void run_tool(const char *const *argv)
{
	int status;
	pid_t pid = start(argv);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void end_server(int signo)
{
	if (server_pid <= 0)
		return;
	kill(server_pid, signo);
	waitpid(server_pid, NULL, 0);
	server_pid = 0;
}

static void wait_for_socket(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, socket_path, strlen(socket_path));
	for (unsigned i = 0; i < 1000; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
		close(fd);
		if (r == 0)
			return;
		usleep(10000);
	}
	fail_msg("%s: no server", socket_path);
}

static void start_qemu_nbd(void)
{
	const char *argv[] = {"qemu-nbd",
			      "--persistent",
			      "--shared=4",
			      "--format=qcow2",
			      "--cache=writeback",
			      "--discard=unmap",
			      "--socket",
			      socket_path,
			      image,
			      NULL};
	unlink(socket_path);
	server_pid = start(argv);
}

static void open_block(void)
{
	struct err err = {0};
	struct block_nbd_config config = {.address = address, .reconnect_seconds = 10};
	wait_for_socket();
	block = block_nbd_open(loop, NULL, &config, &err);
	if (!block)
		print_message("%s\n", err.text);
	assert_non_null(block);
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new(NULL);
	block = NULL;
	(void)snprintf(dir, sizeof(dir), "/tmp/vmlet-nbd-XXXXXX");
	if (!loop || !mkdtemp(dir))
		return -1;
	(void)snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
	(void)snprintf(address, sizeof(address), "unix:%s", socket_path);
	(void)snprintf(image, sizeof(image), "%s/image.qcow2", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	block_free(block);
	loop_free(loop);
	end_server(SIGTERM);
	char raw[128];
	(void)snprintf(raw, sizeof(raw), "%s/image.raw", dir);
	unlink(raw);
	unlink(image);
	unlink(socket_path);
	return rmdir(dir);
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

struct test_request {
	struct block_request request;
	struct iovec iov;
	unsigned times;
	int res;
	unsigned at; /* block */
	uint32_t value;
	uint32_t data[BLOCK_BYTES / sizeof(uint32_t)];
};

static void on_done(struct block_request *request, int res)
{
	struct test_request *t = container_of(request, struct test_request, request);
	t->times++;
	t->res = res;
}

static void submit(struct test_request *t, enum block_op op, unsigned at, uint32_t value)
{
	bool flush = op == BLOCK_FLUSH;
	t->times = 0;
	t->at = at;
	t->value = value;
	t->iov = (struct iovec){t->data, BLOCK_BYTES};
	t->request = (struct block_request){.op = op, .iov = &t->iov, .iov_count = 1, .done = on_done};
	if (!flush) {
		t->request.offset_bytes = (uint64_t)at * BLOCK_BYTES;
		t->request.size_bytes = BLOCK_BYTES;
	}
	for (size_t i = 0; op == BLOCK_WRITE && i < ARRAY_SIZE(t->data); i++)
		t->data[i] = value;
	block_submit(block, &t->request);
}

static int wait_for(struct test_request *t)
{
	uint64_t deadline = loop_now_ns() + LIMIT_NS;
	while (!t->times && loop_now_ns() < deadline)
		assert_int_equal(loop_wait(loop, 100000000), 0);
	assert_int_equal(t->times, 1);
	return t->res;
}

static int run(enum block_op op, unsigned at, uint32_t value, struct test_request *t)
{
	submit(t, op, at, value);
	return wait_for(t);
}

/* The value that fills the block, or a failure when it is torn. */
static uint32_t read_block(unsigned at)
{
	static struct test_request t;
	assert_int_equal(run(BLOCK_READ, at, 0, &t), 0);
	for (size_t i = 1; i < ARRAY_SIZE(t.data); i++)
		assert_int_equal(t.data[i], t.data[0]);
	return t.data[0];
}

static uint32_t next_random(void)
{
	static uint32_t seed = 12345;
	return seed = seed * 1664525 + 1013904223;
}

/* --- the tests --------------------------------------------------------------------------------------------------- */

static void make_image(void)
{
	const char *argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", image, "16M", NULL};
	run_tool(argv);
}

/* What the image holds, by a third party's reading of it. */
static void check_image(const uint32_t *values)
{
	char raw[128];
	(void)snprintf(raw, sizeof(raw), "%s/image.raw", dir);
	const char *argv[] = {"qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw, NULL};
	run_tool(argv);
	int fd = open(raw, O_RDONLY | O_CLOEXEC);
	for (unsigned at = 0; at < BLOCKS; at++) {
		uint32_t data[BLOCK_BYTES / sizeof(uint32_t)];
		assert_int_equal(pread(fd, data, BLOCK_BYTES, (off_t)at * BLOCK_BYTES), BLOCK_BYTES);
		for (size_t i = 0; i < ARRAY_SIZE(data); i++)
			assert_int_equal(data[i], values[at]);
	}
	close(fd);
}

static void what_is_written_is_in_the_image(void **state)
{
	(void)state;
	enum { COUNT = 48 };
	static uint32_t values[BLOCKS];
	static struct test_request t[COUNT], one;
	memset(values, 0, sizeof(values));
	make_image();
	start_qemu_nbd();
	open_block();
	assert_int_equal(block->info.size_bytes, DISK_BYTES);
	assert_true(block->info.can_write_zeroes && block->info.discard_granularity_bytes);

	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			unsigned at = (next_random() >> 8) % (BLOCKS / COUNT) * COUNT + i;
			values[at] = next_random();
			submit(&t[i], BLOCK_WRITE, at, values[at]);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
			assert_int_equal(wait_for(&t[i]), 0);
	}
	for (unsigned at = 0; at < BLOCKS; at += 100) {
		assert_int_equal(run(at % 200 ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD, at, 0, &one), 0);
		if (at % 200 == 0) /* a hint only */
			assert_int_equal(run(BLOCK_WRITE, at, 0, &one), 0);
		values[at] = 0;
	}
	assert_int_equal(run(BLOCK_FLUSH, 0, 0, &one), 0);
	for (unsigned at = 0; at < BLOCKS; at += 7)
		assert_int_equal(read_block(at), values[at]);
	block_free(block);
	block = NULL;
	end_server(SIGTERM);
	check_image(values);
}

/*
 * What each block may hold: the value that was stable at the last flush, or one of those written since. A killed
 * qemu-nbd may lose what was not flushed; the image's own tables are in its memory.
 */
enum { CANDIDATES = 8 };
struct block_model {
	unsigned count;
	uint32_t values[CANDIDATES];
};

static void model_write(struct block_model *m, uint32_t value)
{
	assert_true(m->count < CANDIDATES);
	m->values[m->count++] = value;
}

static void model_settle(struct block_model *m, uint32_t value)
{
	m->values[0] = value;
	m->count = 1;
}

static bool model_allows(const struct block_model *m, uint32_t value)
{
	for (unsigned i = 0; i < m->count; i++) {
		if (m->values[i] == value)
			return true;
	}
	return false;
}

static void what_was_flushed_survives_the_server(void **state)
{
	(void)state;
	enum { ROUNDS = 40, WRITES = 32, KILL_EVERY = 8 };
	static struct block_model model[BLOCKS];
	static struct test_request t[WRITES], flush;
	for (unsigned at = 0; at < BLOCKS; at++)
		model_settle(&model[at], 0);
	make_image();
	start_qemu_nbd();
	open_block();

	for (unsigned round = 0; round < ROUNDS; round++) {
		bool killed = round % KILL_EVERY == KILL_EVERY - 1;
		for (unsigned i = 0; i < WRITES; i++) {
			unsigned at = (next_random() >> 8) % (BLOCKS / WRITES) * WRITES + i;
			uint32_t value = next_random();
			model_write(&model[at], value);
			submit(&t[i], BLOCK_WRITE, at, value);
		}
		if (killed) {
			for (unsigned turns = 0; turns < round / KILL_EVERY; turns++)
				loop_wait(loop, 1000000);
			end_server(SIGKILL);
			start_qemu_nbd();
		}
		for (unsigned i = 0; i < WRITES; i++)
			assert_int_equal(wait_for(&t[i]), 0);
		assert_int_equal(run(BLOCK_FLUSH, 0, 0, &flush), 0);
		for (unsigned i = 0; i < WRITES; i++) {
			uint32_t found = read_block(t[i].at);
			assert_true(killed ? model_allows(&model[t[i].at], found) : found == t[i].value);
			model_settle(&model[t[i].at], found);
		}
	}
	static uint32_t values[BLOCKS];
	for (unsigned at = 0; at < BLOCKS; at++)
		values[at] = model[at].values[0];
	block_free(block);
	block = NULL;
	end_server(SIGTERM);
	check_image(values);
}

static void a_stopped_server_is_waited_for(void **state)
{
	(void)state;
	static struct test_request t;
	make_image();
	start_qemu_nbd();
	open_block();
	kill(server_pid, SIGSTOP);
	submit(&t, BLOCK_WRITE, 5, 0x55);
	for (unsigned i = 0; i < 10; i++)
		loop_wait(loop, 10000000);
	assert_int_equal(t.times, 0);
	kill(server_pid, SIGCONT);
	assert_int_equal(wait_for(&t), 0);
	assert_int_equal(read_block(5), 0x55);
}

static void a_faulty_server_is_gone_on_with(void **state)
{
	(void)state;
	static struct test_request t[32];
	static uint32_t values[BLOCKS];
	static bool unknown[BLOCKS]; /* a write that failed may have been done */
	const char *argv[] = {"nbdkit", "-f",  "--unix",         socket_path,       "--filter=error", "--filter=delay",
			      "memory", "16M", "error-rate=20%", "delay-write=5ms", "delay-read=1ms", NULL};
	unsigned failures = 0;
	memset(values, 0, sizeof(values));
	server_pid = start(argv);
	open_block();
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
			submit(&t[i], BLOCK_WRITE, round * 32 + i, next_random());
		for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
			int res = wait_for(&t[i]);
			assert_true(res == 0 || res == -EIO);
			failures += res < 0;
			unknown[t[i].at] = res < 0;
			values[t[i].at] = t[i].value;
		}
	}
	assert_true(failures > 10 && failures < 310);
	unsigned good = 0;
	for (unsigned at = 0; at < 320; at++) {
		if (run(BLOCK_READ, at, 0, &t[0]) < 0 || unknown[at])
			continue;
		assert_int_equal(t[0].data[0], values[at]);
		good++;
	}
	assert_true(good > 100);
}

static void a_slow_server_gets_large_requests(void **state)
{
	(void)state;
	enum { SIZE = 8 << 20 };
	static uint8_t data[SIZE], back[SIZE];
	static struct test_request t;
	const char *argv[] = {"nbdkit",
			      "-f",
			      "--unix",
			      socket_path,
			      "--filter=blocksize-policy",
			      "--filter=rate",
			      "memory",
			      "16M",
			      "rate=400M",
			      "blocksize-minimum=512",
			      "blocksize-preferred=65536",
			      "blocksize-maximum=1M",
			      "blocksize-error-policy=error",
			      NULL};
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)(i * 7 + i / 4096);
	server_pid = start(argv);
	open_block();
	assert_int_equal(block->info.optimal_io_bytes, 65536);
	t.iov = (struct iovec){data, SIZE};
	t.request = (struct block_request){.op = BLOCK_WRITE,
					   .offset_bytes = 512,
					   .size_bytes = SIZE,
					   .iov = &t.iov,
					   .iov_count = 1,
					   .done = on_done};
	block_submit(block, &t.request);
	assert_int_equal(wait_for(&t), 0);
	t.times = 0;
	t.iov.iov_base = back;
	t.request.op = BLOCK_READ;
	block_submit(block, &t.request);
	assert_int_equal(wait_for(&t), 0);
	assert_memory_equal(data, back, SIZE);
}

/* In each dialect that a server can be made to speak. */
static void older_servers(void **state)
{
	(void)state;
	static struct test_request t;
	static const char *const OLDER[] = {"--no-sr", "--mask-handshake=0", "--mask-handshake=1"};
	for (size_t i = 0; i < ARRAY_SIZE(OLDER); i++) {
		const char *argv[] = {"nbdkit", "-f", OLDER[i], "--unix", socket_path, "memory", "16M", NULL};
		server_pid = start(argv);
		open_block();
		assert_int_equal(run(BLOCK_WRITE, 7, 0x12345678, &t), 0);
		assert_int_equal(run(BLOCK_FLUSH, 0, 0, &t), 0);
		assert_int_equal(read_block(7), 0x12345678);
		assert_int_equal(read_block(8), 0);
		block_free(block);
		block = NULL;
		end_server(SIGTERM);
		unlink(socket_path);
	}
}

static void a_server_of_the_oldest_kind_is_refused(void **state)
{
	(void)state;
	struct err err = {0};
	const char *argv[] = {"nbdkit", "-f", "--oldstyle", "--unix", socket_path, "memory", "16M", NULL};
	struct block_nbd_config config = {.address = address};
	server_pid = start(argv);
	wait_for_socket();
	assert_null(block_nbd_open(loop, NULL, &config, &err));
	assert_non_null(strstr(err.text, "the server speaks the old NBD protocol; newstyle is needed"));
}

static void another_export_is_refused(void **state)
{
	(void)state;
	struct err err = {0};
	char other[160];
	make_image();
	start_qemu_nbd();
	wait_for_socket();
	(void)snprintf(other, sizeof(other), "%s:other", address);
	struct block_nbd_config config = {.address = other};
	assert_null(block_nbd_open(loop, NULL, &config, &err));
	assert_non_null(strstr(err.text, "export 'other': the server has no such export"));
}

static void an_export_over_tcp(void **state)
{
	(void)state;
	static struct test_request t;
	char port[16], words[64];
	(void)snprintf(port, sizeof(port), "%d", 20000 + getpid() % 20000);
	const char *argv[] = {"nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "pattern", "16M", NULL};
	server_pid = start(argv);
	(void)snprintf(words, sizeof(words), "127.0.0.1:%s:any", port);
	struct block_nbd_config config = {.address = words, .reconnect_seconds = 1};
	for (unsigned i = 0; i < 500 && !block; i++) {
		block = block_nbd_open(loop, NULL, &config, NULL);
		if (!block)
			usleep(10000);
	}
	assert_non_null(block);
	assert_true(block->info.read_only);
	assert_int_equal(run(BLOCK_READ, 3, 0, &t), 0);
	/* nbdkit-pattern-plugin(1): each 8 bytes hold their own offset, big-endian. */
	const uint8_t *bytes = (const uint8_t *)t.data;
	for (unsigned i = 0; i < BLOCK_BYTES; i += 8)
		assert_int_equal(bytes[i + 6] << 8 | bytes[i + 7], 3 * BLOCK_BYTES + i);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest qemu[] = {
		TEST(what_is_written_is_in_the_image),
		TEST(what_was_flushed_survives_the_server),
		TEST(a_stopped_server_is_waited_for),
		TEST(another_export_is_refused),
	};
	const struct CMUnitTest nbdkit[] = {
		TEST(a_faulty_server_is_gone_on_with),
		TEST(a_slow_server_gets_large_requests),
		TEST(older_servers),
		TEST(a_server_of_the_oldest_kind_is_refused),
		TEST(an_export_over_tcp),
	};
	bool has_qemu = is_installed("qemu-nbd") && is_installed("qemu-img"), has_nbdkit = is_installed("nbdkit");
	int failed = 0;
	if (has_qemu)
		failed += cmocka_run_group_tests_name("qemu-nbd", qemu, NULL, NULL);
	if (has_nbdkit)
		failed += cmocka_run_group_tests_name("nbdkit", nbdkit, NULL, NULL);
	if (failed || (has_qemu && has_nbdkit))
		return failed;
	printf("skipped: %s (qemu-utils), %s (nbdkit)\n", has_qemu ? "have qemu-nbd" : "qemu-nbd is not installed",
	       has_nbdkit ? "have nbdkit" : "nbdkit is not installed");
	return SKIPPED;
}
