#include "block_cow_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block_cow_map.h"
#include "fd.h"
#include "util.h"

static const char MAGIC[] = "vmletcow";
enum {
	VERSION = 1,
	DATA_ALIGN = 65536,

	/* Offsets in the header. */
	HEADER_MAGIC = 0,
	HEADER_VERSION = 8,
	HEADER_CLUSTER = 12,
	HEADER_DISK = 16,
	HEADER_MAP = 24,
	HEADER_DATA = 32,
	HEADER_FLAGS = 40,
	HEADER_CHECKSUM = 48,
	HEADER_USED = 56,

	MAGIC_BYTES = 8,
};

int cow_layout_init(struct cow_layout *layout, uint64_t disk_bytes)
{
	if (disk_bytes > INT64_MAX / 2)
		return -EFBIG;
	uint64_t bits_per_block = COW_MAP_BLOCK_BYTES * (uint64_t)CHAR_BIT;
	uint64_t clusters = align_up(disk_bytes, COW_CLUSTER_BYTES) / COW_CLUSTER_BYTES;
	layout->disk_bytes = disk_bytes;
	layout->map_bytes = align_up(clusters, bits_per_block) / CHAR_BIT;
	layout->data_offset_bytes = align_up(COW_HEADER_BYTES + layout->map_bytes, DATA_ALIGN);
	layout->file_bytes = layout->data_offset_bytes + disk_bytes;
	return 0;
}

/* --- the header --------------------------------------------------------------------------------------------- */

static uint64_t checksum(const uint8_t *header)
{
	uint64_t hash = 0xcbf29ce484222325;
	for (unsigned i = 0; i < HEADER_CHECKSUM; i++)
		hash = (hash ^ header[i]) * 0x100000001b3;
	return hash;
}

static void render_header(const struct cow_layout *layout, uint8_t *ret_header)
{
	memcpy(ret_header + HEADER_MAGIC, MAGIC, MAGIC_BYTES);
	le32_store(ret_header + HEADER_VERSION, VERSION);
	le32_store(ret_header + HEADER_CLUSTER, COW_CLUSTER_BYTES);
	le64_store(ret_header + HEADER_DISK, layout->disk_bytes);
	le64_store(ret_header + HEADER_MAP, COW_HEADER_BYTES);
	le64_store(ret_header + HEADER_DATA, layout->data_offset_bytes);
	le64_store(ret_header + HEADER_FLAGS, 0);
	le64_store(ret_header + HEADER_CHECKSUM, checksum(ret_header));
}

/* Nothing that the file says is believed: it must say what this layout would. */
static int check_header(const char *path, const struct cow_layout *layout, const uint8_t *header, struct err *err)
{
	if (memcmp(header + HEADER_MAGIC, MAGIC, MAGIC_BYTES) != 0)
		return err_config(err, -EINVAL,
				  "overlay '%s': is not empty and not an overlay of vmlet: name another file, "
				  "or remove this one",
				  path);
	uint32_t version = le32_load(header + HEADER_VERSION);
	if (version != VERSION)
		return err_config(err, -EINVAL,
				  "overlay '%s': has format version %u, this vmlet knows %d: use the vmlet that "
				  "made it",
				  path, version, VERSION);
	if (le64_load(header + HEADER_CHECKSUM) != checksum(header))
		return err_config(err, -EINVAL,
				  "overlay '%s': its header is damaged: restore it from a copy, or remove it and "
				  "begin anew",
				  path);
	uint64_t disk_bytes = le64_load(header + HEADER_DISK);
	if (disk_bytes != layout->disk_bytes)
		return err_config(err, -EINVAL,
				  "overlay '%s': belongs to a disk of %llu bytes, this one has %llu: give it the "
				  "base that it was made for, or begin a new overlay",
				  path, (unsigned long long)disk_bytes, (unsigned long long)layout->disk_bytes);
	uint8_t ours[HEADER_USED] = {0};
	render_header(layout, ours);
	if (memcmp(header, ours, HEADER_USED) != 0)
		return err_config(err, -EINVAL,
				  "overlay '%s': has features that this vmlet does not know: use the vmlet that "
				  "made it",
				  path);
	return 0;
}

/* --- an unlinked file --------------------------------------------------------------------------------------- */

/* For file systems without O_TMPFILE. */
static int make_and_unlink(const char *dir)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof(path), "%s/.vmlet-overlay-XXXXXX", dir);
	if (length < 0 || (size_t)length >= sizeof(path))
		return -ENAMETOOLONG;
	int fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (unlink(path) < 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int open_unlinked(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	/* EISDIR is what a file system says that has never heard of it. */
	return errno == EOPNOTSUPP || errno == EISDIR ? make_and_unlink(dir) : -errno;
}

int cow_file_make_unlinked(const char *dir, const struct cow_layout *layout, struct err *err)
{
	int fd = open_unlinked(dir);
	if (fd < 0)
		return err_config(err, fd, "overlay: make a file in '%s': %s", dir, err_name(fd));
	if (ftruncate(fd, (off_t)layout->file_bytes) == 0)
		return fd;
	int r = err_set(err, -errno, "overlay: make a file of %llu bytes (sparse) in '%s': %s",
			(unsigned long long)layout->file_bytes, dir, err_name(errno));
	close(fd);
	return r;
}

/* --- a named file ------------------------------------------------------------------------------------------- */

/* One VM at a time; the lock goes with the descriptor, however the process ends. */
static int lock_file(const char *path, int fd, const struct log *log, struct err *err)
{
	int r = fd_lock(fd, false);
	if (r == -EBUSY)
		return err_config(err, r, "overlay '%s': is in use by another VM: end that, or name another file",
				  path);
	if (r < 0)
		log_warn(log, "overlay '%s': its file system has no locks (%s); nothing keeps others from using it",
			 path, err_name(r));
	return 0;
}

/* A new name is stable when its directory is. Not every file system can, and none needs it to go on. */
static void sync_directory(const char *path)
{
	char dir[PATH_MAX] = ".";
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) + 1 : 0;
	if (length >= sizeof(dir))
		return;
	if (length) {
		memcpy(dir, path, length);
		dir[length] = '\0';
	}
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)fsync(fd);
	close(fd);
}

static int write_header(int fd, const struct cow_layout *layout)
{
	uint8_t header[COW_HEADER_BYTES] = {0};
	render_header(layout, header);
	ssize_t n = pwrite(fd, header, sizeof(header), 0);
	if (n == sizeof(header))
		return 0;
	return n < 0 ? -errno : -ENOSPC;
}

/* The header first: a file that holds just that was being made when its maker was killed, and is made again. */
static int make_named(const char *path, int fd, const struct cow_layout *layout, struct err *err)
{
	int r = write_header(fd, layout);
	if (r == 0 && (ftruncate(fd, (off_t)layout->file_bytes) < 0 || fsync(fd) < 0))
		r = -errno;
	if (r == 0) {
		sync_directory(path);
		return 0;
	}
	(void)!ftruncate(fd, 0); /* what is empty can be tried again */
	return err_set(err, r, "overlay '%s': make it %llu bytes long (sparse): %s", path,
		       (unsigned long long)layout->file_bytes, err_name(r));
}

static int read_and_check_header(const char *path, int fd, uint64_t file_bytes, const struct cow_layout *layout,
				 struct err *err)
{
	uint8_t header[COW_HEADER_BYTES] = {0};
	int r = fd_pread_all(fd, header, min_u64(sizeof(header), file_bytes), 0);
	if (r < 0)
		return err_set(err, r, "overlay '%s': read: %s", path, err_name(r));
	return check_header(path, layout, header, err);
}

static int check_named(const char *path, int fd, uint64_t file_bytes, const struct cow_layout *layout, struct err *err)
{
	int r = read_and_check_header(path, fd, file_bytes, layout, err);
	if (r < 0)
		return r;
	if (file_bytes == COW_HEADER_BYTES)
		return make_named(path, fd, layout, err);
	if (file_bytes < layout->file_bytes)
		return err_config(err, -EINVAL,
				  "overlay '%s': was cut short (%llu of %llu bytes): restore it from a copy, or "
				  "remove it and begin anew",
				  path, (unsigned long long)file_bytes, (unsigned long long)layout->file_bytes);
	return 0;
}

/* Before the lock: who names the base by mistake is told that, not that it is in use. */
static int look_at(const char *path, int fd, const struct cow_layout *layout, struct err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "overlay '%s': %s", path, err_name(errno));
	if (!S_ISREG(st.st_mode))
		return err_config(err, -EINVAL, "overlay '%s': is not a regular file", path);
	return st.st_size ? read_and_check_header(path, fd, (uint64_t)st.st_size, layout, err) : 0;
}

static int prepare_named(const char *path, int fd, const struct cow_layout *layout, const struct log *log,
			 struct err *err)
{
	int r = look_at(path, fd, layout, err);
	if (r == 0)
		r = lock_file(path, fd, log, err);
	if (r < 0)
		return r;
	/* Its size once more: until it was locked, another might have been making it. */
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "overlay '%s': %s", path, err_name(errno));
	if (st.st_size == 0)
		return make_named(path, fd, layout, err);
	return check_named(path, fd, (uint64_t)st.st_size, layout, err);
}

int cow_file_open(const char *path, const struct cow_layout *layout, const struct log *log, struct err *err)
{
	/* O_NONBLOCK: a device or FIFO that is named by mistake is an error, not a wait. */
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
	if (fd < 0)
		return err_config(err, -errno, "overlay '%s': open: %s", path, err_name(errno));
	int r = prepare_named(path, fd, layout, log, err);
	if (r == 0 && fcntl(fd, F_SETFL, 0) < 0)
		r = err_set(err, -errno, "overlay '%s': %s", path, err_name(errno));
	if (r == 0)
		return fd;
	close(fd);
	return r;
}
