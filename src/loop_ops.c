/* What a loop can be asked to do: one function per operation, each a submission entry that is filled in. */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <linux/fs.h>
#include <sys/socket.h>

#include "loop_ring.h"
#include "util.h"

enum { IO_SIZE_MAX = 0x7ffff000 /* the kernel's MAX_RW_COUNT; its length field has 32 bits */ };

static struct io_uring_sqe *start_op(struct loop *loop, struct loop_op *op)
{
	assert(op->state == LOOP_OP_IDLE && op->done);
	struct io_uring_sqe *sqe = loop_get_sqe(loop);
	if (sqe)
		op->state = LOOP_OP_INFLIGHT;
	return sqe;
}

/* After the entry was prepared with `file`: who is to be told, and where the file is to be looked up. */
static int finish_op(struct io_uring_sqe *sqe, struct loop_op *op, int file)
{
	io_uring_sqe_set_data(sqe, op);
	if (file >= LOOP_FILE_BASE) {
		sqe->fd = file - LOOP_FILE_BASE;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	return 0;
}

int loop_read(struct loop *loop, struct loop_op *op, int fd, void *buf, size_t size_bytes, uint64_t offset)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_read(sqe, fd, buf, (unsigned)min_u64(size_bytes, IO_SIZE_MAX), offset);
	return finish_op(sqe, op, fd);
}

int loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buf, size_t size_bytes, uint64_t offset)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_write(sqe, fd, buf, (unsigned)min_u64(size_bytes, IO_SIZE_MAX), offset);
	/* A stream's write may raise SIGPIPE: on a kernel worker, where it is blocked, never on the caller's thread. */
	if (offset == UINT64_MAX)
		sqe->flags |= IOSQE_ASYNC;
	return finish_op(sqe, op, fd);
}

static int submit_readv(struct loop *loop, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
			uint64_t offset, int flags)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	/* One span is the rule, and the kernel then has no array to copy. */
	if (iov_count == 1)
		io_uring_prep_read(sqe, file, iov->iov_base, (unsigned)min_u64(iov->iov_len, IO_SIZE_MAX), offset);
	else
		io_uring_prep_readv(sqe, file, iov, iov_count, offset);
	sqe->rw_flags = flags;
	return finish_op(sqe, op, file);
}

int loop_readv(struct loop *loop, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
	       uint64_t offset)
{
	return submit_readv(loop, op, file, iov, iov_count, offset, 0);
}

int loop_try_readv(struct loop *loop, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
		   uint64_t offset)
{
	return submit_readv(loop, op, file, iov, iov_count, offset, RWF_NOWAIT);
}

int loop_writev(struct loop *loop, struct loop_op *op, int file, const struct iovec *iov, unsigned iov_count,
		uint64_t offset)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	if (iov_count == 1)
		io_uring_prep_write(sqe, file, iov->iov_base, (unsigned)min_u64(iov->iov_len, IO_SIZE_MAX), offset);
	else
		io_uring_prep_writev(sqe, file, iov, iov_count, offset);
	return finish_op(sqe, op, file);
}

int loop_fdatasync(struct loop *loop, struct loop_op *op, int file)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
	return finish_op(sqe, op, file);
}

int loop_fallocate(struct loop *loop, struct loop_op *op, int file, int mode, uint64_t offset, uint64_t size_bytes)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, file, NULL, (unsigned)mode, offset);
	sqe->addr = size_bytes; /* liburing's own helper takes it as an off_t */
	return finish_op(sqe, op, file);
}

int loop_poll(struct loop *loop, struct loop_op *op, int fd, uint32_t poll_events)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_poll_add(sqe, fd, poll_events);
	return finish_op(sqe, op, fd);
}

int loop_accept(struct loop *loop, struct loop_op *op, int listen_fd)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_accept(sqe, listen_fd, NULL, NULL, SOCK_CLOEXEC);
	return finish_op(sqe, op, listen_fd);
}

int loop_connect(struct loop *loop, struct loop_op *op, int fd, const struct sockaddr *address, unsigned size_bytes)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_connect(sqe, fd, address, size_bytes);
	return finish_op(sqe, op, fd);
}

int loop_sendmsg(struct loop *loop, struct loop_op *op, int fd, const struct msghdr *message)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_sendmsg(sqe, fd, message, MSG_NOSIGNAL);
	return finish_op(sqe, op, fd);
}

int loop_recvmsg(struct loop *loop, struct loop_op *op, int fd, struct msghdr *message)
{
	struct io_uring_sqe *sqe = start_op(loop, op);
	if (!sqe)
		return -ENOSPC;
	io_uring_prep_recvmsg(sqe, fd, message, 0);
	return finish_op(sqe, op, fd);
}

/* --- registered files ----------------------------------------------------------------------------------- */

int loop_add_file(struct loop *loop, int fd)
{
	if (!loop->has_files && io_uring_register_files_sparse(&loop->ring, LOOP_FILES_MAX) < 0)
		return fd;
	loop->has_files = true;
	if (loop->files == UINT64_MAX)
		return fd;
	unsigned slot = (unsigned)__builtin_ctzll(~loop->files);
	if (io_uring_register_files_update(&loop->ring, slot, &fd, 1) != 1)
		return fd;
	loop->files |= 1ULL << slot;
	return LOOP_FILE_BASE + (int)slot;
}

void loop_remove_file(struct loop *loop, int file)
{
	if (file < LOOP_FILE_BASE)
		return;
	unsigned slot = (unsigned)(file - LOOP_FILE_BASE);
	int none = -1;
	(void)io_uring_register_files_update(&loop->ring, slot, &none, 1);
	loop->files &= ~(1ULL << slot);
}
