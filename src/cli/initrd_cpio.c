#include "cli/initrd_cpio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 110, ALIGN = 4, ENTRY_MAX_BYTES = INT32_MAX };

static void fail(struct initrd_cpio *cpio, int code, const char *what)
{
	if (cpio->failed < 0)
		return;
	cpio->failed = code;
	snprintf(cpio->error.text, sizeof(cpio->error.text), "%.300s: %s", what, strerror(-code));
}

int initrd_cpio_init(struct initrd_cpio *cpio)
{
	*cpio = (struct initrd_cpio){.fd = memfd_create("vmlet-initrd", MFD_CLOEXEC)};
	return cpio->fd < 0 ? -errno : 0;
}

void initrd_cpio_fini(struct initrd_cpio *cpio)
{
	for (size_t i = 0; i < cpio->path_count; i++)
		free(cpio->paths[i]);
	free(cpio->paths);
	if (cpio->fd >= 0)
		close(cpio->fd);
	*cpio = (struct initrd_cpio){.fd = -1};
}

/* True when it is new, and from now on known. */
static bool remember(struct initrd_cpio *cpio, const char *path)
{
	char **grown;

	for (size_t i = 0; i < cpio->path_count; i++)
		if (strcmp(cpio->paths[i], path) == 0)
			return false;
	grown = realloc(cpio->paths, (cpio->path_count + 1) * sizeof(*grown));
	if (grown) {
		cpio->paths = grown;
		grown[cpio->path_count] = strdup(path);
	}
	if (!grown || !grown[cpio->path_count]) {
		fail(cpio, -ENOMEM, path);
		return false;
	}
	cpio->path_count++;
	return true;
}

/* --- bytes ---------------------------------------------------------------------------------------------- */

static void put(struct initrd_cpio *cpio, const void *data, size_t size_bytes)
{
	const char *at = data;

	while (cpio->failed == 0 && size_bytes > 0) {
		ssize_t n = write(cpio->fd, at, size_bytes);

		if (n < 0) {
			fail(cpio, -errno, "the initrd");
			return;
		}
		at += n;
		size_bytes -= (size_t)n;
		cpio->size_bytes += (uint64_t)n;
	}
}

static void put_padding(struct initrd_cpio *cpio)
{
	static const char zeros[ALIGN];

	put(cpio, zeros, (size_t)(-cpio->size_bytes % ALIGN));
}

/* Numbers are eight hexadecimal digits each. No two entries share a number, so none is a hard link. */
static void put_header(struct initrd_cpio *cpio, const char *path, unsigned mode, size_t size_bytes)
{
	const char *name = *path == '/' ? path + 1 : path;
	char header[HEADER_BYTES + 1];

	/* magic, ino, mode, uid, gid, nlink, mtime, filesize, dev major and minor, rdev likewise, namesize, check */
	snprintf(header, sizeof(header), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", cpio->entries++,
		 mode, 0U, 0U, 1U, 0U, (unsigned)size_bytes, 0U, 0U, 0U, 0U, (unsigned)strlen(name) + 1, 0U);
	put(cpio, header, HEADER_BYTES);
	put(cpio, name, strlen(name) + 1);
	put_padding(cpio);
}

static void put_file(struct initrd_cpio *cpio, int fd, size_t size_bytes, const char *host_path)
{
	while (cpio->failed == 0 && size_bytes > 0) {
		ssize_t n = sendfile(cpio->fd, fd, NULL, size_bytes);

		if (n <= 0) {
			fail(cpio, n < 0 ? -errno : -EIO, host_path);
			return;
		}
		size_bytes -= (size_t)n;
		cpio->size_bytes += (uint64_t)n;
	}
}

/* --- entries --------------------------------------------------------------------------------------------- */

static void add_parents(struct initrd_cpio *cpio, const char *path)
{
	char parent[4096];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		if (remember(cpio, parent))
			put_header(cpio, parent, S_IFDIR | 0755, 0);
	}
}

void initrd_cpio_add_directory(struct initrd_cpio *cpio, const char *path, unsigned mode)
{
	add_parents(cpio, path);
	if (remember(cpio, path))
		put_header(cpio, path, S_IFDIR | mode, 0);
}

void initrd_cpio_add_bytes(struct initrd_cpio *cpio, const char *path, unsigned mode, const void *data,
			   size_t size_bytes)
{
	add_parents(cpio, path);
	if (!remember(cpio, path))
		return;
	put_header(cpio, path, S_IFREG | mode, size_bytes);
	put(cpio, data, size_bytes);
	put_padding(cpio);
}

static void add_open_file(struct initrd_cpio *cpio, const char *path, unsigned mode, int fd, const char *host_path)
{
	struct stat stat;

	if (fstat(fd, &stat) < 0) {
		fail(cpio, -errno, host_path);
	} else if (!S_ISREG(stat.st_mode)) {
		fail(cpio, S_ISDIR(stat.st_mode) ? -EISDIR : -EINVAL, host_path);
	} else if (stat.st_size > ENTRY_MAX_BYTES) {
		fail(cpio, -EFBIG, host_path);
	} else {
		put_header(cpio, path, S_IFREG | mode, (size_t)stat.st_size);
		put_file(cpio, fd, (size_t)stat.st_size, host_path);
		put_padding(cpio);
	}
}

void initrd_cpio_add_file(struct initrd_cpio *cpio, const char *path, unsigned mode, const char *host_path)
{
	int fd;

	add_parents(cpio, path);
	if (!remember(cpio, path))
		return;
	fd = open(host_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO is no file, but is not waited for */
	if (fd < 0) {
		fail(cpio, -errno, host_path);
		return;
	}
	add_open_file(cpio, path, mode, fd, host_path);
	close(fd);
}

int initrd_cpio_finish(struct initrd_cpio *cpio, struct cli_error *error)
{
	put_header(cpio, "TRAILER!!!", 0, 0);
	if (cpio->failed < 0)
		*error = cpio->error;
	return cpio->failed;
}
