#include "unix_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"

static int set_address(struct sockaddr_un *address, const char *path)
{
	size_t length = strlen(path);
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (length == 0)
		return -ENOENT;
	if (length >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memcpy(address->sun_path, path, length);
	return 0;
}

static int connect_type(const struct sockaddr_un *address, int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return fd;
	int code = -errno;
	close(fd);
	return code;
}

int unix_socket_connect(const char *path)
{
	struct sockaddr_un address;
	int r = set_address(&address, path);
	return r < 0 ? r : connect_type(&address, SOCK_STREAM);
}

/*
 * A socket file outlives a program that was killed. Who asks with a socket of another type is told whether somebody is
 * there (EPROTOTYPE) or not (ECONNREFUSED), and nobody has to accept a connection for it.
 */
static int remove_stale(const struct sockaddr_un *address)
{
	struct stat st;
	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	int r = connect_type(address, SOCK_DGRAM);
	if (r >= 0)
		close(r);
	if (r != -ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_address(int fd, const struct sockaddr_un *address)
{
	const struct sockaddr *sockaddr = (const struct sockaddr *)address;
	if (bind(fd, sockaddr, sizeof(*address)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return -errno;
	int r = remove_stale(address);
	if (r < 0)
		return r;
	return bind(fd, sockaddr, sizeof(*address)) < 0 ? -errno : 0;
}

static const char *words_for(int code)
{
	switch (code) {
	case -EEXIST:
		return "a file that is no socket is there already";
	case -EADDRINUSE:
		return "another program listens there";
	case -ENAMETOOLONG:
		return "a socket's path has at most 107 characters";
	default:
		return err_name(code);
	}
}

static int open_listener(struct unix_listener *listener, const char *path, int backlog)
{
	struct sockaddr_un address;
	struct stat st;
	int r = set_address(&address, path);
	if (r < 0)
		return r;
	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener->fd < 0)
		return -errno;
	r = bind_address(listener->fd, &address);
	if (r < 0)
		return r;
	listener->path = strdup(path);
	if (!listener->path) {
		unlink(path);
		return -ENOMEM;
	}
	if (lstat(path, &st) == 0) {
		listener->dev = st.st_dev;
		listener->ino = st.st_ino;
	}
	return listen(listener->fd, backlog) < 0 ? -errno : 0;
}

int unix_listener_open(struct unix_listener *ret_listener, const char *path, int backlog, struct err *err)
{
	*ret_listener = (struct unix_listener){.fd = -1};
	int r = open_listener(ret_listener, path, backlog);
	return r < 0 ? err_config(err, r, "%s", words_for(r)) : 0;
}

void unix_listener_close(struct unix_listener *listener)
{
	struct stat st;
	if (!listener->path && listener->fd <= 0)
		return;
	if (listener->path && lstat(listener->path, &st) == 0 && st.st_dev == listener->dev &&
	    st.st_ino == listener->ino)
		unlink(listener->path);
	fd_close(&listener->fd);
	free(listener->path);
	listener->path = NULL;
}
