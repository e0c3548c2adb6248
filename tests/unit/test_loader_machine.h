/* A machine with some RAM, for tests that load a kernel and look at the guest's memory afterwards. */
#pragma once

#include <stdlib.h>

#include "test_loader_images.h"

enum { BOOT_PARAMS = 0x7000, CMDLINE = 0x20000, CMDLINE_BYTES = 4096, RSDP = 0xf0000, LOW_END = 0x9fc00 };

static const char path[] = "/boot/k";
static struct blob blob; /* the kernel file that machine_init takes */

/* A machine with some RAM, and the plan to fill it. */
struct machine {
	struct memory_range map[MEMORY_MAP_MAX];
	struct image kernel;
	struct image initrds[4];
	struct load_plan plan;
	struct load_result result;
	struct err err;
};

static inline void machine_init(struct machine *m, uint64_t ram_bytes)
{
	uint64_t low = min_u64(ram_bytes, GIB(3));
	struct gmem_region regions[] = {{0, low, NULL}, {GIB(4), ram_bytes - low, NULL}};
	bool has_high = ram_bytes > low;

	memset(m, 0, sizeof(*m));
	m->map[0] = (struct memory_range){0, LOW_END, MEMORY_RAM};
	m->map[1] = (struct memory_range){RSDP, 0x10000, MEMORY_RESERVED};
	m->map[2] = (struct memory_range){MIB(1), low - MIB(1), MEMORY_RAM};
	m->map[3] = (struct memory_range){GIB(4), ram_bytes - low, MEMORY_RAM};
	m->kernel = image_make(path, blob.bytes, blob.size_bytes);
	m->plan = (struct load_plan){
		.gmem = gmem_new(regions, has_high ? 2 : 1, NULL),
		.map = m->map,
		.map_count = has_high ? 4 : 3,
		.low_ram_end = low,
		.area = {.boot_params = BOOT_PARAMS, .cmdline = CMDLINE, .cmdline_size_bytes = CMDLINE_BYTES},
		.acpi_rsdp = RSDP,
		.kernel = &m->kernel,
		.initrds = m->initrds,
		.cmdline = "console=ttyS0",
	};
	assert_non_null(m->plan.gmem);
}

static inline void machine_fini(struct machine *m)
{
	gmem_free(m->plan.gmem);
	image_close(&m->kernel);
	for (unsigned i = 0; i < m->plan.initrd_count; i++)
		image_close(&m->initrds[i]);
}

static inline void add_initrd(struct machine *m, const char *name, size_t size_bytes, uint8_t byte)
{
	uint8_t *bytes = malloc(size_bytes + 1);
	assert_non_null(bytes);
	memset(bytes, byte, size_bytes);
	m->initrds[m->plan.initrd_count++] = image_make(name, bytes, size_bytes);
	free(bytes);
}

static inline void load(struct machine *m)
{
	if (kernel_load(&m->plan, &m->result, &m->err) < 0)
		fail_msg("%s", m->err.text);
}

static inline void expect_refused(struct machine *m, int code, const char *begin, const char *part)
{
	m->result.entry = 99;
	assert_int_equal(kernel_load(&m->plan, &m->result, &m->err), code);
	assert_int_equal(m->err.kind, ERR_CONFIG);
	assert_int_equal(m->result.entry, 99);
	if (strncmp(m->err.text, begin, strlen(begin)) || !strstr(m->err.text, part))
		fail_msg("'%s' does not begin with '%s' and say '%s'", m->err.text, begin, part);
}

static inline void read_page(struct machine *m, gpa_t gpa, uint8_t page[4096])
{
	assert_int_equal(gmem_read(m->plan.gmem, gpa, page, 4096), 0);
}

static inline void expect_bytes(struct machine *m, gpa_t gpa, const void *want, size_t size_bytes)
{
	uint8_t *have = malloc(size_bytes);
	assert_non_null(have);
	assert_int_equal(gmem_read(m->plan.gmem, gpa, have, size_bytes), 0);
	assert_memory_equal(have, want, size_bytes);
	free(have);
}

static inline void expect_fill(struct machine *m, gpa_t gpa, uint8_t byte, size_t size_bytes)
{
	uint8_t *want = malloc(size_bytes);
	assert_non_null(want);
	memset(want, byte, size_bytes);
	expect_bytes(m, gpa, want, size_bytes);
	free(want);
}
