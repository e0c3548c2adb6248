/*
 * The PCI host bridge: bus 0 with 32 slots, reached by configuration mechanism #1 (ports 0xcf8 to 0xcff) and by ECAM
 * (PCI Express 5.0, 7.2.2), and the reset control register at port 0xcf9. It gives each function its first addresses,
 * as firmware would; the guest may move them.
 */
#pragma once

#include "bus.h"
#include "devices/pci.h"
#include "err.h"
#include "guest_event.h"

enum {
	PCI_HOST_PIO_SIZE = 8,        /* 0xcf8..0xcff */
	PCI_HOST_ECAM_SIZE = 1 << 20, /* one bus */
	PCI_SLOTS = 32,               /* slot 0 is the bridge itself */
	PCI_INTX_LINES = 4,
};

struct pci_host_config {
	struct bus *mmio;
	uint64_t window_base, window_size_bytes; /* below 4 GiB: where first addresses come from */
	struct irq_line intx[PCI_INTX_LINES]; /* INTA# of slot s is wired to line s % PCI_INTX_LINES; levels are ORed */
	uint8_t intx_irq[PCI_INTX_LINES];     /* what the Interrupt Line register says */
	struct irq_msi msi;
	struct guest_event_sink events; /* GUEST_EVENT_RESET, from port 0xcf9 */
};

struct pci_host;

/* NULL with `err` set. [setup] */
struct pci_host *pci_host_new(const struct pci_host_config *config, struct err *err);
void pci_host_free(struct pci_host *host); /* after its functions; NULL is accepted */

/* The two doors: map the first at port 0xcf8 and the second at the ECAM's base. Owned by the host bridge. */
struct device *pci_host_pio(struct pci_host *host);
struct device *pci_host_ecam(struct pci_host *host);

/*
 * Plug a function into the first free slot, wire it up, place its BARs. The function stays the caller's. Returns the
 * slot, or -ENOSPC with a sentence. [setup]
 */
int pci_host_add(struct pci_host *host, struct pci_function *pci, struct err *err);
void pci_host_remove(struct pci_host *host, struct pci_function *pci);
