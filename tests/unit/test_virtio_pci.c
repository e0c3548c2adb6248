/* The PCI transport: capabilities, registers, MSI-X and INTx, doorbells, and a whole driver's life through them. */
#include "virtio_fake.h"

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>

#include "doorbells_fake.h"
#include "virtio/virtio_pci.h"

enum {
	BAR = 0x40000000,
	READY = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK,
	RUNNING = READY | VIRTIO_CONFIG_S_DRIVER_OK,
	VECTORS = FAKE_QUEUES + 1,
	MSG_ADDRESS = 0x00fee000,
};

struct cap {
	unsigned offset; /* in configuration space; 0: not there */
	uint8_t length;
	uint32_t area, area_size;
};

struct fix {
	struct rig rig;
	struct bus bus;
	struct pci_function *pci;
	struct cap caps[VIRTIO_PCI_CAP_PCI_CFG + 1];
	unsigned msix_cap;
	uint32_t multiplier;
	bool intx;
	unsigned messages[VECTORS];
	struct fake_doorbells doorbells;
};

/* --- around it ------------------------------------------------------------------------------------------------------
 */

static void set_intx(void *ctx, unsigned line, bool level)
{
	struct fix *f = ctx;
	assert_int_equal(line, 11);
	f->intx = level;
}

static void send_message(void *ctx, uint64_t address, uint32_t data)
{
	struct fix *f = ctx;
	assert_int_equal(address, MSG_ADDRESS);
	assert_true(data < VECTORS);
	f->messages[data]++;
}

static uint32_t config32(struct fix *f, unsigned offset)
{
	return pci_config_read(f->pci, offset, 4);
}

static void find_caps(struct fix *f)
{
	unsigned steps = 0;
	for (unsigned at = pci_config_read(f->pci, PCI_CAPABILITY_LIST, 1); at && steps++ < 16;
	     at = pci_config_read(f->pci, at + PCI_CAP_LIST_NEXT, 1)) {
		if (pci_config_read(f->pci, at, 1) == PCI_CAP_ID_MSIX)
			f->msix_cap = at;
		if (pci_config_read(f->pci, at, 1) != PCI_CAP_ID_VNDR)
			continue;
		unsigned type = pci_config_read(f->pci, at + VIRTIO_PCI_CAP_CFG_TYPE, 1);
		assert_in_range(type, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_PCI_CFG);
		assert_int_equal(f->caps[type].offset, 0);
		assert_int_equal(pci_config_read(f->pci, at + VIRTIO_PCI_CAP_BAR, 1), 0);
		f->caps[type] = (struct cap){
			.offset = at,
			.length = (uint8_t)pci_config_read(f->pci, at + VIRTIO_PCI_CAP_LEN, 1),
			.area = config32(f, at + VIRTIO_PCI_CAP_OFFSET),
			.area_size = config32(f, at + VIRTIO_PCI_CAP_LENGTH),
		};
		if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
			f->multiplier = config32(f, at + VIRTIO_PCI_NOTIFY_CAP_MULT);
	}
}

static int setup(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));
	assert_non_null(f);
	rig_init(&f->rig);
	bus_init(&f->bus, "mmio", UINT64_MAX);
	f->bus.doorbell_ops = &FAKE_DOORBELL_OPS;
	f->bus.doorbell_ctx = &f->doorbells;
	f->pci = virtio_pci_new(f->rig.dev, NULL);
	assert_non_null(f->pci);
	const struct pci_wires wires = {&f->bus, {set_intx, f, 11}, {send_message, f}};
	pci_plug(f->pci, &wires);
	pci_config_write(f->pci, PCI_BASE_ADDRESS_0, 4, BAR);
	pci_config_write(f->pci, PCI_BASE_ADDRESS_1, 4, 0);
	pci_config_write(f->pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	find_caps(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;
	device_free(&f->pci->dev);
	assert_int_equal(f->doorbells.count, 0);
	assert_false(f->intx);
	bus_fini(&f->bus);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

/* --- a driver -------------------------------------------------------------------------------------------------------
 */

static uint64_t at(const struct fix *f, unsigned type, unsigned offset)
{
	return BAR + f->caps[type].area + offset;
}

static uint64_t get(struct fix *f, unsigned offset, unsigned size_bytes)
{
	return bus_read(&f->bus, at(f, VIRTIO_PCI_CAP_COMMON_CFG, offset), size_bytes);
}

static void put(struct fix *f, unsigned offset, unsigned size_bytes, uint64_t value)
{
	bus_write(&f->bus, at(f, VIRTIO_PCI_CAP_COMMON_CFG, offset), size_bytes, value);
}

static uint64_t add_status(struct fix *f, uint64_t bits)
{
	put(f, VIRTIO_PCI_COMMON_STATUS, 1, get(f, VIRTIO_PCI_COMMON_STATUS, 1) | bits);
	return get(f, VIRTIO_PCI_COMMON_STATUS, 1);
}

static void negotiate(struct fix *f)
{
	add_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	put(f, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	put(f, VIRTIO_PCI_COMMON_GF, 4, 1 << (VIRTIO_F_VERSION_1 - 32) | 1 << (VIRTIO_F_RING_RESET - 32));
	assert_int_equal(add_status(f, VIRTIO_CONFIG_S_FEATURES_OK), READY);
}

static void set_up_queue(struct fix *f, unsigned queue)
{
	const struct virtq_driver *d = rig_lay_ring(&f->rig, queue, false, false);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), FAKE_QUEUE_SIZE);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	put(f, VIRTIO_PCI_COMMON_Q_SIZE, 2, d->config.size);
	put(f, VIRTIO_PCI_COMMON_Q_DESCLO, 8, d->config.desc); /* at once */
	put(f, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, d->config.driver);
	put(f, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 0);
	put(f, VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0);
	put(f, VIRTIO_PCI_COMMON_Q_USEDLO, 4, d->config.device);
	put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
}

static void start(struct fix *f)
{
	negotiate(f);
	set_up_queue(f, 0);
	set_up_queue(f, 1);
	assert_int_equal(add_status(f, VIRTIO_CONFIG_S_DRIVER_OK), RUNNING);
	rig_settle(&f->rig);
}

static void notify(struct fix *f, unsigned queue)
{
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
	uint32_t offset = (uint32_t)get(f, VIRTIO_PCI_COMMON_Q_NOFF, 2) * f->multiplier;
	assert_true(offset + 2 <= f->caps[VIRTIO_PCI_CAP_NOTIFY_CFG].area_size);
	bus_write(&f->bus, at(f, VIRTIO_PCI_CAP_NOTIFY_CFG, offset), 2, queue);
}

static void echo_one(struct fix *f, unsigned queue)
{
	assert_true(rig_add(&f->rig, queue) >= 0);
	notify(f, queue);
	rig_settle(&f->rig);
	assert_int_equal(rig_take_all(&f->rig, queue), 1);
}

static uint64_t read_isr(struct fix *f)
{
	return bus_read(&f->bus, at(f, VIRTIO_PCI_CAP_ISR_CFG, 0), 1);
}

static void change_config(struct fix *f)
{
	virtio_lock(f->rig.dev);
	virtio_config_changed(f->rig.dev);
	virtio_unlock(f->rig.dev);
}

/* --- what it is
 * ------------------------------------------------------------------------------------------------------- */

static void it_says_what_it_is(void **state)
{
	struct fix *f = *state;
	assert_int_equal(config32(f, PCI_VENDOR_ID), (0x1040 + VIRTIO_ID_RNG) << 16 | 0x1af4);
	assert_int_equal(config32(f, PCI_CLASS_REVISION), FAKE_MODEL.pci_class << 8 | 1);
	assert_int_equal(pci_config_read(f->pci, PCI_SUBSYSTEM_VENDOR_ID, 2), 0x1af4);
	assert_true(pci_config_read(f->pci, PCI_SUBSYSTEM_ID, 2) >= 0x40);

	assert_true(f->caps[VIRTIO_PCI_CAP_COMMON_CFG].area_size >= VIRTIO_PCI_COMMON_Q_RESET + 2);
	assert_int_equal(f->caps[VIRTIO_PCI_CAP_COMMON_CFG].area % 4, 0);
	assert_int_equal(f->caps[VIRTIO_PCI_CAP_NOTIFY_CFG].length, sizeof(struct virtio_pci_notify_cap));
	assert_int_equal(f->multiplier, 4);
	assert_int_equal(f->caps[VIRTIO_PCI_CAP_ISR_CFG].area_size, 1);
	assert_int_equal(f->caps[VIRTIO_PCI_CAP_DEVICE_CFG].area_size, FAKE_CONFIG_SIZE);
	assert_int_equal(f->caps[VIRTIO_PCI_CAP_PCI_CFG].length, sizeof(struct virtio_pci_cfg_cap));
	assert_int_equal(pci_config_read(f->pci, f->msix_cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE, VECTORS - 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_NUMQ, 2), FAKE_QUEUES);
}

static void registers_read_by_any_size(void **state)
{
	struct fix *f = *state;
	put(f, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	uint64_t features = get(f, VIRTIO_PCI_COMMON_DF, 4);
	assert_true(features & 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_DFSELECT, 8), features << 32 | 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_DF + 1, 1), features >> 8 & 0xff);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_MSIX, 4), FAKE_QUEUES << 16 | VIRTIO_MSI_NO_VECTOR);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_NOFF, 2), 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_NDATA, 2), 1);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, FAKE_QUEUES);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SELECT, 2), FAKE_QUEUES);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
	assert_int_equal(get(f, 64, 8), 0);
	assert_int_equal(get(f, 60, 8), 0);
}

static void registers_are_written_by_their_own_size(void **state)
{
	struct fix *f = *state;
	start(f);
	for (unsigned size = 2; size <= 8; size *= 2)
		put(f, VIRTIO_PCI_COMMON_STATUS, size, 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_STATUS, 1), RUNNING);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 1, 1);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 4, 1);
	put(f, VIRTIO_PCI_COMMON_NUMQ, 2, 9);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0); /* there is no such thing */
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_NUMQ, 2), FAKE_QUEUES);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
}

static void configuration_has_bytes(void **state)
{
	struct fix *f = *state;
	assert_int_equal(bus_read(&f->bus, at(f, VIRTIO_PCI_CAP_DEVICE_CFG, 2), 2), 0x0403);
	assert_int_equal(bus_read(&f->bus, at(f, VIRTIO_PCI_CAP_DEVICE_CFG, 8), 8), 0x100f0e0d0c0b0a09);
	bus_write(&f->bus, at(f, VIRTIO_PCI_CAP_DEVICE_CFG, 0), 4, 0x44332211);
	assert_int_equal(bus_read(&f->bus, at(f, VIRTIO_PCI_CAP_DEVICE_CFG, 0), 8), 0x0807060544332211);
	assert_int_equal(bus_read(&f->bus, at(f, VIRTIO_PCI_CAP_DEVICE_CFG, FAKE_CONFIG_SIZE), 4), 0);
	uint64_t generation = get(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	change_config(f);
	assert_int_not_equal(get(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1), generation);
}

/* --- interrupts
 * ---------------------------------------------------------------------------------------------------------- */

static void without_msix_the_line_is_up_until_isr_is_read(void **state)
{
	struct fix *f = *state;
	start(f);
	assert_int_equal(read_isr(f), 0);
	echo_one(f, 0);
	assert_true(f->intx);
	assert_true(pci_config_read(f->pci, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	assert_int_equal(read_isr(f), 1);
	assert_false(f->intx);
	assert_int_equal(read_isr(f), 0);
	change_config(f);
	echo_one(f, 1);
	assert_int_equal(read_isr(f), 3);
	change_config(f);
	assert_true(f->intx);
	put(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	assert_false(f->intx);
	assert_int_equal(read_isr(f), 0);
}

static void enable_msix(struct fix *f)
{
	uint32_t table = config32(f, f->msix_cap + PCI_MSIX_TABLE) & ~7U;
	for (unsigned i = 0; i < VECTORS; i++) {
		bus_write(&f->bus, BAR + table + i * 16, 4, MSG_ADDRESS);
		bus_write(&f->bus, BAR + table + i * 16 + 4, 4, 0);
		bus_write(&f->bus, BAR + table + i * 16 + 8, 4, i);
		bus_write(&f->bus, BAR + table + i * 16 + 12, 4, 0);
	}
	pci_config_write(f->pci, f->msix_cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
}

static void each_event_has_its_vector(void **state)
{
	struct fix *f = *state;
	enable_msix(f);
	start(f);
	echo_one(f, 0); /* not mapped: nobody is told */
	change_config(f);
	put(f, VIRTIO_PCI_COMMON_MSIX, 2, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_MSIX, 2), 2);
	for (unsigned queue = 0; queue < FAKE_QUEUES; queue++) {
		put(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
		put(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, queue);
		assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), queue);
	}
	assert_int_equal(f->messages[0] + f->messages[1] + f->messages[2], 0);
	(void)read_isr(f);

	echo_one(f, 0);
	assert_int_equal(f->messages[0], 1);
	echo_one(f, 1);
	echo_one(f, 1);
	assert_int_equal(f->messages[1], 2);
	change_config(f);
	assert_int_equal(f->messages[2], 1);
	assert_false(f->intx);
	assert_int_equal(read_isr(f), 2); /* the bit for the configuration is set in any case */
}

static void vectors_that_are_not_there_read_back_as_none(void **state)
{
	struct fix *f = *state;
	put(f, VIRTIO_PCI_COMMON_MSIX, 2, VECTORS - 1);
	put(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
	put(f, VIRTIO_PCI_COMMON_MSIX, 2, VECTORS);
	put(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 0x7ff);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);

	put(f, VIRTIO_PCI_COMMON_MSIX, 2, 1);
	put(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	add_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	put(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
}

/* --- doorbells and queues
 * ----------------------------------------------------------------------------------------------------- */

static void doorbells_are_on_the_bus_while_it_runs(void **state)
{
	struct fix *f = *state;
	negotiate(f);
	set_up_queue(f, 1);
	assert_int_equal(f->doorbells.count, 0);
	add_status(f, VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(f->doorbells.count, 1);
	assert_int_equal(f->doorbells.all[0].addr, at(f, VIRTIO_PCI_CAP_NOTIFY_CFG, 4));
	assert_int_equal(f->doorbells.all[0].eventfd, f->rig.dev->queues[1].doorbell_fd);
	set_up_queue(f, 0);
	assert_int_equal(f->doorbells.count, 2);
	put(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	assert_int_equal(f->doorbells.count, 0);
}

static void reset_queue(struct rig *rig)
{
	struct fix *f = container_of(rig, struct fix, rig);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	put(f, VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
	assert_int_equal(rig->dev->queues[0].in_flight, 0);
}

static void one_queue_is_reset(void **state)
{
	struct fix *f = *state;
	start(f);
	f->rig.fake->holds = true;
	assert_true(rig_add(&f->rig, 0) >= 0);
	notify(f, 0);
	rig_settle(&f->rig);
	assert_int_equal(f->rig.dev->queues[0].in_flight, 1);
	rig_on_vcpus(&f->rig, reset_queue, 1);
	f->rig.fake->holds = false;
	echo_one(f, 1);
	set_up_queue(f, 0);
	echo_one(f, 0);
}

static void reset_device(struct rig *rig)
{
	struct fix *f = container_of(rig, struct fix, rig);
	put(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_STATUS, 1), 0);
	assert_int_equal(rig->dev->queues[0].in_flight, 0);
}

static void a_driver_comes_and_goes(void **state)
{
	struct fix *f = *state;
	for (unsigned i = 0; i < 3; i++) {
		f->rig.fake->holds = false;
		start(f);
		echo_one(f, 0);
		echo_one(f, 1);
		f->rig.fake->holds = true;
		assert_true(rig_add(&f->rig, 0) >= 0);
		notify(f, 0);
		rig_settle(&f->rig);
		rig_on_vcpus(&f->rig, reset_device, 1);
		assert_false(f->intx);
	}
}

/* --- the window in configuration space (4.1.4.9)
 * --------------------------------------------------------------------------------- */

static void aim(struct fix *f, unsigned bar, uint32_t offset, uint32_t length)
{
	unsigned cap = f->caps[VIRTIO_PCI_CAP_PCI_CFG].offset;
	pci_config_write(f->pci, cap + VIRTIO_PCI_CAP_BAR, 1, bar);
	pci_config_write(f->pci, cap + VIRTIO_PCI_CAP_OFFSET, 4, offset);
	pci_config_write(f->pci, cap + VIRTIO_PCI_CAP_LENGTH, 4, length);
}

static void the_window_shows_registers(void **state)
{
	struct fix *f = *state;
	unsigned data = f->caps[VIRTIO_PCI_CAP_PCI_CFG].offset + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
	uint32_t common = f->caps[VIRTIO_PCI_CAP_COMMON_CFG].area;
	pci_config_write(f->pci, PCI_COMMAND, 2, 0); /* it does not need the BAR */
	aim(f, 0, common + VIRTIO_PCI_COMMON_NUMQ, 2);
	assert_int_equal(pci_config_read(f->pci, data, 2), FAKE_QUEUES);
	aim(f, 0, common + VIRTIO_PCI_COMMON_STATUS, 1);
	pci_config_write(f->pci, data, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(virtio_read_status(f->rig.dev), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(pci_config_read(f->pci, data, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	aim(f, 0, common + VIRTIO_PCI_COMMON_GF, 4);
	pci_config_write(f->pci, data, 4, 0x89abcdef);
	assert_int_equal(virtio_read_driver_features(f->rig.dev, 0), 0x89abcdef);
}

static void the_window_shows_nothing_else(void **state)
{
	struct fix *f = *state;
	unsigned data = f->caps[VIRTIO_PCI_CAP_PCI_CFG].offset + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
	uint32_t status = f->caps[VIRTIO_PCI_CAP_COMMON_CFG].area + VIRTIO_PCI_COMMON_STATUS;
	const uint32_t places[][3] = {
		{1, status, 1},     {6, status, 1},      {0, status, 0},          {0, status, 3},
		{0, status, 8},     {0, status, 1 << 8}, {0, status, UINT32_MAX}, {0, 0x4000, 4},
		{0, UINT32_MAX, 1}, {0, status + 1, 2},  {0, 0x7fff, 1},          {0, status + 0x10000, 1},
	};
	add_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		aim(f, places[i][0], places[i][1], places[i][2]);
		pci_config_write(f->pci, data, 4, 0);
		assert_int_equal(config32(f, data), 0);
		assert_int_equal(virtio_read_status(f->rig.dev), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	}
	/* And a look at what aims does nothing. */
	aim(f, 0, status, 1);
	pci_config_write(f->pci, data - 4, 4, 1);
	assert_int_equal(virtio_read_status(f->rig.dev), VIRTIO_CONFIG_S_ACKNOWLEDGE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_says_what_it_is),
		TEST(registers_read_by_any_size),
		TEST(registers_are_written_by_their_own_size),
		TEST(configuration_has_bytes),
		TEST(without_msix_the_line_is_up_until_isr_is_read),
		TEST(each_event_has_its_vector),
		TEST(vectors_that_are_not_there_read_back_as_none),
		TEST(doorbells_are_on_the_bus_while_it_runs),
		TEST(one_queue_is_reset),
		TEST(a_driver_comes_and_goes),
		TEST(the_window_shows_registers),
		TEST(the_window_shows_nothing_else),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
