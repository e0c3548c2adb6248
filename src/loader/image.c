#include "loader/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"

/* The host is out of something; anything else is about the path that the user gave. */
static bool is_host_fault(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO;
}

static int open_failed(const char *what, const char *path, int error, struct err *err)
{
	if (is_host_fault(error))
		return err_set(err, -error, "%s '%s': %s", what, path, err_name(error));
	return err_config(err, -error, "%s '%s': %s", what, path, err_name(error));
}

static const char *file_type_name(mode_t mode)
{
	if (S_ISDIR(mode))
		return "a directory";
	if (S_ISFIFO(mode))
		return "a FIFO";
	if (S_ISSOCK(mode))
		return "a socket";
	if (S_ISBLK(mode))
		return "a block device";
	return S_ISCHR(mode) ? "a character device" : "something else";
}

int image_open(struct image *image, const char *what, const char *path, struct err *err)
{
	/* Not blocking: opening a FIFO would wait for a writer. Regular files ignore the flag. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return open_failed(what, path, errno, err);

	struct stat st;
	if (fstat(fd, &st) < 0) {
		int error = errno;
		close(fd);
		return err_set(err, -error, "%s '%s': fstat: %s", what, path, err_name(error));
	}
	if (!S_ISREG(st.st_mode)) {
		close(fd);
		return err_config(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL,
				  "%s '%s': not a regular file: this is %s", what, path, file_type_name(st.st_mode));
	}
	*image = (struct image){.path = path, .fd = fd, .size_bytes = (uint64_t)st.st_size};
	return 0;
}

void image_close(struct image *image)
{
	fd_close(&image->fd);
}

int image_read(const struct image *image, uint64_t offset, void *ret_data, size_t size_bytes)
{
	if (offset > image->size_bytes || size_bytes > image->size_bytes - offset)
		return -ENODATA;
	return fd_pread_all(image->fd, ret_data, size_bytes, offset);
}
