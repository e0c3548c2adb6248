#include "block_raw_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "util.h"

enum {
	BLOCK_MAX_BYTES = 4096,        /* block_info.block_size_bytes is no larger */
	DIRECT_ALIGN_BYTES = 4096,     /* enough for any O_DIRECT, where the file system does not say */
	PHYSICAL_MAX_BYTES = 64 << 10, /* some file systems' preferred size is that of a network transfer */
};

/* --- opening -------------------------------------------------------------------------------------------- */

/* Before it is opened: to open a FIFO can take forever, and to open some devices is to start something. */
static int check_kind(const char *path, bool *ret_is_device, struct err *err)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return err_config(err, -errno, "disk '%s': %s", path, err_name(errno));
	if (S_ISDIR(st.st_mode))
		return err_config(err, -EISDIR, "disk '%s': a directory; a disk is a raw image or a block device",
				  path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_config(err, -EINVAL, "disk '%s': neither a regular file nor a block device", path);
	*ret_is_device = S_ISBLK(st.st_mode);
	return 0;
}

static int open_refused(const struct block_raw_config *config, int error, struct err *err)
{
	const char *path = config->path;
	if (error == EINVAL && config->direct)
		return err_config(err, -error,
				  "disk '%s': its file system has no direct I/O; open it without that option", path);
	if (error == EBUSY)
		return err_config(err, -error,
				  "disk '%s': in use by this host (mounted?); end that, or use ,ro or ,overlay", path);
	bool readable = !config->read_only && faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) == 0;
	if (readable && (error == EACCES || error == EPERM || error == EROFS))
		return err_config(err, -error,
				  "disk '%s': cannot be written (%s); use ,ro, or ,overlay to keep writes elsewhere",
				  path, err_name(error));
	return err_config(err, -error, "disk '%s': %s", path, err_name(error));
}

/* O_EXCL of a block device that exists: not one that the host has mounted, or given to RAID, LVM or swap. */
static int open_file(struct block_raw_file *file, const struct block_raw_config *config, struct err *err)
{
	int r = check_kind(config->path, &file->is_device, err);
	if (r < 0)
		return r;
	int flags = O_CLOEXEC | (config->direct ? O_DIRECT : 0);
	if (config->read_only)
		flags |= O_RDONLY;
	else
		flags |= O_RDWR | (file->is_device ? O_EXCL : 0);
	file->fd = open(config->path, flags);
	return file->fd < 0 ? open_refused(config, errno, err) : 0;
}

/* --- the lock ------------------------------------------------------------------------------------------- */

static int lock_refused(int fd, const char *path, struct err *err)
{
	/* Only a writer would be in the way of a reader: this tells the two apart. */
	struct flock probe = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	bool writes = fcntl(fd, F_OFD_GETLK, &probe) == 0 && probe.l_type == F_WRLCK;
	return err_config(err, -EBUSY,
			  "disk '%s': in use by another process, or given twice (%s); end that, or let each of them "
			  "use ,ro or ,overlay",
			  path, writes ? "somebody writes to it" : "somebody reads it");
}

/* An open-file-description lock: it goes with the descriptor, and two disks of one process see each other's. */
static int lock_file(int fd, const struct block_raw_config *config, const struct log *log, struct err *err)
{
	int r = fd_lock(fd, config->read_only);
	if (r == -EBUSY)
		return lock_refused(fd, config->path, err);
	if (r < 0)
		log_warn(log, "disk '%s': its file system has no locks (%s); nothing keeps others from using it",
			 config->path, err_name(r));
	return 0;
}

/* --- other formats -------------------------------------------------------------------------------------- */

struct magic {
	uint16_t offset;
	uint8_t size;
	char bytes[24];
	const char *name, *qemu_name;
};

static const struct magic MAGICS[] = {
	{0, 4, "QFI\xfb", "qcow2", "qcow2"},
	{0, 4, "KDMV", "VMDK", "vmdk"},
	{0, 4, "COWD", "VMDK", "vmdk"},
	{0, 21, "# Disk DescriptorFile", "VMDK", "vmdk"},
	{0, 8, "vhdxfile", "VHDX", "vhdx"},
	{0, 8, "conectix", "VHD", "vpc"},
	{0x40, 4, "\x7f\x10\xda\xbe", "VDI", "vdi"},
};

static int check_magic(const uint8_t *data, size_t size_bytes, const struct block_raw_config *config, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(MAGICS); i++) {
		const struct magic *m = &MAGICS[i];
		if (size_bytes < (size_t)m->offset + m->size || memcmp(data + m->offset, m->bytes, m->size) != 0)
			continue;
		return err_config(err, -EINVAL,
				  "disk '%s': a %s image; vmlet reads raw images only. Serve it: qemu-nbd "
				  "--socket=/tmp/disk.sock --format=%s%s '%s', then --disk nbd=unix:/tmp/disk.sock%s",
				  config->path, m->name, m->qemu_name, config->read_only ? " --read-only" : "",
				  config->path, config->read_only ? ",ro" : "");
	}
	return 0;
}

/* The guard refuses only: what a guest writes to its raw disk can never choose how that is read. */
static int check_format(const struct block_raw_file *file, const struct block_raw_config *config, struct err *err)
{
	void *data = NULL;
	if (posix_memalign(&data, DIRECT_ALIGN_BYTES, BLOCK_MAX_BYTES) != 0)
		return err_set(err, -ENOMEM, "disk '%s': %s", config->path, err_name(ENOMEM));
	ssize_t got = pread(file->fd, data, BLOCK_MAX_BYTES, 0);
	int r = got < 0 ? err_set(err, -errno, "disk '%s': read: %s", config->path, err_name(errno))
			: check_magic(data, (size_t)got, config, err);
	free(data);
	return r;
}

/* --- size and shape ------------------------------------------------------------------------------------- */

int block_raw_file_size(const struct block_raw_file *file, const char *path, uint32_t block_size_bytes,
			const struct log *log, uint64_t *ret_size_bytes, struct err *err)
{
	off_t end = lseek(file->fd, 0, SEEK_END); /* of a device, too; nobody uses the position */
	if (end < 0)
		return err_set(err, -errno, "disk '%s': its size: %s", path, err_name(errno));
	uint64_t size = (uint64_t)end;
	if (size == 0)
		return err_config(err, -EINVAL, "disk '%s': empty; give it a size: truncate -s 10G '%s'", path, path);
	if (size < block_size_bytes)
		return err_config(err, -EINVAL, "disk '%s': smaller than one block (%u bytes)", path, block_size_bytes);
	uint64_t tail = size & (block_size_bytes - 1);
	if (tail)
		log_info(log, "disk '%s': not a multiple of %u bytes; the guest does not see the last %u", path,
			 block_size_bytes, (unsigned)tail);
	*ret_size_bytes = size - tail;
	return 0;
}

static uint32_t round_to_power_of_two(uint64_t n, uint32_t min, uint32_t max)
{
	uint32_t power = min;
	while (power < max && power * 2ULL <= n)
		power *= 2;
	return power;
}

/* Where nobody says: does a read of one sector at the second one work? */
static bool sectors_are_refused(int fd)
{
	void *sector = NULL;
	if (posix_memalign(&sector, DIRECT_ALIGN_BYTES, BLOCK_SECTOR_BYTES) != 0)
		return false;
	bool refused = pread(fd, sector, BLOCK_SECTOR_BYTES, BLOCK_SECTOR_BYTES) < 0 && errno == EINVAL;
	free(sector);
	return refused;
}

/* The smallest unit of I/O, and of memory. Through the page cache a file has none, a device its sector. */
static int find_block_size(struct block_raw_file *file, const struct block_raw_config *config, uint32_t *ret_size,
			   struct err *err)
{
	uint32_t size = BLOCK_SECTOR_BYTES, align = 0;
	int sector = 0;
	file->memory_align = 1;
	if (file->is_device && ioctl(file->fd, BLKSSZGET, &sector) == 0 && sector > BLOCK_SECTOR_BYTES)
		size = (uint32_t)sector;
	if (config->direct && block_raw_direct_alignment(file->fd, &align, &file->memory_align)) {
		size = (uint32_t)max_u64(size, align);
	} else if (config->direct) {
		file->memory_align = DIRECT_ALIGN_BYTES;
		size = sectors_are_refused(file->fd) ? DIRECT_ALIGN_BYTES : size;
	}
	if (size > BLOCK_MAX_BYTES || (size & (size - 1)))
		return err_config(err, -EINVAL, "disk '%s': its blocks have %u bytes; a disk's have 512 to 4096",
				  config->path, size);
	*ret_size = size;
	return 0;
}

static void find_shape(const struct block_raw_file *file, struct block_info *info)
{
	struct stat st = {0};
	(void)fstat(file->fd, &st);
	unsigned physical = (unsigned)st.st_blksize, optimal = 0;
	if (file->is_device && ioctl(file->fd, BLKPBSZGET, &physical) < 0)
		physical = info->block_size_bytes;
	if (file->is_device && ioctl(file->fd, BLKIOOPT, &optimal) < 0)
		optimal = 0;
	info->physical_block_bytes = round_to_power_of_two(physical, info->block_size_bytes, PHYSICAL_MAX_BYTES);
	info->optimal_io_bytes = (uint32_t)align_down(optimal, info->block_size_bytes);
	/* Whether holes can be punched shows with the first one: a file system without them only ignores discards. */
	info->discard_granularity_bytes = info->read_only ? 0 : info->physical_block_bytes;
	info->can_write_zeroes = !info->read_only;
}

static int inspect(struct block_raw_file *file, struct block_info *info, const struct block_raw_config *config,
		   const struct log *log, struct err *err)
{
	int r = lock_file(file->fd, config, log, err);
	if (r == 0)
		r = find_block_size(file, config, &info->block_size_bytes, err);
	if (r == 0)
		r = block_raw_file_size(file, config->path, info->block_size_bytes, log, &info->size_bytes, err);
	if (r == 0)
		r = check_format(file, config, err);
	if (r == 0)
		find_shape(file, info);
	return r;
}

int block_raw_file_open(struct block_raw_file *ret_file, struct block_info *ret_info,
			const struct block_raw_config *config, const struct log *log, struct err *err)
{
	struct block_raw_file file = {.fd = -1};
	struct block_info info = {.read_only = config->read_only};
	int r = open_file(&file, config, err);
	if (r == 0)
		r = inspect(&file, &info, config, log, err);
	if (r < 0) {
		fd_close(&file.fd);
		return r;
	}
	*ret_file = file;
	*ret_info = info;
	return 0;
}

void block_raw_file_close(struct block_raw_file *file)
{
	fd_close(&file->fd);
}
