/* A PCI function by itself: configuration space, BARs on a bus, doorbells. */
#include "pci_fake.h"

#include <pthread.h>

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

/* --- two vCPUs --- */

static void *move_about(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 3000; i++)
		set(BAR0, 4, 0xd0000000 + (i % 16) * 0x1000);
	return NULL;
}

/* One vCPU moves a BAR; for another the function's other BAR is there all the time. */
static void test_the_other_bar_does_not_blink(void **state)
{
	pthread_t mover;

	(void)state;
	place(&fn, AT0, AT2, PCI_COMMAND_MEMORY);
	assert_int_equal(pthread_create(&mover, NULL, move_about, NULL), 0);
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(bus_read(&mmio, AT2 + 8, 4), 0xa2000008);
	pthread_join(mover, NULL);
	assert_true(answers(&fn, 0xd0000000 + (2999 % 16) * 0x1000, 0));
}

#define PCI_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PCI_TEST(test_header),
		PCI_TEST(test_what_can_be_written),
		PCI_TEST(test_capabilities),
		PCI_TEST(test_hooks),
		PCI_TEST(test_destroy_is_the_functions_own),
		PCI_TEST(test_sizing),
		PCI_TEST(test_sizing_by_bytes_and_words),
		PCI_TEST(test_decode_on_and_off),
		PCI_TEST(test_move),
		PCI_TEST(test_out_of_range),
		PCI_TEST(test_onto_another_function),
		PCI_TEST(test_bars_change_places),
		PCI_TEST(test_accesses_inside),
		PCI_TEST(test_doorbells_follow),
		PCI_TEST(test_too_many_doorbells),
		PCI_TEST(test_every_config_access),
		PCI_TEST(test_the_other_bar_does_not_blink),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
