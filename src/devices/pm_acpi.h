/*
 * ACPI fixed hardware (ACPI 6.5 section 4.8) and the reset register, in one block of PM_ACPI_SIZE bytes.
 *
 * There is no SMI and no legacy mode: SCI_EN reads as 1 and the FADT's SMI_CMD is 0. The interrupt is level:
 * high while a status bit is set whose enable bit is set. Not modelled, because no guest we know needs it:
 * the timer's carry (TMR_STS never comes, TMR_EN reads 0), bus master status and the RTC as a wake event.
 */
#pragma once

#include "device.h"
#include "err.h"
#include "guest_event.h"
#include "irq.h"

enum {
	PM_ACPI_SIZE = 16,
	PM_ACPI_PM1_EVT_OFFSET = 0, /* PM1a status and enable, 4 bytes */
	PM_ACPI_PM1_CNT_OFFSET = 4, /* PM1a control, 2 bytes */
	PM_ACPI_PM_TMR_OFFSET = 8,  /* 4 bytes; 32 bits count: FADT flag TMR_VAL_EXT */
	PM_ACPI_RESET_OFFSET = 12,  /* 1 byte: FADT flag RESET_REG_SUP */
	PM_ACPI_RESET_VALUE = 6,    /* as at port 0xcf9 of PC chipsets, where a board may map it a second time */
	PM_ACPI_SLP_TYP_S5 = 5,     /* for the DSDT's _S5 */
};

/*
 * The guest's power-off (SLP_EN with PM_ACPI_SLP_TYP_S5) raises GUEST_EVENT_POWEROFF, the reset register
 * GUEST_EVENT_RESET. Any other sleep state wakes at once (WAK_STS). NULL with `err` set. [setup]
 */
struct device *pm_acpi_new(struct irq_line sci, struct guest_event_sink sink, struct err *err);

/* Set PWRBTN_STS, which interrupts a guest that enabled it. `dev` is a pm_acpi device. [any] */
void pm_acpi_press_power_button(struct device *dev);
