#include "devices/pci.h"

#include <assert.h>
#include <linux/pci_regs.h>

#include "devices/pci_msix.h"
#include "util.h"

/*
 * The bytes of configuration space are the only truth about what the guest has set; `writable` says which bits it can.
 * So sizing needs no code: a BAR's bits below its size are not writable and read as they were made. After each write
 * the consequences (mappings, the line, pending messages) are brought in step with what the bytes now say.
 */

/* Offsets at the function's door: the BAR's index above, the offset inside the BAR below. */
enum { BAR_SHIFT = 56 };
static const uint64_t BAR_SIZE_MAX = 1ULL << BAR_SHIFT;

/* PCI 3.0, 6.2.2. I/O Space is hardwired to 0, because there are no I/O BARs. */
enum {
	COMMAND_WRITABLE = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE,
	INTERRUPT_PIN_INTA = 1,
};

static struct pci_function *to_pci(struct device *dev)
{
	return container_of(dev, struct pci_function, dev);
}

static bool command_has(const struct pci_function *pci, unsigned bit)
{
	return le16_load(&pci->config[PCI_COMMAND]) & bit;
}

static unsigned bar_register(unsigned bar)
{
	return PCI_BASE_ADDRESS_0 + 4 * bar;
}

/* --- the door for BARs --------------------------------------------------------------------------------------- */

static uint64_t pci_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct pci_function *pci = to_pci(dev);
	unsigned bar = (unsigned)(offset >> BAR_SHIFT);
	uint64_t at = offset & (BAR_SIZE_MAX - 1);

	if (pci_msix_owns(pci, bar, at, size_bytes))
		return pci_msix_read(pci, at, size_bytes);
	if (!(pci->ops->access_sizes & size_bytes))
		return UINT64_MAX;
	return pci->ops->bar_read(pci, bar, at, size_bytes);
}

static void pci_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct pci_function *pci = to_pci(dev);
	unsigned bar = (unsigned)(offset >> BAR_SHIFT);
	uint64_t at = offset & (BAR_SIZE_MAX - 1);

	if (pci_msix_owns(pci, bar, at, size_bytes))
		pci_msix_write(pci, at, size_bytes, value);
	else if (pci->ops->access_sizes & size_bytes)
		pci->ops->bar_write(pci, bar, at, size_bytes, value);
}

static void pci_destroy(struct device *dev)
{
	struct pci_function *pci = to_pci(dev);

	pci->ops->destroy(pci);
}

static const struct device_ops pci_device_ops = {
	.name = "pci",
	.access_sizes = 1 | 2 | 4 | 8, /* what is not MSI-X's is checked against the function's own */
	.read = pci_read,
	.write = pci_write,
	.destroy = pci_destroy,
};

/* --- doorbells ----------------------------------------------------------------------------------------------- */

static struct bus_doorbell bus_doorbell_of(const struct pci_function *pci, const struct pci_doorbell *doorbell)
{
	return (struct bus_doorbell){
		.addr = pci->bars[doorbell->bar].mapped + doorbell->offset,
		.eventfd = doorbell->eventfd,
	};
}

static void doorbell_connect(struct pci_function *pci, const struct pci_doorbell *doorbell)
{
	struct bus_doorbell on_bus = bus_doorbell_of(pci, doorbell);

	if (pci->bars[doorbell->bar].is_mapped)
		bus_add_doorbell(pci->wires.mmio, &on_bus);
}

static void doorbell_disconnect(struct pci_function *pci, const struct pci_doorbell *doorbell)
{
	struct bus_doorbell on_bus = bus_doorbell_of(pci, doorbell);

	if (pci->bars[doorbell->bar].is_mapped)
		bus_remove_doorbell(pci->wires.mmio, &on_bus);
}

void pci_add_doorbell(struct pci_function *pci, unsigned bar, uint32_t offset, int eventfd)
{
	assert(bar < PCI_BARS && offset < pci->bars[bar].size_bytes);
	if (pci->doorbell_count == PCI_DOORBELLS_MAX)
		return;

	struct pci_doorbell *doorbell = &pci->doorbells[pci->doorbell_count++];
	*doorbell = (struct pci_doorbell){bar, offset, eventfd};
	doorbell_connect(pci, doorbell);
}

void pci_remove_doorbells(struct pci_function *pci)
{
	for (unsigned i = 0; i < pci->doorbell_count; i++)
		doorbell_disconnect(pci, &pci->doorbells[i]);
	pci->doorbell_count = 0;
}

/* --- BARs on the bus ----------------------------------------------------------------------------------------- */

static void bar_unmap(struct pci_function *pci, unsigned index)
{
	struct pci_bar *bar = &pci->bars[index];

	if (!bar->is_mapped)
		return;
	for (unsigned i = 0; i < pci->doorbell_count; i++) {
		if (pci->doorbells[i].bar == index)
			doorbell_disconnect(pci, &pci->doorbells[i]);
	}
	bus_unmap_range(pci->wires.mmio, &pci->dev, bar->mapped);
	bar->is_mapped = false;
}

/* Where the guest put it there may be somebody else, or no address space at all: then the BAR answers nowhere. */
static void bar_map(struct pci_function *pci, unsigned index)
{
	struct pci_bar *bar = &pci->bars[index];
	uint64_t door_offset = (uint64_t)index << BAR_SHIFT;

	if (bar->size_bytes == 0 || bar->is_mapped)
		return;
	if (bus_map(pci->wires.mmio, bar->addr, bar->addr + (bar->size_bytes - 1), &pci->dev, door_offset, NULL) < 0)
		return;
	bar->is_mapped = true;
	bar->mapped = bar->addr;
	for (unsigned i = 0; i < pci->doorbell_count; i++) {
		if (pci->doorbells[i].bar == index)
			doorbell_connect(pci, &pci->doorbells[i]);
	}
}

/* All that moves leaves first, so that two BARs can change places. */
static void bars_update(struct pci_function *pci)
{
	bool decodes = pci->wires.mmio && command_has(pci, PCI_COMMAND_MEMORY);

	for (unsigned i = 0; i < PCI_BARS; i++) {
		if (!decodes || pci->bars[i].mapped != pci->bars[i].addr)
			bar_unmap(pci, i);
	}
	for (unsigned i = 0; i < PCI_BARS && decodes; i++)
		bar_map(pci, i);
}

static void bars_load(struct pci_function *pci)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		struct pci_bar *bar = &pci->bars[i];
		if (bar->size_bytes > 0)
			bar->addr = align_down(le64_load(&pci->config[bar_register(i)]), bar->size_bytes);
	}
}

void pci_retry_bars(struct pci_function *pci)
{
	device_lock(&pci->dev);
	bars_update(pci);
	device_unlock(&pci->dev);
}

/* --- INTx ---------------------------------------------------------------------------------------------------- */

/* PCI 3.0, 6.2.3: Interrupt Status does not depend on Interrupt Disable. */
static void intx_update(struct pci_function *pci)
{
	bool wants = pci->intx_level && pci->config[PCI_INTERRUPT_PIN] && !pci_msix_is_enabled(pci);
	bool line = wants && !command_has(pci, PCI_COMMAND_INTX_DISABLE);

	pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
	if (wants)
		pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	if (line == pci->intx_line)
		return;
	pci->intx_line = line;
	irq_set(pci->wires.intx, line);
}

void pci_set_intx(struct pci_function *pci, bool level)
{
	pci->intx_level = level;
	intx_update(pci);
}

/* --- configuration space ------------------------------------------------------------------------------------- */

static void check_access(unsigned offset, unsigned size_bytes)
{
	assert(size_bytes == 1 || size_bytes == 2 || size_bytes == 4);
	assert(offset % size_bytes == 0 && offset < PCI_CONFIG_SIZE);
}

uint32_t pci_config_read(struct pci_function *pci, unsigned offset, unsigned size_bytes)
{
	uint32_t value = 0;

	check_access(offset, size_bytes);
	device_lock(&pci->dev);
	if (pci->ops->config_reads)
		pci->ops->config_reads(pci, offset, size_bytes);
	for (unsigned i = 0; i < size_bytes; i++)
		value |= (uint32_t)pci->config[offset + i] << (8 * i);
	device_unlock(&pci->dev);
	return value;
}

static void config_store(struct pci_function *pci, unsigned at, uint8_t value)
{
	uint8_t writable = pci->writable[at];

	pci->config[at] = (uint8_t)((pci->config[at] & ~writable) | (value & writable));
}

void pci_config_write(struct pci_function *pci, unsigned offset, unsigned size_bytes, uint32_t value)
{
	check_access(offset, size_bytes);
	device_lock(&pci->dev);
	for (unsigned i = 0; i < size_bytes; i++)
		config_store(pci, offset + i, (uint8_t)(value >> (8 * i)));
	bars_load(pci);
	bars_update(pci);
	intx_update(pci);
	pci_msix_send_pending(pci);
	if (pci->ops->config_written)
		pci->ops->config_written(pci, offset, size_bytes);
	device_unlock(&pci->dev);
}

/* --- what it is ---------------------------------------------------------------------------------------------- */

void pci_function_init(struct pci_function *pci, const struct pci_function_ops *ops, const struct pci_ids *ids)
{
	*pci = (struct pci_function){.ops = ops, .caps_end = PCI_STD_HEADER_SIZEOF};
	device_init(&pci->dev, &pci_device_ops);

	le16_store(&pci->config[PCI_VENDOR_ID], ids->vendor);
	le16_store(&pci->config[PCI_DEVICE_ID], ids->device);
	le32_store(&pci->config[PCI_CLASS_REVISION], ids->class_code << 8 | ids->revision);
	le16_store(&pci->config[PCI_SUBSYSTEM_VENDOR_ID], ids->subsystem_vendor);
	le16_store(&pci->config[PCI_SUBSYSTEM_ID], ids->subsystem);
	pci->config[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_NORMAL;

	le16_store(&pci->writable[PCI_COMMAND], COMMAND_WRITABLE);
	pci->writable[PCI_INTERRUPT_LINE] = 0xff;
}

void pci_function_fini(struct pci_function *pci)
{
	pci_unplug(pci);
	device_fini(&pci->dev);
}

void pci_add_bar(struct pci_function *pci, unsigned index, uint64_t size_bytes)
{
	assert(index + 1 < PCI_BARS && pci->bars[index].size_bytes == 0 && pci->bars[index + 1].size_bytes == 0);
	assert(index == 0 || pci->bars[index - 1].size_bytes == 0);
	assert(size_bytes >= KIB(4) && size_bytes <= BAR_SIZE_MAX && (size_bytes & (size_bytes - 1)) == 0);

	pci->bars[index].size_bytes = size_bytes;
	pci->config[bar_register(index)] = PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64;
	le64_store(&pci->writable[bar_register(index)], ~(size_bytes - 1));
}

unsigned pci_add_capability(struct pci_function *pci, const void *data, const void *writable, unsigned size_bytes)
{
	unsigned cap = pci->caps_end;

	assert(size_bytes > PCI_CAP_LIST_NEXT && size_bytes <= PCI_CONFIG_SIZE - cap);
	memcpy(&pci->config[cap], data, size_bytes);
	if (writable)
		memcpy(&pci->writable[cap], writable, size_bytes);
	memset(&pci->writable[cap], 0, PCI_CAP_LIST_NEXT + 1);
	pci->config[cap + PCI_CAP_LIST_NEXT] = 0;

	unsigned link = pci->last_cap ? pci->last_cap + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST;
	pci->config[link] = (uint8_t)cap;
	pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	pci->last_cap = cap;
	pci->caps_end = (unsigned)align_up(cap + size_bytes, 4);
	return cap;
}

void pci_add_intx(struct pci_function *pci)
{
	pci->config[PCI_INTERRUPT_PIN] = INTERRUPT_PIN_INTA;
}

void pci_plug(struct pci_function *pci, const struct pci_wires *wires)
{
	device_lock(&pci->dev);
	assert(!pci->wires.mmio);
	pci->wires = *wires;
	pci->intx_line = false;
	bars_update(pci);
	intx_update(pci);
	device_unlock(&pci->dev);
}

void pci_unplug(struct pci_function *pci)
{
	device_lock(&pci->dev);
	for (unsigned i = 0; i < PCI_BARS; i++)
		bar_unmap(pci, i);
	if (pci->intx_line)
		irq_set(pci->wires.intx, false);
	pci->intx_line = false;
	pci->wires = (struct pci_wires){0};
	device_unlock(&pci->dev);
}
