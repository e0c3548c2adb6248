/*
 * What the loader's fuzz targets share: one machine of 16 MiB that is used again and again, and one memfd that is
 * the kernel file. Inputs stay far below the size from which files are mapped, so an execution is a few preads.
 */
#pragma once

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loader/loader.h"
#include "util.h"

enum { FUZZ_RAM_BYTES = 16 << 20, FUZZ_BOOT_PARAMS = 0x7000, FUZZ_CMDLINE = 0x20000, FUZZ_CANARY = 0x9fc00 };

static const struct memory_range fuzz_map[] = {
	{0, FUZZ_CANARY, MEMORY_RAM},
	{0xf0000, 0x10000, MEMORY_RESERVED},
	{MIB(1), FUZZ_RAM_BYTES - MIB(1), MEMORY_RAM},
};

struct fuzz_machine {
	struct image kernel;
	struct image initrd;
	struct load_plan plan;
	uint8_t canary[0x100000 - FUZZ_CANARY]; /* what lies where the map has no RAM */
};

static inline int fuzz_memfd(const void *data, size_t size_bytes)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || pwrite(fd, data, size_bytes, 0) != (ssize_t)size_bytes)
		abort();
	return fd;
}

static inline struct fuzz_machine *fuzz_machine(void)
{
	static struct fuzz_machine m;
	if (m.plan.gmem)
		return &m;
	struct gmem_region region = {0, FUZZ_RAM_BYTES, NULL};
	memset(m.canary, 0xa5, sizeof(m.canary));
	m.kernel = (struct image){"/fuzz", fuzz_memfd("", 0), 0};
	m.initrd = (struct image){"/initrd", fuzz_memfd(m.canary, 5000), 5000};
	m.plan = (struct load_plan){
		.gmem = gmem_new(&region, 1, NULL),
		.map = fuzz_map,
		.map_count = ARRAY_SIZE(fuzz_map),
		.low_ram_end = FUZZ_RAM_BYTES,
		.area = {.boot_params = FUZZ_BOOT_PARAMS, .cmdline = FUZZ_CMDLINE, .cmdline_size_bytes = 256},
		.kernel = &m.kernel,
		.initrds = &m.initrd,
		.initrd_count = 1,
		.cmdline = "console=ttyS0",
	};
	if (!m.plan.gmem || gmem_write(m.plan.gmem, FUZZ_CANARY, m.canary, sizeof(m.canary)) < 0)
		abort();
	return &m;
}

/* Probe the bytes for every protocol and load them for the one that the kernel chooses. */
static inline void fuzz_load(struct fuzz_machine *m, const uint8_t *data, size_t size_bytes)
{
	struct load_result result = {.info = 1};
	struct err err = {0};
	enum kernel_kind kind;
	uint8_t byte;

	if (ftruncate(m->kernel.fd, (off_t)size_bytes) < 0 ||
	    pwrite(m->kernel.fd, data, size_bytes, 0) != (ssize_t)size_bytes)
		abort();
	m->kernel.size_bytes = size_bytes;

	(void)kernel_probe(&m->kernel, BOOT_PVH, &kind, NULL);
	(void)kernel_probe(&m->kernel, BOOT_LINUX64, &kind, NULL);
	int probed = kernel_probe(&m->kernel, BOOT_AUTO, &kind, &err);
	assert(probed == 0 || (err.code == probed && !strncmp(err.text, "kernel '/fuzz': ", 16)));
	int loaded = kernel_load(&m->plan, &result, &err);
	assert(probed == 0 || loaded == probed);
	if (loaded < 0) {
		assert(err.code == loaded && err.kind == ERR_CONFIG && result.info == 1);
		return;
	}
	assert(result.info == FUZZ_BOOT_PARAMS);
	assert(result.protocol == (kind == KERNEL_ELF_PVH ? BOOT_PVH : BOOT_LINUX64));
	assert(gmem_read(m->plan.gmem, result.entry, &byte, 1) == 0);
	assert(result.entry < FUZZ_CANARY || result.entry >= MIB(1));
}

/* Nothing was ever written outside the RAM of the map. */
static inline void fuzz_check_canary(const struct fuzz_machine *m)
{
	static uint8_t now[sizeof(m->canary)];
	if (gmem_read(m->plan.gmem, FUZZ_CANARY, now, sizeof(now)) < 0 || memcmp(now, m->canary, sizeof(now)) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);
