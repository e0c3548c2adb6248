#include "devices/pci_msix.h"

#include <assert.h>
#include <linux/pci_regs.h>

#include "util.h"

/* PCI 3.0, 6.8.2.3: the capability; 6.8.2.6 to 6.8.2.9: a table entry. Names of <linux/pci_regs.h>. */
enum {
	MSIX_ADDRESS_MASK = 0xfffffffc, /* two reserved bits, hardwired to 0 */
	MSIX_PBA_BITS = 64,             /* pending bits are read in units of a quadword */
};

static uint64_t table_size(const struct pci_msix *msix)
{
	return (uint64_t)msix->vectors * PCI_MSIX_ENTRY_SIZE;
}

static uint64_t pba_size(const struct pci_msix *msix)
{
	return align_up(msix->vectors, MSIX_PBA_BITS) / 8;
}

static bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

void pci_add_msix(struct pci_function *pci, unsigned vectors, unsigned bar, uint32_t table_offset, uint32_t pba_offset)
{
	static const uint8_t writable[PCI_CAP_MSIX_SIZEOF] = {
		[PCI_MSIX_FLAGS + 1] = (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8,
	};
	uint8_t cap[PCI_CAP_MSIX_SIZEOF] = {PCI_CAP_ID_MSIX};
	struct pci_msix *msix = &pci->msix;

	assert(msix->vectors == 0 && vectors >= 1 && vectors <= PCI_MSIX_VECTORS_MAX);
	*msix = (struct pci_msix){
		.vectors = vectors, .bar = bar, .table_offset = table_offset, .pba_offset = pba_offset};
	assert(bar < PCI_BARS && table_offset % 8 == 0 && pba_offset % 8 == 0);
	assert(table_offset + table_size(msix) <= pci->bars[bar].size_bytes);
	assert(pba_offset + pba_size(msix) <= pci->bars[bar].size_bytes);
	assert(!overlaps(table_offset, table_size(msix), pba_offset, pba_size(msix)));

	le16_store(&cap[PCI_MSIX_FLAGS], (uint16_t)(vectors - 1));
	le32_store(&cap[PCI_MSIX_TABLE], table_offset | bar);
	le32_store(&cap[PCI_MSIX_PBA], pba_offset | bar);
	msix->cap = (uint8_t)pci_add_capability(pci, cap, writable, sizeof(cap));
	for (unsigned i = 0; i < vectors; i++)
		msix->table[i].masked = true;
}

static unsigned flags(const struct pci_function *pci)
{
	return pci->msix.vectors ? le16_load(&pci->config[pci->msix.cap + PCI_MSIX_FLAGS]) : 0;
}

bool pci_msix_is_enabled(const struct pci_function *pci)
{
	return flags(pci) & PCI_MSIX_FLAGS_ENABLE;
}

static bool may_send(const struct pci_function *pci, const struct pci_msix_entry *entry)
{
	return (flags(pci) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) == PCI_MSIX_FLAGS_ENABLE &&
	       !entry->masked;
}

static void send_if_pending(const struct pci_function *pci, struct pci_msix_entry *entry)
{
	if (!entry->pending || !may_send(pci, entry))
		return;
	entry->pending = false;
	irq_msi_send(pci->wires.msi, entry->address, entry->data);
}

void pci_msix_send_pending(struct pci_function *pci)
{
	for (unsigned i = 0; i < pci->msix.vectors; i++)
		send_if_pending(pci, &pci->msix.table[i]);
}

void pci_msix_raise(struct pci_function *pci, unsigned vector)
{
	if (vector >= pci->msix.vectors || !pci_msix_is_enabled(pci))
		return;
	pci->msix.table[vector].pending = true;
	send_if_pending(pci, &pci->msix.table[vector]);
}

/* --- the table and the pending bits, in doublewords ---------------------------------------------------------- */

bool pci_msix_owns(const struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes)
{
	const struct pci_msix *msix = &pci->msix;

	return msix->vectors > 0 && bar == msix->bar &&
	       (overlaps(offset, size_bytes, msix->table_offset, table_size(msix)) ||
		overlaps(offset, size_bytes, msix->pba_offset, pba_size(msix)));
}

static bool in_table(const struct pci_msix *msix, uint64_t offset)
{
	return offset >= msix->table_offset && offset - msix->table_offset < table_size(msix);
}

/* Both areas begin and end at multiples of 8: what is aligned and touches one lies inside it. */
static bool is_accepted(uint64_t offset, unsigned size_bytes)
{
	return (size_bytes == 4 || size_bytes == 8) && offset % size_bytes == 0;
}

static uint32_t entry_read(const struct pci_msix_entry *entry, unsigned field)
{
	switch (field) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		return (uint32_t)entry->address;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		return (uint32_t)(entry->address >> 32);
	case PCI_MSIX_ENTRY_DATA:
		return entry->data;
	default:
		return entry->masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0;
	}
}

static void entry_write(struct pci_msix_entry *entry, unsigned field, uint32_t value)
{
	switch (field) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		entry->address = (entry->address & ~(uint64_t)UINT32_MAX) | (value & MSIX_ADDRESS_MASK);
		break;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		entry->address = (entry->address & UINT32_MAX) | (uint64_t)value << 32;
		break;
	case PCI_MSIX_ENTRY_DATA:
		entry->data = value;
		break;
	default:
		entry->masked = value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
		break;
	}
}

static uint32_t pba_read(const struct pci_msix *msix, uint64_t offset)
{
	unsigned first = (unsigned)(offset - msix->pba_offset) * 8;
	uint32_t bits = 0;

	for (unsigned i = 0; i < 32 && first + i < msix->vectors; i++)
		bits |= (uint32_t)msix->table[first + i].pending << i;
	return bits;
}

static uint32_t dword_read(const struct pci_msix *msix, uint64_t offset)
{
	if (!in_table(msix, offset))
		return pba_read(msix, offset);

	uint64_t at = offset - msix->table_offset;
	return entry_read(&msix->table[at / PCI_MSIX_ENTRY_SIZE], at % PCI_MSIX_ENTRY_SIZE);
}

uint64_t pci_msix_read(const struct pci_function *pci, uint64_t offset, unsigned size_bytes)
{
	if (!is_accepted(offset, size_bytes))
		return UINT64_MAX;

	uint64_t value = dword_read(&pci->msix, offset);
	if (size_bytes == 8)
		value |= (uint64_t)dword_read(&pci->msix, offset + 4) << 32;
	return value;
}

void pci_msix_write(struct pci_function *pci, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	if (!is_accepted(offset, size_bytes) || !in_table(&pci->msix, offset))
		return;

	uint64_t at = offset - pci->msix.table_offset;
	struct pci_msix_entry *entry = &pci->msix.table[at / PCI_MSIX_ENTRY_SIZE];
	entry_write(entry, at % PCI_MSIX_ENTRY_SIZE, (uint32_t)value);
	if (size_bytes == 8)
		entry_write(entry, at % PCI_MSIX_ENTRY_SIZE + 4, (uint32_t)(value >> 32));
	send_if_pending(pci, entry);
}
