#include "cli/help.h"

#include <errno.h>
#include <string.h>

#include "cli/device_option.h"
#include "cli/escape.h"
#include "cli/exit_status.h"
#include "cli/suggest.h"
#include "cli/test_options.h"

enum { LABEL_COLUMN = 24, SETTING_COLUMN = 18, KEYS_COLUMN = 16, STATUS_COLUMN = 8 };

static void print_overview(FILE *out)
{
	fputs("vmlet starts virtual machines on Linux KVM.\n"
	      "\n"
	      "  vmlet run -k vmlinuz -i initrd.img -p console=ttyS0\n"
	      "  vmlet run -k vmlinux -m 2G -c 4 -- console=ttyS0 panic=-1\n"
	      "  vmlet exec -k vmlinux -- /bin/true\n"
	      "\n"
	      "The guest's serial port is your terminal; Ctrl-A x leaves, Ctrl-A ? shows more.\n"
	      "\n"
	      "Commands:\n"
	      "  vmlet run [options] [-- kernel command line]    start a VM and wait for it\n"
	      "  vmlet exec [options] -- COMMAND [ARG...]        run a command in a VM\n"
	      "  vmlet test [options] FILE...                    run the boot tests of files\n"
	      "  vmlet version                                   print the version\n"
	      "  vmlet help [topic]                              print this, or about a topic\n"
	      "\n"
	      "Topics:\n"
	      "  run            every option of vmlet run\n"
	      "  exec           every option of vmlet exec\n"
	      "  ci             vmlet run in tests: timeout, expectations, reports\n"
	      "  test           vmlet test: many boot tests, in parallel, with reports\n"
	      "  disk, net, console, devices    what the machine has, and what they take\n"
	      "  keys           what Ctrl-A does\n"
	      "  exit-status    what the exit status of vmlet run tells\n"
	      "  kernels        which kernels can be started\n",
	      out);
}

static void print_option(FILE *out, const struct option_spec *spec)
{
	char label[64];

	if (spec->may_lack_value)
		snprintf(label, sizeof(label), "    --%s[=%s]", spec->name, spec->metavar);
	else if (spec->letter != 0)
		snprintf(label, sizeof(label), "-%c, --%s %s", spec->letter, spec->name,
			 spec->metavar ? spec->metavar : "");
	else
		snprintf(label, sizeof(label), "    --%s %s", spec->name, spec->metavar ? spec->metavar : "");
	fprintf(out, "  %-*s %s\n", LABEL_COLUMN, label, spec->help);
}

static void print_options(FILE *out, const char *topic)
{
	for (const struct option_spec *spec = options_table; spec->name; spec++)
		if (spec->help && strcmp(spec->topic ? spec->topic : "run", topic) == 0)
			print_option(out, spec);
}

static void print_run(FILE *out)
{
	fputs("  vmlet run -k vmlinuz -i initrd.img -p console=ttyS0\n"
	      "  vmlet run --kernel=vmlinux --memory=2G --cpus=4 -- console=ttyS0 panic=-1\n"
	      "\n"
	      "vmlet run [options] [-- kernel command line]\n"
	      "\n",
	      out);
	print_options(out, "run");
	fputs("\n"
	      "--kernel is required. Of an option given twice the last counts, except that of\n"
	      "--initrd, --disk, --net, --console, --cmdline and --cpu-features all count.\n"
	      "More: vmlet help devices, vmlet help ci\n",
	      out);
}

static void print_exec(FILE *out)
{
	fputs("  vmlet exec -k vmlinux -- /bin/true\n"
	      "  vmlet exec -k vmlinuz -i rootfs.cpio -e LANG=C -- sh -c 'make test' <in >out\n"
	      "\n"
	      "vmlet exec [options] [--] COMMAND [ARG...] boots a kernel, runs the command as\n"
	      "root with vmlet's standard streams, and ends with its status (128+N: signal N;\n"
	      "126: it cannot be executed, 127: there is none). With --initrd it is a command\n"
	      "of the initrd's; without one this host's, taken along with its libraries.\n"
	      "\n",
	      out);
	print_options(out, "exec");
	fputs("\n"
	      "The options of vmlet run (vmlet help run, vmlet help ci) are exec's too, but\n"
	      "--serial is null, and its stdio standard error. When the command has no status\n"
	      "the console's last lines are shown, and the status is 79, or as of vmlet run.\n"
	      "On a terminal the command has one too; Ctrl-A x leaves.\n",
	      out);
}

static void print_ci(FILE *out)
{
	fputs("  vmlet run -k vmlinuz -i test.cpio -p console=ttyS0 --timeout=2m \\\n"
	      "    --expect='tests: 0 failed' --fail-on='Oops|BUG:' --status-file=status.json\n"
	      "\n",
	      out);
	print_options(out, "ci");
	fputs("\n"
	      "REGEX is an extended regular expression, as of grep -E. It is looked for in each\n"
	      "line of the console without its escape sequences, also in an unfinished line.\n"
	      "When the last --expect is met, the VM is stopped and the status is 0. A guest\n"
	      "that ends before has failed: status 84. vmlet(1) tells more, and of --script.\n",
	      out);
}

static void print_settings(FILE *out, enum device device)
{
	for (const struct setting *setting = device_kinds[device]->settings; setting->name; setting++)
		fprintf(out, "  %-*s %s\n", SETTING_COLUMN, setting->label, setting->help);
}

static void print_disk(FILE *out)
{
	fputs("  vmlet run -k vmlinuz -i initrd.img -d root.img -p root=/dev/vda\n"
	      "  vmlet run -k vmlinuz -d base.img,overlay -d nbd=unix:/run/nbd.sock,ro\n"
	      "\n"
	      "--disk PATH[,setting]...     a raw image or a block device\n"
	      "--disk nbd=ADDR[,setting]... an NBD server; ADDR is unix:SOCKET[:EXPORT] or\n"
	      "                             HOST:PORT[:EXPORT]\n"
	      "\n",
	      out);
	print_settings(out, DEVICE_DISK);
	fputs("\n"
	      "A comma inside a path or a value is written twice. The first disk is /dev/vda in\n"
	      "Linux. An image's format is never guessed: qcow2 and others are served by NBD,\n"
	      "for example with 'qemu-nbd --socket=/run/nbd.sock image.qcow2'.\n",
	      out);
}

static void print_net(FILE *out)
{
	fputs("  vmlet run -k vmlinuz -i initrd.img --net passt,publish=8080:80\n"
	      "  vmlet run -k vmlinuz -c 2 --net tap=tap0,queues=2,mtu=9000\n"
	      "\n"
	      "--net passt          the host's network, without root, by the program passt\n"
	      "--net passt=SOCKET   the same, by a passt that runs already\n"
	      "--net tap[=NAME]     a tap interface of the host; without a name a new one\n"
	      "--net stream=PATH    QEMU's stream framing over a Unix socket: connect to it\n"
	      "--net listen=PATH    the same: make it, and wait for the other side\n"
	      "--net fd=N           an open descriptor: such a stream, or a tap\n"
	      "--net none           no network card, as without --net\n"
	      "\n",
	      out);
	print_settings(out, DEVICE_NET);
	fputs("\n"
	      "Settings follow, each after a comma. --net may repeat. Two VMs are joined by\n"
	      "--net listen=/tmp/wire and --net stream=/tmp/wire.\n",
	      out);
}

static void print_console(FILE *out)
{
	fputs("  vmlet run -k vmlinuz -i initrd.img --console stdio -p console=hvc0\n"
	      "  vmlet run -k vmlinuz --console port=agent:unix=/tmp/agent -p console=ttyS0\n"
	      "\n"
	      "--console stdio            your terminal, instead of the serial port's\n"
	      "--console pty              a new pseudo-terminal, which is named on stderr\n"
	      "--console null             nowhere\n"
	      "--console file=PATH        output into a file\n"
	      "--console unix=PATH        a Unix socket to connect to\n"
	      "--console port=NAME:WHERE  no console but /dev/virtio-ports/NAME, at pty, null,\n"
	      "                           file=PATH or unix=PATH\n"
	      "--console status           a port by which the guest ends with a status\n"
	      "\n"
	      "Consoles are hvc0, hvc1, ... in Linux, in the order given; up to 14 with ports.\n"
	      "With stdio, --expect and the like (vmlet help ci) look and type there, and the\n"
	      "serial port is null.\n\nSettings follow, with commas; they are of all consoles:\n",
	      out);
	print_settings(out, DEVICE_CONSOLE);
}

static void print_devices(FILE *out)
{
	fputs("  vmlet run -k vmlinuz -i initrd.img --rng --balloon 512M,reporting\n"
	      "  vmlet run -k vmlinuz --vsock /tmp/vm.sock,cid=7 --transport mmio\n"
	      "\n",
	      out);
	print_options(out, "devices");
	fputs("\nOf --balloon:\n", out);
	print_settings(out, DEVICE_BALLOON);
	fputs("Of --vsock:\n", out);
	print_settings(out, DEVICE_VSOCK);
	fputs("Of --rng:\n", out);
	print_settings(out, DEVICE_RNG);
	fputs("\nDisks, cards and consoles: vmlet help disk, net, console.\n", out);
}

static void key_line(void (*line)(void *ctx, const char *text), void *ctx, const char *keys, const char *meaning)
{
	char text[128];

	snprintf(text, sizeof(text), "  %-*s %s", KEYS_COLUMN, keys, meaning);
	line(ctx, text);
}

void help_keys(void (*line)(void *ctx, const char *text), void *ctx)
{
	for (const struct escape_key *key = escape_keys; key->keys; key++)
		key_line(line, ctx, key->keys, key->meaning);
	key_line(line, ctx, escape_literal_keys, escape_literal_meaning);
}

static void print_line(void *ctx, const char *text)
{
	fprintf(ctx, "%s\n", text);
}

static void print_keys(FILE *out)
{
	fputs("When standard input is a terminal, it is the guest's, byte by byte, except for:\n\n", out);
	help_keys(print_line, out);
	fputs("\nAny other key after Ctrl-A sends nothing. When standard input is not a terminal,\n"
	      "every byte goes to the guest.\n",
	      out);
}

static void print_exit_status(FILE *out)
{
	fputs("vmlet run ends with the status of its guest:\n\n", out);
	for (const struct exit_status_entry *entry = exit_status_table; entry->label; entry++)
		fprintf(out, "  %-*s %s\n", STATUS_COLUMN, entry->label, entry->meaning);
}

static void print_kernels(FILE *out)
{
	fputs("vmlet looks at a kernel's bytes, not at its name, and starts:\n"
	      "\n"
	      "  bzImage    what Linux distributions install as vmlinuz; it must have a 64-bit\n"
	      "             entry (every x86-64 kernel since 3.8 has)\n"
	      "  vmlinux    an ELF file for x86-64: by PVH when it has the note for that\n"
	      "             (CONFIG_PVH), else by the Linux 64-bit boot protocol\n"
	      "  PVH ELF    any 32-bit or 64-bit ELF file with a PVH entry note\n"
	      "\n"
	      "--boot linux64 or --boot pvh insists on a protocol. On the serial port a kernel\n"
	      "prints only when its command line says so: console=ttyS0.\n",
	      out);
}

static const struct {
	const char *name;
	void (*print)(FILE *out);
} topics[] = {
	{"run", print_run},         {"exec", print_exec},
	{"ci", print_ci},           {"test", test_options_print_help},
	{"disk", print_disk},       {"net", print_net},
	{"console", print_console}, {"devices", print_devices},
	{"keys", print_keys},       {"exit-status", print_exit_status},
	{"kernels", print_kernels},
};

enum { TOPIC_COUNT = sizeof(topics) / sizeof(topics[0]) };

static int fail_unknown_topic(const char *topic, struct cli_error *error)
{
	struct suggest suggest;

	suggest_init(&suggest, topic, strlen(topic));
	for (size_t i = 0; i < TOPIC_COUNT; i++)
		suggest_consider(&suggest, topics[i].name);
	if (suggest.best)
		snprintf(error->text, sizeof(error->text), "no help about '%.80s'; did you mean %s?", topic,
			 suggest.best);
	else
		snprintf(error->text, sizeof(error->text),
			 "no help about '%.80s'; there are run, exec, ci, test, disk, net, console, "
			 "devices, keys, exit-status and kernels",
			 topic);
	return -EINVAL;
}

int help_print(FILE *out, const char *topic, struct cli_error *error)
{
	if (!topic) {
		print_overview(out);
		return 0;
	}
	for (size_t i = 0; i < TOPIC_COUNT; i++) {
		if (strcmp(topic, topics[i].name) == 0) {
			topics[i].print(out);
			return 0;
		}
	}
	return fail_unknown_topic(topic, error);
}
