/* What --disk takes and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/device_option.h"
#include "cli/disk_option.h"

static void parse_one(struct disk_option **disk, const char *value)
{
	struct cli_error error = {0};
	void *items;

	if (settings_parse(&disk_kind, &value, 1, &items, &error) < 0)
		fail_msg("'%s' is refused: %s", value, error.text);
	*disk = items;
}

static void assert_refused(const char *value, const char *const *words)
{
	void *untouched = NULL;
	struct cli_error error = {0};

	assert_int_equal(settings_parse(&disk_kind, &value, 1, &untouched, &error), -EINVAL);
	assert_null(untouched);
	assert_null(strchr(error.text, '\n'));
	assert_memory_equal(error.text, "--disk '", 8);
	for (; *words; words++)
		if (!strstr(error.text, *words))
			fail_msg("no \"%s\" in \"%s\"", *words, error.text);
}
#define REFUSED(value, ...) assert_refused(value, (const char *const[]){__VA_ARGS__, NULL})

static void test_none(void **state)
{
	void *disks = state;
	struct cli_error error;

	assert_int_equal(settings_parse(&disk_kind, NULL, 0, &disks, &error), 0);
	assert_null(disks);
	settings_free(&disk_kind, disks, 0);
}

static void test_path_alone(void **state)
{
	struct disk_option *d;

	(void)state;
	parse_one(&d, "/a b=c/x.img");
	assert_int_equal(d->kind, VMLET_DISK_RAW);
	assert_string_equal(d->path, "/a b=c/x.img");
	assert_null(d->base.id);
	assert_null(d->serial);
	assert_null(d->overlay_path);
	assert_false(d->read_only || d->direct || d->overlay || d->base.packed);
	assert_int_equal(d->cache, VMLET_DISK_CACHE_WRITEBACK);
	assert_int_equal(d->queues, 0);
	assert_int_equal(d->iops | d->iops_burst | d->bandwidth_bytes | d->bandwidth_burst_bytes, 0);
	settings_free(&disk_kind, d, 1);
}

static void test_every_setting(void **state)
{
	struct disk_option *d;

	(void)state;
	parse_one(&d, "x.img,direct,overlay=o.cow,serial=12345678901234567890,queues=16,id=root,cache=unsafe,"
		      "iops=500:50,bw=100M:1g,packed");
	assert_string_equal(d->path, "x.img");
	assert_true(d->direct && d->overlay && d->base.packed);
	assert_false(d->read_only);
	assert_string_equal(d->overlay_path, "o.cow");
	assert_string_equal(d->serial, "12345678901234567890");
	assert_int_equal(d->queues, 16);
	assert_string_equal(d->base.id, "root");
	assert_int_equal(d->cache, VMLET_DISK_CACHE_UNSAFE);
	assert_int_equal(d->iops, 500);
	assert_int_equal(d->iops_burst, 50);
	assert_int_equal(d->bandwidth_bytes, 100 << 20);
	assert_int_equal(d->bandwidth_burst_bytes, 1 << 30);
	settings_free(&disk_kind, d, 1);

	parse_one(&d, "x.img,ro,iops=18446744073709551615,bw=1,cache=writeback");
	assert_true(d->read_only);
	assert_true(d->iops == UINT64_MAX && d->iops_burst == 0);
	assert_int_equal(d->bandwidth_bytes, 1);
	settings_free(&disk_kind, d, 1);

	parse_one(&d, "x.img,overlay");
	assert_true(d->overlay && !d->overlay_path);
	settings_free(&disk_kind, d, 1);
}

static void test_commas(void **state)
{
	static const struct {
		const char *value, *path, *serial;
	} cases[] = {
		{"a,,b", "a,b", NULL},
		{",,", ",", NULL},
		{"a,,", "a,", NULL},
		{"a,,,serial=x", "a,", "x"},
		{"a,serial=x,,y,,,ro", "a", "x,y,"},
		{"a,,,,serial=1", "a,,serial=1", NULL},
		{"a,serial=ro=x", "a", "ro=x"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct disk_option *d;

		parse_one(&d, cases[i].value);
		assert_string_equal(d->path, cases[i].path);
		if (cases[i].serial)
			assert_string_equal(d->serial, cases[i].serial);
		else
			assert_null(d->serial);
		settings_free(&disk_kind, d, 1);
	}
}

static void test_nbd(void **state)
{
	static const char *const addresses[] = {
		"unix:/run/nbd.sock", "unix:s:export", "localhost:10809", "10.0.0.1:10809:e x", "[::1]:10809", "h:nbd",
	};
	struct disk_option *d;

	(void)state;
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		char value[64];

		snprintf(value, sizeof(value), "nbd=%s,ro", addresses[i]);
		parse_one(&d, value);
		assert_int_equal(d->kind, VMLET_DISK_NBD);
		assert_string_equal(d->path, addresses[i]);
		assert_true(d->read_only);
		settings_free(&disk_kind, d, 1);
	}
	parse_one(&d, "nbd=unix:a,,b,overlay");
	assert_string_equal(d->path, "unix:a,b");
	assert_true(d->overlay);
	settings_free(&disk_kind, d, 1);
	parse_one(&d, "./nbd=x");
	assert_int_equal(d->kind, VMLET_DISK_RAW);
	settings_free(&disk_kind, d, 1);
	REFUSED("nbd=", "''", "unix:PATH[:EXPORT]");
	REFUSED("nbd=localhost", "'localhost'", "HOST:PORT");
	REFUSED("nbd=:10809", "':10809'", "HOST:PORT");
	REFUSED("nbd=host:", "'host:'");
	REFUSED("nbd=unix:", "'unix:'");
	REFUSED("nbd=unix::export", "'unix::export'");
	REFUSED("nbd=h:1,direct", "direct is for files");
}

static void test_unknown_settings(void **state)
{
	(void)state;
	REFUSED("x.img,rw", "--disk 'x.img,rw': unknown setting 'rw'; did you mean 'ro'?");
	REFUSED("x.img,serail=1", "unknown setting 'serail'", "did you mean 'serial'?");
	REFUSED("x.img,format=raw", "unknown setting 'format'", "'vmlet help disk'");
	REFUSED("x.img,READONLY", "'READONLY'", "vmlet help disk");
	REFUSED("x.img,", "comma without a setting", "',,'");
	REFUSED("x.img,=1", "comma without a setting");
	REFUSED("x.img,ro,", "comma without a setting");
}

static void test_impossible_values(void **state)
{
	(void)state;
	REFUSED("", "begins with the image's path");
	REFUSED(",ro", "begins with the image's path");
	REFUSED("x,ro=on", "ro takes no value", "'on'");
	REFUSED("x,packed=", "packed takes no value");
	REFUSED("x,serial", "serial needs a value");
	REFUSED("x,serial=", "serial cannot be ''", "1 to 20 bytes");
	REFUSED("x,serial=123456789012345678901", "serial cannot be '123456789012345678901'");
	REFUSED("x,id=", "id cannot be ''");
	REFUSED("x,id=123456789012345678901234567890123", "id cannot be");
	REFUSED("x,overlay=", "overlay cannot be ''", "a file");
	REFUSED("x,cache=none", "cache cannot be 'none'", "writeback or unsafe");
	REFUSED("x,queues=0", "queues cannot be '0'", "1 to 16");
	REFUSED("x,queues=17", "'17'");
	REFUSED("x,queues=4294967297", "'4294967297'");
	REFUSED("x,queues=-1", "'-1'");
	REFUSED("x,iops=0", "iops cannot be '0'");
	REFUSED("x,iops=1:0", "iops cannot be '1:0'");
	REFUSED("x,iops=1:", "iops cannot be '1:'");
	REFUSED("x,iops=:1", "iops cannot be ':1'");
	REFUSED("x,iops=1:2:3", "iops cannot be '1:2:3'");
	REFUSED("x,iops=1K", "iops cannot be '1K'");
	REFUSED("x,iops=18446744073709551616", "iops cannot be");
	REFUSED("x,bw=0M", "bw cannot be '0M'", "100M");
	REFUSED("x,bw=16777216T", "bw cannot be '16777216T'");
	REFUSED("x,bw=1M:x", "bw cannot be '1M:x'");
}

static void test_contradictions(void **state)
{
	(void)state;
	REFUSED("x,ro,overlay", "ro or has an overlay, not both");
	REFUSED("x,overlay=f,ro", "ro or has an overlay, not both");
	REFUSED("x,ro,ro", "ro is given twice");
	REFUSED("x,serial=a,serial=b", "serial is given twice");
	REFUSED("x,overlay,overlay=f", "overlay is given twice");
}

/* A name that is longer than the sentence is cut, and the point of the sentence is still in it. */
static void test_long_value(void **state)
{
	char value[2048];

	(void)state;
	memset(value, 'a', sizeof(value));
	memcpy(value + sizeof(value) - 1, "", 1);
	value[1000] = ',';
	REFUSED(value, "unknown setting 'aaa", "'vmlet help disk' lists the settings");
	memcpy(value + 1000, ",queues=", 8);
	REFUSED(value, "queues cannot be 'aaa", "a number from 1 to 16");
}

static int parse_all(const char *const *values, struct cli_error *error)
{
	void *disks = NULL;
	size_t count = 0;
	int r;

	while (values[count])
		count++;
	r = settings_parse(&disk_kind, values, count, &disks, error);
	if (r == 0)
		settings_free(&disk_kind, disks, count);
	return r;
}

static void test_ids_are_unique(void **state)
{
	struct cli_error error;

	(void)state;
	assert_int_equal(parse_all((const char *const[]){"a", "a", "a,id=x", "a,id=disk0x", NULL}, &error), 0);
	assert_int_equal(parse_all((const char *const[]){"a,id=x", "b", "c,id=x", NULL}, &error), -EINVAL);
	assert_string_equal(error.text, "--disk 'c,id=x': its id 'x' is another disk's already");
	/* The names that those without an id get count too. */
	assert_int_equal(parse_all((const char *const[]){"a,id=disk1", "b", NULL}, &error), -EINVAL);
	assert_string_equal(error.text, "--disk 'b': its id 'disk1' is another disk's already");
	assert_int_equal(parse_all((const char *const[]){"a", "b,id=disk0", NULL}, &error), -EINVAL);
	assert_int_equal(parse_all((const char *const[]){"a,id=disk0", "b", NULL}, &error), 0);
}

static void test_how_many(void **state)
{
	const char *values[DISKS_MAX + 2] = {NULL};
	struct cli_error error;

	(void)state;
	for (size_t i = 0; i < DISKS_MAX; i++)
		values[i] = "x";
	assert_int_equal(parse_all(values, &error), 0);
	values[DISKS_MAX] = "x";
	assert_int_equal(parse_all(values, &error), -EINVAL);
	assert_string_equal(error.text, "--disk is given 32 times; a machine has at most 31 disks");
}

/* Through the whole parser: order is kept, and --transport and --iothreads go with them. */
static void test_on_the_command_line(void **state)
{
	static const char *const argv[] = {"vmlet", "run",         "-kK",  "-d",          "a,id=x", "--disk=b,ro",
					   "-dc",   "--transport", "mmio", "--iothreads", "16",     NULL};
	struct cli_error error = {0};
	const struct disk_option *disks;
	struct options o;

	(void)state;
	assert_int_equal(options_parse(&o, 11, argv, &error), 0);
	disks = o.devices[DEVICE_DISK].items;
	assert_int_equal(o.devices[DEVICE_DISK].values.count, 3);
	assert_string_equal(disks[0].path, "a");
	assert_string_equal(disks[0].base.id, "x");
	assert_string_equal(disks[1].path, "b");
	assert_true(disks[1].read_only);
	assert_string_equal(disks[2].path, "c");
	assert_int_equal(o.transport, VMLET_TRANSPORT_MMIO);
	assert_int_equal(o.iothreads, 16);
	options_free(&o);
	assert_int_equal(options_parse(&o, 3, argv, &error), 0);
	assert_int_equal(o.devices[DEVICE_DISK].values.count, 0);
	assert_null(o.devices[DEVICE_DISK].items);
	assert_int_equal(o.transport, VMLET_TRANSPORT_PCI);
	assert_int_equal(o.iothreads, 0);
	options_free(&o);
}

static void assert_command_refused(const char *a, const char *b, const char *word)
{
	const char *argv[] = {"vmlet", "run", "-kK", a, b};
	struct cli_error error = {0};
	struct options o;

	assert_int_equal(options_parse(&o, 5, argv, &error), -EINVAL);
	if (!strstr(error.text, word))
		fail_msg("no \"%s\" in \"%s\"", word, error.text);
}

static void test_refused_on_the_command_line(void **state)
{
	(void)state;
	assert_command_refused("--disk", "", "--disk cannot be ''");
	assert_command_refused("-d", "--transport", "--disk needs a value, not the option '--transport'");
	assert_command_refused("-d", "a,rw", "did you mean 'ro'?");
	assert_command_refused("--transport", "usb", "pci or mmio");
	assert_command_refused("--iothreads", "17", "0 to 16");
	assert_command_refused("--disks", "x", "did you mean --disk?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_path_alone),
		cmocka_unit_test(test_every_setting),
		cmocka_unit_test(test_commas),
		cmocka_unit_test(test_nbd),
		cmocka_unit_test(test_unknown_settings),
		cmocka_unit_test(test_impossible_values),
		cmocka_unit_test(test_contradictions),
		cmocka_unit_test(test_long_value),
		cmocka_unit_test(test_ids_are_unique),
		cmocka_unit_test(test_how_many),
		cmocka_unit_test(test_on_the_command_line),
		cmocka_unit_test(test_refused_on_the_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
