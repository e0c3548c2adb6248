/* Network cards, consoles, balloon and vsock in a configuration: copies, and every refusal. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config.h"
#include "util.h"

static struct vmlet_config make_config(void)
{
	struct vmlet_config config;
	vmlet_config_init(&config);
	config.kernel = "/boot/kernel";
	return config;
}

static void refuse(const struct vmlet_config *from, const char *sentence)
{
	struct vmlet_config config;
	struct err err = {0};
	assert_int_equal(config_init(&config, from, &err), -EINVAL);
	assert_string_equal(err.text, sentence);
	assert_int_equal(err.kind, ERR_CONFIG);
	config_fini(&config);
}

static void accept(const struct vmlet_config *from)
{
	struct vmlet_config config;
	struct err err = {0};
	assert_int_equal(config_init(&config, from, &err), 0);
	config_fini(&config);
}

/* --- network cards ------------------------------------------------------------------------------------------ */

static void nets_are_copied(void **state)
{
	(void)state;
	char path[] = "passt", id[] = "lan", first[] = "8080:80", second[] = "22";
	const char *publish[] = {first, second};
	struct vmlet_net net;
	vmlet_net_init(&net);
	assert_int_equal(net.queues, 1);
	assert_int_equal(net.fd, -1);
	net.kind = VMLET_NET_PASST;
	net.path = path;
	net.id = id;
	net.publish = publish;
	net.publish_count = 2;
	const struct vmlet_net *nets[] = {&net};
	struct vmlet_config from = make_config(), config;
	from.nets = nets;
	from.net_count = 1;

	struct err err = {0};
	assert_int_equal(config_init(&config, &from, &err), 0);
	memset(path, 'x', sizeof(path) - 1);
	memset(id, 'x', sizeof(id) - 1);
	memset(first, 'x', sizeof(first) - 1);
	memset(second, 'x', sizeof(second) - 1);
	memset(&net, 0xff, sizeof(net));
	assert_string_equal(config.nets[0]->path, "passt");
	assert_string_equal(config.nets[0]->id, "lan");
	assert_int_equal(config.nets[0]->publish_count, 2);
	assert_string_equal(config.nets[0]->publish[0], "8080:80");
	assert_string_equal(config.nets[0]->publish[1], "22");
	config_fini(&config);
}

/* A program of an older header knows fewer members: what lies behind them is not looked at. */
static void a_net_of_an_older_program(void **state)
{
	(void)state;
	struct vmlet_net net;
	vmlet_net_init_sized(&net, sizeof(net));
	net.path = "tap0";
	net.struct_size = offsetof(struct vmlet_net, publish);
	net.publish = (const char *const *)(uintptr_t)1;
	net.publish_count = 77;
	const struct vmlet_net *nets[] = {&net};
	struct vmlet_config from = make_config();
	from.nets = nets;
	from.net_count = 1;
	accept(&from);

	net.struct_size = sizeof(net) + 8;
	char sentence[256];
	(void)snprintf(
		sentence, sizeof(sentence),
		"net 0: its struct_size is %zu; this library knows up to %zu (call vmlet_net_init, or use a newer "
		"library)",
		sizeof(net) + 8, sizeof(net));
	refuse(&from, sentence);
}

struct net_case {
	struct vmlet_net net;
	const char *sentence;
};

static void every_refusal_of_a_net(void **state)
{
	(void)state;
	static const char *const publish[] = {"80"};
	const struct net_case cases[] = {
		{{.kind = (enum vmlet_net_kind)5}, "net 'net0': kind 5 is not one that this library knows"},
		{{.kind = VMLET_NET_FD}, "net 'net0': no descriptor is given"},
		{{.kind = VMLET_NET_STREAM}, "net 'net0': no path is given"},
		{{.kind = VMLET_NET_LISTEN, .path = ""}, "net 'net0': no path is given"},
		{{.kind = VMLET_NET_PASST}, "net 'net0': no path is given"},
		{{.publish = publish, .publish_count = 1}, "net 'net0': ports are published by passt only"},
		{{.queues = 9}, "net 'net0': 9 queues: a network card has 1 to 8"},
		{{.kind = VMLET_NET_STREAM, .path = "s", .queues = 2},
		 "net 'net0': 2 queues: only a tap has more than one"},
		{{.mac = {1}}, "net 'net0': a MAC address that begins with 01 is one of a group"},
		{{.mtu = 67}, "net 'net0': an MTU of 67: at least 68"},
		{{.mtu = 65522, .kind = VMLET_NET_PASST, .path = "p"},
		 "net 'net0': an MTU of 65522: over a socket at most 65521"},
		{{.packets_burst = 1}, "net 'net0': a burst, and no rate that it belongs to"},
		{{.bandwidth_burst_bytes = 1}, "net 'net0': a burst, and no rate that it belongs to"},
		{{.id = ""}, "net 0: an id has 1 to 63 bytes"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmlet_net net = cases[i].net;
		net.struct_size = sizeof(net);
		net.fd = -1;
		net.queues = net.queues ? net.queues : 1;
		const struct vmlet_net *nets[] = {&net};
		struct vmlet_config from = make_config();
		from.nets = nets;
		from.net_count = 1;
		refuse(&from, cases[i].sentence);
	}
}

static void names_of_nets(void **state)
{
	(void)state;
	struct vmlet_net first, second;
	vmlet_net_init(&first);
	vmlet_net_init(&second);
	second.id = "net0";
	const struct vmlet_net *nets[] = {&first, &second};
	struct vmlet_config from = make_config();
	from.nets = nets;
	from.net_count = 2;
	refuse(&from, "net 'net0': there are two of that id");
	second.id = "net2";
	accept(&from);
}

/* --- consoles -------------------------------------------------------------------------------------------------- */

static void every_refusal_of_a_console(void **state)
{
	(void)state;
	char long_name[65];
	memset(long_name, 'n', 64);
	long_name[64] = '\0';
	const struct {
		const char *name;
		enum vmlet_serial_kind kind;
		const char *sentence;
	} cases[] = {
		{NULL, VMLET_SERIAL_FILE, "console: no path is given"},
		{NULL, (enum vmlet_serial_kind)9, "console: kind 9 is not one that this library knows"},
		{"", VMLET_SERIAL_NULL, "console 1: a port's name has 1 to 63 bytes"},
		{long_name, VMLET_SERIAL_NULL, "console 1: a port's name has 1 to 63 bytes"},
		{"org.example", VMLET_SERIAL_NULL, "console 1: there is a port 'org.example' already"},
		{"org.vmlet.status", VMLET_SERIAL_NULL, "console 1: there is a port 'org.vmlet.status' already"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmlet_console first, second;
		vmlet_console_init(&first);
		vmlet_console_init(&second);
		first.name = "org.example";
		second.name = cases[i].name;
		second.backend.kind = cases[i].kind;
		const struct vmlet_console *consoles[] = {&first, &second};
		struct vmlet_config from = make_config();
		from.consoles = consoles;
		from.console_count = 2;
		refuse(&from, cases[i].sentence);
	}
}

static void a_console_with_a_burst_and_no_rate(void **state)
{
	(void)state;
	struct vmlet_console console;
	vmlet_console_init(&console);
	console.bandwidth_burst_bytes = 1;
	const struct vmlet_console *consoles[] = {&console};
	struct vmlet_config from = make_config();
	from.consoles = consoles;
	from.console_count = 1;
	refuse(&from, "console: a burst, and no rate that it belongs to");
	console.bandwidth_bytes = 1;
	accept(&from);
}

static void consoles_are_copied(void **state)
{
	(void)state;
	char name[] = "org.example", path[] = "file";
	struct vmlet_console console;
	vmlet_console_init(&console);
	assert_int_equal(console.backend.in_fd, -1);
	console.name = name;
	console.backend.kind = VMLET_SERIAL_FILE;
	console.backend.path = path;
	const struct vmlet_console *consoles[] = {&console};
	struct vmlet_config from = make_config(), config;
	from.consoles = consoles;
	from.console_count = 1;
	struct err err = {0};
	assert_int_equal(config_init(&config, &from, &err), 0);
	memset(name, 'x', sizeof(name) - 1);
	memset(path, 'x', sizeof(path) - 1);
	assert_string_equal(config.consoles[0]->name, "org.example");
	assert_string_equal(config.consoles[0]->backend.path, "file");
	config_fini(&config);
}

static void how_many_consoles(void **state)
{
	(void)state;
	struct vmlet_console console;
	vmlet_console_init(&console);
	const struct vmlet_console *consoles[15];
	for (size_t i = 0; i < ARRAY_SIZE(consoles); i++)
		consoles[i] = &console;
	struct vmlet_config from = make_config();
	from.consoles = consoles;
	from.console_count = 14;
	accept(&from);
	from.console_count = 15;
	refuse(&from, "15 consoles and ports: a machine has at most 14");
}

/* --- what comes once -------------------------------------------------------------------------------------------- */

static void balloon_and_vsock(void **state)
{
	(void)state;
	struct vmlet_config from = make_config();
	from.balloon = (struct vmlet_balloon){.enabled = true, .target_bytes = from.memory_bytes};
	accept(&from);
	from.balloon.target_bytes += 4096;
	refuse(&from, "balloon: 268439552 bytes: whole pages of 4 KiB, and no more than the memory");
	from.balloon.target_bytes = 1;
	refuse(&from, "balloon: 1 bytes: whole pages of 4 KiB, and no more than the memory");
	from.balloon.enabled = false;
	accept(&from);

	from.vsock.path = "";
	refuse(&from, "vsock: no path is given");
	from.vsock.path = "v.sock";
	for (uint32_t cid = 1; cid < 3; cid++) {
		char sentence[128];
		(void)snprintf(sentence, sizeof(sentence), "vsock: context identifier %u: a guest's is 3 to 4294967294",
			       cid);
		from.vsock.cid = cid;
		refuse(&from, sentence);
	}
	from.vsock.cid = UINT32_MAX;
	refuse(&from, "vsock: context identifier 4294967295: a guest's is 3 to 4294967294");
	from.vsock.cid = UINT32_MAX - 1;
	from.vsock.packets_burst = 1;
	refuse(&from, "vsock: a burst, and no rate that it belongs to");
	from.vsock.packets_per_s = from.vsock.bandwidth_burst_bytes = 1;
	refuse(&from, "vsock: a burst, and no rate that it belongs to");
	from.vsock.bandwidth_bytes = 1;
	accept(&from);
}

/* Also in a struct that its user has filled without vmlet_config_init's default. */
static void no_cid_is_the_default(void **state)
{
	(void)state;
	struct vmlet_config config, from = make_config();
	struct err err = {0};
	from.vsock = (struct vmlet_vsock){.path = "v.sock"};
	assert_int_equal(config_init(&config, &from, &err), 0);
	assert_int_equal(config.vsock.cid, 3);
	config_fini(&config);
}

static void all_devices_have_room(void **state)
{
	(void)state;
	struct vmlet_disk disk;
	vmlet_disk_init(&disk);
	disk.path = "image";
	const struct vmlet_disk *disks[31];
	struct vmlet_disk many[31];
	char ids[31][8];
	for (unsigned i = 0; i < 31; i++) {
		(void)snprintf(ids[i], sizeof(ids[i]), "d%u", i);
		many[i] = disk;
		many[i].id = ids[i];
		disks[i] = &many[i];
	}
	struct vmlet_config from = make_config();
	from.disks = disks;
	from.disk_count = 29;
	from.rng.enabled = true;
	from.status_port = true;
	accept(&from);
	from.vsock.path = "v.sock";
	refuse(&from, "32 devices: a machine has room for 31");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nets_are_copied),
		cmocka_unit_test(a_net_of_an_older_program),
		cmocka_unit_test(every_refusal_of_a_net),
		cmocka_unit_test(names_of_nets),
		cmocka_unit_test(every_refusal_of_a_console),
		cmocka_unit_test(a_console_with_a_burst_and_no_rate),
		cmocka_unit_test(consoles_are_copied),
		cmocka_unit_test(how_many_consoles),
		cmocka_unit_test(balloon_and_vsock),
		cmocka_unit_test(no_cid_is_the_default),
		cmocka_unit_test(all_devices_have_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
