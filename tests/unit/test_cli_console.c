/* What --console takes and what it refuses, and who has standard input then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/console_option.h"

#include "cli_settings.h"

#define REFUSED(value, ...) settings_refuse(&console_kind, value, ARGS(__VA_ARGS__))

#define NAME_63 "123456789012345678901234567890123456789012345678901234567890123"

static void test_sources(void **state)
{
	static const struct {
		const char *value, *name, *path;
		enum vmlet_serial_kind kind;
	} cases[] = {
		{"stdio", NULL, NULL, VMLET_SERIAL_FD},
		{"pty", NULL, NULL, VMLET_SERIAL_PTY},
		{"null", NULL, NULL, VMLET_SERIAL_NULL},
		{"file=a,,b", NULL, "a,b", VMLET_SERIAL_FILE},
		{"unix=/x:y=z", NULL, "/x:y=z", VMLET_SERIAL_UNIX},
		{"port=agent.0:unix=/a:b", "agent.0", "/a:b", VMLET_SERIAL_UNIX},
		{"port=a b:file=f", "a b", "f", VMLET_SERIAL_FILE},
		{"port=" NAME_63 ":pty", NAME_63, NULL, VMLET_SERIAL_PTY},
		{"port=n:null", "n", NULL, VMLET_SERIAL_NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct console_option *console = settings_take(&console_kind, cases[i].value);

		assert_false(console->is_status);
		assert_int_equal(console->kind, cases[i].kind);
		assert_int_equal(!console->name, !cases[i].name);
		if (console->name)
			assert_string_equal(console->name, cases[i].name);
		assert_int_equal(!console->path, !cases[i].path);
		if (console->path)
			assert_string_equal(console->path, cases[i].path);
		assert_false(console->base.packed);
		settings_free(&console_kind, console, 1);
	}
	struct console_option *packed = settings_take(&console_kind, "status,packed");

	assert_true(packed->is_status && packed->base.packed);
	settings_free(&console_kind, packed, 1);
	struct console_option *slow = settings_take(&console_kind, "port=n:null,bw=2M:64K");

	assert_int_equal(slow->bandwidth_bytes, 2 << 20);
	assert_int_equal(slow->bandwidth_burst_bytes, 64 << 10);
	settings_free(&console_kind, slow, 1);
}

static void test_refused(void **state)
{
	static const char *const wrong[] = {"", "tty", "file=", "unix=", "file", "stdio=1", "port", "status=1"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		REFUSED(wrong[i], wrong[i], "stdio, pty, null, file=PATH, unix=PATH, port=NAME:WHERE or status");
	REFUSED("port=", "a port is written port=NAME:WHERE");
	REFUSED("port=agent", "a port is written port=NAME:WHERE");
	REFUSED("port=:pty", "a port's name cannot be ''", "1 to 63 bytes");
	REFUSED("port=" NAME_63 "4:pty", "a port's name cannot be '" NAME_63 "4'");
	REFUSED("port=../sda:pty", "a port's name cannot be '../sda'");
	REFUSED("port=org.vmlet.status:pty", "that port is vmlet's own", "--console status");
	REFUSED("port=a:", "a port cannot be at ''", "pty, null, file=PATH or unix=PATH");
	REFUSED("port=a:stdio", "a port cannot be at 'stdio'");
	REFUSED("port=a:unix=", "a port cannot be at 'unix='");
	REFUSED("pty,id=x", "unknown setting 'id'; 'vmlet help console'");
	REFUSED("file=a,b", "unknown setting 'b'");
	REFUSED("pty,bw=0", "bw cannot be '0'");
	REFUSED("status,bw=1", "the status port has no bw");
	REFUSED("pty,", "comma without a setting", "',,'");
}

static void assert_together(const char *const *values, const char *sentence)
{
	struct cli_error error;

	assert_int_equal(settings_try(&console_kind, values, &error), sentence ? -EINVAL : 0);
	assert_string_equal(error.text, sentence ? sentence : "");
}

static void test_together(void **state)
{
	const char *many[CONSOLES_MAX + 3] = {NULL};

	(void)state;
	assert_together(ARGS("pty", "pty", "null", "stdio", "port=a:null", "port=b:null", "status", "status"), NULL);
	assert_together(ARGS("stdio", "pty", "stdio"),
			"--console 'stdio': standard input and output are another console's already");
	assert_together(ARGS("port=a:pty", "port=a:null"), "--console 'port=a:null': there is a port 'a' already");
	many[0] = "status"; /* is none of them */
	for (size_t i = 1; i <= CONSOLES_MAX; i++)
		many[i] = i % 2 ? "pty" : "null";
	assert_together(many, NULL);
	many[CONSOLES_MAX + 1] = "null";
	assert_together(many, "--console 'null': a machine has at most 14 consoles and ports");
	many[CONSOLES_MAX + 1] = "status";
	assert_together(many, NULL);
}

static enum vmlet_serial_kind serial_of(const char *const *args)
{
	enum vmlet_serial_kind serial;
	struct cli_error error;
	struct options o;

	if (settings_command_line(&o, &error, args) < 0)
		fail_msg("refused: %s", error.text);
	serial = o.serial;
	options_free(&o);
	return serial;
}

static void assert_refused(const char *const *args, const char *sentence)
{
	struct cli_error error;
	struct options o;

	assert_int_equal(settings_command_line(&o, &error, args), -EINVAL);
	assert_string_equal(error.text, sentence);
}

static void test_standard_input_is_one(void **state)
{
	(void)state;
	assert_int_equal(serial_of(ARGS("run", "-kk", "--console", "pty")), VMLET_SERIAL_FD);
	assert_int_equal(serial_of(ARGS("run", "-kk", "--console=status", "--console=null")), VMLET_SERIAL_FD);
	assert_int_equal(serial_of(ARGS("run", "-kk", "--console", "stdio")), VMLET_SERIAL_NULL);
	assert_int_equal(serial_of(ARGS("run", "-kk", "--console=null", "--console=stdio", "--serial=pty")),
			 VMLET_SERIAL_PTY);
	assert_refused(ARGS("run", "-kk", "--serial", "stdio", "--console", "stdio"),
		       "--console stdio and --serial stdio contradict each other: there is one standard input");
	assert_int_equal(serial_of(ARGS("run", "-kk", "--serial=stdio", "--console=stdio", "--serial=null")),
			 VMLET_SERIAL_NULL);
	assert_refused(ARGS("exec", "-kk", "--console", "stdio", "true"),
		       "--console stdio cannot be with exec: standard input is the command's");
	assert_int_equal(serial_of(ARGS("exec", "-kk", "--console", "pty", "true")), VMLET_SERIAL_NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_together),
		cmocka_unit_test(test_standard_input_is_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
