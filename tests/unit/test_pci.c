/* A PCI function by itself: configuration space, BARs on a bus, MSI-X, INTx, doorbells. */
#include <errno.h>
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
	PBA = 0x1800,
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

static struct fake *to_fake(struct pci_function *pci)
{
	return container_of(pci, struct fake, pci);
}

static uint64_t fake_read(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes)
{
	struct fake *f = to_fake(pci);

	f->reads++;
	f->bar = bar;
	f->offset = offset;
	f->size_bytes = size_bytes;
	return 0xa0000000 | bar << 24 | offset;
}

static void fake_write(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct fake *f = to_fake(pci);

	f->writes++;
	f->bar = bar;
	f->offset = offset;
	f->size_bytes = size_bytes;
	f->value = value;
}

static void fake_config_reads(struct pci_function *pci, unsigned offset, unsigned size_bytes)
{
	struct fake *f = to_fake(pci);

	f->hook_reads++;
	f->hook_offset = offset;
	f->hook_size = size_bytes;
	if (offset == 0x80)
		pci->config[0x80]++; /* seen by this very read */
}

static void fake_config_written(struct pci_function *pci, unsigned offset, unsigned size_bytes)
{
	struct fake *f = to_fake(pci);

	f->hook_writes++;
	f->hook_offset = offset;
	f->hook_size = size_bytes;
	f->value = le32_load(&pci->config[offset & ~3U]);
}

static void fake_destroy(struct pci_function *pci)
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

static int bell_add(void *ctx, const struct bus_doorbell *doorbell)
{
	(void)ctx;
	bells.at[bells.count++] = *doorbell;
	return 0;
}

static void bell_remove(void *ctx, const struct bus_doorbell *doorbell)
{
	unsigned i = 0;

	(void)ctx;
	while (i < bells.count && (bells.at[i].addr != doorbell->addr || bells.at[i].eventfd != doorbell->eventfd))
		i++;
	assert_true(i < bells.count);
	bells.at[i] = bells.at[--bells.count];
	bells.removals++;
}

static bool bell_is_at(uint64_t addr, int eventfd)
{
	for (unsigned i = 0; i < bells.count; i++) {
		if (bells.at[i].addr == addr && bells.at[i].eventfd == eventfd)
			return bells.at[i].size_bytes == 0 && !bells.at[i].has_value;
	}
	return false;
}

static const struct bus_doorbell_ops BELL_OPS = {bell_add, bell_remove};

static void on_line(void *ctx, unsigned line, bool level)
{
	struct fake *f = ctx;

	assert_int_equal(line, INTX_LINE);
	assert_int_not_equal(level, f->line);
	f->line = level;
	f->line_changes++;
}

static void on_message(void *ctx, uint64_t address, uint32_t data)
{
	(void)ctx;
	sent.count++;
	sent.address = address;
	sent.data = data;
}

static void make(struct fake *f, const struct pci_function_ops *ops)
{
	memset(f, 0, sizeof(*f));
	pci_function_init(&f->pci, ops, &IDS);
	pci_add_bar(&f->pci, 0, BAR0_SIZE);
	pci_add_bar(&f->pci, 2, BAR2_SIZE);
	pci_add_msix(&f->pci, VECTORS, 2, TABLE, PBA);
	pci_add_intx(&f->pci);
	pci_plug(&f->pci, &(struct pci_wires){&mmio, {on_line, f, INTX_LINE}, {on_message, NULL}});
}

static int setup(void **state)
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
static int teardown(void **state)
{
	(void)state;
	pci_function_fini(&fn.pci);
	pci_function_fini(&other.pci);
	int leaked = mmio.count || bells.count || fn.line || other.line;
	bus_fini(&mmio);
	return leaked;
}

static uint32_t cfg(unsigned offset, unsigned size_bytes)
{
	return pci_config_read(&fn.pci, offset, size_bytes);
}

static void set(unsigned offset, unsigned size_bytes, uint32_t value)
{
	pci_config_write(&fn.pci, offset, size_bytes, value);
}

static void place(struct fake *f, uint64_t at0, uint64_t at2, unsigned command)
{
	pci_config_write(&f->pci, BAR0, 4, (uint32_t)at0);
	pci_config_write(&f->pci, BAR0_HIGH, 4, (uint32_t)(at0 >> 32));
	pci_config_write(&f->pci, BAR2, 4, (uint32_t)at2);
	pci_config_write(&f->pci, BAR2_HIGH, 4, (uint32_t)(at2 >> 32));
	pci_config_write(&f->pci, PCI_COMMAND, 2, command);
}

/* Does the function answer for its BAR at `addr`? */
static bool answers(struct fake *f, uint64_t addr, unsigned bar)
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

/* --- header --- */

static void test_header(void **state)
{
	(void)state;
	assert_int_equal(cfg(PCI_VENDOR_ID, 4), 0x10421af4);
	assert_int_equal(cfg(PCI_CLASS_REVISION, 4), 0x01800007);
	assert_int_equal(cfg(PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af5);
	assert_int_equal(cfg(PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(cfg(PCI_COMMAND, 2), 0);
	assert_int_equal(cfg(PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	assert_int_equal(cfg(PCI_INTERRUPT_PIN, 1), 1);
	assert_int_equal(cfg(PCI_BASE_ADDRESS_4, 4), 0);
	assert_int_equal(cfg(PCI_ROM_ADDRESS, 4), 0);
	assert_int_equal(cfg(PCI_DEVICE_ID, 1), 0x42);
	assert_int_equal(cfg(PCI_DEVICE_ID + 1, 1), 0x10);
}

static void test_what_can_be_written(void **state)
{
	uint8_t before[PCI_CONFIG_SIZE];

	(void)state;
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
		before[i] = (uint8_t)cfg(i, 1);
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i += 4)
		set(i, 4, ~le32_load(&before[i]));
	assert_int_equal(cfg(PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	assert_int_equal(cfg(PCI_INTERRUPT_LINE, 1), 0xff);
	assert_int_equal(cfg(fn.pci.msix.cap + PCI_MSIX_FLAGS, 2), ENABLE | MASKALL | (VECTORS - 1));
	assert_int_equal(cfg(BAR0, 4), 0xfffff000 | TYPE_64);
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
		if (i == PCI_COMMAND || i == PCI_COMMAND + 1 || i == PCI_INTERRUPT_LINE ||
		    i == fn.pci.msix.cap + PCI_MSIX_FLAGS + 1U || (i >= BAR0 && i < PCI_BASE_ADDRESS_4))
			continue;
		assert_int_equal(cfg(i, 1), before[i]);
	}
}

static void test_capabilities(void **state)
{
	static const uint8_t cap[] = {PCI_CAP_ID_VNDR, 0x77, 7, 0x11, 0x22, 0x33, 0x44};
	static const uint8_t writable[] = {0xff, 0xff, 0, 0x0f, 0, 0, 0xff};

	(void)state;
	unsigned first = cfg(PCI_CAPABILITY_LIST, 1);
	assert_int_equal(first, fn.pci.msix.cap);
	assert_int_equal(cfg(first, 1), PCI_CAP_ID_MSIX);
	assert_int_equal(cfg(first + PCI_CAP_LIST_NEXT, 1), 0);
	assert_int_equal(cfg(first + PCI_MSIX_FLAGS, 2), VECTORS - 1);
	assert_int_equal(cfg(first + PCI_MSIX_TABLE, 4), TABLE | 2);
	assert_int_equal(cfg(first + PCI_MSIX_PBA, 4), PBA | 2);

	unsigned second = pci_add_capability(&fn.pci, cap, writable, sizeof(cap));
	unsigned third = pci_add_capability(&fn.pci, cap, NULL, sizeof(cap));
	assert_int_equal(cfg(first + PCI_CAP_LIST_NEXT, 1), second);
	assert_int_equal(cfg(second + PCI_CAP_LIST_NEXT, 1), third);
	assert_int_equal(cfg(third + PCI_CAP_LIST_NEXT, 1), 0);
	assert_int_equal(second % 4, 0);
	assert_int_equal(third, second + 8);

	for (unsigned i = 0; i < 8; i += 4) {
		set(second + i, 4, 0xffffffff);
		set(third + i, 4, 0xffffffff);
	}
	assert_int_equal(cfg(second, 4), 0x1f070000 | third << 8 | PCI_CAP_ID_VNDR);
	assert_int_equal(cfg(second + 4, 4), 0x00ff3322);
	assert_int_equal(cfg(third + 4, 4), 0x00443322);
}

static void test_hooks(void **state)
{
	(void)state;
	pci_function_fini(&other.pci);
	make(&other, &HOOKED_OPS);
	uint32_t first = pci_config_read(&other.pci, 0x80, 4);
	assert_int_equal(pci_config_read(&other.pci, 0x80, 4), first + 1);
	assert_int_equal(other.hook_reads, 2);
	assert_int_equal(other.hook_offset, 0x80);
	assert_int_equal(other.hook_size, 4);
	pci_config_write(&other.pci, PCI_INTERRUPT_LINE, 1, 9);
	assert_int_equal(other.hook_writes, 1);
	assert_int_equal(other.hook_offset, PCI_INTERRUPT_LINE);
	assert_int_equal(other.hook_size, 1);
	assert_int_equal(other.value, 0x0109); /* after the write */
}

static void test_destroy_is_the_functions_own(void **state)
{
	(void)state;
	device_free(&fn.pci.dev);
	assert_int_equal(fn.destroyed, 1);
}

/* --- BARs --- */

static void test_sizing(void **state)
{
	(void)state;
	for (unsigned decode = 0; decode < 2; decode++) {
		place(&fn, AT0, AT2, decode ? PCI_COMMAND_MEMORY : 0);
		set(BAR2, 4, 0xffffffff);
		assert_int_equal(cfg(BAR2, 4), (uint32_t)-BAR2_SIZE | TYPE_64);
		assert_int_equal(cfg(BAR2_HIGH, 4), 0);
		set(BAR2_HIGH, 4, 0xffffffff);
		assert_int_equal(cfg(BAR2_HIGH, 4), 0xffffffff);
		assert_false(answers(&fn, AT2, 2));
		set(BAR2_HIGH, 4, 0);
		set(BAR2, 4, (uint32_t)AT2);
		assert_int_equal(cfg(BAR2, 4), AT2 | TYPE_64);
		assert_int_equal(answers(&fn, AT2, 2), decode);
		assert_int_equal(answers(&fn, AT0, 0), decode);
	}
}

static void test_sizing_by_bytes_and_words(void **state)
{
	(void)state;
	for (unsigned size = 1; size <= 2; size *= 2) {
		for (unsigned i = 0; i < 8; i += size)
			set(BAR2 + i, size, 0xffff);
		assert_int_equal(cfg(BAR2, 2), ((uint32_t)-BAR2_SIZE | TYPE_64) & 0xffff);
		assert_int_equal(cfg(BAR2 + 1, 1), 0xc0);
		assert_int_equal(cfg(BAR2 + 2, 2), 0xffff);
		assert_int_equal(cfg(BAR2_HIGH, 4), 0xffffffff);
		for (unsigned i = 0; i < 8; i += size)
			set(BAR2 + i, size, 0);
		assert_int_equal(cfg(BAR2, 4), TYPE_64);
		assert_int_equal(cfg(BAR2_HIGH, 4), 0);
	}
}

static void test_decode_on_and_off(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MASTER);
	assert_false(answers(&fn, AT0, 0));
	assert_int_equal(mmio.count, 0);
	set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(answers(&fn, AT0, 0));
	assert_true(answers(&fn, AT2, 2));
	set(PCI_COMMAND, 1, 0);
	assert_false(answers(&fn, AT0, 0));
	assert_int_equal(mmio.count, 0);
	assert_int_equal(bus_read(&mmio, AT0, 4), 0xffffffff);
}

static void test_move(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	set(BAR0, 4, 0xd0000000);
	assert_false(answers(&fn, AT0, 0));
	assert_true(answers(&fn, 0xd0000000, 0));
	set(BAR0_HIGH, 4, 0x12); /* the halves come one after the other */
	assert_false(answers(&fn, 0xd0000000, 0));
	assert_true(answers(&fn, 0x12d0000000, 0));
	set(BAR0 + 2, 2, 0xd123);
	assert_true(answers(&fn, 0x12d1230000, 0));
	set(BAR0 + 1, 1, 0xff);
	assert_true(answers(&fn, 0x12d123f000, 0));
	set(BAR0, 1, 0xff); /* no bit of it is an address's */
	assert_true(answers(&fn, 0x12d123f000, 0));
	assert_true(answers(&fn, AT2, 2));
	assert_int_equal(mmio.count, 2);
}

static void test_out_of_range(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	set(BAR0_HIGH, 4, 0x100); /* the first address that the bus has not */
	assert_int_equal(mmio.count, 1);
	set(BAR0_HIGH, 4, 0xffffffff);
	set(BAR0, 4, 0xffffffff); /* the last page of all: nothing wraps */
	assert_int_equal(mmio.count, 1);
	set(BAR0_HIGH, 4, 0xff);
	assert_true(answers(&fn, 0xfffffff000, 0));
	set(BAR0, 4, 0);
	set(BAR0_HIGH, 4, 0);
	assert_true(answers(&fn, 0, 0));
}

static void test_onto_another_function(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	place(&other, AT0 + MIB(1), AT2 + MIB(1), PCI_COMMAND_MEMORY);
	set(BAR0, 4, (uint32_t)(AT2 + MIB(1) + BAR0_SIZE)); /* inside the other's second BAR */
	assert_int_equal(mmio.count, 3);
	assert_true(answers(&other, AT2 + MIB(1), 2));
	assert_false(answers(&fn, AT0, 0));
	pci_config_write(&other.pci, PCI_COMMAND, 2, 0);
	pci_retry_bars(&fn.pci); /* the host bridge does this */
	assert_true(answers(&fn, AT2 + MIB(1) + BAR0_SIZE, 0));
	pci_config_write(&other.pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(answers(&other, AT0 + MIB(1), 0));
	assert_false(answers(&other, AT2 + MIB(1), 2));
	set(PCI_COMMAND, 2, 0);
	pci_config_write(&other.pci, PCI_INTERRUPT_LINE, 1, 1); /* any write is a chance to try again */
	assert_true(answers(&other, AT2 + MIB(1), 2));
}

static void test_bars_change_places(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	set(BAR0, 4, (uint32_t)AT2);
	assert_false(answers(&fn, AT0, 0));
	assert_true(answers(&fn, AT2, 2));
	set(BAR2, 4, (uint32_t)AT0);
	assert_true(answers(&fn, AT2, 0));
	assert_true(answers(&fn, AT0, 2));
	assert_int_equal(mmio.count, 2);
}

static void test_accesses_inside(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	bus_write(&mmio, AT0 + 0xffe, 2, 0x12345);
	assert_int_equal(fn.writes, 1);
	assert_int_equal(fn.bar, 0);
	assert_int_equal(fn.offset, 0xffe);
	assert_int_equal(fn.size_bytes, 2);
	assert_int_equal(fn.value, 0x2345);
	bus_write(&mmio, AT2 + BAR2_SIZE - 1, 1, 5);
	assert_int_equal(fn.bar, 2);
	assert_int_equal(fn.offset, BAR2_SIZE - 1);
	bus_write(&mmio, AT0, 8, 1); /* a size that the function does not take */
	assert_int_equal(fn.writes, 2);
	assert_true(bus_read(&mmio, AT0, 8) == UINT64_MAX);
	assert_int_equal(fn.reads, 0);
}

/* --- MSI-X --- */

static uint64_t table(unsigned offset, unsigned size_bytes)
{
	return bus_read(&mmio, AT2 + TABLE + offset, size_bytes);
}

static void set_table(unsigned offset, unsigned size_bytes, uint64_t value)
{
	bus_write(&mmio, AT2 + TABLE + offset, size_bytes, value);
}

static void set_flags(unsigned value)
{
	set(fn.pci.msix.cap + PCI_MSIX_FLAGS, 2, value);
}

static uint32_t pba(void)
{
	return (uint32_t)bus_read(&mmio, AT2 + PBA, 4);
}

static void raise_vector(unsigned vector)
{
	device_lock(&fn.pci.dev);
	pci_msix_raise(&fn.pci, vector);
	device_unlock(&fn.pci.dev);
}

static void fill_table(void)
{
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	for (unsigned i = 0; i < VECTORS; i++) {
		set_table(16 * i, 4, 0xfee00000 + i * 0x1000);
		set_table(16 * i + 4, 4, i);
		set_table(16 * i + 8, 4, 0x40 + i);
	}
}

static void test_table(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	for (unsigned i = 0; i < VECTORS; i++) {
		assert_int_equal(table(16 * i, 8), 0);
		assert_true(table(16 * i + 8, 8) == 1ULL << 32); /* masked at reset */
		set_table(16 * i, 8, 0x12345678fee0100f + i * 16);
		set_table(16 * i + 8, 8, 0xfffffffe89abcdef);
	}
	for (unsigned i = 0; i < VECTORS; i++) {
		assert_int_equal(table(16 * i, 4), 0xfee0100c + i * 16);
		assert_int_equal(table(16 * i + 4, 4), 0x12345678);
		assert_int_equal(table(16 * i + 8, 4), 0x89abcdef);
		assert_int_equal(table(16 * i + 12, 4), 0);
		assert_true(table(16 * i, 8) == (0x12345678fee0100cULL + i * 16));
	}
	set_table(16 * VECTORS, 4, 7); /* behind the last entry: the device's */
	assert_int_equal(fn.writes, 1);
	assert_int_equal(fn.offset, TABLE + 16 * VECTORS);
	assert_int_equal(fn.reads, 0);
}

static void test_table_refuses(void **state)
{
	(void)state;
	fill_table();
	for (unsigned offset = 0; offset < 16; offset++) {
		for (unsigned size = 1; size <= 8; size *= 2) {
			if (size >= 4 && offset % size == 0)
				continue;
			set_table(offset, size, 0);
			assert_true(table(offset, size) == UINT64_MAX >> (64 - 8 * size));
		}
	}
	set_table(-2U, 4, 0); /* half in */
	set_table(16 * VECTORS - 4, 8, 0);
	assert_int_equal(table(0, 4), 0xfee00000);
	assert_int_equal(table(16 * VECTORS - 4, 4), 1);
	assert_int_equal(fn.reads + fn.writes, 0);
}

static void test_pba_is_read_only(void **state)
{
	(void)state;
	fill_table();
	set_flags(ENABLE);
	raise_vector(1);
	raise_vector(4);
	assert_int_equal(pba(), 1 << 1 | 1 << 4);
	assert_int_equal(bus_read(&mmio, AT2 + PBA, 8), 1 << 1 | 1 << 4);
	assert_int_equal(bus_read(&mmio, AT2 + PBA + 4, 4), 0);
	bus_write(&mmio, AT2 + PBA, 4, 0);
	bus_write(&mmio, AT2 + PBA, 8, 0xffffffff);
	assert_int_equal(pba(), 1 << 1 | 1 << 4);
	assert_int_equal(bus_read(&mmio, AT2 + PBA, 2), 0xffff);
	assert_int_equal(sent.count + fn.writes + fn.reads, 0);
}

static void test_message(void **state)
{
	(void)state;
	fill_table();
	set_table(3 * 16 + 12, 4, 0);
	raise_vector(3); /* disabled */
	assert_false(pci_msix_is_enabled(&fn.pci));
	assert_int_equal(sent.count + pba(), 0);
	set_flags(ENABLE);
	assert_true(pci_msix_is_enabled(&fn.pci));
	assert_int_equal(sent.count, 0);
	raise_vector(3);
	assert_int_equal(sent.count, 1);
	assert_true(sent.address == 0x3fee03000);
	assert_int_equal(sent.data, 0x43);
	raise_vector(3);
	assert_int_equal(sent.count, 2);
	raise_vector(VECTORS);
	raise_vector(~0U);
	assert_int_equal(sent.count, 2);
	assert_int_equal(pba(), 0);
}

static void test_pending_is_sent_once_and_as_now_written(void **state)
{
	(void)state;
	fill_table();
	set_flags(ENABLE);
	for (unsigned i = 0; i < 3; i++)
		raise_vector(2);
	set_table(2 * 16 + 8, 8, 0x99); /* data and unmask in one access */
	assert_int_equal(sent.count, 1);
	assert_int_equal(sent.data, 0x99);
	assert_int_equal(pba(), 0);
	set_table(2 * 16 + 12, 4, 1);
	set_table(2 * 16 + 12, 4, 0);
	assert_int_equal(sent.count, 1);
}

static void test_pending_outlives_disable(void **state)
{
	(void)state;
	fill_table();
	set_flags(ENABLE);
	raise_vector(0);
	set_flags(0);
	set_table(12, 4, 0);
	assert_int_equal(sent.count, 0);
	assert_int_equal(pba(), 1);
	set_flags(ENABLE);
	assert_int_equal(sent.count, 1);
}

/* Enabled, function not masked, vector not masked, raised: each order of these, one message when all four are there. */
static void run_order(const unsigned order[4])
{
	unsigned flags = MASKALL, done = 0;
	bool is_raised = false;

	sent.count = 0;
	fill_table();
	set_table(12, 4, 1);
	set_flags(flags);
	for (unsigned i = 0; i < 4; i++) {
		done |= 1 << order[i];
		if (order[i] == 0)
			set_flags(flags |= ENABLE);
		else if (order[i] == 1)
			set_flags(flags &= ~(unsigned)MASKALL);
		else if (order[i] == 2)
			set_table(12, 4, 0);
		else
			raise_vector(0);
		is_raised |= order[i] == 3 && (flags & ENABLE);
		assert_int_equal(sent.count, is_raised && (done & 7) == 7);
		assert_int_equal(pba(), is_raised && (done & 7) != 7);
	}
	set_flags(ENABLE);
	assert_int_equal(sent.count, is_raised);
}

static void test_every_order(void **state)
{
	unsigned orders = 0;

	(void)state;
	for (unsigned i = 0; i < 256; i++) {
		unsigned order[4] = {i & 3, i >> 2 & 3, i >> 4 & 3, i >> 6};
		if ((1 << order[0] | 1 << order[1] | 1 << order[2] | 1 << order[3]) != 15)
			continue;
		run_order(order);
		orders++;
	}
	assert_int_equal(orders, 24);
}

static void test_function_mask_holds_all(void **state)
{
	(void)state;
	fill_table();
	set_flags(ENABLE | MASKALL);
	for (unsigned i = 0; i < VECTORS; i++) {
		set_table(16 * i + 12, 4, i == 1);
		raise_vector(i);
	}
	assert_int_equal(sent.count, 0);
	assert_int_equal(pba(), 0x1f);
	set(fn.pci.msix.cap + PCI_MSIX_FLAGS + 1, 1, ENABLE >> 8);
	assert_int_equal(sent.count, VECTORS - 1);
	assert_int_equal(pba(), 2);
}

/* --- INTx --- */

static void set_intx(bool level)
{
	device_lock(&fn.pci.dev);
	pci_set_intx(&fn.pci, level);
	device_unlock(&fn.pci.dev);
}

static void expect_intx(bool line, bool status)
{
	assert_int_equal(fn.line, line);
	assert_int_equal(!!(cfg(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT), status);
}

static void test_intx(void **state)
{
	(void)state;
	set_intx(false);
	assert_int_equal(fn.line_changes, 0);
	set_intx(true);
	set_intx(true);
	expect_intx(true, true);
	set(PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	expect_intx(false, true);
	set_intx(false);
	expect_intx(false, false);
	set_intx(true);
	expect_intx(false, true);
	set(PCI_COMMAND + 1, 1, 0);
	expect_intx(true, true);
	set_intx(false);
	expect_intx(false, false);
	assert_int_equal(fn.line_changes, 4);
}

static void test_msix_keeps_intx_down(void **state)
{
	(void)state;
	set_intx(true);
	set_flags(ENABLE);
	expect_intx(false, false);
	set_intx(false);
	set_intx(true);
	expect_intx(false, false);
	set_flags(MASKALL);
	expect_intx(true, true);
}

static void test_unplug(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	set_intx(true);
	pci_unplug(&fn.pci);
	assert_false(fn.line);
	assert_int_equal(mmio.count, 0);
	set(BAR0, 4, 0);
	set_intx(false);
	set_intx(true);
	assert_false(fn.line);
	pci_plug(&fn.pci, &(struct pci_wires){&mmio, {on_line, &fn, INTX_LINE}, {on_message, NULL}});
	assert_true(fn.line);
	assert_true(answers(&fn, 0, 0));
}

/* --- doorbells --- */

static void add_bell(unsigned bar, uint32_t offset, int eventfd)
{
	device_lock(&fn.pci.dev);
	pci_add_doorbell(&fn.pci, bar, offset, eventfd);
	device_unlock(&fn.pci.dev);
}

static void remove_bells(void)
{
	device_lock(&fn.pci.dev);
	pci_remove_doorbells(&fn.pci);
	device_unlock(&fn.pci.dev);
}

static void test_doorbells_follow(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, 0);
	add_bell(0, 0x10, 5);
	add_bell(2, 0x3000, 6);
	assert_int_equal(bells.count, 0);
	set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(bells.count, 2);
	assert_true(bell_is_at(AT0 + 0x10, 5));
	assert_true(bell_is_at(AT2 + 0x3000, 6));
	add_bell(0, 0x20, 7); /* while it is mapped */
	assert_true(bell_is_at(AT0 + 0x20, 7));

	set(BAR0, 4, 0xd0000000);
	assert_true(bell_is_at(0xd0000010, 5));
	assert_true(bell_is_at(0xd0000020, 7));
	assert_int_equal(bells.count, 3);
	assert_int_equal(bells.removals, 2); /* the other BAR's did not blink */
	set(BAR0, 4, (uint32_t)AT2);         /* taken */
	assert_int_equal(bells.count, 1);
	set(BAR0, 4, (uint32_t)AT0);
	assert_int_equal(bells.count, 3);
	set(PCI_COMMAND, 2, 0);
	assert_int_equal(bells.count, 0);
	set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	remove_bells();
	assert_int_equal(bells.count, 0);
	set(BAR0, 4, 0xd0000000);
	assert_int_equal(bells.count, 0);
	assert_true(answers(&fn, 0xd0000000, 0));
}

static void test_too_many_doorbells(void **state)
{
	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	for (unsigned i = 0; i < PCI_DOORBELLS_MAX + 3; i++)
		add_bell(0, 4 * i, (int)i);
	assert_int_equal(bells.count, PCI_DOORBELLS_MAX);
	remove_bells();
	assert_int_equal(bells.count, 0);
	add_bell(0, 0, 1);
	pci_function_fini(&fn.pci); /* takes the rest along */
	assert_int_equal(bells.count, 0);
	make(&fn, &FAKE_OPS);
}

/* --- everywhere --- */

static void test_every_config_access(void **state)
{
	static const uint32_t VALUES[] = {0, 0xffffffff, 0x55555555, 0xaaaaaaaa, 0xe0000002};

	(void)state;
	set_intx(true);
	add_bell(0, 0, 1);
	for (unsigned v = 0; v < ARRAY_SIZE(VALUES); v++) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset += size) {
				set(offset, size, VALUES[v]);
				assert_int_equal((uint64_t)cfg(offset, size) >> (8 * size), 0);
				assert_int_equal(cfg(PCI_VENDOR_ID, 4), 0x10421af4);
				assert_int_equal(bells.count, fn.pci.bars[0].is_mapped);
			}
		}
	}
}

static void test_every_bar_access(void **state)
{
	unsigned long own = 0, msix = 0;

	(void)state;
	fill_table();
	set_flags(ENABLE);
	for (unsigned size = 1; size <= 8; size *= 2) {
		for (unsigned offset = 0; offset <= BAR2_SIZE - size; offset++) {
			unsigned writes = fn.writes, reads = fn.reads;
			bool in_table = offset + size > TABLE && offset < TABLE + 16 * VECTORS;
			bool in_pba = offset + size > PBA && offset < PBA + 8;
			bool is_own = !in_table && !in_pba && size < 8;
			bus_write(&mmio, AT2 + offset, size, 0x5555555555555555);
			bus_read(&mmio, AT2 + offset, size);
			assert_int_equal(fn.writes - writes, is_own);
			assert_int_equal(fn.reads - reads, is_own);
			own += is_own;
			msix += in_table || in_pba;
		}
	}
	assert_true(own > 3 * (BAR2_SIZE - 200) && msix > 4 * 88);
	assert_int_equal(sent.count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_header, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_can_be_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_capabilities, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hooks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destroy_is_the_functions_own, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizing_by_bytes_and_words, setup, teardown),
		cmocka_unit_test_setup_teardown(test_decode_on_and_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_out_of_range, setup, teardown),
		cmocka_unit_test_setup_teardown(test_onto_another_function, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bars_change_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_accesses_inside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_table_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pba_is_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_message, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pending_is_sent_once_and_as_now_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pending_outlives_disable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_function_mask_holds_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_intx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix_keeps_intx_down, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unplug, setup, teardown),
		cmocka_unit_test_setup_teardown(test_doorbells_follow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many_doorbells, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_config_access, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_bar_access, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
