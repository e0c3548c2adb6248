/* Test files: what they may say, what comes of it, and the sentence for what they may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/test_args.h"
#include "cli/test_plan.h"
#include "cli/test_words.h"

struct rig {
	struct test_file file;
	struct test_plan plan;
};

static int load(struct rig *rig, const char *text, struct cli_error *error)
{
	int r;

	*rig = (struct rig){0};
	r = test_file_parse(&rig->file, "t.ini", text, strlen(text), error);
	if (r == 0)
		r = test_plan_add(&rig->plan, &rig->file, error);
	return r == 0 ? test_plan_check_names(&rig->plan, error) : r;
}

static void unload(struct rig *rig)
{
	test_plan_free(&rig->plan);
	test_file_free(&rig->file);
}

static void load_good(struct rig *rig, const char *text)
{
	struct cli_error error = {0};

	if (load(rig, text, &error) < 0)
		fail_msg("refused: %s", error.text);
}

static void assert_refused(const char *text, const char *sentence)
{
	struct cli_error error = {0};
	struct rig rig;

	assert_int_equal(load(&rig, text, &error), -EINVAL);
	assert_string_equal(error.text, sentence);
	unload(&rig);
}

/* The arguments with '|' between. */
static void assert_args(const struct test_case *test, const char *expected)
{
	char text[1024] = "";
	struct test_args args;

	assert_int_equal(test_args_build(test, NULL, &args), 0);
	for (int i = 0; i < args.argc; i++) {
		strcat(text, i ? "|" : "");
		strcat(text, args.argv[i]);
	}
	assert_null(args.argv[args.argc]);
	assert_string_equal(text, expected);
	test_args_free(&args);
}

static void assert_words(const char *text, size_t count, const char *const *words)
{
	char copy[128];
	const char *word = copy;
	size_t got;

	snprintf(copy, sizeof(copy), "%s", text);
	assert_int_equal(test_words_cut(copy, &got), 0);
	assert_int_equal(got, count);
	for (size_t i = 0; i < count; i++) {
		assert_string_equal(word, words[i]);
		word = test_words_next(word);
	}
}
#define WORDS(...)                                                                                                     \
	(const char *const[])                                                                                          \
	{                                                                                                              \
		__VA_ARGS__                                                                                            \
	}

static void test_words(void **state)
{
	char open[] = "a 'b", slash[] = "a\\";
	size_t count;

	(void)state;
	assert_words("", 0, NULL);
	assert_words(" \t ", 0, NULL);
	assert_words(" a  b\t", 2, WORDS("a", "b"));
	assert_words("\"a b\" 'c d'e\\ f", 2, WORDS("a b", "c de f"));
	assert_words("\"\" x ''", 3, WORDS("", "x", ""));
	assert_words("\"a\\\"b\\n\" 'a\\b'", 2, WORDS("a\"b\\n", "a\\b"));
	assert_int_equal(test_words_cut(open, &count), -EINVAL);
	assert_int_equal(test_words_cut(slash, &count), -EINVAL);
}

static void test_one(void **state)
{
	struct rig rig;

	(void)state;
	load_good(&rig, "\xef\xbb\xbf# c\r\n ; c\r\n\r\n[ one ]\r\n\tkernel =  a b = c \r\ncpus=2\r\ncpus=3\n"
			"cmdline = x\ncmdline = \" y \"\noption = --boot 'pvh'\ntimeout = 2m\nstatus=panic");
	assert_int_equal(rig.plan.count, 1);
	assert_string_equal(rig.plan.cases[0].name, "one");
	assert_int_equal(rig.plan.cases[0].line, 4);
	assert_true(rig.plan.cases[0].timeout_ns == 120000000000);
	assert_string_equal(rig.plan.cases[0].expected_reason, "panic");
	assert_args(&rig.plan.cases[0], "vmlet|run|--serial|null|--kernel|a b = c|--cpus|3|--cmdline|x|--cmdline| y |"
					"--boot|pvh|--timeout|2m");
	unload(&rig);
	load_good(&rig, "[a]\nkernel=k\noption = --timeout 5m\n");
	assert_true(rig.plan.cases[0].timeout_ns == 300000000000);
	unload(&rig);
}

static void test_devices(void **state)
{
	struct rig rig;

	(void)state;
	load_good(&rig, "[a]\nkernel=k\nnet = passt,publish=80\nnet = tap=t0\nconsole = stdio\nconsole=port=p:pty\n"
			"rng = on\nballoon=64M\nballoon = 32M,reporting\nvsock = v.sock,cid=9\n");
	assert_args(&rig.plan.cases[0],
		    "vmlet|run|--serial|null|--timeout|60s|--kernel|k|--net|passt,publish=80|--net|tap=t0|"
		    "--console|stdio|--console|port=p:pty|--rng=on|--balloon|32M,reporting|--vsock|v.sock,cid=9");
	unload(&rig);
	load_good(&rig, "[defaults]\nkernel=k\nrng=on\n[a]\nrng =\nmatrix.net = none passt\n");
	assert_int_equal(rig.plan.count, 2);
	assert_string_equal(rig.plan.cases[0].name, "a[net=none]");
	assert_args(&rig.plan.cases[1], "vmlet|run|--serial|null|--timeout|60s|--kernel|k|--net|passt");
	unload(&rig);
}

static void test_refused_devices(void **state)
{
	(void)state;
	assert_refused(
		"[a]\nkernel=k\nnet = tpa\n",
		"t.ini:3: --net 'tpa': it begins with passt[=SOCKET], tap[=NAME], stream=PATH, listen=PATH, fd=N "
		"or none");
	assert_refused("[a]\nkernel=k\nrng = bw=x\n",
		       "t.ini:3: --rng 'bw=x': bw cannot be 'x'; it is a size such as 1M");
	assert_refused("[a]\nkernel=k\n\nballoon = reprting\n",
		       "t.ini:4: --balloon 'reprting': unknown setting 'reprting'; did you mean 'reporting'?");
	/* Only the whole of them shows it. */
	assert_refused("[a]\nkernel=k\nnet=tap,id=x\nnet=passt,id=x\n",
		       "t.ini:1: --net 'passt,id=x': its id 'x' is another network card's already");
	assert_refused("[a]\nkernel=k\nconsole=stdio\nexec=true\n",
		       "t.ini:4: --console stdio cannot be with exec: standard input is the command's");
}

static void test_defaults(void **state)
{
	struct rig rig;

	(void)state;
	load_good(&rig,
		  "[a]\ninitrd = 2\n[b]\nkernel = own\ninitrd =\n[defaults]\nkernel = k\ninitrd = 1\nstatus = 7\n");
	assert_int_equal(rig.plan.count, 2);
	assert_args(&rig.plan.cases[0], "vmlet|run|--serial|null|--timeout|60s|--kernel|k|--initrd|1|--initrd|2");
	assert_int_equal(rig.plan.cases[0].expected_status, 7);
	assert_args(&rig.plan.cases[1], "vmlet|run|--serial|null|--timeout|60s|--kernel|own");
	unload(&rig);
}

static void test_matrix(void **state)
{
	static const char *const names[] = {
		"t[kernel=a,cpus=1]", "t[kernel=a,cpus=2]", "t[kernel=b c,cpus=1]", "t[kernel=b c,cpus=2]",
		"u[cpus=1]",          "u[cpus=2]",          "v[kernel=k]",
	};
	struct rig rig;

	(void)state;
	load_good(&rig, "[defaults]\nmatrix.cpus = 1 2\nkernel = z\n[t]\nmatrix.cpus = 8\n[x]\nkernel = 1\n");
	assert_int_equal(rig.plan.count, 3);
	assert_string_equal(rig.plan.cases[0].name, "t[cpus=8]");
	unload(&rig);
	load_good(&rig, "[t]\nmatrix.kernel = a 'b c'\nmatrix.cpus = 1 2\n[u]\nkernel = k\nmatrix.cpus = 1 2\n"
			"[v]\nmatrix.kernel = k\n");
	assert_int_equal(rig.plan.count, 7);
	for (size_t i = 0; i < 7; i++)
		assert_string_equal(rig.plan.cases[i].name, names[i]);
	assert_args(&rig.plan.cases[3], "vmlet|run|--serial|null|--timeout|60s|--kernel|b c|--cpus|2");
	unload(&rig);
	/* A plain value of the test's own ends a matrix of the defaults; of a key that adds up, it comes before. */
	load_good(&rig, "[defaults]\nkernel=k\nmatrix.cpus = 1 2\nmatrix.cmdline = q v\n[t]\ncpus = 4\ncmdline = x\n");
	assert_int_equal(rig.plan.count, 2);
	assert_string_equal(rig.plan.cases[1].name, "t[cmdline=v]");
	assert_args(&rig.plan.cases[1],
		    "vmlet|run|--serial|null|--timeout|60s|--kernel|k|--cpus|4|--cmdline|x|--cmdline|v");
	unload(&rig);
}

static void test_refused_text(void **state)
{
	(void)state;
	assert_refused("", "t.ini:1: there is no test in it: no section [name]");
	assert_refused("[defaults]\nkernel=k\n", "t.ini:1: there is no test in it: no section [name]");
	assert_refused("kernel = a\n", "t.ini:1: 'kernel' comes before the first [name]");
	assert_refused("[a]\nkernl = a\n", "t.ini:2: unknown key 'kernl'; did you mean kernel?");
	assert_refused("[a]\ncolour = a\n", "t.ini:2: unknown key 'colour'; vmlet-test(5) lists the keys");
	assert_refused("[a]\nmatrix.cpu = 1\n", "t.ini:2: unknown key 'matrix.cpu'; did you mean cpus?");
	assert_refused("[a]\nhello\n", "t.ini:2: 'hello' is neither [name] nor key = value");
	assert_refused("[a\n", "t.ini:1: a section is written [name], not '[a'");
	assert_refused("[]\n", "t.ini:1: a test needs a name in its [ ]");
	assert_refused("[a]\n\x01\n", "t.ini:2: a control character (byte 0x01)");
	assert_refused("[a]\n[b]\n[a]\n", "t.ini:3: there is a section [a] already, in line 1");
}

static void test_refused_matrices(void **state)
{
	char text[512] = "[a]\nkernel = k\n";

	(void)state;
	assert_refused("[a]\nmatrix.cpus = \n", "t.ini:2: the matrix matrix.cpus has no values");
	assert_refused("[a]\nmatrix.exec = a\n", "t.ini:2: exec takes words itself and cannot be a matrix");
	assert_refused("[a]\nkernel=k\nmatrix.cpus = 1\nmatrix.cpus = 2\n",
		       "t.ini:4: matrix.cpus is given twice; its values go into one line");
	assert_refused("[a]\nkernel=k\nmatrix.cpus = 1\ncpus = 2\n",
		       "t.ini:4: cpus and matrix.cpus (line 3) contradict each other");
	assert_refused("[a]\nmatrix.kernel = 'x\n", "t.ini:2: a quote is not closed, or nothing follows a backslash");
	assert_refused("[a]\nkernel=k\nmatrix.cpus = 1 2 1\n",
		       "t.ini:1: there is a test 'a[cpus=1]' already, in t.ini:1");
	assert_refused("[a[cpus=1]]\nkernel=k\n[a]\nkernel=k\nmatrix.cpus = 1\n",
		       "t.ini:3: there is a test 'a[cpus=1]' already, in t.ini:1");
	for (const char *const *key = WORDS("cpus", "memory", "timeout", "status", "cmdline", NULL); *key; key++)
		sprintf(text + strlen(text), "matrix.%s = 1 2 3 4 5 6 7\n", *key);
	assert_refused(text, "t.ini:1: more than 10000 tests");
}

static void test_refused_values(void **state)
{
	(void)state;
	assert_refused("[a]\n", "t.ini:1: the test 'a' has no kernel");
	assert_refused("[a]\nkernel=k\nkernel=\n", "t.ini:1: the test 'a' has no kernel");
	assert_refused("[a]\nkernel=k\ncpus = x\n", "t.ini:3: --cpus cannot be 'x'; it is a number from 1 to 254");
	assert_refused("[a]\nkernel=k\ntimeout = soon\n",
		       "t.ini:3: timeout cannot be 'soon'; it is a duration such as 500ms, 90s or 5m");
	assert_refused("[a]\nkernel=k\nstatus = 256\n",
		       "t.ini:3: status cannot be '256'; it is a number from 0 to 255, or poweroff, expected, reboot, "
		       "panic, triple-fault, timeout, expect, fail-on or no-status");
	assert_refused("[a]\nkernel=k\nmodule = m\n", "t.ini:3: module needs exec in the same test");
	assert_refused("[a]\nkernel=k\noption = -- x\n", "t.ini:3: option cannot have '--'; see the key cmdline");
	assert_refused("[a]\nkernel=k\noption = --help\n", "t.ini:1: option cannot ask for help");
	assert_refused("[a]\nkernel=k\noption = --boot\n", "t.ini:1: --boot needs a value, not the option "
							   "'--status-file': auto, linux64 or pvh");
	assert_refused("[a]\nkernel=k\noption = --bot x\n", "t.ini:1: unknown option '--bot'; did you mean --boot?");
}

static void test_refused_regex(void **state)
{
	struct cli_error error = {0};
	struct rig rig;

	(void)state;
	assert_int_equal(load(&rig, "[a]\nkernel=k\n\nexpect = a(b\n", &error), -EINVAL);
	assert_memory_equal(error.text, "t.ini:4: expect cannot be 'a(b': ", 33);
	unload(&rig);
	assert_int_equal(load(&rig, "[a]\nkernel=k\nsend = a[=>x\n", &error), -EINVAL);
	assert_memory_equal(error.text, "t.ini:3: send cannot be 'a[=>x': ", 33);
	unload(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),          cmocka_unit_test(test_one),
		cmocka_unit_test(test_defaults),       cmocka_unit_test(test_matrix),
		cmocka_unit_test(test_refused_text),   cmocka_unit_test(test_refused_matrices),
		cmocka_unit_test(test_refused_values), cmocka_unit_test(test_refused_regex),
		cmocka_unit_test(test_devices),        cmocka_unit_test(test_refused_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
