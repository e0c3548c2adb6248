#include "vsock_host.h"

#include <errno.h>
