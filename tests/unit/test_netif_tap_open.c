/* Opening a tap: one that is made, one that exists, what is refused with which sentence; and one that goes away. */
#include "test_netif_tap_rig.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { TAP = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, SIZE = NETIF_HEADER_BYTES + 1518 };

static struct rig_packet packet;
static bool some_skipped;

/* Again and again: an interface whose carrier comes up drops packets for up to a second (the kernel's linkwatch). */
static void send_until_received(struct rig_packet *p)
{
	for (unsigned i = 0; i < RIG_ROUNDS_MAX && !p->done; i++) {
		assert_true(rig_peer_send(12, 60));
		rig_round();
	}
	assert_int_equal(p->done, 1);
	assert_int_equal(p->res, NETIF_HEADER_BYTES + 60);
	assert_int_equal(rig_number(p->data + NETIF_HEADER_BYTES), 12);
}

static void check_works(void)
{
	static struct rig_packet p;
	int64_t number = -1;
	rig_send(&p, 0, 11);
	rig_wait_until((number = rig_peer_next()) >= 0);
	assert_int_equal(number, 11);
	rig_receive(&p, 0, SIZE);
	send_until_received(&p);
}

/* --- made here ---------------------------------------------------------------------------------------------------- */

static void one_without_a_name_is_made(void **state)
{
	(void)state;
	char name[IFNAMSIZ];
	rig_open(NULL, 1);
	(void)snprintf(name, sizeof(name), "%s", netif_tap_interface(tap));
	assert_memory_equal(name, "vmlet", 5);
	assert_true(rig_is_up(name));
	assert_int_equal(tap->info.queues, 1);
	assert_int_equal(tap->info.mtu, 1500);
	assert_int_equal(tap->info.offloads & 0xf, 0xf);
	assert_true(tap->info.link_up);
	assert_int_equal(lines, 0);
	check_works();

	struct netif *first = tap, *second = rig_try_open(NULL, 1);
	assert_non_null(second);
	assert_string_not_equal(netif_tap_interface(first), netif_tap_interface(second));
	netif_free(second);
	rig_close();
	for (unsigned i = 0; i < RIG_ROUNDS_MAX && if_nametoindex(name); i++)
		rig_round();
	assert_int_equal(if_nametoindex(name), 0); /* it was ours */
}

static void one_of_a_name_is_made(void **state)
{
	(void)state;
	rig_open("tapnew", 4);
	assert_string_equal(netif_tap_interface(tap), "tapnew");
	assert_true(rig_is_up("tapnew"));
	assert_int_equal(tap->info.queues, 4);
	check_works();
}

static void its_mtu_is_set(void **state)
{
	(void)state;
	struct netif_tap_config config = {.queues = 1, .fd = -1, .mtu = 9000};
	tap = netif_tap_open(loop, NULL, &config, &err);
	assert_non_null(tap);
	assert_int_equal(tap->info.mtu, 9000);
	rig_close();
	config.mtu = 20;
	assert_null(netif_tap_open(loop, NULL, &config, &err));
	assert_non_null(strstr(err.text, "MTU 20"));
}

/* --- one that exists ---------------------------------------------------------------------------------------------- */

static void one_that_exists_is_used_as_it_is(void **state)
{
	(void)state;
	struct ifreq mtu = {.ifr_mtu = 4000};
	rig_make_persistent("tapold", TAP);
	rig_control("tapold", SIOCSIFMTU, &mtu);
	rig_set_up("tapold", true);
	rig_open("tapold", 1);
	assert_int_equal(tap->info.mtu, 4000);
	check_works();
	rig_close();
	for (unsigned i = 0; i < 3; i++) { /* at once, again */
		rig_open("tapold", 1);
		check_works();
		rig_close();
	}
	assert_true(rig_is_up("tapold"));
	rig_delete("tapold");
}

static void one_of_several_queues_may_be_used_with_one(void **state)
{
	(void)state;
	rig_make_persistent("tapmq", TAP | IFF_MULTI_QUEUE);
	rig_set_up("tapmq", true);
	rig_open("tapmq", 1);
	assert_int_equal(tap->info.queues, 1);
	check_works();
	rig_close();
	rig_open("tapmq", 8);
	assert_int_equal(tap->info.queues, 8);
	check_works();
	rig_close();
	rig_delete("tapmq");
}

static void one_that_is_down_is_waited_for(void **state)
{
	(void)state;
	rig_make_persistent("tapdown", TAP);
	rig_open("tapdown", 1);
	assert_false(tap->info.link_up);
	assert_int_equal(lines, 1);
	assert_non_null(strstr(last_line, "ip link set tapdown up"));
	for (unsigned i = 0; i < 5; i++)
		rig_round();
	assert_int_equal(link_changes, 0);
	rig_set_up("tapdown", true);
	rig_wait_until(tap->info.link_up);
	assert_int_equal(link_changes, 1);
	rig_open_peer();
	check_works();
	rig_close();
	rig_delete("tapdown");
}

static void a_given_descriptor_is_used(void **state)
{
	(void)state;
	int fd = rig_make("tapfd", TAP, false);
	rig_set_up("tapfd", true);
	const struct netif_tap_config config = {.queues = 1, .fd = fd};
	tap = netif_tap_open(loop, &rig_log, &config, &err);
	assert_non_null(tap);
	close(fd);
	assert_string_equal(netif_tap_interface(tap), "tapfd");
	assert_int_equal(tap->info.mtu, 1500);
	rig_open_peer();
	check_works();
}

/* --- one that goes away ------------------------------------------------------------------------------------------- */

static void one_that_is_set_down_comes_back(void **state)
{
	(void)state;
	rig_open("tapflap", 1);
	for (unsigned times = 1; times <= 3; times++) {
		static struct rig_packet waiting;
		rig_receive(&waiting, 0, SIZE);
		rig_round();
		rig_set_up("tapflap", false);
		rig_send(&packet, 0, 1);
		rig_wait_until(packet.done);
		assert_int_equal(packet.res, 0);
		assert_false(tap->info.link_up);
		assert_int_equal(tap->counters.dropped, 2 * times - 1);
		rig_send(&packet, 0, 1); /* dropped by the door */
		rig_wait_until(packet.done);
		assert_int_equal(tap->counters.dropped, 2 * times);
		assert_int_equal(lines, times);
		rig_set_up("tapflap", true);
		rig_wait_until(tap->info.link_up);
		assert_int_equal(link_changes, 2 * times);
		close(peer);
		rig_open_peer();
		send_until_received(&waiting);
		check_works();
	}
}

/* One line, no busy loop; when there is one of that name again, it goes on where it was. */
static void one_that_is_deleted_is_found_again(void **state)
{
	(void)state;
	rig_make_persistent("tapgone", TAP | IFF_MULTI_QUEUE);
	rig_set_up("tapgone", true);
	rig_open("tapgone", 2);
	netif_set_queues(tap, 2);
	netif_set_offloads(tap, NETIF_OFFLOAD_CSUM);
	rig_receive(&packet, 0, SIZE);
	rig_round();
	rig_delete("tapgone");
	rig_wait_until(!tap->info.link_up);
	assert_int_equal(lines, 1);
	assert_non_null(strstr(last_line, "deleted"));
	rig_round();
	uint64_t before_ns = loop_now_ns();
	unsigned rounds = 0;
	for (; loop_now_ns() - before_ns < 100000000; rounds++)
		rig_round();
	assert_in_range(rounds, 1, 30); /* of 10 ms each */
	assert_int_equal(packet.done, 0);
	netif_set_queues(tap, 1); /* a guest may ask for anything meanwhile */
	netif_set_offloads(tap, 0);
	netif_set_queues(tap, 2);

	rig_make_persistent("tapgone", TAP | IFF_MULTI_QUEUE);
	rig_set_up("tapgone", true);
	rig_wait_until(tap->info.link_up);
	close(peer);
	rig_open_peer();
	netif_set_queues(tap, 1);
	send_until_received(&packet);
	check_works();
	assert_int_equal(lines, 1);
	rig_close();
	rig_delete("tapgone");
}

static void a_cancel_works_while_it_is_gone(void **state)
{
	(void)state;
	rig_open("tapgone", 1);
	rig_receive(&packet, 0, SIZE);
	rig_round();
	rig_delete("tapgone");
	rig_wait_until(!tap->info.link_up);
	assert_int_equal(packet.done, 0);
	netif_cancel(tap, &packet.packet);
	rig_wait_until(packet.done);
	assert_int_equal(packet.res, -ECANCELED);
}

/* --- refusals ----------------------------------------------------------------------------------------------------- */

static void check_refused(const char *name, unsigned queues, int code, const char *sentence)
{
	struct netif *opened = rig_try_open(name, queues);
	if (opened)
		netif_free(opened);
	assert_null(opened);
	if (!strstr(err.text, sentence))
		fail_msg("'%s' is not in: %s", sentence, err.text);
	assert_int_equal(err.code, code);
	assert_true(strlen(err.text) < sizeof(err.text) - 1); /* not cut */
}

static void bad_names_are_refused(void **state)
{
	(void)state;
	check_refused("", 1, -EINVAL, "has 1 to 15 characters");
	check_refused("sixteen-letters-", 1, -EINVAL, "has 1 to 15 characters");
	check_refused("a/b", 1, -EINVAL, "cannot have this name");
	check_refused("a b", 1, -EINVAL, "cannot have this name");
	check_refused(NULL, 0, -EINVAL, "0 queues; it can have 1 to 8");
	check_refused(NULL, 9, -EINVAL, "9 queues; it can have 1 to 8");
}

static void what_is_not_a_tap_is_refused(void **state)
{
	(void)state;
	check_refused("lo", 1, -EINVAL, "an interface of another kind, not a tap");
	int fd = rig_make("tun7", IFF_TUN | IFF_NO_PI, false);
	check_refused("tun7", 1, -EINVAL, "an interface of another kind, not a tap");
	check_refused("tun7", 2, -EINVAL, "an interface of another kind, not a tap");
	close(fd);
}

static void one_in_use_is_refused(void **state)
{
	(void)state;
	int fd = rig_make("tapbusy", TAP, false);
	check_refused("tapbusy", 1, -EBUSY, "in use by another process");
	close(fd);
}

static void more_queues_than_one_has_are_refused(void **state)
{
	(void)state;
	rig_make_persistent("tapone", TAP);
	check_refused("tapone", 3, -EINVAL, "it has one queue, not 3");
	assert_non_null(strstr(err.text, "ip link delete tapone && ip tuntap add dev tapone mode tap multi_queue"));
	rig_open("tapone", 1); /* nothing was left open */
	rig_close();
	rig_delete("tapone");
}

/* Another process has a queue of it, and wants no headers. */
static void one_without_headers_is_refused(void **state)
{
	(void)state;
	int fd = rig_make("tapplain", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE, false);
	check_refused("tapplain", 2, -EINVAL, "without virtio-net headers");
	close(fd);
}

static void check_fd_refused(int fd, unsigned queues, const char *sentence)
{
	const struct netif_tap_config config = {.queues = queues, .fd = fd};
	struct netif *opened = netif_tap_open(loop, NULL, &config, &err);
	if (opened)
		fail_msg("opened, and not refused: %s", sentence);
	if (!strstr(err.text, sentence))
		fail_msg("'%s' is not in: %s", sentence, err.text);
}

static void bad_descriptors_are_refused(void **state)
{
	(void)state;
	const struct {
		int flags;
		const char *sentence;
	} cases[] = {
		{IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, "a tun, which carries IP packets"},
		{IFF_TAP | IFF_VNET_HDR, "opened without IFF_NO_PI"},
		{IFF_TAP | IFF_NO_PI, "opened without virtio-net headers"},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		int fd = rig_make("tapbad", cases[i].flags, false);
		check_fd_refused(fd, 1, cases[i].sentence);
		close(fd);
	}
	int fd = rig_make("tapgood", TAP, false);
	check_fd_refused(fd, 2, "is one queue, not 2");
	close(fd);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	check_fd_refused(fd, 1, "is no tap's");
	close(fd);
	check_fd_refused(fd, 1, "Bad file descriptor");
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	check_fd_refused(fd, 1, "is no tap's"); /* not yet */
	close(fd);
}

/* In a process of its own, because it gives something up for good. */
static void check_in_child(void (*body)(void))
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		loop = loop_new(NULL);
		body();
		_exit(0);
	}
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void expect_refused(const char *name, unsigned queues, const char *sentence)
{
	if (rig_try_open(name, queues) || !strstr(err.text, sentence)) {
		(void)fprintf(stderr, "'%s' is not in: %s\n", sentence, err.text);
		_exit(1);
	}
}

static void as_one_who_may_not(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {0};
	if (syscall(SYS_capget, &header, caps) < 0)
		_exit(2);
	caps[0].effective &= ~(1U << CAP_NET_ADMIN);
	caps[0].permitted &= ~(1U << CAP_NET_ADMIN);
	if (syscall(SYS_capset, &header, caps) < 0)
		_exit(3);
	expect_refused(NULL, 1, "ip tuntap add dev tap0 mode tap user NAME && ip link set tap0 up");
	expect_refused("taphis", 1, "ip link delete taphis && ip tuntap add dev taphis mode tap user NAME");
	expect_refused("tapnone", 2, "there is none, and this user may not make it");
	expect_refused("tapnone", 2, "ip tuntap add dev tapnone mode tap multi_queue user NAME");
}

static void who_may_not_is_told_what_to_do(void **state)
{
	(void)state;
	int fd = rig_make("taphis", TAP, true);
	bool has_others = ioctl(fd, TUNSETOWNER, 12345) == 0;
	close(fd);
	if (has_others)
		check_in_child(as_one_who_may_not);
	rig_delete("taphis");
	if (has_others)
		return;
	some_skipped = true;
	print_message("there is one user in this namespace; run this as root\n");
	skip();
}

static void without_the_device(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", "/dev/net", "tmpfs", 0, NULL) < 0)
		_exit(4);
	expect_refused(NULL, 1, "no /dev/net/tun; load the module (modprobe tun");
	int fd = creat("/dev/net/tun", 0);
	if (fd < 0)
		return; /* a user without a number makes no files */
	close(fd);
	expect_refused(NULL, 1, "/dev/net/tun is not the kernel's");
}

static void a_host_without_taps_is_told_of(void **state)
{
	(void)state;
	check_in_child(without_the_device);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_without_a_name_is_made),
		TEST(one_of_a_name_is_made),
		TEST(its_mtu_is_set),
		TEST(one_that_exists_is_used_as_it_is),
		TEST(one_of_several_queues_may_be_used_with_one),
		TEST(one_that_is_down_is_waited_for),
		TEST(a_given_descriptor_is_used),
		TEST(one_that_is_set_down_comes_back),
		TEST(one_that_is_deleted_is_found_again),
		TEST(a_cancel_works_while_it_is_gone),
		TEST(bad_names_are_refused),
		TEST(what_is_not_a_tap_is_refused),
		TEST(one_in_use_is_refused),
		TEST(more_queues_than_one_has_are_refused),
		TEST(one_without_headers_is_refused),
		TEST(bad_descriptors_are_refused),
		TEST(who_may_not_is_told_what_to_do),
		TEST(a_host_without_taps_is_told_of),
	};
	if (!rig_enter_namespace())
		return RIG_SKIPPED;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	return failed ? failed : some_skipped ? RIG_SKIPPED : 0; /* meson is to know */
}
