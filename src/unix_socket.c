#include "unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"

static int set_address(struct sockaddr_un *ret_address, const char *path)
{
	_Static_assert(sizeof(ret_address->sun_path) == UNIX_SOCKET_PATH_MAX + 1, "sun_path");
	size_t size = strlen(path);
	if (size == 0)
		return -EINVAL;
	if (size > UNIX_SOCKET_PATH_MAX)
		return -ENAMETOOLONG;
	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(ret_address->sun_path, path, size);
	return 0;
}

static int new_socket(int flags)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	return fd < 0 ? -errno : fd;
}

int unix_socket_connect(const char *path)
{
	struct sockaddr_un address;
	int r = set_address(&address, path);
	int fd = r < 0 ? r : new_socket(SOCK_NONBLOCK);
	if (fd < 0)
		return fd;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* The file takes its mode from the socket, so that it never is open to others, not even for a moment. */
static int bind_private(int fd, const struct sockaddr_un *address)
{
	if (fchmod(fd, S_IRUSR | S_IWUSR) < 0)
		return -errno;
	return bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

/* A socket's file outlives who made it; that nobody listens is what tells. */
static int remove_stale(const char *path, struct err *err)
{
	struct stat st;
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return err_config(err, -EEXIST, "a file is there that is not a socket");
	int fd = unix_socket_connect(path);
	if (fd >= 0 || fd == -EAGAIN) {
		fd_close(&fd);
		return err_config(err, -EADDRINUSE, "in use by another program");
	}
	if (fd != -ECONNREFUSED && fd != -ENOENT)
		return err_config(err, fd, "a socket is there: %s", err_name(fd));
	if (unlink(path) < 0 && errno != ENOENT)
		return err_config(err, -errno, "remove the socket that nobody listens on: %s", err_name(errno));
	return 0;
}

static int bind_at(int fd, const struct sockaddr_un *address, struct err *err)
{
	int r = bind_private(fd, address);
	if (r == -EADDRINUSE) {
		r = remove_stale(address->sun_path, err);
		if (r < 0)
			return r;
		r = bind_private(fd, address);
	}
	return r < 0 ? err_config(err, r, "%s", err_name(r)) : 0;
}

int unix_socket_listen(const char *path, int backlog, struct err *err)
{
	struct sockaddr_un address;
	int r = set_address(&address, path);
	if (r < 0)
		return err_config(err, r, "a socket's path has 1 to %d characters", UNIX_SOCKET_PATH_MAX);
	int fd = new_socket(0); /* io_uring waits for it; with O_NONBLOCK it would fail with EAGAIN */
	if (fd < 0)
		return err_set(err, fd, "socket: %s", err_name(fd));
	r = bind_at(fd, &address, err);
	if (r == 0 && listen(fd, backlog) < 0) {
		r = err_set(err, -errno, "listen: %s", err_name(errno));
		(void)unlink(path);
	}
	if (r == 0)
		return fd;
	close(fd);
	return r;
}
