#include "netif_tap_device.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "util.h"

enum {
	TAP_FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
	/* TUNSETOFFLOAD, Linux 6.2 and later; the kernel takes them together only. */
	FLAG_USO4 = 0x20,
	FLAG_USO6 = 0x40,
	BUSY_TRIES = 200,
	BUSY_RETRY_NS = 10000000,
	MTU_MIN = 68, /* of IPv4 (RFC 791) and so of the kernel's Ethernet */
};

static const char *const NO_DEVICE =
	"tap: no /dev/net/tun; load the module (modprobe tun, as root), or give it to the container "
	"(--device /dev/net/tun); or use --net passt";

/* --- opening a queue ------------------------------------------------------------------------------------------ */

static int open_tun(struct err *err)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	int r = -errno;
	if (r == -ENOENT || r == -ENODEV || r == -ENXIO)
		return err_set(err, r, "%s", NO_DEVICE);
	if (r == -EACCES || r == -EPERM)
		return err_set(err, r,
			       "tap: /dev/net/tun: %s; let users open it (chmod 666 /dev/net/tun, as root), or use "
			       "--net passt",
			       err_name(r));
	return err_set(err, r, "tap: /dev/net/tun: %s", err_name(r));
}

static int set_interface(int fd, struct ifreq *request, bool patient)
{
	struct ifreq copy = *request;
	for (unsigned i = 0; i < BUSY_TRIES; i++) {
		*request = copy;
		if (ioctl(fd, TUNSETIFF, request) == 0)
			return 0;
		if (errno != EBUSY || !patient)
			return -errno;
		(void)nanosleep(&(struct timespec){.tv_nsec = BUSY_RETRY_NS}, NULL);
	}
	return -EBUSY;
}

/* One more queue of the interface `device->name`; the kernel fills in the number of a name with %d. */
static int attach(struct netif_tap_device *device, int flags, bool patient, int *ret_refused, struct err *err)
{
	int fd = open_tun(err);
	if (fd < 0)
		return fd;
	struct ifreq request = {.ifr_flags = (short)flags};
	memcpy(request.ifr_name, device->name, sizeof(device->name));
	*ret_refused = set_interface(fd, &request, patient);
	if (*ret_refused < 0) {
		fd_close(&fd);
		return 0;
	}
	memcpy(device->name, request.ifr_name, sizeof(device->name));
	device->fds[device->queues++] = fd;
	return 0;
}

/* --- refusals ------------------------------------------------------------------------------------------------- */

/* What root has to type for `name`. */
struct recipe {
	char text[160];
};

static struct recipe recipe_for(const char *name, unsigned queues)
{
	struct recipe recipe;
	(void)snprintf(recipe.text, sizeof(recipe.text),
		       "ip tuntap add dev %s mode tap%s user NAME && ip link set %s up", name,
		       queues > 1 ? " multi_queue" : "", name);
	return recipe;
}

static int not_permitted(const struct netif_tap_device *device, const struct netif_tap_config *config, bool exists,
			 int r, struct err *err)
{
	const char *name = config->interface;
	if (!name)
		return err_config(err, r,
				  "tap: this user may not make an interface (%s); make one for him, as root: %s; then "
				  "use --net tap=tap0; or --net passt, which needs no privilege",
				  err_name(r), recipe_for("tap0", config->queues).text);
	if (exists)
		return err_config(err, r,
				  "tap '%s': it is not this user's (%s); make it anew for him, as root: ip link delete "
				  "%s && %s",
				  name, err_name(r), name, recipe_for(device->name, config->queues).text);
	return err_config(err, r,
			  "tap '%s': there is none, and this user may not make it (%s); as root: %s; or use --net "
			  "passt, which needs no privilege",
			  name, err_name(r), recipe_for(device->name, config->queues).text);
}

static int refused(const struct netif_tap_device *device, const struct netif_tap_config *config, bool exists, int r,
		   struct err *err)
{
	const char *name = config->interface ? config->interface : device->name;
	if (r == -EPERM || r == -EACCES)
		return not_permitted(device, config, exists, r, err);
	if (r == -EBUSY)
		return err_config(err, r,
				  "tap '%s': in use by another process; end that, or give each VM a tap of its own",
				  name);
	if (r == -E2BIG)
		return err_config(err, r, "tap '%s': other processes have all its queues; end one of them", name);
	if (r == -ENOTTY)
		return err_set(err, r,
			       "tap: /dev/net/tun is not the kernel's; make it, as root: mknod /dev/net/tun c 10 200");
	if (r == -EINVAL && exists)
		return err_config(err, r, "tap '%s': an interface of another kind, not a tap (ip -d link show %s)",
				  name, name);
	if (r == -EINVAL)
		return err_config(err, r, "tap '%s': an interface cannot have this name", name);
	return err_config(err, r, "tap '%s': %s", name, err_name(r));
}

/* --- attaching ------------------------------------------------------------------------------------------------ */

static int copy_name(struct netif_tap_device *device, const char *interface, struct err *err)
{
	const char *name = interface ? interface : "vmlet%d";
	size_t length = strlen(name);
	if (length == 0 || length >= sizeof(device->name))
		return err_config(err, -EINVAL, "tap '%s': an interface's name has 1 to %d characters", name,
				  IFNAMSIZ - 1);
	memcpy(device->name, name, length + 1);
	return 0;
}

/* A tap that exists is of one queue or of several, and is asked for as what it is. */
static int attach_first(struct netif_tap_device *device, const struct netif_tap_config *config, bool exists,
			bool patient, int *ret_flags, struct err *err)
{
	int flags = TAP_FLAGS | (config->queues > 1 ? IFF_MULTI_QUEUE : 0), refusal = 0;
	int r = attach(device, flags, patient, &refusal, err);
	if (r == 0 && refusal == -EINVAL && exists) {
		flags ^= IFF_MULTI_QUEUE;
		r = attach(device, flags, patient, &refusal, err);
	}
	if (r < 0)
		return r;
	if (refusal < 0)
		return refused(device, config, exists, refusal, err);
	if (config->queues > 1 && !(flags & IFF_MULTI_QUEUE))
		return err_config(err, -EINVAL,
				  "tap '%s': it has one queue, not %u; use queues=1, or make it anew, as root: ip link "
				  "delete %s && %s",
				  device->name, config->queues, device->name,
				  recipe_for(device->name, config->queues).text);
	*ret_flags = flags;
	return 0;
}

static int attach_all(struct netif_tap_device *device, const struct netif_tap_config *config, bool patient,
		      struct err *err)
{
	if (config->queues < 1 || config->queues > NETIF_QUEUES_MAX)
		return err_config(err, -EINVAL, "tap: %u queues; it can have 1 to %d", config->queues,
				  NETIF_QUEUES_MAX);
	int r = copy_name(device, config->interface, err);
	if (r < 0)
		return r;
	bool exists = if_nametoindex(device->name) != 0;
	int flags = 0, refusal = 0;
	r = attach_first(device, config, exists, patient, &flags, err);
	while (r == 0 && device->queues < config->queues) {
		r = attach(device, flags, patient, &refusal, err);
		if (r == 0 && refusal < 0)
			r = refused(device, config, true, refusal, err);
	}
	device->is_made = !exists;
	return r;
}

static int take_given(struct netif_tap_device *device, const struct netif_tap_config *config, struct err *err)
{
	device->is_given = true;
	if (config->queues > 1)
		return err_config(err, -EINVAL, "tap: descriptor %d is one queue, not %u; use queues=1", config->fd,
				  config->queues);
	int fd = fcntl(config->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_config(err, -errno, "tap: descriptor %d: %s", config->fd, err_name(errno));
	device->fds[device->queues++] = fd;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_set(err, -errno, "tap: descriptor %d: %s", config->fd, err_name(errno));
	return 0;
}

/* --- what it is, and how it is set up ------------------------------------------------------------------------- */

static int flags_of(const struct netif_tap_device *device)
{
	struct ifreq request = {0};
	return ioctl(device->fds[0], TUNGETIFF, &request) < 0 ? -errno : (unsigned short)request.ifr_flags;
}

/*
 * TUNGETIFF says IFF_NO_PI also of a tap that no packet filter is attached to: IFF_NOFILTER is the same bit. So one is
 * attached, which lets everything pass, and the answer is right.
 */
static bool has_no_packet_info(const struct netif_tap_device *device)
{
	struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
	struct sock_fprog program = {.len = 1, .filter = &pass};
	int flags = flags_of(device);
	if (flags & IFF_NO_PI && ioctl(device->fds[0], TUNATTACHFILTER, &program) == 0) {
		flags = flags_of(device);
		(void)ioctl(device->fds[0], TUNDETACHFILTER, &program);
	}
	return flags >= 0 && flags & IFF_NO_PI;
}

static int find_name(struct netif_tap_device *device, const struct netif_tap_config *config, struct err *err)
{
	struct ifreq request = {0};
	if (ioctl(device->fds[0], TUNGETIFF, &request) < 0)
		return err_config(err, -errno, "tap: descriptor %d is no tap's (%s); open /dev/net/tun and TUNSETIFF",
				  config->fd, err_name(errno));
	memcpy(device->name, request.ifr_name, sizeof(device->name));
	return 0;
}

/* Of one that another process has, or has opened, the flags are as that one wanted them. */
static int check_flags(const struct netif_tap_device *device, struct err *err)
{
	int flags = flags_of(device);
	if (flags < 0 || !(flags & IFF_TAP))
		return err_config(err, -EINVAL,
				  "tap '%s': a tun, which carries IP packets; make it with IFF_TAP (mode tap)",
				  device->name);
	bool has_headers = flags & IFF_VNET_HDR;
	if (!has_headers || !has_no_packet_info(device))
		return err_config(err, -EINVAL,
				  "tap '%s': it was opened without %s; open it with IFF_TAP | IFF_NO_PI | "
				  "IFF_VNET_HDR",
				  device->name, has_headers ? "IFF_NO_PI" : "virtio-net headers");
	return 0;
}

/* A send buffer without end, as the kernel gives it by itself: a write then never has to wait, and none overtakes. */
static int set_header(const struct netif_tap_device *device, struct err *err)
{
	int size = NETIF_HEADER_BYTES, little_endian = 1, send_buffer = INT_MAX;
	for (unsigned i = 0; i < device->queues; i++) {
		int fd = device->fds[i];
		if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0 ||
		    ioctl(fd, TUNSETSNDBUF, &send_buffer) < 0)
			return err_set(err, -errno, "tap '%s': set up its virtio-net headers: %s", device->name,
				       err_name(errno));
	}
	return 0;
}

static unsigned long kernel_offloads(unsigned offloads)
{
	unsigned long flags = 0;
	if (!(offloads & NETIF_OFFLOAD_CSUM))
		return 0;
	if (offloads & NETIF_OFFLOAD_TSO4)
		flags |= TUN_F_TSO4;
	if (offloads & NETIF_OFFLOAD_TSO6)
		flags |= TUN_F_TSO6;
	if (flags && offloads & NETIF_OFFLOAD_TSO_ECN)
		flags |= TUN_F_TSO_ECN;
	if (offloads & NETIF_OFFLOAD_USO)
		flags |= FLAG_USO4 | FLAG_USO6;
	return flags | TUN_F_CSUM;
}

int netif_tap_device_set_offloads(const struct netif_tap_device *device, unsigned offloads)
{
	return ioctl(device->fds[0], TUNSETOFFLOAD, kernel_offloads(offloads)) < 0 ? -errno : 0;
}

/* The kernel refuses a set in which there is one that it does not know. */
static unsigned probe_offloads(const struct netif_tap_device *device)
{
	static const unsigned TSO = NETIF_OFFLOAD_TSO4 | NETIF_OFFLOAD_TSO6 | NETIF_OFFLOAD_TSO_ECN;
	const unsigned sets[] = {
		NETIF_OFFLOAD_CSUM | TSO | NETIF_OFFLOAD_USO,
		NETIF_OFFLOAD_CSUM | TSO,
		NETIF_OFFLOAD_CSUM,
	};
	unsigned found = 0;
	for (size_t i = 0; i < ARRAY_SIZE(sets) && !found; i++)
		found = netif_tap_device_set_offloads(device, sets[i]) == 0 ? sets[i] : 0;
	(void)netif_tap_device_set_offloads(device, 0);
	return found;
}

static int set_queue(int fd, int what)
{
	struct ifreq request = {.ifr_flags = (short)what};
	return ioctl(fd, TUNSETQUEUE, &request) < 0 ? -errno : 0;
}

int netif_tap_device_set_queues(const struct netif_tap_device *device, unsigned from, unsigned to)
{
	int r = 0;
	for (; from < to && r == 0; from++)
		r = set_queue(device->fds[from], IFF_ATTACH_QUEUE);
	/* The last first: the kernel gives the number of one that goes to the last. */
	for (; from > to && r == 0; from--)
		r = set_queue(device->fds[from - 1], IFF_DETACH_QUEUE);
	return r;
}

/* --- the interface -------------------------------------------------------------------------------------------- */

static int bring_up(const struct netif_tap_device *device, int control, uint16_t mtu, struct err *err)
{
	struct ifreq request = {0};
	memcpy(request.ifr_name, device->name, sizeof(device->name));
	request.ifr_mtu = mtu;
	if (mtu && ioctl(control, SIOCSIFMTU, &request) < 0)
		return err_config(err, -errno, "tap '%s': MTU %u: %s; an Ethernet interface's is %d to 65521",
				  device->name, mtu, err_name(errno), MTU_MIN);
	int r = ioctl(control, SIOCGIFFLAGS, &request);
	request.ifr_flags |= IFF_UP;
	if (r == 0)
		r = ioctl(control, SIOCSIFFLAGS, &request);
	return r < 0 ? err_set(err, -errno, "tap '%s': bring it up: %s", device->name, err_name(errno)) : 0;
}

/* A given descriptor may be of another network namespace, where its name says nothing here: it is compared. */
static uint16_t mtu_of(const struct netif_tap_device *device, int control)
{
	struct ifreq here = {0}, there = {0}, request = {0};
	memcpy(here.ifr_name, device->name, sizeof(device->name));
	memcpy(request.ifr_name, device->name, sizeof(device->name));
	if (device->is_given &&
	    (ioctl(control, SIOCGIFHWADDR, &here) < 0 || ioctl(device->fds[0], SIOCGIFHWADDR, &there) < 0 ||
	     memcmp(here.ifr_hwaddr.sa_data, there.ifr_hwaddr.sa_data, NETIF_MAC_BYTES) != 0))
		return 0;
	if (ioctl(control, SIOCGIFMTU, &request) < 0 || request.ifr_mtu < MTU_MIN || request.ifr_mtu > UINT16_MAX)
		return 0;
	return (uint16_t)request.ifr_mtu;
}

static int set_up_interface(struct netif_tap_device *device, uint16_t mtu, struct err *err)
{
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (control < 0)
		return err_set(err, -errno, "tap '%s': a socket to set it up: %s", device->name, err_name(errno));
	int r = device->is_made ? bring_up(device, control, mtu, err) : 0;
	device->mtu = mtu_of(device, control);
	fd_close(&control);
	return r;
}

enum netif_tap_state netif_tap_state_of(uint32_t poll_events)
{
	if (poll_events & (POLLERR | POLLHUP | POLLNVAL))
		return NETIF_TAP_GONE;
	return poll_events & POLLOUT ? NETIF_TAP_UP : NETIF_TAP_DOWN;
}

/* This needs no name, which may be changed, and no privilege. */
enum netif_tap_state netif_tap_device_state(const struct netif_tap_device *device)
{
	struct pollfd item = {.fd = device->fds[0], .events = POLLOUT};
	int r = poll(&item, 1, 0);
	return netif_tap_state_of(r > 0 ? (uint32_t)item.revents : 0);
}

static int set_up(struct netif_tap_device *device, const struct netif_tap_config *config, struct err *err)
{
	int r = find_name(device, config, err);
	if (r == 0)
		r = check_flags(device, err);
	if (r == 0)
		r = set_header(device, err);
	if (r < 0)
		return r;
	device->offloads = probe_offloads(device);
	r = netif_tap_device_set_queues(device, device->queues, 1);
	if (r < 0)
		return err_set(err, r, "tap '%s': switch queues off: %s", device->name, err_name(r));
	return set_up_interface(device, config->mtu, err);
}

int netif_tap_device_open(struct netif_tap_device *ret_device, const struct netif_tap_config *config, bool patient,
			  struct err *err)
{
	struct netif_tap_device device = {0};
	int r = config->fd >= 0 ? take_given(&device, config, err) : attach_all(&device, config, patient, err);
	if (r == 0)
		r = set_up(&device, config, err);
	if (r < 0) {
		netif_tap_device_close(&device);
		return r;
	}
	*ret_device = device;
	return 0;
}

void netif_tap_device_close(struct netif_tap_device *device)
{
	while (device->queues)
		fd_close(&device->fds[--device->queues]);
}
