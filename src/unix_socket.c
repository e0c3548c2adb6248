#include "unix_socket.h"

#include <errno.h>
#include <stdlib.h>
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

static int new_socket(int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

static int connect_type(const struct sockaddr_un *address, int type)
{
	int fd = new_socket(type | SOCK_NONBLOCK);
	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return fd;
	int r = -errno;
	close(fd);
	return r;
}

int unix_socket_connect(const char *path)
{
	struct sockaddr_un address;
	int r = set_address(&address, path);
	return r < 0 ? r : connect_type(&address, SOCK_STREAM);
}

/* The file takes its mode from the socket, so that it never is open to others, not even for a moment. */
static int bind_private(int fd, const struct sockaddr_un *address)
{
	if (fchmod(fd, S_IRUSR | S_IWUSR) < 0)
		return -errno;
	return bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

/*
 * A socket's file outlives who made it; that nobody listens is what tells. Who asks with a socket of another type is
 * told whether somebody is there (EPROTOTYPE) or not (ECONNREFUSED), and nobody has to accept a connection for it.
 */
static int remove_stale(const struct sockaddr_un *address, struct err *err)
{
	struct stat st;
	if (lstat(address->sun_path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return err_config(err, -EEXIST, "a file is there that is not a socket");
	int r = connect_type(address, SOCK_DGRAM);
	if (r >= 0 || r == -EPROTOTYPE) {
		fd_close(&r);
		return err_config(err, -EADDRINUSE, "in use by another program");
	}
	if (r != -ECONNREFUSED && r != -ENOENT)
		return err_config(err, r, "a socket is there: %s", err_name(r));
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return err_config(err, -errno, "remove the socket that nobody listens on: %s", err_name(errno));
	return 0;
}

static int bind_at(int fd, const struct sockaddr_un *address, struct err *err)
{
	int r = bind_private(fd, address);
	if (r == -EADDRINUSE) {
		r = remove_stale(address, err);
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
	int fd = new_socket(SOCK_STREAM); /* io_uring waits for it; with O_NONBLOCK it would fail with EAGAIN */
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

/* --- with the file ------------------------------------------------------------------------------------------------ */

int unix_listener_open(struct unix_listener *ret_listener, const char *path, int backlog, struct err *err)
{
	struct stat st;
	*ret_listener = (struct unix_listener){.fd = -1};
	char *copy = strdup(path);
	if (!copy)
		return err_set(err, -ENOMEM, "%s", err_name(ENOMEM));
	int fd = unix_socket_listen(path, backlog, err);
	if (fd < 0) {
		free(copy);
		return fd;
	}
	*ret_listener = (struct unix_listener){.fd = fd, .path = copy};
	if (lstat(path, &st) == 0) {
		ret_listener->dev = st.st_dev;
		ret_listener->ino = st.st_ino;
	}
	return 0;
}

void unix_listener_close(struct unix_listener *listener)
{
	struct stat st;
	if (!listener->path)
		return;
	if (lstat(listener->path, &st) == 0 && st.st_dev == listener->dev && st.st_ino == listener->ino)
		(void)unlink(listener->path);
	fd_close(&listener->fd);
	free(listener->path);
	listener->path = NULL;
}
