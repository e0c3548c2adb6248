/*
 * The debug console of Bochs and QEMU: each byte written goes to the character back end, and is dropped when
 * that is full; the guest never waits. Reads return DEBUGCON_PRESENT, by which guests recognise it.
 *
 * It only writes: it does not become the back end's client, so it may share one with a serial port.
 */
#pragma once

#include "chr.h"
#include "device.h"
#include "err.h"

enum {
	DEBUGCON_SIZE = 1,
	DEBUGCON_PRESENT = 0xe9,
};

/* `chr` is borrowed and must outlive the device. NULL with `err` set. [setup] */
struct device *debugcon_new(struct chr *chr, struct err *err);
