/* The contents of the DSDT. Internal to the ACPI renderer (acpi.c). */
#pragma once

#include "loader/acpi.h"
#include "loader/acpi_buf.h"

/* The PM registers' sizes, for the FADT too. */
enum { PM1_EVENT_BYTES = 4, PM1_CONTROL_BYTES = 2, PM_TIMER_BYTES = 4 };

/* Append the AML: \_S5 and the devices below \_SB. */
void acpi_dsdt_put(struct acpi_buf *aml, const struct acpi_config *config);
