#include "arch/x86/board_virtio.h"

#include <errno.h>
#include <stdlib.h>

#include "arch/x86/layout.h"
#include "devices/pci_host.h"
#include "util.h"
#include "virtio/virtio_mmio.h"
#include "virtio/virtio_pci.h"

static const uint8_t PCI_INTX_GSI[PCI_INTX_LINES] = LAYOUT_PCI_INTX_GSI;
static const uint8_t VIRTIO_MMIO_GSI[] = LAYOUT_VIRTIO_MMIO_GSI;

enum { PCI_DEVICES_MAX = PCI_SLOTS - 1 };

struct board_virtio {
	struct vm *vm;
	enum board_transport transport;
	struct pci_host *pci_host; /* PCI: */
	struct pci_function *functions[PCI_DEVICES_MAX];
	struct device *mmio_devices[ARRAY_SIZE(VIRTIO_MMIO_GSI)]; /* MMIO: */
	unsigned count;
};

unsigned board_max_virtio_devices(enum board_transport transport)
{
	return transport == BOARD_TRANSPORT_PCI ? PCI_DEVICES_MAX : ARRAY_SIZE(VIRTIO_MMIO_GSI);
}

/* --- PCI -------------------------------------------------------------------------------------------------- */

static int add_pci_host(struct board_virtio *virtio, struct err *err)
{
	struct vm *vm = virtio->vm;
	struct pci_host_config config = {
		.mmio = &vm->mmio,
		.window_base = LAYOUT_PCI_WINDOW32,
		.window_size_bytes = LAYOUT_PCI_WINDOW32_SIZE,
		.msi = vm_irq_msi(vm),
		.events = vm_guest_event_sink(vm),
	};
	for (unsigned i = 0; i < PCI_INTX_LINES; i++) {
		config.intx[i] = vm_irq_line(vm, PCI_INTX_GSI[i]);
		config.intx_irq[i] = PCI_INTX_GSI[i];
	}
	virtio->pci_host = pci_host_new(&config, err);
	if (!virtio->pci_host)
		return err->code;
	int r = bus_map(&vm->pio, PORT_PCI_CONFIG, PORT_PCI_CONFIG + PCI_HOST_PIO_SIZE - 1,
			pci_host_pio(virtio->pci_host), 0, err);
	if (r < 0)
		return r;
	return bus_map(&vm->mmio, LAYOUT_PCI_ECAM, LAYOUT_PCI_ECAM + PCI_HOST_ECAM_SIZE - 1,
		       pci_host_ecam(virtio->pci_host), 0, err);
}

static int add_pci_device(struct board_virtio *virtio, struct virtio_device *dev, struct err *err)
{
	struct pci_function *function = virtio_pci_new(dev, err);
	if (!function)
		return err->code;
	int r = pci_host_add(virtio->pci_host, function, err);
	if (r < 0) {
		device_free(&function->dev);
		return r;
	}
	virtio->functions[virtio->count++] = function;
	return 0;
}

static void free_pci(struct board_virtio *virtio)
{
	while (virtio->count) {
		struct pci_function *function = virtio->functions[--virtio->count];
		pci_host_remove(virtio->pci_host, function);
		device_free(&function->dev);
	}
	if (virtio->pci_host) {
		bus_unmap(&virtio->vm->pio, pci_host_pio(virtio->pci_host));
		bus_unmap(&virtio->vm->mmio, pci_host_ecam(virtio->pci_host));
	}
	pci_host_free(virtio->pci_host);
}

/* --- MMIO --------------------------------------------------------------------------------------------------- */

static int add_mmio_device(struct board_virtio *virtio, struct virtio_device *virtio_dev, struct err *err)
{
	struct vm *vm = virtio->vm;
	uint64_t base = LAYOUT_VIRTIO_MMIO + (uint64_t)virtio->count * VIRTIO_MMIO_SIZE;
	struct irq_line irq = vm_irq_line(vm, VIRTIO_MMIO_GSI[virtio->count]);
	struct device *dev = virtio_mmio_new(virtio_dev, &vm->mmio, base, irq, err);
	if (!dev)
		return err->code;
	virtio->mmio_devices[virtio->count++] = dev;
	return bus_map(&vm->mmio, base, base + VIRTIO_MMIO_SIZE - 1, dev, 0, err);
}

static void free_mmio(struct board_virtio *virtio)
{
	while (virtio->count) {
		struct device *dev = virtio->mmio_devices[--virtio->count];
		bus_unmap(&virtio->vm->mmio, dev);
		device_free(dev);
	}
}

/* --- both ------------------------------------------------------------------------------------------------------ */

struct board_virtio *board_virtio_new(struct vm *vm, enum board_transport transport, struct err *err)
{
	struct board_virtio *virtio = calloc(1, sizeof(*virtio));
	if (!virtio) {
		err_set(err, -ENOMEM, "virtio devices: %s", err_name(ENOMEM));
		return NULL;
	}
	virtio->vm = vm;
	virtio->transport = transport;
	if (transport == BOARD_TRANSPORT_PCI && add_pci_host(virtio, err) < 0) {
		board_virtio_free(virtio);
		return NULL;
	}
	return virtio;
}

void board_virtio_free(struct board_virtio *virtio)
{
	if (!virtio)
		return;
	if (virtio->transport == BOARD_TRANSPORT_PCI)
		free_pci(virtio);
	else
		free_mmio(virtio);
	free(virtio);
}

int board_virtio_add(struct board_virtio *virtio, struct virtio_device *dev, struct err *err)
{
	if (!dev)
		return err->code;
	unsigned max = board_max_virtio_devices(virtio->transport);
	if (virtio->count == max) {
		virtio_free(dev);
		return err_config(err, -ENOSPC, "more than %u devices", max);
	}
	return virtio->transport == BOARD_TRANSPORT_PCI ? add_pci_device(virtio, dev, err)
							: add_mmio_device(virtio, dev, err);
}

/* Above the RAM, where physical addresses still reach; 0 bytes: nowhere. */
static uint64_t find_window64(const struct gmem *gmem, unsigned address_bits, uint64_t *ret_base)
{
	const struct gmem_region *last = &gmem->regions[gmem->region_count - 1];
	*ret_base = max_u64(LAYOUT_HOLE_END, align_up(last->base + last->size_bytes, GIB(1)));
	bool fits = address_bits < 64 && *ret_base + LAYOUT_PCI_WINDOW64_SIZE <= 1ULL << address_bits;
	return fits ? LAYOUT_PCI_WINDOW64_SIZE : 0;
}

void board_virtio_describe(const struct board_virtio *virtio, unsigned address_bits, struct acpi_config *acpi)
{
	if (virtio->transport == BOARD_TRANSPORT_MMIO) {
		acpi->virtio_mmio_base = LAYOUT_VIRTIO_MMIO;
		acpi->virtio_mmio_count = virtio->count;
		memcpy(acpi->virtio_mmio_gsi, VIRTIO_MMIO_GSI, virtio->count);
		return;
	}
	acpi->pci_ecam_base = LAYOUT_PCI_ECAM;
	acpi->pci_window32_base = LAYOUT_PCI_WINDOW32;
	acpi->pci_window32_size_bytes = LAYOUT_PCI_WINDOW32_SIZE;
	acpi->pci_window64_size_bytes = find_window64(virtio->vm->gmem, address_bits, &acpi->pci_window64_base);
	memcpy(acpi->pci_intx_gsi, PCI_INTX_GSI, sizeof(PCI_INTX_GSI));
}

void board_virtio_describe_mptable(const struct board_virtio *virtio, struct mptable_config *mptable)
{
	mptable->has_pci = virtio->transport == BOARD_TRANSPORT_PCI;
	memcpy(mptable->pci_intx_gsi, PCI_INTX_GSI, sizeof(PCI_INTX_GSI));
}
