/* passt as our process: scripts that play it, and the real one in a network namespace of this test. */
#include "netif_rig.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "netif_passt_args.h"
#include "skips.h"

static char dir[] = "/tmp/vmlet-test-passt-XXXXXX", script[64];

static int setup(void **state)
{
	memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
	if (rig_setup(state) < 0 || !mkdtemp(dir))
		return -1;
	(void)snprintf(script, sizeof(script), "%s/passt", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)rig_teardown(state);
	(void)unlink(script);
	return rmdir(dir);
}

static int open_program(const char *program, const char *const *publish, unsigned count, struct err *err)
{
	const struct netif_passt_config config = {program, publish, count, 1400};
	rig.netif = netif_passt_open(rig.loop, &rig_log, &config, err);
	if (rig.netif)
		rig_connect_client();
	return rig.netif ? 0 : -1;
}

static void write_script(const char *text)
{
	FILE *file = fopen(script, "w");
	assert_non_null(file);
	assert_true(fprintf(file, "#!/bin/sh\n%s\n", text) > 0);
	assert_int_equal(fchmod(fileno(file), 0755), 0);
	assert_int_equal(fclose(file), 0);
}

static int open_script(const char *text, struct err *err)
{
	write_script(text);
	return open_program(script, NULL, 0, err);
}

/* The pid of the only process that a pidfd of ours is for; 0: there is none. */
static pid_t helper_pid(void)
{
	DIR *fds = opendir("/proc/self/fdinfo");
	int pid = 0;
	for (struct dirent *entry; fds && (entry = readdir(fds));) {
		char path[300], line[128];
		(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%s", entry->d_name);
		FILE *file = fopen(path, "r");
		while (file && fgets(line, sizeof(line), file)) {
			int found;
			if (sscanf(line, "Pid: %d", &found) == 1 && found > 0)
				pid = found;
		}
		if (file)
			(void)fclose(file);
	}
	closedir(fds);
	return pid;
}

/* One that has ended may wait for init to reap it. */
static bool is_running(pid_t pid)
{
	char path[64], line[256] = "";
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *file = fopen(path, "r");
	const char *state = file && fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	if (file)
		(void)fclose(file);
	return state && state[2] != 'Z' && state[2] != 'X';
}

/* --- its command line ----------------------------------------------------------------------------------------------
 */

static void assert_command_line(const char *publish, uint16_t mtu, const char *expected)
{
	struct netif_passt_args args = {0};
	const struct netif_passt_config config = {"/bin/passt", &publish, publish != NULL, mtu};
	char line[256] = "";
	assert_int_equal(netif_passt_args_init(&args, &config, NULL), 0);
	for (const char **arg = args.argv; *arg; arg++) {
		(void)strcat(line, *arg);
		(void)strcat(line, arg[1] ? " " : "");
	}
	assert_string_equal(line, expected);
	netif_passt_args_fini(&args);
}

static void its_command_line_is_what_was_asked_for(void **state)
{
	(void)state;
#define BASE "/bin/passt --foreground --quiet --fd 3"
	assert_command_line(NULL, 0, BASE);
	assert_command_line(NULL, 9000, BASE " -m 9000");
	assert_command_line("8080", 0, BASE " -t 8080:8080");
	assert_command_line("8080:80", 0, BASE " -t 8080:80");
	assert_command_line("53/udp", 0, BASE " -u 53:53");
	assert_command_line("127.0.0.1/5353:53/udp", 0, BASE " -u 127.0.0.1/5353:53");
	assert_command_line("::1/65535:1", 0, BASE " -t ::1/65535:1");
	assert_command_line("1111:2222:3333:4444:5555:6666:123.123.123.123/65535:65535/udp", 65535,
			    BASE " -m 65535 -u 1111:2222:3333:4444:5555:6666:123.123.123.123/65535:65535");
}

static void what_cannot_be_published_is_refused(void **state)
{
	(void)state;
	static const char *const WRONG[] = {
		"",
		"0",
		"65536",
		"080",
		"80:",
		":80",
		"80:0",
		"80:99999",
		"8080:80:80",
		"http",
		"80/tcp",
		"/80",
		"/udp",
		"80/udp/udp",
		"localhost/80",
		"1.2.3/80",
		"1.2.3.4/",
		"-1",
		"+80",
		" 80",
		"80 ",
		"80,90",
		"80-90",
		"~80",
		"all",
		"1.2.3.4%lo/80",
		"18446744073709551617",
		"0x50",
		"80/UDP",
		"1.2.3.4/80/80",
		"11111111112222222222333333333344444444445555555555/80",
	};
	for (unsigned i = 0; i < ARRAY_SIZE(WRONG); i++) {
		struct err err = {0};
		assert_int_equal(open_program("/bin/true", &WRONG[i], 1, &err), -1);
		assert_int_equal(err.code, -EINVAL);
		assert_int_equal(err.kind, ERR_CONFIG);
		assert_non_null(strstr(err.text, "net 'passt': publish '"));
		assert_non_null(strstr(err.text, WRONG[i]));
	}
}

/* --- scripts that play it --------------------------------------------------------------------------------------------
 */

static void a_missing_program_is_an_error(void **state)
{
	(void)state;
	struct err err = {0};
	assert_int_equal(open_program("/nowhere/passt", NULL, 0, &err), -1);
	assert_int_equal(err.code, -ENOENT);
	assert_string_equal(err.text, "net 'passt': cannot run '/nowhere/passt': No such file or directory");
	assert_int_equal(open_program("/etc/passwd", NULL, 0, &err), -1);
	assert_int_equal(err.code, -EACCES);
}

static void one_that_ends_at_once_says_why(void **state)
{
	(void)state;
	struct err err = {0};
	assert_int_equal(open_script("echo first; echo 'No way out' >&2\n"
				     "echo 'Failed to send 10 bytes to syslog'; exit 1",
				     &err),
			 -1);
	assert_string_equal(err.text, "net 'passt': passt ended at once: No way out");
	assert_non_null(strstr(rig.all_lines, "passt: first\n"));
	assert_int_equal(rig.warnings, 0);
	assert_int_equal(open_script("exit 0", &err), -1);
	assert_string_equal(err.text, "net 'passt': passt ended at once");
	/* Also when its socket closes long before. */
	assert_int_equal(open_script("exec 3>&-; sleep 0.1; echo late; exit 1", &err), -1);
	assert_string_equal(err.text, "net 'passt': passt ended at once: late");
	assert_int_equal(helper_pid(), 0);
}

static void one_that_reads_is_up(void **state)
{
	(void)state;
	assert_int_equal(open_script("exec cat <&3 >/dev/null", NULL), 0);
	assert_true(rig.link_up);
	for (unsigned i = 0; i < RIG_PACKETS; i++)
		rig_send(i, 60);
	rig_wait_until(rig.ends == RIG_PACKETS);
	assert_int_equal(rig.netif->counters.sent, RIG_PACKETS);
	pid_t pid = helper_pid();
	assert_true(pid > 0 && is_running(pid));
	rig_close();
	assert_false(is_running(pid));
}

static void one_that_never_reads_stops_nobody(void **state)
{
	(void)state;
	assert_int_equal(open_script("exec sleep 1000", NULL), 0);
	assert_true(rig.link_up);
	for (unsigned i = 0; i < 128; i++)
		rig_send(i, 60000);
	rig_settle();
	assert_true(rig.ends < 128);
	pid_t pid = helper_pid();
	rig_close(); /* takes back what is under way */
	assert_int_equal(rig.ends, 128);
	assert_false(is_running(pid));
}

static void wait_for_other_pid(pid_t old)
{
	pid_t pid;
	rig_wait_until((pid = helper_pid()) > 0 && pid != old);
}

static void one_that_was_killed_is_started_again(void **state)
{
	(void)state;
	assert_int_equal(open_script("exec cat <&3 >/dev/null", NULL), 0);
	for (unsigned i = 0; i < 4; i++) {
		pid_t pid = helper_pid();
		assert_int_equal(kill(pid, SIGKILL), 0);
		rig_wait_until(rig.link_changes == 2 * i + 1);
		assert_false(rig.link_up);
		rig_wait_until(rig.link_changes == 2 * i + 2);
		assert_true(rig.link_up);
		wait_for_other_pid(pid);
		rig_send(0, 60);
		rig_wait_until(rig.packets[0].ends == 1);
	}
	assert_int_equal(rig.warnings, 4);
	assert_int_equal(rig.netif->counters.sent, 4);
}

static void what_it_said_last_is_told(void **state)
{
	(void)state;
	assert_int_equal(open_script("echo 'No IPv6 here'; exec cat <&3 >/dev/null", NULL), 0);
	rig_wait_until(strstr(rig.all_lines, "No IPv6 here") != NULL);
	assert_int_equal(kill(helper_pid(), SIGKILL), 0);
	rig_wait_until(rig.warnings == 1);
	assert_non_null(strstr(rig.all_lines, "net 'passt': passt has ended, and said last: No IPv6 here; it is "
					      "started again\n"));
}

/* Up once, and never again: told once, tried again, calmly. */
static void one_that_keeps_failing_is_told_of_once(void **state)
{
	(void)state;
	char text[256];
	(void)snprintf(text, sizeof(text),
		       "n=0; while read x; do n=$x; done <%s/n; echo $((n+1)) >%s/n\n"
		       "[ $n = 0 ] && exec head -c 2000 <&3 >/dev/null\necho 'out of luck'; exit 1",
		       dir, dir);
	char count_path[80], digits[16] = "";
	(void)snprintf(count_path, sizeof(count_path), "%s/n", dir);
	close(open(count_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(open_script(text, NULL), 0);
	rig_send(0, 1514);
	rig_wait_until(!rig.link_up);
	unsigned runs = 0;
	while (runs < 5) {
		rig_pump();
		FILE *file = fopen(count_path, "r");
		if (fgets(digits, sizeof(digits), file))
			runs = (unsigned)strtoul(digits, NULL, 10);
		(void)fclose(file);
	}
	assert_int_equal(rig.warnings, 1);
	assert_int_equal(rig.link_changes, 1);
	assert_non_null(strstr(rig.all_lines, "out of luck"));
	rig_close();
	assert_int_equal(unlink(count_path), 0);
}

/* It breaks the framing: it is ended, and another is started. */
static void a_hostile_one_is_replaced(void **state)
{
	(void)state;
	assert_int_equal(open_script("trap '' TERM; head -c 1504 <&3 >/dev/null; printf '\\000\\000\\000\\001x' >&3\n"
				     "cat <&3 >/dev/null",
				     NULL),
			 0);
	pid_t pid = helper_pid();
	rig_receive(0, 1514);
	rig_wait_until(rig.link_changes >= 3);
	assert_false(is_running(pid));
	assert_true(rig.warnings >= 2);
	assert_int_equal(rig.packets[0].ends, 0);
}

static void it_can_be_freed_while_it_starts_again(void **state)
{
	(void)state;
	char text[200];
	(void)snprintf(text, sizeof(text), "[ -e %s/up ] || { echo >%s/up; exec head -c 1600 <&3; }; exec sleep 1000",
		       dir, dir);
	assert_int_equal(open_script(text, NULL), 0);
	pid_t pid = helper_pid();
	rig_send(0, 1514);
	rig_wait_until(!rig.link_up);
	wait_for_other_pid(pid);
	pid = helper_pid();
	rig_close();
	assert_false(is_running(pid));
	(void)snprintf(text, sizeof(text), "%s/up", dir);
	assert_int_equal(unlink(text), 0);
}

/* --- the real one
 * ------------------------------------------------------------------------------------------------------ */

static const char *passt;
static const uint8_t GUEST_MAC[] = {0x52, 0x54, 0, 1, 2, 3};

static const char *find_passt(void)
{
	static const char *const PATHS[] = {"/usr/bin/passt", "/usr/local/bin/passt", "/bin/passt"};
	for (unsigned i = 0; i < ARRAY_SIZE(PATHS); i++) {
		if (access(PATHS[i], X_OK) == 0)
			return PATHS[i];
	}
	return NULL;
}

static void set_address(struct sockaddr *address, const char *text)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	(void)inet_pton(AF_INET, text, &in.sin_addr);
	memcpy(address, &in, sizeof(in));
}

static int bring_up(int sock, const char *name, const char *address)
{
	struct ifreq request = {0};
	(void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	set_address(&request.ifr_addr, address);
	if (ioctl(sock, SIOCSIFADDR, &request) < 0)
		return -1;
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	return ioctl(sock, SIOCSIFFLAGS, &request);
}

/* A tap that nobody reads, with an address and a default route: what passt takes for a way out. */
static const char *make_network(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		return "no permission for a network namespace";
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = "way-out"};
	if (sock < 0 || tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0) /* stays open */
		return "no permission for a tap";
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
	set_address(&route.rt_dst, "0.0.0.0");
	set_address(&route.rt_genmask, "0.0.0.0");
	set_address(&route.rt_gateway, "10.1.2.1");
	bool made = bring_up(sock, "lo", "127.0.0.1") == 0 && bring_up(sock, "way-out", "10.1.2.3") == 0 &&
		    ioctl(sock, SIOCADDRT, &route) == 0;
	close(sock);
	return made ? NULL : "the network could not be set up";
}

static void need_passt(void)
{
	if (!passt) {
		print_message("no passt\n");
		skip_one();
	}
}

/* The namespace is made once, for all tests from here on. */
static void need_network(void)
{
	static bool tried;
	static const char *missing;
	need_passt();
	if (!tried)
		missing = make_network();
	tried = true;
	if (missing) {
		print_message("%s\n", missing);
		skip_one();
	}
}

/* Frames come until one is of this kind; returns its bytes. */
static const uint8_t *receive_until(bool (*is_it)(const uint8_t *frame, size_t size), size_t *ret_size)
{
	uint64_t until_ns = loop_now_ns() + RIG_PATIENCE_NS;
	for (;;) {
		struct rig_packet *p = rig_receive(0, NETIF_FRAME_MAX_BYTES);
		while (p->ends == 0) {
			assert_true(loop_now_ns() < until_ns);
			rig_pump();
		}
		const uint8_t *frame = p->data + NETIF_HEADER_BYTES;
		*ret_size = (size_t)p->res - NETIF_HEADER_BYTES;
		if (is_it(frame, *ret_size))
			return frame;
	}
}

static bool is_arp_reply(const uint8_t *frame, size_t size)
{
	static const uint8_t HEAD[] = {0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2};
	return size >= 42 && memcmp(frame + 12, HEAD, sizeof(HEAD)) == 0;
}

/* Who has 10.1.2.1? */
static void exchange_arp(void)
{
	static const uint8_t REQUEST[] = {0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1};
	static const uint8_t GATEWAY[] = {10, 1, 2, 1}, GUEST[] = {10, 1, 2, 3};
	struct rig_packet *p = rig_packet(1, NETIF_HEADER_BYTES + 60);
	memset(p->data, 0, NETIF_HEADER_BYTES + 60);
	uint8_t *frame = p->data + NETIF_HEADER_BYTES;
	memset(frame, 0xff, 6);
	memcpy(frame + 6, GUEST_MAC, 6);
	memcpy(frame + 12, REQUEST, sizeof(REQUEST));
	memcpy(frame + 22, GUEST_MAC, 6);
	memcpy(frame + 28, GUEST, 4);
	memcpy(frame + 38, GATEWAY, 4);
	netif_send(rig.netif, &p->packet);

	size_t size;
	const uint8_t *reply = receive_until(is_arp_reply, &size);
	assert_memory_equal(reply, GUEST_MAC, 6);
	assert_memory_equal(reply + 28, GATEWAY, 4);
}

static bool is_udp_to_53(const uint8_t *frame, size_t size)
{
	return size >= 42 && frame[12] == 0x08 && frame[13] == 0 && frame[23] == IPPROTO_UDP && frame[36] == 0 &&
	       frame[37] == 53;
}

static bool is_syn_to_80(const uint8_t *frame, size_t size)
{
	return size >= 54 && frame[12] == 0x08 && frame[13] == 0 && frame[23] == IPPROTO_TCP && frame[36] == 0 &&
	       frame[37] == 80 && (frame[47] & 0x12) == 0x02;
}

static int socket_to(int type, uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
	assert_true(r == 0 || errno == EINPROGRESS);
	return fd;
}

/* In this process' first namespace there may be a network, or not: so in one without any. */
static void real_passt_says_what_it_lacks(void **state)
{
	(void)state;
	need_passt();
	struct err err = {0};
	if (unshare(CLONE_NEWNET) < 0) {
		print_message("no permission for a network namespace\n");
		skip_one();
	}
	if (open_program(passt, NULL, 0, &err) == 0) {
		print_message("this passt (2024 or later) needs no route\n");
		assert_true(rig.link_up);
		return;
	}
	print_message("%s\n", err.text);
	assert_non_null(strstr(err.text, "passt ended at once: "));
	assert_null(strstr(err.text, "syslog"));
}

static void real_passt_forwards_what_is_published(void **state)
{
	(void)state;
	need_network();
	static const char *const PUBLISH[] = {"127.0.0.1/5353:53/udp", "8080:80", "127.0.0.1/8081:81"};
	struct err err = {0};
	uint64_t before_ns = loop_now_ns();
	if (open_program(passt, PUBLISH, ARRAY_SIZE(PUBLISH), &err) < 0)
		fail_msg("%s", err.text);
	print_message("passt is up after %u us\n", (unsigned)((loop_now_ns() - before_ns) / 1000));
	exchange_arp();

	int udp = socket_to(SOCK_DGRAM, 5353);
	size_t size;
	assert_int_equal(send(udp, "question", 8, 0), 8);
	const uint8_t *frame = receive_until(is_udp_to_53, &size);
	assert_memory_equal(frame, GUEST_MAC, 6);
	assert_memory_equal(frame + 42, "question", 8);
	close(udp);

	int tcp = socket_to(SOCK_STREAM, 8080);
	(void)receive_until(is_syn_to_80, &size);
	close(tcp);
	assert_int_equal(rig.link_changes, 0);

	/* A larger frame than it takes does not reach it: the link lives. */
	uint64_t dropped = rig.netif->counters.dropped;
	rig_send(2, 65535);
	rig_send(3, 65536);
	rig_send(4, NETIF_FRAME_MAX_BYTES);
	rig_wait_until(rig.packets[2].ends && rig.packets[3].ends && rig.packets[4].ends);
	exchange_arp();
	assert_int_equal(rig.link_changes, 0);
	assert_int_equal(rig.netif->counters.dropped, dropped + 2);
}

static void a_port_that_is_taken_is_told(void **state)
{
	(void)state;
	need_network();
	static const char *const PUBLISH[] = {"127.0.0.1/8088:80"};
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons(8088), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int taken = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(taken, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(taken, 1), 0);
	struct err err = {0};
	assert_int_equal(open_program(passt, PUBLISH, 1, &err), -1);
	print_message("%s\n", err.text);
	assert_non_null(strstr(err.text, "8088"));
	close(taken);
}

static void real_passt_survives_its_death(void **state)
{
	(void)state;
	need_network();
	static const char *const PUBLISH[] = {"5353:53/udp"};
	struct err err = {0};
	if (open_program(passt, PUBLISH, 1, &err) < 0)
		fail_msg("%s", err.text);
	exchange_arp();
	pid_t pid = helper_pid();
	assert_int_equal(kill(pid, SIGKILL), 0);
	rig_wait_until(rig.link_changes == 2 && rig.link_up);
	wait_for_other_pid(pid);
	exchange_arp();
	pid = helper_pid();
	rig_close();
	assert_false(is_running(pid));
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(its_command_line_is_what_was_asked_for),
		CASE(what_cannot_be_published_is_refused),
		CASE(a_missing_program_is_an_error),
		CASE(one_that_ends_at_once_says_why),
		CASE(one_that_reads_is_up),
		CASE(one_that_never_reads_stops_nobody),
		CASE(one_that_was_killed_is_started_again),
		CASE(what_it_said_last_is_told),
		CASE(one_that_keeps_failing_is_told_of_once),
		CASE(a_hostile_one_is_replaced),
		CASE(it_can_be_freed_while_it_starts_again),
		CASE(real_passt_says_what_it_lacks),
		CASE(real_passt_forwards_what_is_published),
		CASE(a_port_that_is_taken_is_told),
		CASE(real_passt_survives_its_death),
	};
	passt = find_passt();
	return status_of(cmocka_run_group_tests(tests, NULL, NULL));
}
