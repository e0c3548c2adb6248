#include "pci.h"

enum { PORT_ADDRESS = 0xcf8, PORT_DATA = 0xcfc, ADDRESS_ENABLE = 1u << 31, DEVFNS = 256 };
enum { MCFG_ENTRIES = 44, MCFG_ENTRY_SIZE = 16 };

static const uint64_t WINDOW = 0xc0000000;

static uint64_t ecam; /* bus 0; 0: by ports */

static uint64_t find_ecam(void)
{
	uint64_t mcfg, given = arg_u64("ecam", 0);

	if (given)
		return given;
	mcfg = acpi_table("MCFG");
	if (!mcfg || peek32(mcfg + 4) < MCFG_ENTRIES + MCFG_ENTRY_SIZE)
		return 0;
	return peek64(mcfg + MCFG_ENTRIES); /* the first segment; its base address is that of bus 0 */
}

bool pci_init(void)
{
	ecam = arg_is("pci", "ports") ? 0 : find_ecam();
	if (ecam)
		map_phys(ecam);
	return ecam || !arg_is("pci", "ecam");
}

enum pci_access pci_access(void)
{
	return ecam ? PCI_BY_ECAM : PCI_BY_PORTS;
}

static uint64_t ecam_addr(unsigned devfn, unsigned offset)
{
	return ecam + ((uint64_t)devfn << 12) + offset;
}

/* The data port of this register, once the address port points there. */
static uint16_t select(unsigned devfn, unsigned offset)
{
	outl(PORT_ADDRESS, (uint32_t)ADDRESS_ENABLE | devfn << 8 | (offset & 0xfc));
	return (uint16_t)(PORT_DATA + (offset & 3));
}

uint8_t pci_read8(unsigned devfn, unsigned offset)
{
	return ecam ? mmio_read8(ecam_addr(devfn, offset)) : inb(select(devfn, offset));
}

uint16_t pci_read16(unsigned devfn, unsigned offset)
{
	return ecam ? mmio_read16(ecam_addr(devfn, offset)) : inw(select(devfn, offset));
}

uint32_t pci_read32(unsigned devfn, unsigned offset)
{
	return ecam ? mmio_read32(ecam_addr(devfn, offset)) : inl(select(devfn, offset));
}

void pci_write8(unsigned devfn, unsigned offset, uint8_t v)
{
	if (ecam)
		mmio_write8(ecam_addr(devfn, offset), v);
	else
		outb(select(devfn, offset), v);
}

void pci_write16(unsigned devfn, unsigned offset, uint16_t v)
{
	if (ecam)
		mmio_write16(ecam_addr(devfn, offset), v);
	else
		outw(select(devfn, offset), v);
}

void pci_write32(unsigned devfn, unsigned offset, uint32_t v)
{
	if (ecam)
		mmio_write32(ecam_addr(devfn, offset), v);
	else
		outl(select(devfn, offset), v);
}

int pci_find(unsigned devfn, uint16_t vendor, uint16_t device)
{
	uint32_t wanted = (uint32_t)device << 16 | vendor;
	bool several = true; /* the slot has more functions than one */

	for (; devfn < DEVFNS; devfn += several ? 1 : 8 - (devfn & 7)) {
		uint32_t ids = pci_read32(devfn, PCI_VENDOR_ID);

		if (ids == wanted)
			return (int)devfn;
		if (!(devfn & 7))
			several = ids != 0xffffffff && (pci_read8(devfn, PCI_HEADER_TYPE) & 0x80);
	}
	return -1;
}

unsigned pci_cap_next(unsigned devfn, unsigned prev, uint8_t id)
{
	unsigned at = prev ? prev + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST;

	if (!(pci_read16(devfn, PCI_STATUS) & PCI_STATUS_CAP_LIST))
		return 0;
	for (unsigned steps = 0; steps < 48; steps++) { /* as many as fit: a ring must not hold us for ever */
		unsigned cap = pci_read8(devfn, at) & ~3u;

		if (!cap)
			return 0;
		if (pci_read8(devfn, cap + PCI_CAP_LIST_ID) == id)
			return cap;
		at = cap + PCI_CAP_LIST_NEXT;
	}
	return 0;
}

void pci_command(unsigned devfn, uint16_t set, uint16_t clear)
{
	uint16_t v = pci_read16(devfn, PCI_COMMAND);

	pci_write16(devfn, PCI_COMMAND, (uint16_t)((v & ~clear) | set));
}

/* What a BAR register says after all-ones were written there; its value comes back. */
static uint32_t bar_probe(unsigned devfn, unsigned offset)
{
	uint32_t old = pci_read32(devfn, offset), mask;

	pci_write32(devfn, offset, 0xffffffff);
	mask = pci_read32(devfn, offset);
	pci_write32(devfn, offset, old);
	return mask;
}

void pci_bar_read(unsigned devfn, unsigned index, struct pci_bar *ret_bar)
{
	unsigned offset = PCI_BASE_ADDRESS_0 + 4 * index;
	uint16_t decode = pci_read16(devfn, PCI_COMMAND) & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	uint32_t low = pci_read32(devfn, offset);
	uint64_t mask;

	*ret_bar = (struct pci_bar){.is_io = low & PCI_BASE_ADDRESS_SPACE_IO};
	ret_bar->is_64 = (low & 7) == PCI_BASE_ADDRESS_MEM_TYPE_64;
	pci_command(devfn, 0, decode);
	mask = bar_probe(devfn, offset) & ~(ret_bar->is_io ? 3u : 15u);
	ret_bar->addr = low & ~(ret_bar->is_io ? 3u : 15u);
	if (ret_bar->is_64) {
		mask |= (uint64_t)bar_probe(devfn, offset + 4) << 32;
		ret_bar->addr |= (uint64_t)pci_read32(devfn, offset + 4) << 32;
	} else if (mask) {
		mask |= 0xffffffff00000000;
	}
	ret_bar->size = mask ? ~mask + 1 : 0;
	pci_command(devfn, decode, 0);
}

static void map_range(uint64_t addr, uint64_t size)
{
	for (uint64_t at = addr & ~(uint64_t)0x1fffff; at < addr + size; at += 0x200000)
		map_phys(at);
}

void pci_bar_move(unsigned devfn, unsigned index, uint64_t addr)
{
	unsigned offset = PCI_BASE_ADDRESS_0 + 4 * index;
	uint16_t decode = pci_read16(devfn, PCI_COMMAND) & PCI_COMMAND_MEMORY;
	bool is_64 = (pci_read32(devfn, offset) & 7) == PCI_BASE_ADDRESS_MEM_TYPE_64;

	pci_command(devfn, 0, PCI_COMMAND_MEMORY);
	pci_write32(devfn, offset, (uint32_t)addr);
	if (is_64)
		pci_write32(devfn, offset + 4, (uint32_t)(addr >> 32));
	pci_command(devfn, decode, 0);
}

static uint64_t window_take(uint64_t size)
{
	static uint64_t next;
	uint64_t addr;

	if (!next)
		next = arg_u64("pci-window", WINDOW);
	addr = (next + size - 1) & ~(size - 1);
	next = addr + size;
	return addr;
}

void pci_enable(unsigned devfn)
{
	struct pci_bar bar;

	for (unsigned i = 0; i < 6; i += bar.is_64 ? 2 : 1) {
		pci_bar_read(devfn, i, &bar);
		if (!bar.size || bar.is_io)
			continue;
		if (!bar.addr) {
			bar.addr = window_take(bar.size);
			pci_bar_move(devfn, i, bar.addr);
		}
		map_range(bar.addr, bar.size);
	}
	pci_command(devfn, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
}

/* The address that a capability's "BAR indicator and offset" register means. */
static uint64_t bir_addr(unsigned devfn, uint32_t v)
{
	struct pci_bar bar;

	pci_bar_read(devfn, v & PCI_MSIX_TABLE_BIR, &bar);
	return bar.addr + (v & PCI_MSIX_TABLE_OFFSET);
}

bool pci_msix_init(struct pci_msix *m, unsigned devfn)
{
	m->devfn = devfn;
	m->cap = pci_cap_next(devfn, 0, PCI_CAP_ID_MSIX);
	if (!m->cap)
		return false;
	m->vectors = (pci_read16(devfn, m->cap + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u;
	m->table = bir_addr(devfn, pci_read32(devfn, m->cap + PCI_MSIX_TABLE));
	m->pending = bir_addr(devfn, pci_read32(devfn, m->cap + PCI_MSIX_PBA));
	return true;
}

void pci_msix_enable(const struct pci_msix *m, bool enabled, bool function_masked)
{
	uint16_t v = pci_read16(m->devfn, m->cap + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE;

	v |= enabled ? PCI_MSIX_FLAGS_ENABLE : 0;
	v |= function_masked ? PCI_MSIX_FLAGS_MASKALL : 0;
	pci_write16(m->devfn, m->cap + PCI_MSIX_FLAGS, v);
}

void pci_msix_route(const struct pci_msix *m, unsigned vector, uint32_t apic_id, uint8_t to_vector)
{
	uint64_t entry = m->table + vector * PCI_MSIX_ENTRY_SIZE;

	mmio_write32(entry + PCI_MSIX_ENTRY_LOWER_ADDR, 0xfee00000 | apic_id << 12);
	mmio_write32(entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
	mmio_write32(entry + PCI_MSIX_ENTRY_DATA, to_vector);
}

void pci_msix_mask(const struct pci_msix *m, unsigned vector, bool masked)
{
	mmio_write32(m->table + vector * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL, masked);
}

bool pci_msix_is_pending(const struct pci_msix *m, unsigned vector)
{
	return mmio_read32(m->pending + vector / 32 * 4) >> (vector % 32) & 1;
}
