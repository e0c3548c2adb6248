/* What --net takes and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/net_option.h"

#include "cli_settings.h"

#define REFUSED(value, ...) settings_refuse(&net_kind, value, ARGS(__VA_ARGS__))

static void test_sources(void **state)
{
	static const struct {
		const char *value, *path;
		enum vmlet_net_kind kind;
	} cases[] = {
		{"passt", NULL, VMLET_NET_PASST},
		{"passt=/run/passt_1.socket", "/run/passt_1.socket", VMLET_NET_STREAM},
		{"tap", NULL, VMLET_NET_TAP},
		{"tap=tap0", "tap0", VMLET_NET_TAP},
		{"tap=123456789012345", "123456789012345", VMLET_NET_TAP},
		{"stream=a,,b", "a,b", VMLET_NET_STREAM},
		{"listen=/l=x", "/l=x", VMLET_NET_LISTEN},
		{"fd=3", NULL, VMLET_NET_FD},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct net_option *net = settings_take(&net_kind, cases[i].value);

		assert_int_equal(net->kind, cases[i].kind);
		assert_false(net->is_none || net->link_down || net->base.packed);
		if (cases[i].path)
			assert_string_equal(net->path, cases[i].path);
		else
			assert_null(net->path);
		assert_null(net->base.id);
		assert_int_equal(net->fd, net->kind == VMLET_NET_FD ? 3 : 0);
		assert_memory_equal(net->mac, "\0\0\0\0\0\0", 6);
		assert_int_equal(net->mtu | net->queues | net->publish_count, 0);
		assert_int_equal(net->packets_per_s | net->packets_burst, 0);
		assert_int_equal(net->bandwidth_bytes | net->bandwidth_burst_bytes, 0);
		settings_free(&net_kind, net, 1);
	}
}

static void test_settings(void **state)
{
	struct net_option *net =
		settings_take(&net_kind, "tap=t,link=down,mac=02:00:5E:aB:cd:ff,queues=8,id=wan,bw=10M:1g,pps=5:6,"
					 "packed,mtu=9000");

	(void)state;
	assert_true(net->link_down && net->base.packed);
	assert_memory_equal(net->mac, "\x02\x00\x5e\xab\xcd\xff", 6);
	assert_int_equal(net->queues, 8);
	assert_string_equal(net->base.id, "wan");
	assert_int_equal(net->bandwidth_bytes, 10 << 20);
	assert_int_equal(net->bandwidth_burst_bytes, 1 << 30);
	assert_int_equal(net->packets_per_s, 5);
	assert_int_equal(net->packets_burst, 6);
	assert_int_equal(net->mtu, 9000);
	settings_free(&net_kind, net, 1);
	net = settings_take(&net_kind, "stream=s,queues=1,link=up,mtu=68");
	assert_int_equal(net->mtu, 68);
	assert_false(net->link_down);
	settings_free(&net_kind, net, 1);
}

static void test_publish(void **state)
{
	static const char *const good[] = {
		"1", "65535", "8080:80", "53/udp", "5353:53/udp", "::1/80:8080", "127.0.0.1/22:2/udp", "fe80::1/7/udp"};
	static const char *const bad[] = {
		"",         "0",
		"65536",    "80:",
		":80",      "80:0",
		"80:65536", "80/tcp",
		"/80",      "x/80",
		"127.1/80", "1.2.3.4/",
		"80:80:80", "/udp",
		"80/",      "[::1]/80",
		"a/b/80",   "80-90",
		"-80",      "+80",
		" 80",      "00000000000000000000000000000000000000000000000000000000000000000000000000080"};
	struct net_option *net;
	char value[160];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(value, sizeof(value), "passt,publish=%s,publish=9", good[i]);
		net = settings_take(&net_kind, value);
		assert_int_equal(net->publish_count, 2);
		assert_string_equal(net->publish[0], good[i]);
		assert_string_equal(net->publish[1], "9");
		settings_free(&net_kind, net, 1);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(value, sizeof(value), "passt,publish=%s", bad[i]);
		REFUSED(value, "publish cannot be '", "[ADDRESS/]HOSTPORT[:GUESTPORT][/udp]");
	}
	REFUSED("passt,publish", "publish needs a value");
	REFUSED("passt=/s,publish=80", "publish is for a passt that vmlet starts");
	REFUSED("tap,publish=80", "publish is for a passt that vmlet starts");
}

static void test_at_most_64_ports(void **state)
{
	char value[1024] = "passt";

	(void)state;
	for (int i = 0; i < NET_PUBLISH_MAX; i++)
		strcat(value, ",publish=80");
	settings_free(&net_kind, settings_take(&net_kind, value), 1);
	strcat(value, ",publish=81");
	REFUSED(value, "publish cannot be '81'", "at most 64");
}

static void test_refused_sources(void **state)
{
	(void)state;
	REFUSED("", "--net '': it begins with passt[=SOCKET], tap[=NAME]");
	REFUSED("user", "it begins with passt");
	REFUSED(",mtu=1500", "it begins with passt");
	REFUSED("mtu=1500", "it begins with passt");
	REFUSED("passt=", "no path after '='");
	REFUSED("stream=", "no path after '='");
	REFUSED("listen=", "no path after '='");
	REFUSED("stream", "it begins with passt");
	REFUSED("tap=", "tap cannot be ''", "up to 15 bytes");
	REFUSED("tap=1234567890123456", "tap cannot be '1234567890123456'");
	REFUSED("tap=a/b", "tap cannot be 'a/b'");
	REFUSED("tap=a b", "tap cannot be 'a b'");
	REFUSED("tap=..", "tap cannot be '..'");
	REFUSED("tap=tap%d", "tap cannot be 'tap%d'");
	REFUSED("fd=", "fd cannot be ''", "3 or more");
	REFUSED("fd=2", "fd cannot be '2'");
	REFUSED("fd=-1", "fd cannot be '-1'");
	REFUSED("fd=4294967299", "fd cannot be '4294967299'");
	REFUSED("none,mtu=1500", "none has no settings");
	REFUSED("none=", "it begins with passt");
}

static void test_refused_settings(void **state)
{
	static const char *const macs[] = {"",
					   "52:54:00:12:34",
					   "52:54:00:12:34:5",
					   "52:54:00:12:34:56:78",
					   "52:54:00:12:34:567",
					   "52-54-00-12-34-56",
					   "525400123456",
					   "g2:54:00:12:34:56",
					   "5:254:00:12:34:56",
					   "01:00:5e:00:00:01",
					   "ff:ff:ff:ff:ff:ff",
					   "00:00:00:00:00:00",
					   "52:54:00:12:34:56 "};
	char value[64];

	(void)state;
	for (size_t i = 0; i < sizeof(macs) / sizeof(macs[0]); i++) {
		snprintf(value, sizeof(value), "tap,mac=%s", macs[i]);
		REFUSED(value, "mac cannot be '", macs[i], "six bytes such as 52:54:00:12:34:56", "multicast");
	}
	REFUSED("tap,mtu=67", "mtu cannot be '67'", "68 to 65535");
	REFUSED("tap,mtu=65536", "mtu cannot be '65536'");
	REFUSED("tap,queues=0", "queues cannot be '0'", "1 to 8");
	REFUSED("tap,queues=9", "queues cannot be '9'");
	REFUSED("passt,queues=2", "more than one pair of queues is for a tap");
	REFUSED("fd=3,queues=2", "more than one pair of queues is for a tap");
	REFUSED("tap,id=", "id cannot be ''");
	REFUSED("tap,bw=0", "bw cannot be '0'");
	REFUSED("tap,pps=1K", "pps cannot be '1K'");
	REFUSED("tap,link=off", "link cannot be 'off'", "down or up");
	REFUSED("tap,link", "link needs a value");
	REFUSED("tap,packed=1", "packed takes no value");
	REFUSED("tap,mtu=100,mtu=100", "mtu is given twice");
	REFUSED("tap,mut=100", "did you mean 'mtu'?");
	REFUSED("tap,speed=1", "unknown setting 'speed'; 'vmlet help net'");
	REFUSED("tap,", "comma without a setting");
}

static void assert_together(const char *const *values, const char *sentence)
{
	struct cli_error error;

	assert_int_equal(settings_try(&net_kind, values, &error), sentence ? -EINVAL : 0);
	assert_string_equal(error.text, sentence ? sentence : "");
}

static void test_together(void **state)
{
	const char *many[NETS_MAX + 2] = {NULL};

	(void)state;
	assert_together(ARGS("tap", "tap", "passt", "passt", "fd=3", "fd=4", "tap,id=net9"), NULL);
	assert_together(ARGS("none"), NULL);
	assert_together(ARGS("none", "tap"), "--net 'tap': none is no card at all; it cannot be beside another --net");
	assert_together(ARGS("tap", "none"), "--net 'none': none is no card at all; it cannot be beside another --net");
	assert_together(ARGS("none", "none"),
			"--net 'none': none is no card at all; it cannot be beside another --net");
	assert_together(ARGS("fd=3", "fd=3"), "--net 'fd=3': descriptor 3 is another card's already");
	assert_together(ARGS("tap,id=x", "passt,id=x"),
			"--net 'passt,id=x': its id 'x' is another network card's already");
	assert_together(ARGS("tap,id=net1", "passt"), "--net 'passt': its id 'net1' is another network card's already");
	for (size_t i = 0; i <= NETS_MAX; i++)
		many[i] = "tap";
	assert_together(many, "--net is given 32 times; a machine has at most 31 network cards");
}

/* Beside the rest of a command line: what follows "--" is still the kernel's. */
static void test_on_the_command_line(void **state)
{
	const struct device_values *values;
	const struct net_option *nets;
	struct cli_error error;
	struct options o;

	(void)state;
	assert_int_equal(
		settings_command_line(
			&o, &error, ARGS("run", "-k", "k", "--net", "tap=tap0", "--net=passt", "--", "console=ttyS0")),
		0);
	values = &o.devices[DEVICE_NET];
	nets = values->items;
	assert_int_equal(values->values.count, 2);
	assert_string_equal(nets[0].path, "tap0");
	assert_int_equal(nets[1].kind, VMLET_NET_PASST);
	assert_string_equal(o.cmdline, "console=ttyS0");
	options_free(&o);
	assert_int_equal(settings_command_line(&o, &error, ARGS("run", "-kk", "--net", "")), -EINVAL);
	assert_non_null(strstr(error.text, "--net cannot be ''; it is passt, tap"));
	assert_int_equal(settings_command_line(&o, &error, ARGS("run", "-kk", "--net")), -EINVAL);
	assert_non_null(strstr(error.text, "--net needs a value: passt, tap"));
	assert_int_equal(settings_command_line(&o, &error, ARGS("run", "-kk", "--net", "--rng")), -EINVAL);
	assert_non_null(strstr(error.text, "--net needs a value, not the option '--rng'"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sources),         cmocka_unit_test(test_settings),
		cmocka_unit_test(test_publish),         cmocka_unit_test(test_at_most_64_ports),
		cmocka_unit_test(test_refused_sources), cmocka_unit_test(test_refused_settings),
		cmocka_unit_test(test_together),        cmocka_unit_test(test_on_the_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
