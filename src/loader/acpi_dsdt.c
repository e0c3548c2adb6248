#include "loader/acpi_dsdt.h"

#include <stdbool.h>

#include "loader/acpi_aml.h"
#include "util.h"

/* PCI 3.0, 3.2.2.3.2 "Software Generation of Configuration Transactions". */
enum { PCI_CONFIG_PORT = 0xcf8, PCI_CONFIG_PORTS = 8 };
enum { PCI_SLOTS = 32, PCI_PINS = ACPI_PCI_PINS };

/* An _STA of "present, enabled, shown, working" is the default, so no device has one. */
static size_t open_device(struct acpi_buf *aml, const char *name, const char *eisaid)
{
	size_t opened = aml_open_device(aml, name);

	aml_name_eisaid(aml, "_HID", eisaid);
	return opened;
}

static void put_com1(struct acpi_buf *aml, const struct acpi_config *config)
{
	struct aml_resources resources;
	size_t device = open_device(aml, "COM1", "PNP0501");

	aml_resources_init(&resources);
	aml_resources_add_io(&resources, config->com1_port, 8);
	aml_resources_add_irq(&resources, config->com1_irq);
	aml_name_integer(aml, "_UID", 1);
	aml_name_resources(aml, "_CRS", &resources);
	aml_close(aml, device);
}

static void put_rtc(struct acpi_buf *aml, const struct acpi_config *config)
{
	struct aml_resources resources;
	size_t device = open_device(aml, "RTC_", "PNP0B00");

	aml_resources_init(&resources);
	aml_resources_add_io(&resources, config->rtc_port, 2);
	aml_resources_add_irq(&resources, config->rtc_irq);
	aml_name_resources(aml, "_CRS", &resources);
	aml_close(aml, device);
}

static void put_keyboard(struct acpi_buf *aml)
{
	struct aml_resources resources;
	size_t device = open_device(aml, "KBD_", "PNP0303");

	aml_resources_init(&resources);
	aml_resources_add_io(&resources, 0x60, 1);
	aml_resources_add_io(&resources, 0x64, 1);
	aml_resources_add_irq(&resources, 1);
	aml_name_resources(aml, "_CRS", &resources);
	aml_close(aml, device);
}

static void put_pvpanic(struct acpi_buf *aml, const struct acpi_config *config)
{
	struct aml_resources resources;
	size_t device = aml_open_device(aml, "PEVT");

	aml_resources_init(&resources);
	aml_resources_add_io(&resources, config->pvpanic_port, 1);
	aml_name_string(aml, "_HID", "QEMU0001");
	aml_name_resources(aml, "_CRS", &resources);
	aml_close(aml, device);
}

/*
 * PNP0C02 "motherboard resources": what belongs to the machine, so that no driver takes it. Linux believes the MCFG
 * only when its range is reserved here.
 */
static void put_motherboard(struct acpi_buf *aml, const struct acpi_config *config)
{
	struct aml_resources resources;
	size_t device = open_device(aml, "MBRD", "PNP0C02");

	aml_resources_init(&resources);
	aml_resources_add_io(&resources, config->pm1_event_port, PM1_EVENT_BYTES);
	aml_resources_add_io(&resources, config->pm1_control_port, PM1_CONTROL_BYTES);
	aml_resources_add_io(&resources, config->pm_timer_port, PM_TIMER_BYTES);
	for (unsigned i = 0; i < config->io_reserved_count; i++)
		aml_resources_add_io(&resources, config->io_reserved[i].port, config->io_reserved[i].count);
	if (config->pci_ecam_base != 0)
		aml_resources_add_memory32(&resources, (uint32_t)config->pci_ecam_base, ACPI_PCI_ECAM_SIZE);
	aml_name_resources(aml, "_CRS", &resources);
	aml_close(aml, device);
}

/*
 * All of the I/O ports are the bridge's but its own: what has fixed ports and a device here is then found inside a
 * window of PCI's, as on every PC.
 */
static void put_pci_resources(struct acpi_buf *aml, const struct acpi_config *config)
{
	gpa_t window32 = config->pci_window32_base, window64 = config->pci_window64_base;
	struct aml_resources resources;

	aml_resources_init(&resources);
	aml_resources_add_bus_numbers(&resources, 0, 0);
	aml_resources_add_io_window(&resources, 0, PCI_CONFIG_PORT - 1);
	aml_resources_add_io(&resources, PCI_CONFIG_PORT, PCI_CONFIG_PORTS);
	aml_resources_add_io_window(&resources, PCI_CONFIG_PORT + PCI_CONFIG_PORTS, UINT16_MAX);
	if (config->pci_window32_size_bytes != 0)
		aml_resources_add_memory32_window(&resources, (uint32_t)window32,
						  (uint32_t)(window32 + config->pci_window32_size_bytes - 1));
	if (config->pci_window64_size_bytes != 0)
		aml_resources_add_memory64_window(&resources, window64, window64 + config->pci_window64_size_bytes - 1);
	aml_name_resources(aml, "_CRS", &resources);
}

/* An entry of _PRT (6.2.13): all functions of a slot, a pin, no link device, the GSI. */
static void put_pci_route(struct acpi_buf *aml, unsigned slot, unsigned pin, uint8_t gsi)
{
	size_t entry = aml_open_package(aml, 4);

	aml_put_integer(aml, slot << 16 | 0xffff);
	aml_put_integer(aml, pin);
	aml_put_integer(aml, 0);
	aml_put_integer(aml, gsi);
	aml_close(aml, entry);
}

/* Slot 0 is the bridge itself and interrupts nobody. */
static void put_pci_routes(struct acpi_buf *aml, const struct acpi_config *config)
{
	size_t routes = aml_open_name_package(aml, "_PRT", (PCI_SLOTS - 1) * PCI_PINS);

	for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < PCI_PINS; pin++)
			put_pci_route(aml, slot, pin, config->pci_intx_gsi[(slot + pin) % PCI_PINS]);
	aml_close(aml, routes);
}

/* A PCI Express host bridge, which is also the older kind. */
static void put_pci(struct acpi_buf *aml, const struct acpi_config *config)
{
	size_t device = open_device(aml, "PCI0", "PNP0A08");

	aml_name_eisaid(aml, "_CID", "PNP0A03");
	aml_name_integer(aml, "_UID", 0);
	aml_name_integer(aml, "_SEG", 0);
	aml_name_integer(aml, "_BBN", 0);
	put_pci_resources(aml, config);
	put_pci_routes(aml, config);
	aml_close(aml, device);
}

static bool gsi_is_shared(const struct acpi_config *config, uint8_t gsi)
{
	unsigned users = 0;

	for (unsigned i = 0; i < config->virtio_mmio_count; i++)
		users += config->virtio_mmio_gsi[i] == gsi;
	return users > 1;
}

static void put_virtio_mmio(struct acpi_buf *aml, const struct acpi_config *config, unsigned index)
{
	const char digits[] = "0123456789ABCDEF";
	const char name[] = {'V', 'R', digits[index / 16], digits[index % 16], 0};
	uint8_t gsi = config->virtio_mmio_gsi[index];
	struct aml_resources resources;
	size_t device = aml_open_device(aml, name);

	aml_resources_init(&resources);
	aml_resources_add_memory32(&resources,
				   (uint32_t)(config->virtio_mmio_base + (gpa_t)index * ACPI_VIRTIO_MMIO_SIZE),
				   ACPI_VIRTIO_MMIO_SIZE);
	aml_resources_add_interrupt(&resources, gsi, gsi_is_shared(config, gsi));
	aml_name_string(aml, "_HID", "LNRO0005");
	aml_name_integer(aml, "_UID", index);
	aml_name_resources(aml, "_CRS", &resources);
	aml_close(aml, device);
}

/*
 * No processor devices: the MADT is all that a guest needs to start its CPUs, and with them Linux would load
 * its ACPI idle driver, which has only HLT to offer and keeps cpuidle-haltpoll out.
 */
static void put_devices(struct acpi_buf *aml, const struct acpi_config *config)
{
	size_t scope = aml_open_scope(aml, "_SB_");

	if (config->com1_port != 0)
		put_com1(aml, config);
	if (config->rtc_port != 0)
		put_rtc(aml, config);
	if (config->i8042_keyboard)
		put_keyboard(aml);
	if (config->pvpanic_port != 0)
		put_pvpanic(aml, config);
	put_motherboard(aml, config);
	if (config->pci_ecam_base != 0)
		put_pci(aml, config);
	for (unsigned i = 0; i < config->virtio_mmio_count; i++)
		put_virtio_mmio(aml, config, i);
	aml_close(aml, scope);
}

void acpi_dsdt_put(struct acpi_buf *aml, const struct acpi_config *config)
{
	/* SLP_TYPa, SLP_TYPb, reserved, reserved (7.4.2). */
	uint64_t s5[4] = {config->slp_typ_s5, config->slp_typ_s5, 0, 0};

	aml_name_package(aml, "_S5_", s5, ARRAY_SIZE(s5));
	put_devices(aml, config);
}
