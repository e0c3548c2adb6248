/*
 * A PCI function: configuration space, base address registers, capabilities, MSI-X and INTx (PCI 3.0).
 *
 * A device embeds `struct pci_function` and says what it is: ids, BARs, capabilities. This module decodes configuration
 * accesses, maps the BARs onto the bus as the guest moves them, and keeps the MSI-X table. The rest of a BAR comes to
 * the device's own bar_read and bar_write. All of it runs under the one lock of the embedded `struct device`; lock
 * order: the host bridge's (configuration accesses), the function's, the bus's (and, apart from it, the host bridge's
 * for interrupt lines).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bus.h"
#include "device.h"
#include "irq.h"

enum {
	PCI_CONFIG_SIZE = 256, /* conventional: what lies beyond in ECAM reads as all-ones */
	PCI_BARS = 6,
	PCI_MSIX_VECTORS_MAX = 64,
	PCI_DOORBELLS_MAX = 64,
};

struct pci_function;

struct pci_function_ops {
	const char *name;
	unsigned access_sizes; /* of BAR registers, as in device_ops; MSI-X's own are always 4 and 8 */
	/* Registers of a BAR that are not MSI-X's; the range lies inside the BAR. Lock held. [vcpu] */
	uint64_t (*bar_read)(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes);
	void (*bar_write)(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes, uint64_t value);
	/*
	 * For a capability that has registers behind it (virtio's PCI configuration access): called before a read and
	 * after a write of configuration bytes [offset, offset + size). NULL: none. Lock held. [vcpu]
	 */
	void (*config_reads)(struct pci_function *pci, unsigned offset, unsigned size_bytes);
	void (*config_written)(struct pci_function *pci, unsigned offset, unsigned size_bytes);
	void (*destroy)(struct pci_function *pci); /* calls pci_function_fini and frees. [setup] */
};

struct pci_ids {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code; /* 24 bits: class, subclass, interface */
	uint8_t revision;
};

/* Where the machine's wires end. Set by pci_plug. */
struct pci_wires {
	struct bus *mmio; /* BARs are mapped here; NULL: not plugged in */
	struct irq_line intx;
	struct irq_msi msi;
};

struct pci_bar {
	uint64_t size_bytes; /* 0: not there; a power of two, at least 4096 */
	uint64_t addr;       /* as the guest has set it */
	uint64_t mapped;     /* where it is on the bus now, when is_mapped */
	bool is_mapped;
};

struct pci_msix_entry {
	uint64_t address;
	uint32_t data;
	bool masked, pending;
};

struct pci_msix {
	unsigned vectors; /* 0: the function has no MSI-X */
	unsigned bar;
	uint32_t table_offset, pba_offset;
	uint8_t cap; /* its offset in configuration space */
	struct pci_msix_entry table[PCI_MSIX_VECTORS_MAX];
};

/* A doorbell in a BAR; it follows the BAR. */
struct pci_doorbell {
	unsigned bar;
	uint32_t offset;
	int eventfd;
};

struct pci_function {
	struct device dev; /* its door is for BAR accesses */
	const struct pci_function_ops *ops;
	struct pci_wires wires;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE]; /* a bit that is 1 can be written by the guest */
	unsigned caps_end;                 /* where the next capability goes */
	unsigned last_cap;
	struct pci_bar bars[PCI_BARS];
	struct pci_msix msix;
	bool intx_level; /* what the function asserts, before Interrupt Disable */
	bool intx_line;  /* what the wire was last told */
	struct pci_doorbell doorbells[PCI_DOORBELLS_MAX];
	unsigned doorbell_count;
};

/* --- what it is [setup] ---------------------------------------------------------------------------------- */

void pci_function_init(struct pci_function *pci, const struct pci_function_ops *ops, const struct pci_ids *ids);
void pci_function_fini(struct pci_function *pci); /* takes it off the bus */

/* A 64-bit, non-prefetchable memory BAR in registers `index` and `index + 1`. */
void pci_add_bar(struct pci_function *pci, unsigned index, uint64_t size_bytes);

/*
 * Add a capability: `size_bytes` bytes at `data`, the first two (id, next) included, and which bits of them the guest
 * can write (NULL: none). Returns its offset.
 */
unsigned pci_add_capability(struct pci_function *pci, const void *data, const void *writable, unsigned size_bytes);

/* MSI-X with its table and pending bits inside a BAR; both offsets multiples of 8, the two areas apart. */
void pci_add_msix(struct pci_function *pci, unsigned vectors, unsigned bar, uint32_t table_offset, uint32_t pba_offset);

/* Offer INTA#. */
void pci_add_intx(struct pci_function *pci);

/* --- interrupts; the function's lock is held [any] --------------------------------------------------------- */

bool pci_msix_is_enabled(const struct pci_function *pci);

/*
 * Send a vector's message, or leave it pending while it (or the function) is masked; pending bits outlive MSI-X's being
 * disabled. Out of range, or MSI-X disabled: ignored. Bus Master is not asked: the bit is the guest's to set, no more.
 */
void pci_msix_raise(struct pci_function *pci, unsigned vector);

/* The level that the function wants on INTA#. MSI-X enabled keeps the line down. */
void pci_set_intx(struct pci_function *pci, bool level);

/* --- doorbells; the function's lock is held [any] ------------------------------------------------------------ */

/*
 * A register in a BAR whose writes (of any size) count up `eventfd`. Speed only: bar_write must do the same, and more
 * than PCI_DOORBELLS_MAX are ignored.
 */
void pci_add_doorbell(struct pci_function *pci, unsigned bar, uint32_t offset, int eventfd);
void pci_remove_doorbells(struct pci_function *pci);

/* --- for the host bridge; the function's door for configuration space: these take its lock [vcpu] ------------- */

/* size 1, 2 or 4, naturally aligned, inside PCI_CONFIG_SIZE. */
uint32_t pci_config_read(struct pci_function *pci, unsigned offset, unsigned size_bytes);
void pci_config_write(struct pci_function *pci, unsigned offset, unsigned size_bytes, uint32_t value);

/* Connect the function, and take it off the bus and its line down. Unplugging twice does nothing. [setup] */
void pci_plug(struct pci_function *pci, const struct pci_wires *wires);
void pci_unplug(struct pci_function *pci);

/* Another function's BARs may have moved: try again to map those of this one for which there was no room. [vcpu] */
void pci_retry_bars(struct pci_function *pci);
