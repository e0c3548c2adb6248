/* What block devices and sockets ask of the loop, on real files and sockets; and tasks for the end of a round. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "loop.h"
#include "util.h"

struct fixture {
	struct loop *loop;
	int fd; /* a file in memory */
};

struct waiting {
	struct loop_op op;
	int res;
	unsigned times;
};

static void count_done(struct loop_op *op, int res)
{
	struct waiting *w = container_of(op, struct waiting, op);
	w->res = res;
	w->times++;
}

static int setup(void **state)
{
	static struct fixture f;
	struct err err = {0};
	f.loop = loop_new(&err);
	f.fd = memfd_create("test", MFD_CLOEXEC);
	*state = &f;
	return f.loop && f.fd >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	loop_free(f->loop);
	close(f->fd);
	return 0;
}

static int wait_for(struct fixture *f, struct waiting *w)
{
	while (w->op.state != LOOP_OP_IDLE)
		assert_int_equal(loop_wait(f->loop, 1000000000), 0);
	assert_int_equal(w->times, 1);
	w->times = 0;
	return w->res;
}

static void check_vectors(struct fixture *f, int file)
{
	struct waiting w = {.op = {.done = count_done}};
	char out[] = "one two three", in[sizeof(out)] = "";
	struct iovec from[] = {{out, 4}, {out + 4, 4}, {out + 8, sizeof(out) - 8}};
	struct iovec to[] = {{in, 1}, {in + 1, sizeof(in) - 1}};
	assert_int_equal(loop_writev(f->loop, &w.op, file, from, 3, 100), 0);
	assert_int_equal(wait_for(f, &w), sizeof(out));
	assert_int_equal(loop_readv(f->loop, &w.op, file, to, 2, 100), 0);
	assert_int_equal(wait_for(f, &w), sizeof(out));
	assert_string_equal(in, out);
	memset(in, 0, sizeof(in));
	to[0].iov_len = sizeof(in);
	assert_int_equal(loop_readv(f->loop, &w.op, file, to, 1, 100), 0);
	assert_int_equal(wait_for(f, &w), sizeof(out));
	assert_string_equal(in, out);
}

static void test_vectors(void **state)
{
	struct fixture *f = *state;
	check_vectors(f, f->fd);
}

/* What is there is read at once; that nothing is there is said at once; and some files cannot say it. */
static void test_try_read(void **state)
{
	struct fixture *f = *state;
	struct waiting w = {.op = {.done = count_done}};
	uint64_t in[2] = {0}, out = 5;
	uint8_t *bytes = (uint8_t *)in;
	struct iovec to[] = {{bytes, 3}, {bytes + 3, 5}};
	int fd = eventfd(0, EFD_CLOEXEC);
	int file = loop_add_file(f->loop, fd);
	assert_int_equal(loop_try_readv(f->loop, &w.op, file, to, 2, 0), 0);
	assert_int_equal(wait_for(f, &w), -EAGAIN);
	assert_int_equal(write(fd, &out, sizeof(out)), sizeof(out));
	assert_int_equal(loop_try_readv(f->loop, &w.op, file, to, 2, 0), 0);
	assert_int_equal(wait_for(f, &w), sizeof(out));
	assert_true(in[0] == out);
	to[0].iov_len = sizeof(in[0]);
	assert_int_equal(loop_try_readv(f->loop, &w.op, fd, to, 1, 0), 0);
	assert_int_equal(wait_for(f, &w), -EAGAIN);
	loop_remove_file(f->loop, file);
	close(fd);

	fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	assert_int_equal(loop_try_readv(f->loop, &w.op, fd, to, 1, 0), 0);
	assert_int_equal(wait_for(f, &w), -EOPNOTSUPP);
	close(fd);
}

/* More files than there is room for: the last is used by its descriptor, and a slot that is given back serves again. */
static void test_registered_files(void **state)
{
	struct fixture *f = *state;
	int files[80];
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		files[i] = loop_add_file(f->loop, f->fd);
		check_vectors(f, files[i]);
	}
	assert_int_not_equal(files[0], f->fd);
	assert_int_equal(files[79], f->fd);
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		loop_remove_file(f->loop, files[i]);
	int again = loop_add_file(f->loop, f->fd);
	assert_int_equal(again, files[0]);
	check_vectors(f, again);
	loop_remove_file(f->loop, again);

	/* A slot without a file is nobody's descriptor. */
	struct waiting w = {.op = {.done = count_done}};
	assert_int_equal(loop_fdatasync(f->loop, &w.op, again), 0);
	assert_int_equal(wait_for(f, &w), -EBADF);
}

static void test_flush_and_allocate(void **state)
{
	struct fixture *f = *state;
	struct waiting w = {.op = {.done = count_done}};
	struct stat st;
	const uint64_t far = 5ULL << 32; /* both halves of every number count */
	assert_int_equal(loop_fallocate(f->loop, &w.op, f->fd, 0, far, 8192), 0);
	assert_int_equal(wait_for(f, &w), 0);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_true((uint64_t)st.st_size == far + 8192);
	assert_int_equal(
		loop_fallocate(f->loop, &w.op, f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, far + 8192), 0);
	assert_int_equal(wait_for(f, &w), 0);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(loop_fdatasync(f->loop, &w.op, f->fd), 0);
	assert_int_equal(wait_for(f, &w), 0);
}

static void test_messages(void **state)
{
	struct fixture *f = *state;
	struct waiting send = {.op = {.done = count_done}}, receive = {.op = {.done = count_done}};
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	char out[] = "hello", in[6] = "";
	struct iovec from[] = {{out, 2}, {out + 2, 4}}, to = {in, sizeof(in)};
	struct msghdr out_message = {.msg_iov = from, .msg_iovlen = 2};
	struct msghdr in_message = {.msg_iov = &to, .msg_iovlen = 1};
	assert_int_equal(loop_recvmsg(f->loop, &receive.op, pair[1], &in_message), 0);
	assert_int_equal(loop_sendmsg(f->loop, &send.op, pair[0], &out_message), 0);
	assert_int_equal(wait_for(f, &send), 6);
	assert_int_equal(wait_for(f, &receive), 6);
	assert_string_equal(in, "hello");

	/* A peer that is gone is an error, not a signal. */
	close(pair[1]);
	assert_int_equal(loop_sendmsg(f->loop, &send.op, pair[0], &out_message), 0);
	assert_int_equal(wait_for(f, &send), -EPIPE);
	close(pair[0]);
}

static void test_connect(void **state)
{
	struct fixture *f = *state;
	struct waiting w = {.op = {.done = count_done}};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(sa_family_t);
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(server, (struct sockaddr *)&address, size), 0); /* a name of the kernel's choice */
	size = sizeof(address);
	assert_int_equal(getsockname(server, (struct sockaddr *)&address, &size), 0);
	assert_int_equal(listen(server, 1), 0);
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(loop_connect(f->loop, &w.op, client, (struct sockaddr *)&address, size), 0);
	assert_int_equal(wait_for(f, &w), 0);
	close(client);
	close(server);
}

static void test_drain(void **state)
{
	struct fixture *f = *state;
	struct waiting w = {.op = {.done = count_done}};
	int pair[2];
	char byte;
	struct iovec to = {&byte, 1};
	struct msghdr message = {.msg_iov = &to, .msg_iovlen = 1};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(loop_recvmsg(f->loop, &w.op, pair[0], &message), 0);
	loop_cancel(f->loop, &w.op);
	loop_drain(f->loop, &w.op);
	assert_int_equal(w.times, 1);
	assert_int_equal(w.res, -ECANCELED);
	close(pair[0]);
	close(pair[1]);
}

/* --- deferred tasks ----------------------------------------------------------------------------------------- */

struct deferring {
	struct loop *loop;
	struct loop_op op;
	struct loop_task task, other;
	unsigned ran, other_ran, limit;
	bool done_first;
};

static void run_task(struct loop_task *task)
{
	struct deferring *d = container_of(task, struct deferring, task);
	if (++d->ran < d->limit)
		loop_defer(d->loop, task);
	loop_unpost(d->loop, &d->other);
}

static void run_other(struct loop_task *task)
{
	container_of(task, struct deferring, other)->other_ran++;
}

static void defer_in_done(struct loop_op *op, int res)
{
	struct deferring *d = container_of(op, struct deferring, op);
	(void)res;
	loop_defer(d->loop, &d->task);
	loop_defer(d->loop, &d->task); /* once is enough */
	loop_defer(d->loop, &d->other);
	d->done_first = d->ran == 0;
}

static void test_deferred_runs_once_after_the_callbacks(void **state)
{
	struct fixture *f = *state;
	struct deferring d = {.loop = f->loop,
			      .op = {.done = defer_in_done},
			      .task = {.fn = run_task},
			      .other = {.fn = run_other},
			      .limit = 1};
	assert_int_equal(loop_fdatasync(f->loop, &d.op, f->fd), 0);
	while (!d.ran)
		assert_int_equal(loop_wait(f->loop, 1000000000), 0);
	assert_true(d.done_first);
	assert_int_equal(d.ran, 1);
	assert_int_equal(d.other_ran, 0); /* taken back */
}

/* A task that defers itself for ever keeps the loop busy, and lets everything else happen. */
static void test_deferred_leaves_room_for_others(void **state)
{
	struct fixture *f = *state;
	const unsigned seconds_of_work = 10000000; /* a flush takes milliseconds on a busy machine */
	struct deferring d = {
		.loop = f->loop, .task = {.fn = run_task}, .other = {.fn = run_other}, .limit = seconds_of_work};
	struct waiting w = {.op = {.done = count_done}};
	loop_defer(f->loop, &d.task);
	assert_int_equal(loop_fdatasync(f->loop, &w.op, f->fd), 0);
	wait_for(f, &w);
	assert_true(d.ran < seconds_of_work);
	d.limit = 0; /* the one that is under way is the last */
	assert_int_equal(loop_wait(f->loop, UINT64_MAX), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_vectors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_try_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_registered_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flush_and_allocate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_connect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred_runs_once_after_the_callbacks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred_leaves_room_for_others, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
