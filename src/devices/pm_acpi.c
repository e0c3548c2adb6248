#include "devices/pm_acpi.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "loop.h"
#include "util.h"

/* ACPI 6.5 section 4.8.3.1, PM1 event grouping: status at offset 0, enable at offset 2, 16 bits each. */
enum {
	PM1_STS_OFFSET = PM_ACPI_PM1_EVT_OFFSET,
	PM1_EN_OFFSET = PM_ACPI_PM1_EVT_OFFSET + 2,

	GBL_EN = 1 << 5,
	PWRBTN_STS = 1 << 8,
	PWRBTN_EN = 1 << 8,
	SLPBTN_EN = 1 << 9,
	RTC_EN = 1 << 10,
	PCIEXP_WAKE_DIS = 1 << 14,
	WAK_STS = 1 << 15, /* has no enable bit */

	PM1_EN_MASK = GBL_EN | PWRBTN_EN | SLPBTN_EN | RTC_EN | PCIEXP_WAKE_DIS,
	PM1_EVENTS = GBL_EN | PWRBTN_EN | SLPBTN_EN | RTC_EN, /* same bits in status and enable */
};

/* Section 4.8.3.2, PM1 control grouping. */
enum {
	SCI_EN = 1 << 0,
	BM_RLD = 1 << 1,
	SLP_TYP_SHIFT = 10,
	SLP_TYP = 7 << SLP_TYP_SHIFT,
	SLP_EN = 1 << 13, /* reads as 0 */

	PM1_CNT_MASK = BM_RLD | SLP_TYP,
};

/* Section 4.8.3.3, power management timer. */
enum { PM_TMR_HZ = 3579545, SECOND_NS = 1000000000 };

struct pm_acpi {
	struct device dev;
	struct irq_line sci;
	struct guest_event_sink sink;
	uint64_t start_ns;
	uint16_t sts, en, cnt;
	bool sci_level;
};

static const struct device_ops pm_acpi_ops;

static struct pm_acpi *to_pm(struct device *dev)
{
	return container_of(dev, struct pm_acpi, dev);
}

static void sci_update(struct pm_acpi *pm)
{
	bool level = pm->sts & pm->en & PM1_EVENTS;

	if (level == pm->sci_level)
		return;
	pm->sci_level = level;
	irq_set(pm->sci, level);
}

static uint32_t timer_count(const struct pm_acpi *pm)
{
	uint64_t ns = loop_now_ns() - pm->start_ns;

	return (uint32_t)(ns / SECOND_NS * PM_TMR_HZ + ns % SECOND_NS * PM_TMR_HZ / SECOND_NS);
}

/* Every register as it reads now. One sample, so that a read of any size is consistent. */
static void render(const struct pm_acpi *pm, uint8_t image[PM_ACPI_SIZE])
{
	memset(image, 0, PM_ACPI_SIZE);
	le16_store(&image[PM1_STS_OFFSET], pm->sts);
	le16_store(&image[PM1_EN_OFFSET], pm->en);
	le16_store(&image[PM_ACPI_PM1_CNT_OFFSET], pm->cnt | SCI_EN);
	le32_store(&image[PM_ACPI_PM_TMR_OFFSET], timer_count(pm));
}

static uint64_t pm_acpi_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	uint8_t image[PM_ACPI_SIZE];
	uint64_t value = 0;

	render(to_pm(dev), image);
	for (unsigned i = 0; i < size_bytes && offset + i < PM_ACPI_SIZE; i++)
		value |= (uint64_t)image[offset + i] << (8 * i);
	return value;
}

static uint16_t merge_byte(uint16_t word, unsigned high, uint8_t value)
{
	return (uint16_t)(high ? (word & 0x00ff) | value << 8 : (word & 0xff00) | value);
}

/*
 * A guest that asks for a sleep state we do not have is awake again at once. It finds WAK_STS set, for which
 * it would otherwise poll.
 */
static void sleep_enter(struct pm_acpi *pm)
{
	if ((pm->cnt & SLP_TYP) >> SLP_TYP_SHIFT == PM_ACPI_SLP_TYP_S5)
		guest_event_raise(pm->sink, GUEST_EVENT_POWEROFF, 0);
	else
		pm->sts |= WAK_STS;
}

static void control_write(struct pm_acpi *pm, unsigned high, uint8_t value)
{
	uint16_t cnt = merge_byte(pm->cnt, high, value);

	pm->cnt = cnt & PM1_CNT_MASK;
	if (cnt & SLP_EN)
		sleep_enter(pm);
}

/* Registers are written byte by byte: no field crosses a byte, so each size means the same. */
static void byte_write(struct pm_acpi *pm, uint64_t offset, uint8_t value)
{
	switch (offset) {
	case PM1_STS_OFFSET:
	case PM1_STS_OFFSET + 1: /* a 1 clears */
		pm->sts &= (uint16_t)~merge_byte(0, offset & 1, value);
		break;
	case PM1_EN_OFFSET:
	case PM1_EN_OFFSET + 1:
		pm->en = merge_byte(pm->en, offset & 1, value) & PM1_EN_MASK;
		break;
	case PM_ACPI_PM1_CNT_OFFSET:
	case PM_ACPI_PM1_CNT_OFFSET + 1:
		control_write(pm, offset & 1, value);
		break;
	case PM_ACPI_RESET_OFFSET:
		if (value == PM_ACPI_RESET_VALUE)
			guest_event_raise(pm->sink, GUEST_EVENT_RESET, 0);
		break;
	default:
		break;
	}
}

static void pm_acpi_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct pm_acpi *pm = to_pm(dev);

	for (unsigned i = 0; i < size_bytes; i++)
		byte_write(pm, offset + i, (uint8_t)(value >> (8 * i)));
	sci_update(pm);
}

void pm_acpi_press_power_button(struct device *dev)
{
	assert(dev->ops == &pm_acpi_ops);
	struct pm_acpi *pm = to_pm(dev);

	device_lock(dev);
	pm->sts |= PWRBTN_STS;
	sci_update(pm);
	device_unlock(dev);
}

static void pm_acpi_destroy(struct device *dev)
{
	device_fini(dev);
	free(to_pm(dev));
}

static const struct device_ops pm_acpi_ops = {
	.name = "pm_acpi",
	.access_sizes = 1 | 2 | 4,
	.read = pm_acpi_read,
	.write = pm_acpi_write,
	.destroy = pm_acpi_destroy,
};

struct device *pm_acpi_new(struct irq_line sci, struct guest_event_sink sink, struct err *err)
{
	struct pm_acpi *pm = calloc(1, sizeof(*pm));

	if (!pm) {
		err_set(err, -ENOMEM, "ACPI registers: out of memory");
		return NULL;
	}
	device_init(&pm->dev, &pm_acpi_ops);
	pm->sci = sci;
	pm->sink = sink;
	pm->start_ns = loop_now_ns();
	return &pm->dev;
}
