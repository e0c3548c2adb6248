/*
 * PCI for the guests: configuration space by ECAM or by ports 0xcf8 and 0xcfc, capabilities, BARs, MSI-X. Every
 * function here works in ring 0 and in ring 3. A function of bus 0 is named by its slot and function number,
 * slot << 3 | function (`devfn`).
 */
#ifndef GUEST_PCI_H
#define GUEST_PCI_H

#include <linux/pci_regs.h>

#include "guest.h"

enum pci_access { PCI_BY_PORTS, PCI_BY_ECAM };

/*
 * Arguments: `pci=ports` or `pci=ecam` choose the access; else it is ECAM if there is an MCFG. `ecam=ADDRESS` is for
 * machines without one. False: what was asked for is not there. `pci-window=ADDRESS` (0xc0000000) is where BARs go that
 * no firmware has placed.
 */
bool pci_init(void);
enum pci_access pci_access(void);

uint8_t pci_read8(unsigned devfn, unsigned offset);
uint16_t pci_read16(unsigned devfn, unsigned offset);
uint32_t pci_read32(unsigned devfn, unsigned offset);
void pci_write8(unsigned devfn, unsigned offset, uint8_t v);
void pci_write16(unsigned devfn, unsigned offset, uint16_t v);
void pci_write32(unsigned devfn, unsigned offset, uint32_t v);

/* The first function at or after `devfn` with these ids; -1 if there is none. */
int pci_find(unsigned devfn, uint16_t vendor, uint16_t device);
/* The next capability with this id after the one at `prev` (0: the first); 0 if there is none. */
unsigned pci_cap_next(unsigned devfn, unsigned prev, uint8_t id);
void pci_command(unsigned devfn, uint16_t set, uint16_t clear);

struct pci_bar {
	uint64_t addr, size; /* size 0: not there */
	bool is_io, is_64;
};

/* Reads a BAR and sizes it; decoding is off meanwhile. */
void pci_bar_read(unsigned devfn, unsigned index, struct pci_bar *ret_bar);
/* Moves a memory BAR; decoding is off meanwhile. */
void pci_bar_move(unsigned devfn, unsigned index, uint64_t addr);
/* Places each memory BAR that has no address yet, maps all into our address space, and turns on decoding and DMA. */
void pci_enable(unsigned devfn);

struct pci_msix {
	unsigned devfn, cap, vectors;
	uint64_t table, pending; /* addresses */
};

/* After pci_enable. False: the function has no MSI-X. All vectors come masked by reset; so does the whole. */
bool pci_msix_init(struct pci_msix *m, unsigned devfn);
void pci_msix_enable(const struct pci_msix *m, bool enabled, bool function_masked);
/* Sends interrupt `to_vector` to this CPU (APIC id 0 to 255). */
void pci_msix_route(const struct pci_msix *m, unsigned vector, uint32_t apic_id, uint8_t to_vector);
void pci_msix_mask(const struct pci_msix *m, unsigned vector, bool masked);
bool pci_msix_is_pending(const struct pci_msix *m, unsigned vector);

#endif
