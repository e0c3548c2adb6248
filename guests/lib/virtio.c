#include "virtio.h"

#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>

enum { VIRTIO_PCI_VENDOR = 0x1af4, VIRTIO_PCI_MODERN = 0x1040, VIRTIO_PCI_TRANSITIONAL = 0x1000 };
enum { MMIO_MAGIC = 0x74726976, MMIO_VERSION = 2, MMIO_STRIDE = 0x200 };
enum { PCI_STRUCTURE_PIECES = 4 };

/* --- finding a device --- */

static uint64_t *structure_of(struct virtio_dev *dev, unsigned type)
{
	switch (type) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		return &dev->common;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		return &dev->notify;
	case VIRTIO_PCI_CAP_ISR_CFG:
		return &dev->isr;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		return &dev->config;
	default:
		return NULL;
	}
}

bool virtio_pci_locate(struct virtio_dev *dev)
{
	dev->common = dev->notify = dev->isr = dev->config = 0;
	for (unsigned cap = 0; (cap = pci_cap_next(dev->devfn, cap, PCI_CAP_ID_VNDR));) {
		unsigned type = pci_read8(dev->devfn, cap + VIRTIO_PCI_CAP_CFG_TYPE);
		uint64_t *structure = structure_of(dev, type);
		struct pci_bar bar;

		if (!structure || *structure) /* the first of a type is the one to use (4.1.4.1) */
			continue;
		pci_bar_read(dev->devfn, pci_read8(dev->devfn, cap + VIRTIO_PCI_CAP_BAR), &bar);
		*structure = bar.addr + pci_read32(dev->devfn, cap + VIRTIO_PCI_CAP_OFFSET);
		if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
			dev->notify_multiplier = pci_read32(dev->devfn, cap + VIRTIO_PCI_NOTIFY_CAP_MULT);
	}
	return dev->common && dev->notify && dev->isr && dev->config;
}

/* Transitional ids are 0x1000 up in an order of their own: only those that a modern driver may meet. */
static bool is_type(unsigned devfn, uint32_t type)
{
	uint16_t id = pci_read16(devfn, PCI_DEVICE_ID);

	if (pci_read16(devfn, PCI_VENDOR_ID) != VIRTIO_PCI_VENDOR)
		return false;
	return id == VIRTIO_PCI_MODERN + type ||
	       (id < VIRTIO_PCI_MODERN && pci_read16(devfn, PCI_SUBSYSTEM_ID) == type);
}

static bool open_pci(struct virtio_dev *dev, uint32_t type, unsigned index)
{
	if (!pci_init())
		return false;
	for (unsigned devfn = 0; devfn < 256; devfn += 8) {
		if (!is_type(devfn, type) || index--)
			continue;
		dev->is_pci = true;
		dev->devfn = devfn;
		pci_enable(devfn);
		return virtio_pci_locate(dev);
	}
	return false;
}

static const char *after_colon(const char *s)
{
	while (*s && *s != ':')
		s++;
	return *s ? s + 1 : s;
}

static bool open_mmio(struct virtio_dev *dev, uint32_t type, unsigned index)
{
	char where[64];
	const char *count, *stride;
	uint64_t n, step;

	arg_str("mmio", where, sizeof(where));
	count = after_colon(where);
	stride = after_colon(count);
	n = *count ? str_to_u64(count) : 1;
	step = *stride ? str_to_u64(stride) : MMIO_STRIDE;
	for (uint64_t base = str_to_u64(where); base && n--; base += step) {
		map_phys(base);
		if (mmio_read32(base + VIRTIO_MMIO_MAGIC_VALUE) != MMIO_MAGIC ||
		    mmio_read32(base + VIRTIO_MMIO_VERSION) != MMIO_VERSION ||
		    mmio_read32(base + VIRTIO_MMIO_DEVICE_ID) != type || index--)
			continue;
		dev->base = base;
		dev->config = base + VIRTIO_MMIO_CONFIG;
		return true;
	}
	return false;
}

bool virtio_open(struct virtio_dev *dev, uint32_t type, unsigned index)
{
	*dev = (struct virtio_dev){0};
	return arg_is("transport", "mmio") ? open_mmio(dev, type, index) : open_pci(dev, type, index);
}

/* --- registers --- */

static uint64_t read_features(const struct virtio_dev *dev)
{
	uint64_t v = 0;

	for (uint32_t word = 0; word < 2; word++) {
		if (dev->is_pci) {
			mmio_write32(dev->common + VIRTIO_PCI_COMMON_DFSELECT, word);
			v |= (uint64_t)mmio_read32(dev->common + VIRTIO_PCI_COMMON_DF) << 32 * word;
		} else {
			mmio_write32(dev->base + VIRTIO_MMIO_DEVICE_FEATURES_SEL, word);
			v |= (uint64_t)mmio_read32(dev->base + VIRTIO_MMIO_DEVICE_FEATURES) << 32 * word;
		}
	}
	return v;
}

static void write_features(const struct virtio_dev *dev)
{
	for (uint32_t word = 0; word < 2; word++) {
		uint32_t v = (uint32_t)(dev->features >> 32 * word);

		if (dev->is_pci) {
			mmio_write32(dev->common + VIRTIO_PCI_COMMON_GFSELECT, word);
			mmio_write32(dev->common + VIRTIO_PCI_COMMON_GF, v);
		} else {
			mmio_write32(dev->base + VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
			mmio_write32(dev->base + VIRTIO_MMIO_DRIVER_FEATURES, v);
		}
	}
}

uint8_t virtio_status(const struct virtio_dev *dev)
{
	return dev->is_pci ? mmio_read8(dev->common + VIRTIO_PCI_COMMON_STATUS)
			   : (uint8_t)mmio_read32(dev->base + VIRTIO_MMIO_STATUS);
}

void virtio_set_status(const struct virtio_dev *dev, uint8_t status)
{
	if (dev->is_pci)
		mmio_write8(dev->common + VIRTIO_PCI_COMMON_STATUS, status);
	else
		mmio_write32(dev->base + VIRTIO_MMIO_STATUS, status);
}

bool virtio_reset(const struct virtio_dev *dev)
{
	virtio_set_status(dev, 0);
	for (unsigned tries = 0; tries < 1000; tries++) {
		if (!virtio_status(dev))
			return true;
		clock_delay_us(1000);
	}
	return false;
}

bool virtio_negotiate(struct virtio_dev *dev, uint64_t wanted)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	virtio_set_status(dev, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	virtio_set_status(dev, status);
	dev->offered = read_features(dev);
	dev->features = dev->offered & wanted;
	write_features(dev);
	virtio_set_status(dev, status | VIRTIO_CONFIG_S_FEATURES_OK);
	return virtio_status(dev) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void virtio_driver_ok(const struct virtio_dev *dev)
{
	virtio_set_status(dev, virtio_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
}

bool virtio_has(const struct virtio_dev *dev, unsigned feature)
{
	return dev->features >> feature & 1;
}

static uint32_t config_generation(const struct virtio_dev *dev)
{
	return dev->is_pci ? mmio_read8(dev->common + VIRTIO_PCI_COMMON_CFGGENERATION)
			   : mmio_read32(dev->base + VIRTIO_MMIO_CONFIG_GENERATION);
}

uint64_t virtio_config(const struct virtio_dev *dev, unsigned offset, unsigned size)
{
	uint64_t at = dev->config + offset, v;
	uint32_t generation;

	switch (size) {
	case 1:
		return mmio_read8(at);
	case 2:
		return mmio_read16(at);
	case 4:
		return mmio_read32(at);
	default:
		do {
			generation = config_generation(dev);
			v = mmio_read32(at) | (uint64_t)mmio_read32(at + 4) << 32;
		} while (generation != config_generation(dev));
		return v;
	}
}

uint8_t virtio_isr(const struct virtio_dev *dev)
{
	uint32_t v;

	if (dev->is_pci)
		return mmio_read8(dev->isr);
	v = mmio_read32(dev->base + VIRTIO_MMIO_INTERRUPT_STATUS);
	if (v)
		mmio_write32(dev->base + VIRTIO_MMIO_INTERRUPT_ACK, v);
	return (uint8_t)v;
}

uint16_t virtio_config_vector(const struct virtio_dev *dev, uint16_t vector)
{
	mmio_write16(dev->common + VIRTIO_PCI_COMMON_MSIX, vector);
	return mmio_read16(dev->common + VIRTIO_PCI_COMMON_MSIX);
}
