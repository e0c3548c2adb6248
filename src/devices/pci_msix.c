#include "devices/pci.h"
