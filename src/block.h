/*
 * A disk image, as bytes: what a virtio-blk device (or another block) stands on. It knows no virtio.
 *
 * Theory of operation. A `struct block_request` is embedded in the object that owns it, and lives like a loop_op:
 * from block_submit to `done` it belongs to the block, with its iov array and the memory behind it, and `done` comes
 * exactly once, also after block_cancel, always on the loop thread and never from inside block_submit. The checks of a
 * request live in block_submit, so a back end sees only requests that are possible: inside the disk, whole blocks,
 * writes only when it can be written, an iov that is as long as the range.
 *
 * Back ends: a raw file or block device (block_raw), a copy-on-write overlay over another block (block_cow), a network
 * block device (block_nbd). A block serves one loop; everything here is for that loop's thread, or set-up before it
 * runs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "err.h"
#include "log.h"
#include "loop.h"

enum {
	BLOCK_SECTOR_BYTES = 512,
	/*
	 * What a back end moves by one operation. A chain can be 4 GiB long, and what the page cache has is copied by
	 * the kernel while the operation is submitted: the loop stands still meanwhile. Longer than what drivers send.
	 */
	BLOCK_STEP_BYTES_MAX = 2 << 20,
};

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH, /* offset and size 0: everything whose write was done before this was submitted is stable after */
	BLOCK_DISCARD,      /* the contents become undefined (here: zeroes or unchanged) */
	BLOCK_WRITE_ZEROES, /* the range reads as zeroes */
};

struct block_request {
	enum block_op op;
	bool may_unmap;        /* WRITE_ZEROES: storage may be given back */
	uint64_t offset_bytes; /* a multiple of the block size, as is size_bytes */
	uint64_t size_bytes;
	const struct iovec *iov; /* READ, WRITE: iov_count spans, size_bytes in all; never changed by the block */
	unsigned iov_count;
	void (*done)(struct block_request *request,
		     int res); /* 0 or -errno; a failed write may have written a part. [loop] */

	/* For the door and the back end alone, while they have the request; zeroes before the first submit. */
	struct loop_op loop_op;
	struct block *block; /* NULL when nobody has it */
	struct block_request *next;
	uint64_t progress_bytes;
	uint64_t cookie;
	bool cancelled; /* block_cancel has been called */
	int refused;    /* by the door: what `done` will be given; 1: not refused */
};

/* What an open disk is. Only size_bytes changes, by block_resize. */
struct block_info {
	uint64_t size_bytes;                /* a multiple of block_size_bytes */
	uint32_t block_size_bytes;          /* what reads and writes must be aligned to: 512 to 4096, a power of two */
	uint32_t physical_block_bytes;      /* best size and alignment; a power of two, at least block_size_bytes */
	uint32_t optimal_io_bytes;          /* 0: none known */
	uint32_t discard_granularity_bytes; /* 0: discards are not supported */
	bool can_write_zeroes;
	bool read_only;
};

struct block_ops {
	const char *name;
	/* A request that the door has checked. `done` comes later, through the loop or loop_defer. */
	void (*submit)(struct block *block, struct block_request *request);
	/* Ask for an early end. NULL: requests end by themselves soon enough. */
	void (*cancel)(struct block *block, struct block_request *request);
	/* Look at the size again (the file was grown or cut), into info.size_bytes. 0 or -errno; NULL: -ENOTSUP. */
	int (*resize)(struct block *block, struct err *err);
	/* Close and free it: nothing is in flight. */
	void (*destroy)(struct block *block);
};

struct block {
	const struct block_ops *ops;
	struct loop *loop;
	struct block_info info;
	unsigned in_flight;
	struct block_request *refused; /* private to the door: to be ended at the end of the round */
	struct loop_task refused_task;
};

/* For constructors of back ends: `info` is filled by them before the first request. */
void block_init(struct block *block, const struct block_ops *ops, struct loop *loop);

/* The door. -EINVAL (out of range, misaligned), -EROFS, -ENOTSUP reach `done` like every other error. */
void block_submit(struct block *block, struct block_request *request);

/* Ask for the end of a request that is under way; `done` still comes, with -ECANCELED or its result. */
void block_cancel(struct block *block, struct block_request *request);

/* Back ends call this, once per request, from the loop: it is the only caller of `done`. */
void block_complete(struct block_request *request, int res);

/* The same at the end of the loop's round: for who knows the result inside `submit`. */
void block_complete_later(struct block_request *request, int res);

/* The file has another size now: look again. 0, or -errno with a sentence. */
int block_resize(struct block *block, struct err *err);

/* Nothing of it is in flight; runs the loop until its own operations have ended. NULL is accepted. */
void block_free(struct block *block);

/* --- back ends: NULL with `err` set; the sentence names the object. `log` is borrowed. [setup] ------------- */

struct block_raw_config {
	const char *path; /* a regular file or a block device */
	bool read_only;
	bool direct;       /* O_DIRECT: past the host's page cache */
	bool unsafe_flush; /* cache=unsafe: a flush does nothing */
};

/*
 * Opens and locks it (OFD lock on the whole file: one writer, or many readers). The format is never probed into use; a
 * file that begins with the magic of a qcow2, VMDK, VHD, VHDX or VDI image is refused, with the command that serves it
 * by NBD. So is a block device that is to be written and that the host uses (mounted, swap, RAID). A size that is not
 * whole blocks is rounded down; the tail is out of the guest's reach, and untouched. A block has 512 bytes, or what the
 * device or O_DIRECT asks for.
 */
struct block *block_raw_open(struct loop *loop, const struct log *log, const struct block_raw_config *config,
			     struct err *err);

/*
 * Writes go to a sparse file, reads come from it where it has been written and from `base` elsewhere. Takes `base`
 * over, also when it fails. `path` NULL: an unlinked file in the directory `dir` (NULL: that of TMPDIR's default,
 * /var/tmp); else that file is made, or opened if it is an overlay of a disk of the same size. [setup]
 */
struct block_cow_config {
	const char *path;
	const char *dir;
	bool unsafe_flush;
};
struct block *block_cow_open(struct loop *loop, const struct log *log, struct block *base,
			     const struct block_cow_config *config, struct err *err);

/*
 * An NBD client (newstyle, fixed; structured replies): "unix:PATH[:EXPORT]", "HOST:PORT[:EXPORT]" or
 * "[IPV6]:PORT[:EXPORT]". Connects and negotiates before it returns, within five seconds (and what the resolver takes
 * for a name). When the connection is lost it reconnects, and sends what was not answered again; what the server had
 * answered but not been asked to flush is lost if it crashed. A server that is connected and silent is waited for.
 */
struct block_nbd_config {
	const char *address;
	bool read_only;
	unsigned reconnect_seconds; /* how long requests wait for the server to come back before they fail; 0: 60 */
};
struct block *block_nbd_open(struct loop *loop, const struct log *log, const struct block_nbd_config *config,
			     struct err *err);
