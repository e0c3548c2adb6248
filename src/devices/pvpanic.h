/*
 * pvpanic: one byte through which a guest's kernel says that it has panicked (QEMU docs/specs/pvpanic).
 * Reads tell which events the device knows. Writing PVPANIC_PANICKED raises GUEST_EVENT_PANIC;
 * PVPANIC_CRASH_LOADED (a crash kernel takes over, the guest goes on) is accepted and needs no answer.
 */
#pragma once

#include "device.h"
#include "err.h"
#include "guest_event.h"

enum {
	PVPANIC_SIZE = 1,
	PVPANIC_PANICKED = 1 << 0,
	PVPANIC_CRASH_LOADED = 1 << 1,
};

/* NULL with `err` set. [setup] */
struct device *pvpanic_new(struct guest_event_sink sink, struct err *err);
