/*
 * A 16550A serial port (National Semiconductor PC16550D), eight byte registers at offsets 0 to 7.
 *
 * Output goes straight to the character back end; what it refuses waits in the 16-byte transmit FIFO with
 * LSR.THRE clear, so a guest that follows the register protocol loses nothing however slow the host is.
 * Input is taken only as far as the receive FIFO has room, and from the moment on that the guest listens (RTS,
 * the receive interrupt, or polling). The modem lines report a peer that is always there (CTS, DSR, DCD).
 *
 * There is no baud rate and no clock: a byte takes no time, and the character timeout, which says that the
 * receive FIFO holds less than its trigger level and nothing more is coming, is indicated at once.
 */
#pragma once

#include "chr.h"
#include "device.h"
#include "err.h"
#include "irq.h"

enum { UART16550_SIZE = 8 };

/*
 * `chr` is borrowed: this becomes its client, and device_free disconnects it, so the device must be freed
 * first. NULL with `err` set. [setup]
 */
struct device *uart16550_new(struct irq_line irq, struct chr *chr, struct err *err);
