/*
 * The other end of a tap in `bench net`: sends frames out of the interface as fast as whoever reads the tap takes them.
 *
 *     net-peer INTERFACE GUEST-MAC FRAME-BYTES [tso]
 *
 * until its standard input ends; then prints one line of JSON. AF_PACKET; the interface's queueing
 * discipline should be `noqueue`. What it hands
 * to the kernel at a time is a UDP datagram that the kernel cuts into CUTS frames, which costs a third of as many
 * system calls. With `tso` it is TCP that whoever reads the tap is to cut. It shares a CPU with the guest's virtual
 * CPU, so it naps after each burst, and for longer when the interface's queue is full.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net-frames.h"

enum { CUTS_MAX = 64, BURST = 8, BURST_TSO = 32, BURSTS_PER_LOOK = 4, PAUSE_NS = 120000, FULL_PAUSE_NS = 1000000 };
enum { TX_DROPPED_FIELD = 12 }; /* of a line of /proc/net/dev, after the name */

static unsigned char frame[FRAME_MAX];
static struct virtio_net_hdr header;

static int check(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static void nap(long ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static void read_mac(const char *text, unsigned char ret_mac[6])
{
	unsigned byte[6];

	if (sscanf(text, "%x:%x:%x:%x:%x:%x", &byte[0], &byte[1], &byte[2], &byte[3], &byte[4], &byte[5]) != 6)
		check(-1, "the guest's address");
	for (int i = 0; i < 6; i++)
		ret_mac[i] = (unsigned char)byte[i];
}

/* Returns how many bytes to send at a time, for `ret_cuts` frames in the end. */
static size_t make_frame(const char *mac, size_t bytes, bool tso, unsigned *ret_cuts)
{
	unsigned char to[6];
	size_t data = bytes - FRAME_UDP_MIN, whole, cuts;

	read_mac(mac, to);
	if (tso) {
		frame_tcp(frame, bytes, to, &header);
		*ret_cuts = 1;
		return bytes;
	}
	cuts = (FRAME_MAX - FRAME_UDP_MIN) / data;
	if (cuts > CUTS_MAX)
		cuts = CUTS_MAX;
	whole = FRAME_UDP_MIN + cuts * data;
	frame_udp(frame, whole, to, bytes, &header);
	*ret_cuts = (unsigned)cuts;
	return whole;
}

static int open_socket(const char *interface)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
	int one = 1, bytes = 64 << 20;
	int fd = check(socket(AF_PACKET, SOCK_RAW, 0), "AF_PACKET"); /* protocol 0: it receives nothing */

	check(bind(fd, (struct sockaddr *)&to, sizeof(to)), interface);
	check(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)), "SO_SNDBUFFORCE");
	check(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), "PACKET_VNET_HDR");
	return fd;
}

static bool is_over(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};
	char c;

	return poll(&in, 1, 0) > 0 && read(0, &c, 1) <= 0;
}

/* How many frames the interface has dropped because nobody read its queue in time. */
static unsigned long dropped(const char *interface)
{
	static int fd = -1;
	char text[8192], *at;
	ssize_t n;

	if (fd < 0)
		fd = check(open("/proc/net/dev", O_RDONLY), "/proc/net/dev");
	n = pread(fd, text, sizeof(text) - 1, 0);
	text[n < 0 ? 0 : n] = 0;
	at = strstr(text, interface);
	if (!at)
		check(-1, "the interface's line in /proc/net/dev");
	at += strlen(interface) + 1;
	for (int i = 1; i < TX_DROPPED_FIELD; i++)
		strtoul(at, &at, 10);
	return strtoul(at, &at, 10);
}

/* ENOBUFS and EAGAIN: the queue is full. */
static unsigned long send_burst(int fd, const struct msghdr *message, unsigned count, unsigned cuts)
{
	unsigned long sent = 0;

	for (unsigned i = 0; i < count; i++) {
		ssize_t n = sendmsg(fd, message, MSG_DONTWAIT);

		if (n < 0 && errno != ENOBUFS && errno != EAGAIN)
			check(-1, "sendmsg");
		sent += n > 0 ? cuts : 0;
	}
	return sent;
}

int main(int argc, char **argv)
{
	size_t bytes = argc > 3 ? (size_t)atoi(argv[3]) : 0;
	bool tso = argc > 4;
	unsigned long sent = 0, lost, lost_before;
	struct iovec iov[2] = {{&header, sizeof(header)}, {frame, 0}};
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
	unsigned cuts;
	int fd;

	if (bytes <= FRAME_TCP_MIN || bytes > FRAME_MAX)
		return fprintf(stderr, "usage: net-peer INTERFACE GUEST-MAC FRAME-BYTES [tso]\n"), 2;
	prctl(PR_SET_TIMERSLACK, 1);
	iov[1].iov_len = make_frame(argv[2], bytes, tso, &cuts);
	fd = open_socket(argv[1]);
	lost = lost_before = dropped(argv[1]);
	for (unsigned long bursts = 1; !is_over(); bursts++) {
		unsigned long before = lost;

		sent += send_burst(fd, &message, tso ? BURST_TSO : BURST, cuts);
		if (bursts % BURSTS_PER_LOOK == 0)
			lost = dropped(argv[1]);
		nap(lost == before ? PAUSE_NS : FULL_PAUSE_NS);
	}
	printf("{\"sent\": %lu, \"dropped\": %lu}\n", sent, dropped(argv[1]) - lost_before);
	return 0;
}
