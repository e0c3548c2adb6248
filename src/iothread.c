#include "iothread.h"
