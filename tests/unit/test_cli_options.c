#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "cli/options.h"
#include "cli/suggest.h"

/* The arguments after "vmlet". */
#define PARSE(options, error, ...) parse(options, error, (const char *const[]){"vmlet", __VA_ARGS__, NULL})

static int parse(struct options *options, struct cli_error *error, const char *const *argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	*error = (struct cli_error){0};
	return options_parse(options, argc, argv, error);
}

/* `run -k K` and these arguments are refused, with a sentence that has each of the words in it. */
static void assert_refused(const char *a, const char *b, const char *const *words)
{
	struct cli_error error;
	struct options options;

	assert_int_equal(PARSE(&options, &error, "run", "-k", "K", a, b), -EINVAL);
	assert_null(strchr(error.text, '\n'));
	for (; *words; words++)
		if (!strstr(error.text, *words))
			fail_msg("no \"%s\" in \"%s\"", *words, error.text);
}
#define REFUSED(a, b, ...) assert_refused(a, b, (const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
	struct cli_error error;
	struct options options;

	(void)state;
	assert_int_equal(PARSE(&options, &error, "run", "--kernel", "vmlinux"), 0);
	assert_int_equal(options.command, COMMAND_RUN);
	assert_string_equal(options.kernel, "vmlinux");
	assert_int_equal(options.initrd_count, 0);
	assert_null(options.cmdline);
	assert_int_equal(options.memory_bytes, 0);
	assert_int_equal(options.cpus, 0);
	assert_null(options.cpu_features);
	assert_int_equal(options.serial, VMLET_SERIAL_FD);
	assert_int_equal(options.boot, VMLET_BOOT_AUTO);
	assert_int_equal(options.on_reboot, VMLET_ON_REBOOT_EXIT);
	assert_int_equal(options.log_level, VMLET_LOG_WARN);
	assert_null(options.log_path);
	options_free(&options);
}

static void test_all_spellings(void **state)
{
	static const char *const spellings[][2] = {
		{"-m512M", NULL},       {"-m", "512M"},      {"--memory", "512m"},    {"--memory=512M", NULL},
		{"--memory=512", NULL}, {"-m524288k", NULL}, {"--memory", "524288K"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
		struct cli_error error;
		struct options options;

		assert_int_equal(PARSE(&options, &error, "run", "-kK", spellings[i][0], spellings[i][1]), 0);
		assert_int_equal(options.memory_bytes, 512 << 20);
		options_free(&options);
	}
}

static void test_every_option(void **state)
{
	struct cli_error error;
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, &error, "run", "-k", "a", "--kernel=b=c", "-c", "254", "-m2g", "--serial", "pty",
			       "--serial=unix=/s=1", "--cpu-features", "-avx,+x2apic", "--cpu-features=+b.1_2-3",
			       "--boot", "pvh", "--on-reboot=restart", "--log-level", "debug", "--log-file", "L"),
			 0);
	assert_string_equal(o.kernel, "b=c");
	assert_int_equal(o.cpus, 254);
	assert_int_equal(o.memory_bytes, (uint64_t)2 << 30);
	assert_int_equal(o.serial, VMLET_SERIAL_UNIX);
	assert_string_equal(o.serial_path, "/s=1");
	assert_string_equal(o.cpu_features, "-avx,+x2apic,+b.1_2-3");
	assert_int_equal(o.boot, VMLET_BOOT_PVH);
	assert_int_equal(o.on_reboot, VMLET_ON_REBOOT_RESTART);
	assert_int_equal(o.log_level, VMLET_LOG_DEBUG);
	assert_string_equal(o.log_path, "L");
	options_free(&o);
}

static void test_debugcon(void **state)
{
	struct options o;
	struct cli_error error;

	(void)state;
	assert_int_equal(PARSE(&o, &error, "run", "-kK"), 0);
	assert_int_equal(o.debugcon, VMLET_SERIAL_NULL);
	options_free(&o);
	assert_int_equal(PARSE(&o, &error, "run", "-kK", "--debugcon=stderr"), 0);
	assert_int_equal(o.debugcon, VMLET_SERIAL_FD);
	options_free(&o);
	assert_int_equal(PARSE(&o, &error, "run", "-kK", "--debugcon", "file=log"), 0);
	assert_int_equal(o.debugcon, VMLET_SERIAL_FILE);
	assert_string_equal(o.debugcon_path, "log");
	options_free(&o);
	REFUSED("--debugcon", "pty", "--debugcon", "'pty'", "stderr");
}

static void test_serial_kinds(void **state)
{
	static const struct {
		const char *text;
		enum vmlet_serial_kind kind;
		const char *path;
	} cases[] = {
		{"stdio", VMLET_SERIAL_FD, NULL},     {"null", VMLET_SERIAL_NULL, NULL},
		{"pty", VMLET_SERIAL_PTY, NULL},      {"file=x", VMLET_SERIAL_FILE, "x"},
		{"unix=/y", VMLET_SERIAL_UNIX, "/y"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cli_error error;
		struct options o;

		assert_int_equal(PARSE(&o, &error, "run", "-kK", "--serial", cases[i].text), 0);
		assert_int_equal(o.serial, cases[i].kind);
		if (cases[i].path)
			assert_string_equal(o.serial_path, cases[i].path);
		else
			assert_null(o.serial_path);
		options_free(&o);
	}
	REFUSED("--serial", "file=", "--serial", "'file='", "unix=PATH");
	REFUSED("--serial", "std", "--serial", "'std'", "stdio");
	REFUSED("--serial", "null=x", "'null=x'");
}

static void test_repeated_options_add_up(void **state)
{
	struct cli_error error;
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, &error, "run", "-k", "K", "-i", "a", "--initrd", "b", "-ic", "-p", "one",
			       "--cmdline=two  2", "--append", "three", "-p", "", "--", "four", "-m", "--", "--help"),
			 0);
	assert_int_equal(o.initrd_count, 3);
	assert_string_equal(o.initrds[0], "a");
	assert_string_equal(o.initrds[1], "b");
	assert_string_equal(o.initrds[2], "c");
	assert_string_equal(o.cmdline, "one two  2 three four -m -- --help");
	options_free(&o);
}

static void test_impossible_values(void **state)
{
	static const char *const sizes[] = {
		"99999999999G", "0",    "-1",   "",   "1",     "2049K1", "1X", "512MB",
		"+5",           " 512", "0x10", "1K", "2050K", "M",      "5 ", "18446744073709551616"};
	static const char *const cpus[] = {"0", "255", "-1", "", "1x", "4294967297", "18446744073709551617"};
	static const char *const features[] = {"", "avx", "+", "+avx,", ",+avx", "+avx -x", "+a,,+b", "+a!"};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		REFUSED("-m", sizes[i], "--memory", sizes[i], "512M or 2G");
	for (size_t i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++)
		REFUSED("-c", cpus[i], "--cpus", cpus[i], "1 to 254");
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		REFUSED("--cpu-features", features[i], "--cpu-features", features[i], "+avx2,-x2apic");
	REFUSED("--boot", "bios", "--boot", "'bios'", "auto, linux64 or pvh");
	REFUSED("--on-reboot", "", "--on-reboot", "exit or restart");
	REFUSED("--log-level", "loud", "'loud'", "error, warn, info or debug");
	REFUSED("--log-file=", NULL, "--log-file");
	REFUSED("--kernel=", NULL, "--kernel");
	REFUSED("--initrd", "", "--initrd");
	REFUSED("--help=x", NULL, "--help", "'x'");
}

static void test_missing_values(void **state)
{
	(void)state;
	REFUSED("--memory", NULL, "--memory needs a value", "512M");
	REFUSED("-c", NULL, "--cpus needs a value");
	REFUSED("-i", "--cpus", "--initrd needs a value", "'--cpus'");
}

static void test_unknown_options(void **state)
{
	(void)state;
	REFUSED("--intrd", "x", "'--intrd'", "did you mean --initrd?");
	REFUSED("--inird=x", NULL, "'--inird'", "did you mean --initrd?");
	REFUSED("--cpu=2", NULL, "did you mean --cpus?");
	REFUSED("--floppy", "x", "'--floppy'", "vmlet help run");
	REFUSED("-initrd", "x", "did you mean --initrd?");
	REFUSED("-z", NULL, "'-z'");
	REFUSED("-", NULL, "unexpected argument '-'");
	REFUSED("vmlinuz", NULL, "'vmlinuz'", "--kernel");
}

static void test_commands(void **state)
{
	struct cli_error error;
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, &error, "version"), 0);
	assert_int_equal(o.command, COMMAND_VERSION);
	assert_int_equal(PARSE(&o, &error, "--version"), 0);
	assert_int_equal(o.command, COMMAND_VERSION);
	assert_int_equal(PARSE(&o, &error, "help"), 0);
	assert_int_equal(o.command, COMMAND_HELP);
	assert_null(o.help_topic);
	assert_int_equal(PARSE(&o, &error, "-h", "keys"), 0);
	assert_string_equal(o.help_topic, "keys");
	assert_int_equal(PARSE(&o, &error, "run", "-i", "x", "-h", "--nonsense"), 0);
	assert_int_equal(o.command, COMMAND_HELP);
	assert_string_equal(o.help_topic, "run");
	options_free(&o);
	assert_int_equal(PARSE(&o, &error, "rum"), -EINVAL);
	assert_non_null(strstr(error.text, "did you mean run?"));
	assert_int_equal(PARSE(&o, &error, "--kernel", "x"), -EINVAL);
	assert_non_null(strstr(error.text, "vmlet run --kernel"));
	assert_int_equal(PARSE(&o, &error, "version", "x"), -EINVAL);
	assert_int_equal(PARSE(&o, &error, "help", "a", "b"), -EINVAL);
	assert_int_equal(PARSE(&o, &error, "run"), -EINVAL);
	assert_non_null(strstr(error.text, "--kernel FILE"));
	assert_int_equal(PARSE(&o, &error, NULL), -EINVAL);
	assert_int_equal(options_parse(&o, 0, (const char *const[]){NULL}, &error), -EINVAL);
}

static void test_suggestions(void **state)
{
	struct suggest s;

	(void)state;
	suggest_init(&s, "sreial", 6);
	suggest_consider(&s, "serial");
	assert_string_equal(s.best, "serial");
	assert_int_equal(s.distance, 1);
	suggest_init(&s, "xyz", 3);
	suggest_consider(&s, "run");
	assert_null(s.best);
	suggest_init(&s, "a-word-that-is-much-longer-than-any-option", 42);
	suggest_consider(&s, "serial");
	assert_null(s.best);
}

static void test_exec(void **state)
{
	struct cli_error error;
	struct options options;

	(void)state;
	assert_int_equal(PARSE(&options, &error, "exec", "-k", "K", "--module", "a.ko", "--module=b.ko", "-eA=1",
			       "--env", "B", "--cwd", "/tmp", "--timeout", "5", "--", "sh", "-c", "--", "-k"),
			 0);
	assert_int_equal(options.command, COMMAND_EXEC);
	assert_string_equal(options.exec.command[0], "sh");
	assert_string_equal(options.exec.command[1], "-c");
	assert_string_equal(options.exec.command[2], "--");
	assert_string_equal(options.exec.command[3], "-k");
	assert_null(options.exec.command[4]);
	assert_int_equal(options.exec.modules.count, 2);
	assert_string_equal(options.exec.modules.items[1], "b.ko");
	assert_int_equal(options.exec.variables.count, 2);
	assert_string_equal(options.exec.variables.items[0], "A=1");
	assert_string_equal(options.exec.directory, "/tmp");
	assert_int_equal(options.serial, VMLET_SERIAL_NULL);
	assert_null(options.cmdline);
	options_free(&options);

	assert_int_equal(PARSE(&options, &error, "exec", "-k", "K", "true", "--help"), 0);
	assert_string_equal(options.exec.command[0], "true");
	assert_string_equal(options.exec.command[1], "--help");
	options_free(&options);

	assert_int_equal(PARSE(&options, &error, "exec", "--help"), 0);
	assert_int_equal(options.command, COMMAND_HELP);
	assert_string_equal(options.help_topic, "exec");
	options_free(&options);
}

static void assert_exec_refused(const char *a, const char *b, const char *c, const char *word)
{
	struct cli_error error;
	struct options options;

	assert_int_equal(PARSE(&options, &error, "exec", a, b, c), -EINVAL);
	if (!strstr(error.text, word))
		fail_msg("no \"%s\" in \"%s\"", word, error.text);
}

static void test_exec_refusals(void **state)
{
	(void)state;
	assert_exec_refused("-k", "K", NULL, "needs a command");
	assert_exec_refused("-k", "K", "--", "needs a command");
	assert_exec_refused("--", "true", NULL, "exec needs a kernel");
	assert_exec_refused("--cwd", "tmp", "true", "--cwd");
	assert_exec_refused("-e", "=x", "true", "--env");
	assert_exec_refused("--on-reboot=restart", "-kK", "true", "--on-reboot");
	assert_exec_refused("--modul", "x", "true", "did you mean --module");
	REFUSED("--cwd", "/", "unknown option '--cwd'"); /* run has no command */
	REFUSED("-e", "A=1", "unknown option");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),          cmocka_unit_test(test_exec),
		cmocka_unit_test(test_exec_refusals),     cmocka_unit_test(test_all_spellings),
		cmocka_unit_test(test_every_option),      cmocka_unit_test(test_serial_kinds),
		cmocka_unit_test(test_debugcon),          cmocka_unit_test(test_repeated_options_add_up),
		cmocka_unit_test(test_impossible_values), cmocka_unit_test(test_missing_values),
		cmocka_unit_test(test_unknown_options),   cmocka_unit_test(test_commands),
		cmocka_unit_test(test_suggestions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
