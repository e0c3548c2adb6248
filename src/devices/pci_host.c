#include "devices/pci_host.h"
