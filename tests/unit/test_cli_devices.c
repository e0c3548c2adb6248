/* What --balloon, --vsock and --rng take and what they refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli_settings.h"

static void assert_balloon(const char *value, uint64_t target_bytes, bool deflate_on_oom, bool reporting)
{
	struct balloon_option *balloon = settings_take(&balloon_kind, value);

	assert_int_equal(balloon->target_bytes, target_bytes);
	assert_int_equal(balloon->deflate_on_oom, deflate_on_oom);
	assert_int_equal(balloon->reporting, reporting);
	settings_free(&balloon_kind, balloon, 1);
}

static void test_balloon(void **state)
{
	(void)state;
	assert_balloon("0", 0, false, false);
	assert_balloon("64", 64 << 20, false, false);
	assert_balloon("4k,reporting", 4096, false, true);
	assert_balloon("2G,deflate-on-oom,reporting", (uint64_t)2 << 30, true, true);
	assert_balloon("reporting", 0, false, true);
	assert_balloon(",deflate-on-oom", 0, true, false);
}

static void test_balloon_refused(void **state)
{
	(void)state;
	settings_refuse(&balloon_kind, ",", ARGS("--balloon ',': there is a comma without a setting"));
	settings_refuse(&balloon_kind, "on", ARGS("unknown setting 'on'"));
	settings_refuse(&balloon_kind, "1K", ARGS("its size cannot be '1K'", "multiple of 4K"));
	settings_refuse(&balloon_kind, "64MB", ARGS("its size cannot be '64MB'", "512M"));
	settings_refuse(&balloon_kind, "99999999999999T", ARGS("its size cannot be '99999999999999T'"));
	settings_refuse(&balloon_kind, "-1", ARGS("unknown setting '-1'"));
	settings_refuse(&balloon_kind, "64M,64M", ARGS("unknown setting '64M'"));
	settings_refuse(&balloon_kind, "reporting=1", ARGS("reporting takes no value"));
	settings_refuse(&balloon_kind, "packed=1", ARGS("packed takes no value"));
	settings_refuse(&balloon_kind, "deflate", ARGS("unknown setting 'deflate'; 'vmlet help devices'"));
}

static void test_vsock(void **state)
{
	struct vsock_option *vsock = settings_take(&vsock_kind, "/run/v,,1.sock");

	(void)state;
	assert_string_equal(vsock->path, "/run/v,1.sock");
	assert_int_equal(vsock->cid, 0);
	settings_free(&vsock_kind, vsock, 1);
	vsock = settings_take(&vsock_kind, "v,cid=4294967294");
	assert_int_equal(vsock->cid, UINT32_MAX - 1);
	assert_false(vsock->base.packed);
	settings_free(&vsock_kind, vsock, 1);
	vsock = settings_take(&vsock_kind, "v,bw=2M:64K,pps=1000");
	assert_int_equal(vsock->bandwidth_bytes, 2 << 20);
	assert_int_equal(vsock->bandwidth_burst_bytes, 64 << 10);
	assert_int_equal(vsock->packets_per_s, 1000);
	assert_int_equal(vsock->packets_burst, 0);
	settings_free(&vsock_kind, vsock, 1);
	vsock = settings_take(&vsock_kind, "v,packed,cid=3");
	assert_int_equal(vsock->cid, 3);
	assert_true(vsock->base.packed);
	settings_free(&vsock_kind, vsock, 1);
	for (const char *const *cid = ARGS("0", "1", "2", "4294967295", "4294967299", "-1", "", "x"); *cid; cid++) {
		char value[32];

		snprintf(value, sizeof(value), "v,cid=%s", *cid);
		settings_refuse(&vsock_kind, value, ARGS("cid cannot be '", *cid, "a number from 3 to 4294967294"));
	}
	settings_refuse(&vsock_kind, "", ARGS("it begins with the path"));
	settings_refuse(&vsock_kind, ",cid=4", ARGS("it begins with the path"));
	settings_refuse(&vsock_kind, "v,bw=0", ARGS("bw cannot be '0'"));
	settings_refuse(&vsock_kind, "v,pps=1:x", ARGS("pps cannot be '1:x'"));
	settings_refuse(&vsock_kind, "v,cid", ARGS("cid needs a value"));
	settings_refuse(&vsock_kind, "v,port=1", ARGS("unknown setting 'port'"));
}

static void test_rng(void **state)
{
	struct rng_option *rng = settings_take(&rng_kind, "on");

	(void)state;
	assert_int_equal(rng->bandwidth_bytes, 0);
	settings_free(&rng_kind, rng, 1);
	for (const char *const *value = ARGS("bw=1M", "on,bw=1M"); *value; value++) {
		rng = settings_take(&rng_kind, *value);
		assert_int_equal(rng->bandwidth_bytes, 1 << 20);
		settings_free(&rng_kind, rng, 1);
	}
	rng = settings_take(&rng_kind, "packed");
	assert_true(rng->base.packed);
	settings_free(&rng_kind, rng, 1);
	settings_refuse(&rng_kind, "", ARGS("--rng '': it begins with on, or a setting"));
	settings_refuse(&rng_kind, "bw=0", ARGS("bw cannot be '0'", "such as 1M"));
	settings_refuse(&rng_kind, "bw=1M:2M", ARGS("bw cannot be '1M:2M'"));
	settings_refuse(&rng_kind, "bw=1,bw=1", ARGS("bw is given twice"));
	settings_refuse(&rng_kind, "/dev/random", ARGS("unknown setting '/dev/random'"));
}

static void parse(struct options *options, const char *const *args)
{
	struct cli_error error;

	if (settings_command_line(options, &error, args) < 0)
		fail_msg("refused: %s", error.text);
}

static void refuse(const char *const *args, const char *sentence)
{
	struct cli_error error;
	struct options o;

	assert_int_equal(settings_command_line(&o, &error, args), -EINVAL);
	assert_string_equal(error.text, sentence);
}

/* A value that need not be there is never the next argument, and of several options the last counts. */
static void test_on_the_command_line(void **state)
{
	const struct balloon_option *balloon;
	struct options o;

	(void)state;
	parse(&o,
	      ARGS("run", "-kk", "--rng", "--balloon=64M", "--vsock=a", "--vsock", "b", "--balloon=32M", "--", "x"));
	balloon = o.devices[DEVICE_BALLOON].items;
	assert_int_equal(balloon->target_bytes, 32 << 20);
	assert_non_null(o.devices[DEVICE_RNG].items);
	assert_string_equal(((struct vsock_option *)o.devices[DEVICE_VSOCK].items)->path, "b");
	assert_string_equal(o.cmdline, "x");
	options_free(&o);
	parse(&o, ARGS("exec", "-kk", "--balloon", "0", "--rng", "true"));
	assert_string_equal(o.exec.command[0], "true");
	options_free(&o);
	parse(&o, ARGS("run", "-kk"));
	for (size_t i = 0; i < DEVICE_KINDS; i++)
		assert_null(o.devices[i].items);
	options_free(&o);
	refuse(ARGS("run", "-kk", "--rng", "bw=1M"), "a value of --rng follows '=': --rng=bw=1M");
	refuse(ARGS("run", "-kk", "--balloon="),
	       "--balloon cannot be ''; it is a size such as 512M or 0, and settings");
	refuse(ARGS("run", "-kk", "--rng", "-m1G", "bw=1M"),
	       "unexpected argument 'bw=1M'; a kernel is given with --kernel, words for its command line after '--'");
	refuse(ARGS("run", "-kk", "--rng="), "--rng cannot be ''; it is on, and settings");
	refuse(ARGS("run", "-kk", "--vsock"), "--vsock needs a value: the path of a socket to make, and settings");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_balloon),
		cmocka_unit_test(test_balloon_refused),
		cmocka_unit_test(test_vsock),
		cmocka_unit_test(test_rng),
		cmocka_unit_test(test_on_the_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
