#include "setup.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/sockios.h>

/* The kernel's headers for these want a libc's. */
enum { CHARACTER_DEVICE = 0020000, INET_FAMILY = 2, DATAGRAMS = 2, INTERFACE_UP = 1 };
struct interface_request {
	char name[16];
	short flags;
	char unused[22];
};

/* What cannot be mounted is not there; a command that needs it will say so. */
static bool mount(const char *type, const char *where, unsigned mode, unsigned long flags, const char *options)
{
	SYS_2(mkdir, where, mode);
	return SYS_5(mount, type, where, type, flags, options) >= 0;
}

static unsigned long device_number(unsigned major, unsigned minor)
{
	return major << 8 | minor;
}

/* For a kernel without devtmpfs. */
static void make_nodes(void)
{
	SYS_3(mknod, "/dev/console", CHARACTER_DEVICE | 0600, device_number(5, 1));
	SYS_3(mknod, "/dev/null", CHARACTER_DEVICE | 0666, device_number(1, 3));
	SYS_3(mknod, "/dev/port", CHARACTER_DEVICE | 0600, device_number(1, 4));
	SYS_3(mknod, "/dev/zero", CHARACTER_DEVICE | 0666, device_number(1, 5));
	SYS_3(mknod, "/dev/kmsg", CHARACTER_DEVICE | 0644, device_number(1, 11));
	SYS_3(mknod, "/dev/random", CHARACTER_DEVICE | 0666, device_number(1, 8));
	SYS_3(mknod, "/dev/urandom", CHARACTER_DEVICE | 0666, device_number(1, 9));
	SYS_3(mknod, "/dev/tty", CHARACTER_DEVICE | 0666, device_number(5, 0));
	SYS_3(mknod, "/dev/ptmx", CHARACTER_DEVICE | 0666, device_number(5, 2));
}

static void make_links(void)
{
	SYS_2(symlink, "/proc/self/fd", "/dev/fd");
	SYS_2(symlink, "/proc/self/fd/0", "/dev/stdin");
	SYS_2(symlink, "/proc/self/fd/1", "/dev/stdout");
	SYS_2(symlink, "/proc/self/fd/2", "/dev/stderr");
}

/* Descriptors 0 to 2 must be something, or the first pipe would be one of them. */
static void fill_standard_descriptors(void)
{
	long fd;

	do
		fd = SYS_3(open, "/dev/null", O_RDWR, 0);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		SYS_1(close, fd);
}

void setup_mounts(void)
{
	const unsigned long plain = MS_NOSUID | MS_NOEXEC | MS_NODEV;

	if (!mount("devtmpfs", "/dev", 0755, MS_NOSUID, "mode=0755"))
		make_nodes();
	fill_standard_descriptors();
	mount("proc", "/proc", 0555, plain, NULL);
	mount("sysfs", "/sys", 0555, plain, NULL);
	mount("devpts", "/dev/pts", 0755, MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666");
	mount("tmpfs", "/dev/shm", 01777, MS_NOSUID | MS_NODEV, "mode=1777");
	make_links();
	/* The root file system is in memory as it is. mkdir masks the mode with nothing: init's umask is cleared. */
	SYS_2(mkdir, "/tmp", 01777);
	SYS_2(mkdir, "/run", 0755);
	SYS_2(mkdir, "/root", 0700);
}

void setup_loopback(void)
{
	struct interface_request request = {.name = "lo", .flags = INTERFACE_UP};
	long fd = SYS_3(socket, INET_FAMILY, DATAGRAMS | O_CLOEXEC, 0);

	if (fd < 0)
		return;
	SYS_3(ioctl, fd, SIOCSIFFLAGS, &request);
	SYS_1(close, fd);
}

static bool is_compressed(const char *path)
{
	return text_has_suffix(path, ".xz") || text_has_suffix(path, ".gz") || text_has_suffix(path, ".zst");
}

long setup_module(const char *path, struct sentence *why)
{
	bool compressed = is_compressed(path);
	long fd = SYS_3(open, path, O_RDONLY | O_CLOEXEC, 0);
	long r = fd;

	if (fd >= 0) {
		r = SYS_3(finit_module, fd, "", compressed ? MODULE_INIT_COMPRESSED_FILE : 0);
		SYS_1(close, fd);
	}
	if (r >= 0 || r == -EEXIST)
		return 0;
	if (compressed && (r == -EINVAL || r == -EOPNOTSUPP))
		sentence_add(why, ": this kernel cannot unpack modules; give it uncompressed");
	else
		sentence_add_error(why, r);
	return r;
}
