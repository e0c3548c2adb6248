/* The MSI-X table and pending bits (PCI 3.0, 6.8.2), for the function's door. The function's lock is held. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "devices/pci.h"

/* Does the access touch the table or the pending bits? Then it is not the device's. [vcpu] */
bool pci_msix_owns(const struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes);

/* Such an access. One that is not 4 or 8 bytes, or not aligned, reads as all-ones and writes nothing. [vcpu] */
uint64_t pci_msix_read(const struct pci_function *pci, uint64_t offset, unsigned size_bytes);
void pci_msix_write(struct pci_function *pci, uint64_t offset, unsigned size_bytes, uint64_t value);

/* Send what is pending and no longer masked: after every change of message control. [vcpu] */
void pci_msix_send_pending(struct pci_function *pci);
