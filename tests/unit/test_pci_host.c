/* The PCI host bridge: both configuration mechanisms, the reset control register, slots, windows, shared lines. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/pci_regs.h>

#include "devices/pci_host.h"
#include "util.h"

enum {
	PORT_ADDRESS = 0xcf8,
	PORT_RST = 0xcf9,
	PORT_DATA = 0xcfc,
	FUNCTIONS = PCI_SLOTS + 1,
	BAR_SIZE = 0x4000,
	BRIDGE_ID = 0x00081b36,
	FAKE_ID = 0x10411af4,
};
static const uint64_t ECAM = 0xb0000000, WINDOW = 0xc0001000;
static const uint32_t ENABLE = 0x80000000;

static struct bus pio, mmio;
static struct pci_host *host;
static struct pci_function fns[FUNCTIONS];
static unsigned fn_count, resets;
static bool lines[PCI_INTX_LINES];
static unsigned line_changes;
static uint64_t bar_writes;

static uint64_t fake_read(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes)
{
	(void)bar, (void)offset, (void)size_bytes;
	return (uint64_t)(pci - fns);
}

static void fake_write(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	(void)pci, (void)bar, (void)offset, (void)size_bytes, (void)value;
	bar_writes++;
}

static const struct pci_function_ops FAKE_OPS = {
	.name = "fake",
	.access_sizes = 4,
	.bar_read = fake_read,
	.bar_write = fake_write,
};
static const struct pci_ids IDS = {0x1af4, 0x1041, 0x1af4, 0x1100, 0x020000, 1};

static void on_line(void *ctx, unsigned line, bool level)
{
	(void)ctx;
	assert_in_range(line, 20, 20 + PCI_INTX_LINES - 1);
	assert_int_not_equal(level, lines[line - 20]);
	lines[line - 20] = level;
	line_changes++;
}

static void on_event(void *ctx, enum guest_event event, uint32_t value)
{
	(void)ctx;
	assert_int_equal(event, GUEST_EVENT_RESET);
	assert_int_equal(value, 0);
	resets++;
}

static struct pci_host_config host_config(uint64_t window_size_bytes)
{
	struct pci_host_config config = {
		.mmio = &mmio,
		.window_base = WINDOW,
		.window_size_bytes = window_size_bytes,
		.intx_irq = {10, 11, 12, 13},
		.events = {on_event, NULL},
	};

	for (unsigned i = 0; i < PCI_INTX_LINES; i++)
		config.intx[i] = (struct irq_line){on_line, NULL, 20 + i};
	return config;
}

static int setup_with(uint64_t window_size_bytes)
{
	struct pci_host_config config = host_config(window_size_bytes);

	bus_init(&pio, "pio", UINT16_MAX);
	bus_init(&mmio, "mmio", UINT64_MAX);
	host = pci_host_new(&config, NULL);
	fn_count = resets = line_changes = 0;
	bar_writes = 0;
	return !host ||
	       bus_map(&pio, PORT_ADDRESS, PORT_ADDRESS + PCI_HOST_PIO_SIZE - 1, pci_host_pio(host), 0, NULL) ||
	       bus_map(&mmio, ECAM, ECAM + PCI_HOST_ECAM_SIZE - 1, pci_host_ecam(host), 0, NULL);
}

static int setup(void **state)
{
	(void)state;
	return setup_with(MIB(64));
}

static int setup_small(void **state)
{
	(void)state;
	return setup_with(0xf000); /* up to 0xc0010000 */
}

/* Functions go without being unplugged, and leave nothing behind. */
static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < fn_count; i++)
		pci_function_fini(&fns[i]);
	int leaked = mmio.count != 1 || lines[0] || lines[1] || lines[2] || lines[3];
	pci_host_free(host);
	bus_fini(&pio);
	bus_fini(&mmio);
	return leaked;
}

static struct pci_function *make(uint64_t bar_size_bytes)
{
	struct pci_function *pci = &fns[fn_count++];

	pci_function_init(pci, &FAKE_OPS, &IDS);
	if (bar_size_bytes > 0)
		pci_add_bar(pci, 0, bar_size_bytes);
	return pci;
}

static struct pci_function *add(uint64_t bar_size_bytes)
{
	struct pci_function *pci = make(bar_size_bytes);

	pci_add_intx(pci);
	assert_int_equal(pci_host_add(host, pci, NULL), pci - fns + 1);
	return pci;
}

static uint32_t in(unsigned port, unsigned size_bytes)
{
	return (uint32_t)bus_read(&pio, port, size_bytes);
}

static void out(unsigned port, unsigned size_bytes, uint32_t value)
{
	bus_write(&pio, port, size_bytes, value);
}

static uint64_t ecam_at(unsigned slot, unsigned offset)
{
	return ECAM + (slot << 15) + offset;
}

static uint32_t ecam(unsigned slot, unsigned offset, unsigned size_bytes)
{
	return (uint32_t)bus_read(&mmio, ecam_at(slot, offset), size_bytes);
}

static void set_ecam(unsigned slot, unsigned offset, unsigned size_bytes, uint32_t value)
{
	bus_write(&mmio, ecam_at(slot, offset), size_bytes, value);
}

static void select_register(unsigned slot, unsigned offset)
{
	out(PORT_ADDRESS, 4, ENABLE | slot << 11 | offset);
}

/* --- mechanism #1 --- */

static void test_address_register(void **state)
{
	(void)state;
	assert_int_equal(in(PORT_ADDRESS, 4), 0);
	out(PORT_ADDRESS, 4, 0xffffffff);
	assert_int_equal(in(PORT_ADDRESS, 4), 0x80fffffc);
	out(PORT_ADDRESS, 4, ENABLE);
	/* Anything but a doubleword is for whoever else lives at these ports. */
	for (unsigned port = PORT_ADDRESS; port < PORT_DATA; port++) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			if ((port == PORT_ADDRESS && size == 4) || (port == PORT_RST && size == 1))
				continue;
			out(port, size, 0x01010101);
			assert_int_equal(in(port, size), 0xffffffff >> (32 - 8 * size));
		}
	}
	assert_int_equal(in(PORT_ADDRESS, 4), ENABLE);
	assert_int_equal(in(PORT_DATA, 4), BRIDGE_ID);
	assert_int_equal(resets, 0);
}

/* As Linux probes (arch/x86/pci/direct.c). */
static void test_linux_probe(void **state)
{
	(void)state;
	out(0xcfb, 1, 1);
	uint32_t saved = in(PORT_ADDRESS, 4);
	out(PORT_ADDRESS, 4, ENABLE);
	assert_int_equal(in(PORT_ADDRESS, 4), ENABLE);
	out(PORT_ADDRESS, 4, saved);
	select_register(0, PCI_CLASS_DEVICE & ~3);
	assert_int_equal(in(PORT_DATA + (PCI_CLASS_DEVICE & 3), 2), 0x0600);
}

static void test_data_by_bytes_and_words(void **state)
{
	(void)state;
	add(BAR_SIZE);
	select_register(1, PCI_VENDOR_ID);
	assert_int_equal(in(PORT_DATA, 4), FAKE_ID);
	assert_int_equal(in(PORT_DATA, 2), 0x1af4);
	assert_int_equal(in(PORT_DATA + 2, 2), 0x1041);
	assert_int_equal(in(PORT_DATA + 1, 1), 0x1a);
	assert_int_equal(in(PORT_DATA + 3, 1), 0x10);
	assert_int_equal(in(PORT_DATA + 1, 2), 0xffff); /* not aligned */
	assert_int_equal(in(PORT_DATA + 2, 4), 0xffffffff);

	select_register(1, PCI_INTERRUPT_LINE);
	out(PORT_DATA, 1, 0x5a);
	assert_int_equal(in(PORT_DATA, 4), 0x015a);
	select_register(1, PCI_BASE_ADDRESS_1);
	out(PORT_DATA + 2, 2, 0x1234);
	out(PORT_DATA + 1, 1, 0x56);
	assert_int_equal(in(PORT_DATA, 4), 0x12345600);
	assert_int_equal(ecam(1, PCI_BASE_ADDRESS_1, 4), 0x12345600);
}

static void test_nobody_there(void **state)
{
	static const uint32_t NOBODY[] = {
		0,                /* not enabled */
		ENABLE | 2 << 11, /* an empty slot */
		ENABLE | 1 << 8,  /* functions 1 and 7 of the bridge */
		ENABLE | 7 << 8,
		ENABLE | 1 << 11 | 1 << 8,
		ENABLE | 1 << 16, /* other buses */
		ENABLE | 255 << 16,
		ENABLE | 1 << 16 | 1 << 11,
	};

	(void)state;
	add(BAR_SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(NOBODY); i++) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			out(PORT_ADDRESS, 4, NOBODY[i] | PCI_INTERRUPT_LINE);
			out(PORT_DATA, size, 0x77);
			assert_int_equal(in(PORT_DATA, size), 0xffffffff >> (32 - 8 * size));
		}
	}
	assert_int_equal(ecam(0, PCI_INTERRUPT_LINE, 1), 0);
	assert_int_equal(ecam(1, PCI_INTERRUPT_LINE, 1), 11);
}

static void test_reset_control(void **state)
{
	(void)state;
	assert_int_equal(in(PORT_RST, 1), 0);
	out(PORT_RST, 1, 2);
	assert_int_equal(in(PORT_RST, 1), 2);
	assert_int_equal(resets, 0);
	out(PORT_RST, 1, 6);
	assert_int_equal(in(PORT_RST, 1), 6);
	assert_int_equal(resets, 1);
	out(PORT_RST, 1, 0xe); /* already 1 */
	assert_int_equal(resets, 1);
	out(PORT_RST, 1, 0xf1);
	assert_int_equal(in(PORT_RST, 1), 0);
	out(PORT_RST, 1, 4); /* without SYS_RST */
	assert_int_equal(resets, 2);
	out(PORT_RST, 1, 0);
	out(PORT_RST, 2, 0x0606);
	out(PORT_ADDRESS, 4, 0x0600);
	out(PORT_ADDRESS, 2, 0x0600);
	assert_int_equal(resets, 2);
	assert_int_equal(in(PORT_RST, 1), 0);
}

/* --- ECAM --- */

static void test_ecam(void **state)
{
	(void)state;
	add(BAR_SIZE);
	assert_int_equal(ecam(0, PCI_VENDOR_ID, 4), BRIDGE_ID);
	assert_int_equal(ecam(0, PCI_CLASS_REVISION, 4), 0x06000000);
	assert_int_equal(ecam(0, PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(ecam(0, PCI_BASE_ADDRESS_0, 4), 0);
	assert_int_equal(ecam(0, PCI_INTERRUPT_PIN, 1), 0);
	assert_int_equal(ecam(1, PCI_VENDOR_ID, 4), FAKE_ID);
	assert_int_equal(ecam(1, PCI_DEVICE_ID, 2), 0x1041);
	assert_int_equal(ecam(1, PCI_DEVICE_ID + 1, 1), 0x10);
	assert_int_equal(ecam(1, 1, 2), 0xffff); /* not aligned */
	assert_true(bus_read(&mmio, ecam_at(1, 0), 8) == UINT64_MAX);
	for (unsigned offset = 256; offset < 4096; offset += 4)
		assert_int_equal(ecam(1, offset, 4), 0xffffffff);
	for (unsigned function = 1; function < 8; function++)
		assert_int_equal(ecam(1, function << 12, 4), 0xffffffff);
	assert_int_equal(ecam(2, 0, 4), 0xffffffff);
	assert_int_equal(ecam(31, 0xffc, 4), 0xffffffff);

	set_ecam(1, PCI_INTERRUPT_LINE, 1, 5);
	set_ecam(1, 256 + PCI_INTERRUPT_LINE, 1, 6);
	set_ecam(1, (1 << 12) + PCI_INTERRUPT_LINE, 1, 7);
	bus_write(&mmio, ecam_at(1, PCI_INTERRUPT_LINE & ~7), 8, ~0ULL);
	assert_int_equal(ecam(1, PCI_INTERRUPT_LINE, 1), 5);
}

/* --- slots and addresses --- */

static void test_first_addresses(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++)
		add(BAR_SIZE << (i % 3));
	uint64_t end = WINDOW;
	for (unsigned slot = 1; slot <= 6; slot++) {
		uint64_t size_bytes = (uint64_t)BAR_SIZE << ((slot - 1) % 3);
		uint32_t addr = ecam(slot, PCI_BASE_ADDRESS_0, 4) & ~0xfU;
		assert_true(addr >= end && addr % size_bytes == 0 && addr - end < size_bytes);
		end = addr + size_bytes;
		assert_int_equal(ecam(slot, PCI_BASE_ADDRESS_1, 4), 0);
		assert_int_equal(ecam(slot, PCI_COMMAND, 2), 0);
		assert_int_equal(ecam(slot, PCI_INTERRUPT_LINE, 1), 10 + slot % 4);
		assert_int_equal(ecam(slot, PCI_INTERRUPT_PIN, 1), 1);
	}
	assert_int_equal(mmio.count, 1);
	for (unsigned slot = 1; slot <= 6; slot++) {
		set_ecam(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
		assert_int_equal(bus_read(&mmio, ecam(slot, PCI_BASE_ADDRESS_0, 4) & ~0xfU, 4), slot - 1);
	}
	assert_int_equal(mmio.count, 7);
}

static void test_no_pin_no_line(void **state)
{
	(void)state;
	assert_int_equal(pci_host_add(host, make(0), NULL), 1);
	assert_int_equal(ecam(1, PCI_INTERRUPT_LINE, 2), 0);
}

static void test_window_is_full(void **state)
{
	struct err err = {0};

	(void)state;
	add(BAR_SIZE); /* 0xc0004000 */
	struct pci_function *two = make(BAR_SIZE);
	pci_add_bar(two, 2, BAR_SIZE * 2ULL);
	assert_int_equal(pci_host_add(host, two, &err), -ENOSPC);
	assert_string_equal(err.text, "PCI: no room for the 32 KiB of BAR 2 of fake in the window");
	assert_int_equal(ecam(2, 0, 4), 0xffffffff);

	/* What was refused took nothing away. */
	assert_int_equal(pci_host_add(host, make(BAR_SIZE * 2ULL), &err), 2);
	assert_int_equal(ecam(2, PCI_BASE_ADDRESS_0, 4), 0xc0008004);
	assert_int_equal(pci_host_add(host, make(0x1000), &err), -ENOSPC); /* full to the last byte */
	assert_int_equal(pci_host_add(host, make(GIB(8)), &err), -ENOSPC);
}

static void test_slots_are_full(void **state)
{
	struct err err = {0};

	(void)state;
	for (unsigned i = 1; i < PCI_SLOTS; i++)
		add(0x1000);
	struct pci_function *last = make(0x1000);
	assert_int_equal(pci_host_add(host, last, &err), -ENOSPC);
	assert_string_equal(err.text, "PCI: no free slot for fake: all 32 are taken");
	pci_host_remove(host, &fns[4]);
	assert_int_equal(ecam(5, 0, 4), 0xffffffff);
	assert_int_equal(pci_host_add(host, last, &err), 5);
	pci_host_remove(host, &fns[4]); /* not there */
	assert_int_equal(ecam(5, 0, 4), FAKE_ID);
}

static void test_impossible_windows(void **state)
{
	static const uint64_t WINDOWS[][2] = {
		{0, MIB(1)}, {GIB(4), MIB(1)}, {GIB(4) - MIB(1), MIB(2)}, {MIB(1), UINT64_MAX}, {UINT64_MAX, 1},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(WINDOWS); i++) {
		struct pci_host_config config = host_config(WINDOWS[i][1]);
		struct err err = {0};
		config.window_base = WINDOWS[i][0];
		assert_null(pci_host_new(&config, &err));
		assert_int_equal(err.code, -EINVAL);
	}
	pci_host_free(NULL);
}

static void test_bars_and_the_ecam(void **state)
{
	(void)state;
	add(0x1000);
	set_ecam(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	set_ecam(1, PCI_BASE_ADDRESS_0, 4, (uint32_t)ecam_at(1, 0)); /* onto its own configuration space */
	assert_int_equal(mmio.count, 1);
	assert_int_equal(ecam(1, PCI_VENDOR_ID, 4), FAKE_ID);
	set_ecam(1, PCI_BASE_ADDRESS_0, 4, 0xd0000000);
	assert_int_equal(bus_read(&mmio, 0xd0000000, 4), 0);
	assert_int_equal(mmio.count, 2);
}

/* Two functions change places, one after the other, without their memory decoding going off. */
static void test_functions_change_places(void **state)
{
	(void)state;
	add(0x1000);
	add(0x1000);
	uint32_t one = ecam(1, PCI_BASE_ADDRESS_0, 4) & ~0xfU, two = ecam(2, PCI_BASE_ADDRESS_0, 4) & ~0xfU;
	set_ecam(1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	set_ecam(2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	set_ecam(1, PCI_BASE_ADDRESS_0, 4, two);
	assert_int_equal(bus_read(&mmio, one, 4), 0xffffffff);
	assert_int_equal(bus_read(&mmio, two, 4), 1);
	select_register(2, PCI_BASE_ADDRESS_0);
	out(PORT_DATA, 4, one);
	assert_int_equal(bus_read(&mmio, one, 4), 1);
	assert_int_equal(bus_read(&mmio, two, 4), 0);
}

/* --- lines --- */

static void set_intx(struct pci_function *pci, bool level)
{
	device_lock(&pci->dev);
	pci_set_intx(pci, level);
	device_unlock(&pci->dev);
}

static void test_slots_and_lines(void **state)
{
	(void)state;
	for (unsigned slot = 1; slot <= 8; slot++) {
		struct pci_function *pci = add(0);
		set_intx(pci, true);
		for (unsigned i = 0; i < PCI_INTX_LINES; i++)
			assert_int_equal(lines[i], i == slot % PCI_INTX_LINES);
		set_intx(pci, false);
	}
	assert_int_equal(line_changes, 16);
}

static void test_shared_line(void **state)
{
	(void)state;
	for (unsigned slot = 1; slot <= 9; slot++)
		add(0);
	struct pci_function *a = &fns[0], *b = &fns[4], *c = &fns[8]; /* slots 1, 5, 9 */
	set_intx(a, true);
	set_intx(b, true);
	set_intx(c, true);
	assert_int_equal(line_changes, 1);
	set_intx(a, false);
	assert_true(lines[1]);
	set_ecam(5, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_true(lines[1]);
	pci_host_remove(host, c);
	assert_false(lines[1]);
	assert_int_equal(line_changes, 2);
	set_ecam(5, PCI_COMMAND, 2, 0);
	assert_true(lines[1]);
	pci_function_fini(b); /* with its line up */
	assert_false(lines[1]);
	pci_function_init(b, &FAKE_OPS, &IDS);
}

/* --- everywhere --- */

static void test_every_access(void **state)
{
	(void)state;
	add(BAR_SIZE);
	for (unsigned size = 1; size <= 8; size *= 2) {
		for (unsigned offset = 0; offset < PCI_HOST_PIO_SIZE; offset++) {
			out(PORT_ADDRESS, 4, ENABLE | 1 << 11 | PCI_COMMAND);
			out(PORT_ADDRESS + offset, size, 0xffffffff);
			in(PORT_ADDRESS + offset, size);
		}
		for (unsigned offset = 0; offset < 0x9000; offset++) {
			bus_write(&mmio, ecam_at(0, offset), size, UINT64_MAX);
			bus_read(&mmio, ecam_at(0, offset), size);
			bus_write(&mmio, ecam_at(31, 0) - offset, size, 0x5555555555555555);
			bus_read(&mmio, ecam_at(31, 0) - offset, size);
		}
	}
	assert_int_equal(ecam(0, PCI_VENDOR_ID, 4), BRIDGE_ID);
	assert_int_equal(ecam(1, PCI_VENDOR_ID, 4), FAKE_ID);
	assert_int_equal(bar_writes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_address_register, setup, teardown),
		cmocka_unit_test_setup_teardown(test_linux_probe, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_by_bytes_and_words, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_control, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ecam, setup, teardown),
		cmocka_unit_test_setup_teardown(test_first_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_pin_no_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_window_is_full, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_slots_are_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_impossible_windows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bars_and_the_ecam, setup, teardown),
		cmocka_unit_test_setup_teardown(test_functions_change_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slots_and_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_access, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
