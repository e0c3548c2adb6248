/* A PCI function of two BARs with five MSI-X vectors and INTA#, on a bus with doorbells, twice. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/pci_regs.h>

#include "devices/pci.h"
#include "util.h"

enum {
	BAR0 = PCI_BASE_ADDRESS_0,
	BAR0_HIGH = BAR0 + 4,
	BAR2 = PCI_BASE_ADDRESS_2,
	BAR2_HIGH = BAR2 + 4,
	BAR0_SIZE = 0x1000,
	BAR2_SIZE = 0x4000,
	TABLE = 0x1000,
	PBA = 0x1100,
	VECTORS = 5,
	TYPE_64 = 4,
	ENABLE = PCI_MSIX_FLAGS_ENABLE,
	MASKALL = PCI_MSIX_FLAGS_MASKALL,
	INTX_LINE = 11,
};
static const uint64_t AT0 = 0xe0000000, AT2 = 0xe0010000, BUS_LAST = (1ULL << 40) - 1;

struct fake {
	struct pci_function pci;
	unsigned reads, writes, bar, size_bytes;
	uint64_t offset, value;
	unsigned hook_reads, hook_writes, hook_offset, hook_size;
	bool line;
	unsigned line_changes, destroyed;
};

static struct bus mmio;
static struct fake fn, other;
static struct {
	unsigned count;
	uint64_t address;
	uint32_t data;
} sent;
static struct {
	unsigned count, removals;
	struct bus_doorbell at[PCI_DOORBELLS_MAX];
} bells;

static inline struct fake *to_fake(struct pci_function *pci)
{
	return container_of(pci, struct fake, pci);
}

static inline uint64_t fake_read(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes)
{
	struct fake *f = to_fake(pci);

	f->reads++;
	f->bar = bar;
	f->offset = offset;
	f->size_bytes = size_bytes;
	return 0xa0000000 | bar << 24 | offset;
}

static inline void fake_write(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes,
			      uint64_t value)
{
	struct fake *f = to_fake(pci);

	f->writes++;
	f->bar = bar;
	f->offset = offset;
	f->size_bytes = size_bytes;
	f->value = value;
}

static inline void fake_config_reads(struct pci_function *pci, unsigned offset, unsigned size_bytes)
{
	struct fake *f = to_fake(pci);

	f->hook_reads++;
	f->hook_offset = offset;
	f->hook_size = size_bytes;
	if (offset == 0x80)
		pci->config[0x80]++; /* seen by this very read */
}

static inline void fake_config_written(struct pci_function *pci, unsigned offset, unsigned size_bytes)
{
	struct fake *f = to_fake(pci);

	f->hook_writes++;
	f->hook_offset = offset;
	f->hook_size = size_bytes;
	f->value = le32_load(&pci->config[offset & ~3U]);
}

static inline void fake_destroy(struct pci_function *pci)
{
	to_fake(pci)->destroyed++;
}

static const struct pci_function_ops FAKE_OPS = {
	.name = "fake",
	.access_sizes = 1 | 2 | 4,
	.bar_read = fake_read,
	.bar_write = fake_write,
	.destroy = fake_destroy,
};
static const struct pci_function_ops HOOKED_OPS = {
	.name = "hooked",
	.access_sizes = 4,
	.bar_read = fake_read,
	.bar_write = fake_write,
	.config_reads = fake_config_reads,
	.config_written = fake_config_written,
};
static const struct pci_ids IDS = {0x1af4, 0x1042, 0x1af5, 0x1100, 0x018000, 7};

static inline int bell_add(void *ctx, const struct bus_doorbell *doorbell)
{
	(void)ctx;
	bells.at[bells.count++] = *doorbell;
	return 0;
}

static inline void bell_remove(void *ctx, const struct bus_doorbell *doorbell)
{
	unsigned i = 0;

	(void)ctx;
	while (i < bells.count && (bells.at[i].addr != doorbell->addr || bells.at[i].eventfd != doorbell->eventfd))
		i++;
	assert_true(i < bells.count);
	bells.at[i] = bells.at[--bells.count];
	bells.removals++;
}

static inline bool bell_is_at(uint64_t addr, int eventfd)
{
	for (unsigned i = 0; i < bells.count; i++) {
		if (bells.at[i].addr == addr && bells.at[i].eventfd == eventfd)
			return bells.at[i].size_bytes == 0 && !bells.at[i].has_value;
	}
	return false;
}

static const struct bus_doorbell_ops BELL_OPS = {bell_add, bell_remove};

static inline void on_line(void *ctx, unsigned line, bool level)
{
	struct fake *f = ctx;

	assert_int_equal(line, INTX_LINE);
	assert_int_not_equal(level, f->line);
	f->line = level;
	f->line_changes++;
}

static inline void on_message(void *ctx, uint64_t address, uint32_t data)
{
	(void)ctx;
	sent.count++;
	sent.address = address;
	sent.data = data;
}

static inline void make(struct fake *f, const struct pci_function_ops *ops)
{
	memset(f, 0, sizeof(*f));
	pci_function_init(&f->pci, ops, &IDS);
	pci_add_bar(&f->pci, 0, BAR0_SIZE);
	pci_add_bar(&f->pci, 2, BAR2_SIZE);
	pci_add_msix(&f->pci, VECTORS, 2, TABLE, PBA);
	pci_add_intx(&f->pci);
	pci_plug(&f->pci, &(struct pci_wires){&mmio, {on_line, f, INTX_LINE}, {on_message, NULL}});
}

static inline int setup(void **state)
{
	(void)state;
	memset(&sent, 0, sizeof(sent));
	memset(&bells, 0, sizeof(bells));
	bus_init(&mmio, "mmio", BUS_LAST);
	mmio.doorbell_ops = &BELL_OPS;
	make(&fn, &FAKE_OPS);
	make(&other, &FAKE_OPS);
	return 0;
}

/* Whatever a test did, nothing stays behind. */
static inline int teardown(void **state)
{
	(void)state;
	pci_function_fini(&fn.pci);
	pci_function_fini(&other.pci);
	int leaked = mmio.count || bells.count || fn.line || other.line;
	bus_fini(&mmio);
	return leaked;
}

static inline uint32_t cfg(unsigned offset, unsigned size_bytes)
{
	return pci_config_read(&fn.pci, offset, size_bytes);
}

static inline void set(unsigned offset, unsigned size_bytes, uint32_t value)
{
	pci_config_write(&fn.pci, offset, size_bytes, value);
}

static inline void place(struct fake *f, uint64_t at0, uint64_t at2, unsigned command)
{
	pci_config_write(&f->pci, BAR0, 4, (uint32_t)at0);
	pci_config_write(&f->pci, BAR0_HIGH, 4, (uint32_t)(at0 >> 32));
	pci_config_write(&f->pci, BAR2, 4, (uint32_t)at2);
	pci_config_write(&f->pci, BAR2_HIGH, 4, (uint32_t)(at2 >> 32));
	pci_config_write(&f->pci, PCI_COMMAND, 2, command);
}

/* Does the function answer for its BAR at `addr`? */
static inline bool answers(struct fake *f, uint64_t addr, unsigned bar)
{
	unsigned before = f->reads;
	uint64_t value = bus_read(&mmio, addr + 8, 4);

	if (f->reads == before)
		return false;
	assert_int_equal(value, 0xa0000008 | bar << 24);
	assert_int_equal(f->bar, bar);
	assert_int_equal(f->offset, 8);
	return true;
}

static inline void set_intx(bool level)
{
	device_lock(&fn.pci.dev);
	pci_set_intx(&fn.pci, level);
	device_unlock(&fn.pci.dev);
}
