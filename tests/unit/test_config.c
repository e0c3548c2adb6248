/* The library's own copy of a configuration: defaults, sizes, ownership, and every refusal. */
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

static void defaults(void **state)
{
	(void)state;
	struct vmlet_config config;
	memset(&config, 0xff, sizeof(config));
	vmlet_config_init(&config);
	assert_int_equal(config.struct_size, sizeof(config));
	assert_null(config.kernel);
	assert_int_equal(config.memory_bytes, MIB(256));
	assert_int_equal(config.cpus, 1);
	assert_int_equal(config.serial.kind, VMLET_SERIAL_NULL);
	assert_int_equal(config.serial.in_fd, -1);
	assert_int_equal(config.debugcon.out_fd, -1);
	assert_int_equal(config.log_level, VMLET_LOG_WARN);
	assert_null(config.log);
	assert_null(config.event);
	assert_int_equal(config.timeout_ns, 0);
	assert_false(config.streams.enabled);
	assert_int_equal(config.streams.in_fd, -1);
	assert_int_equal(config.streams.out_fd, -1);
	assert_int_equal(config.streams.err_fd, -1);
}

/* A program of an older or newer header: no byte beyond what it has is touched. */
static void defaults_of_every_size(void **state)
{
	(void)state;
	union {
		struct vmlet_config config;
		uint8_t bytes[sizeof(struct vmlet_config) + 64];
	} memory;
	for (size_t size = sizeof(size_t); size <= sizeof(memory); size += sizeof(size_t)) {
		memset(&memory, 0xa5, sizeof(memory));
		vmlet_config_init_sized(&memory.config, size);
		assert_int_equal(memory.config.struct_size, size);
		for (size_t i = size; i < sizeof(memory); i++)
			assert_int_equal(memory.bytes[i], 0xa5);
		for (size_t i = sizeof(struct vmlet_config); i < size; i++)
			assert_int_equal(memory.bytes[i], 0);
	}
}

static void strings_are_copied(void **state)
{
	(void)state;
	char kernel[] = "kernel", cmdline[] = "cmdline", features[] = "-avx", serial[] = "serial",
	     debugcon[] = "debugcon";
	char first[] = "one", second[] = "two";
	const char *initrds[] = {first, second};
	struct vmlet_config from = make_config(), config;
	from.kernel = kernel;
	from.cmdline = cmdline;
	from.cpu_features = features;
	from.serial.kind = VMLET_SERIAL_FILE;
	from.serial.path = serial;
	from.debugcon.kind = VMLET_SERIAL_UNIX;
	from.debugcon.path = debugcon;
	from.initrds = initrds;
	from.initrd_count = 2;
	assert_int_equal(config_init(&config, &from, NULL), 0);

	kernel[0] = cmdline[0] = features[0] = serial[0] = debugcon[0] = first[0] = second[0] = '!';
	initrds[0] = initrds[1] = NULL;
	assert_string_equal(config.kernel, "kernel");
	assert_string_equal(config.cmdline, "cmdline");
	assert_string_equal(config.cpu_features, "-avx");
	assert_string_equal(config.serial.path, "serial");
	assert_string_equal(config.debugcon.path, "debugcon");
	assert_string_equal(config.initrds[0], "one");
	assert_string_equal(config.initrds[1], "two");
	assert_int_equal(config.initrd_count, 2);
	config_fini(&config);
}

static void an_older_program(void **state)
{
	(void)state;
	struct vmlet_config from = make_config(), config;
	from.struct_size = offsetof(struct vmlet_config, cpus); /* it knows nothing from there on */
	from.memory_bytes = MIB(64);
	from.cpus = 12345;
	from.serial.kind = (enum vmlet_serial_kind)99;
	from.log_level = VMLET_LOG_DEBUG;
	assert_int_equal(config_init(&config, &from, NULL), 0);
	assert_int_equal(config.memory_bytes, MIB(64));
	assert_int_equal(config.cpus, 1);
	assert_int_equal(config.serial.kind, VMLET_SERIAL_NULL);
	assert_int_equal(config.log_level, VMLET_LOG_WARN);
	config_fini(&config);
}

static void refuse(const struct vmlet_config *from, int code, const char *sentence)
{
	struct vmlet_config config;
	struct err err = {0};
	assert_int_equal(config_init(&config, from, &err), code);
	assert_int_equal(err.code, code);
	assert_int_equal(err.kind, ERR_CONFIG);
	assert_string_equal(err.text, sentence);
	config_fini(&config);
}

static void struct_sizes_that_cannot_be(void **state)
{
	(void)state;
	struct vmlet_config from = make_config();
	static const size_t SIZES[] = {0, sizeof(size_t) - 1, sizeof(from) + 1, SIZE_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
		char sentence[256];
		(void)snprintf(sentence, sizeof(sentence),
			       "the configuration's struct_size is %zu; this library knows up to %zu "
			       "(call vmlet_config_init, or use a newer library)",
			       SIZES[i], sizeof(from));
		from.struct_size = SIZES[i];
		refuse(&from, -EINVAL, sentence);
	}
	from.struct_size = sizeof(size_t);
	refuse(&from, -EINVAL, "no kernel is given");
}

#define REFUSE(member, value, sentence)                                                                                \
	do {                                                                                                           \
		struct vmlet_config from = make_config();                                                              \
		from.member = value;                                                                                   \
		refuse(&from, -EINVAL, sentence);                                                                      \
	} while (0)

static void every_refusal(void **state)
{
	(void)state;
	REFUSE(kernel, NULL, "no kernel is given");
	REFUSE(cpus, 0, "0 vCPUs: a machine has 1 to 254");
	REFUSE(cpus, 255, "255 vCPUs: a machine has 1 to 254");
	REFUSE(cpus, UINT32_MAX, "4294967295 vCPUs: a machine has 1 to 254");
	REFUSE(memory_bytes, 0, "0 bytes of memory: a machine has at least 2 MiB");
	REFUSE(memory_bytes, MIB(2) - 1, "2097151 bytes of memory: a machine has at least 2 MiB");
	REFUSE(memory_bytes, MIB(2) + 1, "2097153 bytes of memory: not a multiple of 4 KiB");
	REFUSE(memory_bytes, UINT64_MAX, "18446744073709551615 bytes of memory: not a multiple of 4 KiB");
	REFUSE(boot_protocol, (enum vmlet_boot_protocol)3, "boot protocol 3 is not one that this library knows");
	REFUSE(boot_protocol, (enum vmlet_boot_protocol) - 1, "boot protocol -1 is not one that this library knows");
	REFUSE(on_reboot, (enum vmlet_on_reboot)2, "on_reboot 2 is not one that this library knows");
	REFUSE(cpu_features, "avx", "CPU features: 'avx' is not +NAME or -NAME");
	REFUSE(serial.kind, (enum vmlet_serial_kind)5, "serial port: kind 5 is not one that this library knows");
	REFUSE(serial.kind, VMLET_SERIAL_FILE, "serial port: no path is given");
	REFUSE(serial.kind, VMLET_SERIAL_UNIX, "serial port: no path is given");
	REFUSE(debugcon.kind, (enum vmlet_serial_kind) - 1,
	       "debug console: kind -1 is not one that this library knows");
	REFUSE(debugcon.kind, VMLET_SERIAL_FILE, "debug console: no path is given");

	/* To bind a socket to "" would make one with a name of zeros. */
	struct vmlet_config from = make_config();
	from.serial.kind = VMLET_SERIAL_UNIX;
	from.serial.path = "";
	refuse(&from, -EINVAL, "serial port: no path is given");

	from = make_config();
	from.streams.err_fd = -2; /* says nothing while there are no streams */
	struct vmlet_config config;
	assert_int_equal(config_init(&config, &from, NULL), 0);
	config_fini(&config);
	from.streams.enabled = true;
	refuse(&from, -EINVAL, "streams: -2 is not a descriptor, nor -1 for none");
}

static void the_limits_themselves(void **state)
{
	(void)state;
	struct vmlet_config from = make_config(), config;
	from.cpus = 254;
	from.memory_bytes = MIB(2);
	assert_int_equal(config_init(&config, &from, NULL), 0);
	config_fini(&config);
	from.cpus = 1;
	from.memory_bytes = UINT64_MAX - 4095; /* the board knows how much is too much */
	assert_int_equal(config_init(&config, &from, NULL), 0);
	config_fini(&config);
}

/* --- disks -------------------------------------------------------------------------------------------------- */

static struct vmlet_disk make_disk(void)
{
	struct vmlet_disk disk;
	vmlet_disk_init(&disk);
	disk.path = "/disk.img";
	return disk;
}

static void disk_defaults(void **state)
{
	(void)state;
	struct vmlet_disk disk, zeroes = {.struct_size = sizeof(disk), .queues = 1};
	memset(&disk, 0xff, sizeof(disk));
	vmlet_disk_init(&disk);
	assert_memory_equal(&disk, &zeroes, sizeof(disk));
}

static void disks_are_copied(void **state)
{
	(void)state;
	char path[] = "path", id[] = "id", serial[] = "serial", overlay_path[] = "overlay";
	struct vmlet_disk first = make_disk(), second = make_disk();
	const struct vmlet_disk *disks[] = {&first, &second};
	first.path = path;
	first.id = id;
	first.serial = serial;
	first.overlay = true;
	first.overlay_path = overlay_path;
	first.queues = 16;
	first.iops = 1000;
	second.read_only = true;
	struct vmlet_config from = make_config(), config;
	from.disks = disks;
	from.disk_count = 2;
	assert_int_equal(config_init(&config, &from, NULL), 0);

	path[0] = id[0] = serial[0] = overlay_path[0] = '!';
	first = second = (struct vmlet_disk){0};
	disks[0] = disks[1] = NULL;
	assert_int_equal(config.disk_count, 2);
	assert_string_equal(config.disks[0]->path, "path");
	assert_string_equal(config.disks[0]->id, "id");
	assert_string_equal(config.disks[0]->serial, "serial");
	assert_string_equal(config.disks[0]->overlay_path, "overlay");
	assert_int_equal(config.disks[0]->queues, 16);
	assert_int_equal(config.disks[0]->iops, 1000);
	assert_true(config.disks[1]->read_only);
	assert_null(config.disks[1]->id);
	config_fini(&config);
}

/* A program of an older header has a smaller struct, and whatever comes behind it in its memory is not ours to read. */
static void disks_of_every_size(void **state)
{
	(void)state;
	for (size_t size = offsetof(struct vmlet_disk, id); size <= sizeof(struct vmlet_disk); size += sizeof(size_t)) {
		struct vmlet_disk full = make_disk();
		full.struct_size = size;
		full.id = "mine";
		full.read_only = true;
		full.queues = 3;
		uint8_t *memory = malloc(2 * sizeof(full));
		assert_non_null(memory);
		memset(memory, 0xff, 2 * sizeof(full)); /* no pointer that could be followed */
		memcpy(memory, &full, size);
		const struct vmlet_disk *disks[] = {(void *)memory};
		struct vmlet_config from = make_config(), config;
		struct err err = {0};
		from.disks = disks;
		from.disk_count = 1;
		if (config_init(&config, &from, &err) < 0)
			fail_msg("of %zu bytes: %s", size, err.text);
		const struct vmlet_disk *disk = config.disks[0];
		assert_string_equal(disk->path, "/disk.img");
		bool has_id = size >= offsetof(struct vmlet_disk, serial);
		assert_true(has_id ? disk->id && strcmp(disk->id, "mine") == 0 : !disk->id);
		assert_true(disk->read_only == (size > offsetof(struct vmlet_disk, read_only)));
		bool has_queues = size >= offsetof(struct vmlet_disk, packed);
		assert_int_equal(disk->queues, has_queues ? 3 : 1);
		assert_null(disk->overlay_path);
		assert_int_equal(disk->bandwidth_burst_bytes, 0);
		config_fini(&config);
		free(memory);
	}
}

static void refuse_disks(const struct vmlet_disk *const *disks, size_t count, const char *sentence)
{
	struct vmlet_config from = make_config();
	from.disks = disks;
	from.disk_count = count;
	refuse(&from, -EINVAL, sentence);
}

#define REFUSE_DISK(change, sentence)                                                                                  \
	do {                                                                                                           \
		struct vmlet_disk disk = make_disk();                                                                  \
		change;                                                                                                \
		const struct vmlet_disk *const disks[] = {&disk};                                                      \
		refuse_disks(disks, 1, sentence);                                                                      \
	} while (0)

static void every_refusal_of_a_disk(void **state)
{
	(void)state;
	char id64[65] = {0};
	memset(id64, 'i', 64);
	REFUSE_DISK(disk.path = NULL, "disk 'disk0': no path is given");
	REFUSE_DISK(disk.path = "", "disk 'disk0': no path is given");
	REFUSE_DISK((disk.path = "", disk.id = "root"), "disk 'root': no path is given");
	REFUSE_DISK(disk.kind = (enum vmlet_disk_kind)2,
		    "disk 'disk0': a kind or cache mode that this library does not know");
	REFUSE_DISK(disk.cache = (enum vmlet_disk_cache) - 1,
		    "disk 'disk0': a kind or cache mode that this library does not know");
	REFUSE_DISK(disk.queues = 0, "disk 'disk0': 0 queues: a disk has 1 to 16");
	REFUSE_DISK(disk.queues = 17, "disk 'disk0': 17 queues: a disk has 1 to 16");
	REFUSE_DISK(disk.serial = "more than twenty bytes",
		    "disk 'disk0': serial number 'more than twenty bytes': it has at most 20 bytes");
	REFUSE_DISK(disk.id = "", "disk 0: an id has 1 to 63 bytes");
	REFUSE_DISK(disk.id = id64, "disk 0: an id has 1 to 63 bytes");
	REFUSE_DISK((disk.overlay = true, disk.read_only = true),
		    "disk 'disk0': an overlay is for writes, and the disk is read-only");
	REFUSE_DISK(disk.overlay_path = "/o", "disk 'disk0': a path for the overlay, and no overlay is asked for");
	REFUSE_DISK((disk.kind = VMLET_DISK_NBD, disk.direct = true),
		    "disk 'disk0': direct I/O is a matter of the NBD server");
	REFUSE(transport, (enum vmlet_transport)2, "transport 2 is not one that this library knows");
	REFUSE(iothreads, 17, "17 I/O threads: at most 16");

	static const size_t SIZES[] = {0, sizeof(size_t) - 1, sizeof(struct vmlet_disk) + 1, SIZE_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
		char sentence[256];
		(void)snprintf(sentence, sizeof(sentence),
			       "disk 0: its struct_size is %zu; this library knows up to %zu "
			       "(call vmlet_disk_init, or use a newer library)",
			       SIZES[i], sizeof(struct vmlet_disk));
		REFUSE_DISK(disk.struct_size = SIZES[i], sentence);
	}
}

static void names_of_disks(void **state)
{
	(void)state;
	struct vmlet_disk plain = make_disk(), named = make_disk(), disk1 = make_disk();
	named.id = "root";
	disk1.id = "disk1";
	const struct vmlet_disk *const twice[] = {&named, &plain, &named}, *const clash[] = {&disk1, &plain},
				       *const no_clash[] = {&plain, &disk1, &named};
	refuse_disks(twice, 3, "disk 'root': there are two of that id");
	refuse_disks(clash, 2, "disk 'disk1': there are two of that id");
	struct vmlet_config from = make_config(), config;
	from.disks = no_clash;
	from.disk_count = 3;
	assert_int_equal(config_init(&config, &from, NULL), 0);
	config_fini(&config);
}

static void how_many_disks(void **state)
{
	(void)state;
	struct vmlet_disk disk = make_disk();
	const struct vmlet_disk *disks[32];
	struct vmlet_config from = make_config(), config;
	for (unsigned i = 0; i < ARRAY_SIZE(disks); i++)
		disks[i] = &disk;
	from.disks = disks;
	from.disk_count = 31;
	assert_int_equal(config_init(&config, &from, NULL), 0);
	config_fini(&config);
	from.disk_count = 32;
	refuse(&from, -EINVAL, "32 disks: a machine has room for 31 devices");
	from.transport = VMLET_TRANSPORT_MMIO;
	from.disk_count = 16;
	assert_int_equal(config_init(&config, &from, NULL), 0);
	config_fini(&config);
	from.disk_count = 17;
	refuse(&from, -EINVAL, "17 disks: a machine has room for 16 devices");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(defaults_of_every_size),
		cmocka_unit_test(strings_are_copied),
		cmocka_unit_test(an_older_program),
		cmocka_unit_test(struct_sizes_that_cannot_be),
		cmocka_unit_test(every_refusal),
		cmocka_unit_test(the_limits_themselves),
		cmocka_unit_test(disk_defaults),
		cmocka_unit_test(disks_are_copied),
		cmocka_unit_test(disks_of_every_size),
		cmocka_unit_test(every_refusal_of_a_disk),
		cmocka_unit_test(names_of_disks),
		cmocka_unit_test(how_many_disks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
