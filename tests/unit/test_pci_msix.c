/* A PCI function's interrupts: the MSI-X table and pending bits, and INTx. */
#include "pci_fake.h"

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
	struct pci_msix before = fn.pci.msix;
	bus_write(&mmio, AT2 + PBA, 4, 0);
	bus_write(&mmio, AT2 + PBA, 8, 0xffffffff);
	assert_memory_equal(&fn.pci.msix, &before, sizeof(before));
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

/* --- everywhere --- */

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

#define PCI_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PCI_TEST(test_table),
		PCI_TEST(test_table_refuses),
		PCI_TEST(test_pba_is_read_only),
		PCI_TEST(test_message),
		PCI_TEST(test_pending_is_sent_once_and_as_now_written),
		PCI_TEST(test_pending_outlives_disable),
		PCI_TEST(test_every_order),
		PCI_TEST(test_function_mask_holds_all),
		PCI_TEST(test_intx),
		PCI_TEST(test_msix_keeps_intx_down),
		PCI_TEST(test_unplug),
		PCI_TEST(test_every_bar_access),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
