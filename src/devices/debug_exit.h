/*
 * The debug-exit port: a test guest writes its exit status here. A write of 1, 2 or 4 bytes raises
 * GUEST_EVENT_DEBUG_EXIT with the low 8 bits; reads return 0, so that a guest can tell it from an empty port.
 */
#pragma once

#include "device.h"
#include "err.h"
#include "guest_event.h"

enum { DEBUG_EXIT_SIZE = 4 };

/* NULL with `err` set. [setup] */
struct device *debug_exit_new(struct guest_event_sink sink, struct err *err);
