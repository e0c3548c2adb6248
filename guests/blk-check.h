/* What the parts of the guest blk-check share. Each section checks one property and has ten statuses of its own. */
#ifndef BLK_CHECK_H
#define BLK_CHECK_H

#include "blk.h"

enum { /* statuses: the first of each section; guests/README.md lists them */
       STATUS_INFO = 1,
       STATUS_DATA = 10,
       STATUS_FLUSH = 20,
       STATUS_ID = 25,
       STATUS_DISCARD = 30,
       STATUS_ZEROES = 35,
       STATUS_ERRORS = 40,
       STATUS_READONLY = 50,
       STATUS_RESET = 55,
       STATUS_MSIX = 60,
       STATUS_INTX = 70,
       STATUS_SIZES = 76,
       STATUS_WRAP = 80,
       STATUS_BAR = 85,
       STATUS_BAD = 90,
       STATUS_RESIZE = 100,
       STATUS_REBOOT = 105,
};

enum { CHUNK = 65536, CHUNK_SECTORS = CHUNK / BLK_SECTOR, QUIET_US = 20000, IRQ_MS = 3000 };

extern struct blk blk;
extern uint8_t chunk[CHUNK] __attribute__((aligned(4096)));
extern uint64_t area_first, area_sectors; /* of the disk: what the checks may write to */

/* blk_start with all features; ends the guest if the device refuses. */
void restart(unsigned queue_size, uint16_t vector);
/* The pattern that belongs to these sectors. */
void pattern_fill(void *data, uint64_t sector, uint32_t len);
bool pattern_is(const void *data, uint64_t sector, uint32_t len);
/* One read of one sector of the area goes well; else ends the guest with this status. */
void check_alive(uint8_t status, const char *when);

/* blk-check-irq.c */
void irq_prepare(void); /* in ring 0 */
void check_msix(void);
void check_intx(void);
void check_bar(void);

/* blk-check-queue.c */
void check_reset(void);
void check_sizes(void);
void check_wrap(void);
void check_bad(void);

/* blk-check-machine.c */
void check_resize(void);
void check_reboot(void);
void check_storm(void);

#endif
