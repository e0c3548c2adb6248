#include "devices/pci_host.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>

#include "util.h"

/* PCI 3.0, 3.2.2.3.2, configuration mechanism #1. Offsets from port 0xcf8. */
enum {
	CONFIG_ADDRESS_OFFSET = 0,
	CONFIG_DATA_OFFSET = 4,

	CONFIG_ADDRESS_FUNCTION_SHIFT = 8, /* bits 8 to 10 the function, 11 to 15 the slot, 16 to 23 the bus */
	CONFIG_ADDRESS_REGISTER = 0xfc,
};
static const uint32_t CONFIG_ADDRESS_ENABLE = 1U << 31;
static const uint32_t CONFIG_ADDRESS_MASK = 0x80fffffc; /* the other bits are reserved, and read as 0 */

/* The reset control register, between the address's bytes: port 0xcf9, byte accesses only (Intel ICH9, 13.7.5). */
enum {
	RST_CNT_OFFSET = 1,
	SYS_RST = 1 << 1,
	RST_CPU = 1 << 2,
	FULL_RST = 1 << 3,
	RST_CNT_MASK = SYS_RST | RST_CPU | FULL_RST,
};

/* PCI Express 5.0, 7.2.2: bits 0 to 11 of an ECAM address are the register; above them is what mechanism #1 has. */
enum { ECAM_FUNCTION_SHIFT = 12 };

/* Bits of both mechanisms, once shifted down: bus, slot, function. */
enum { SLOT_SHIFT = 3 };

struct pci_host {
	struct device pio, ecam;
	struct pci_host_config config;
	struct pci_function bridge;
	struct pci_function *slots[PCI_SLOTS];
	uint64_t window_used;

	uint32_t config_address; /* these two under the lock of `pio` */
	uint8_t rst_cnt;

	pthread_mutex_t intx_mutex;          /* inside any function's lock */
	uint32_t intx_slots[PCI_INTX_LINES]; /* bit s: slot s asserts the line */
};

/* --- configuration accesses, however they came --------------------------------------------------------------- */

/* `rid`: bus, slot and function as 8, 5 and 3 bits. NULL: nobody there. */
static struct pci_function *function_at(const struct pci_host *host, uint32_t rid)
{
	bool is_on_bus0_function0 = rid % (1 << SLOT_SHIFT) == 0 && rid >> SLOT_SHIFT < PCI_SLOTS;

	return is_on_bus0_function0 ? host->slots[rid >> SLOT_SHIFT] : NULL;
}

static bool is_accepted(uint64_t reg, unsigned size_bytes)
{
	return reg < PCI_CONFIG_SIZE && reg % size_bytes == 0;
}

static uint64_t config_read(const struct pci_host *host, uint32_t rid, uint64_t reg, unsigned size_bytes)
{
	struct pci_function *pci = function_at(host, rid);

	if (!pci || !is_accepted(reg, size_bytes))
		return UINT64_MAX;
	return pci_config_read(pci, (unsigned)reg, size_bytes);
}

/* Addresses that one function leaves are free for another that was put there earlier. */
static void config_write(struct pci_host *host, uint32_t rid, uint64_t reg, unsigned size_bytes, uint64_t value)
{
	struct pci_function *pci = function_at(host, rid);

	if (!pci || !is_accepted(reg, size_bytes))
		return;
	pci_config_write(pci, (unsigned)reg, size_bytes, (uint32_t)value);
	for (unsigned i = 0; i < PCI_SLOTS && reg < PCI_CARDBUS_CIS; i++) {
		if (host->slots[i] && host->slots[i] != pci)
			pci_retry_bars(host->slots[i]);
	}
}

/* --- mechanism #1 -------------------------------------------------------------------------------------------- */

static bool is_address(uint64_t offset, unsigned size_bytes)
{
	return offset == CONFIG_ADDRESS_OFFSET && size_bytes == 4;
}

static bool is_rst_cnt(uint64_t offset, unsigned size_bytes)
{
	return offset == RST_CNT_OFFSET && size_bytes == 1;
}

static bool is_data(const struct pci_host *host, uint64_t offset)
{
	return offset >= CONFIG_DATA_OFFSET && (host->config_address & CONFIG_ADDRESS_ENABLE);
}

static uint32_t selected_rid(const struct pci_host *host)
{
	return (host->config_address & ~CONFIG_ADDRESS_ENABLE) >> CONFIG_ADDRESS_FUNCTION_SHIFT;
}

static uint64_t selected_register(const struct pci_host *host, uint64_t offset)
{
	return (host->config_address & CONFIG_ADDRESS_REGISTER) + (offset - CONFIG_DATA_OFFSET);
}

static uint64_t pio_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	struct pci_host *host = container_of(dev, struct pci_host, pio);

	if (is_address(offset, size_bytes))
		return host->config_address;
	if (is_rst_cnt(offset, size_bytes))
		return host->rst_cnt;
	if (is_data(host, offset))
		return config_read(host, selected_rid(host), selected_register(host, offset), size_bytes);
	return UINT64_MAX;
}

static void rst_cnt_write(struct pci_host *host, uint8_t value)
{
	bool resets = value & ~host->rst_cnt & RST_CPU;

	host->rst_cnt = value & RST_CNT_MASK;
	if (resets)
		guest_event_raise(host->config.events, GUEST_EVENT_RESET, 0);
}

static void pio_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct pci_host *host = container_of(dev, struct pci_host, pio);

	if (is_address(offset, size_bytes))
		host->config_address = (uint32_t)value & CONFIG_ADDRESS_MASK;
	else if (is_rst_cnt(offset, size_bytes))
		rst_cnt_write(host, (uint8_t)value);
	else if (is_data(host, offset))
		config_write(host, selected_rid(host), selected_register(host, offset), size_bytes, value);
}

/* --- ECAM ---------------------------------------------------------------------------------------------------- */

static uint64_t ecam_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	const struct pci_host *host = container_of(dev, struct pci_host, ecam);

	return config_read(host, (uint32_t)(offset >> ECAM_FUNCTION_SHIFT), offset % (1 << ECAM_FUNCTION_SHIFT),
			   size_bytes);
}

static void ecam_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	struct pci_host *host = container_of(dev, struct pci_host, ecam);

	config_write(host, (uint32_t)(offset >> ECAM_FUNCTION_SHIFT), offset % (1 << ECAM_FUNCTION_SHIFT), size_bytes,
		     value);
}

/* Neither has a `destroy`: the host bridge owns them. */
static const struct device_ops pio_ops = {
	.name = "pci_host",
	.access_sizes = 1 | 2 | 4,
	.read = pio_read,
	.write = pio_write,
};

static const struct device_ops ecam_ops = {
	.name = "pci_ecam",
	.access_sizes = 1 | 2 | 4,
	.read = ecam_read,
	.write = ecam_write,
};

struct device *pci_host_pio(struct pci_host *host)
{
	return &host->pio;
}

struct device *pci_host_ecam(struct pci_host *host)
{
	return &host->ecam;
}

/* --- interrupt lines ----------------------------------------------------------------------------------------- */

/* The wire is driven with the mutex held, or two changes could reach it in the wrong order. */
static void intx_set(void *ctx, unsigned slot, bool level)
{
	struct pci_host *host = ctx;
	unsigned line = slot % PCI_INTX_LINES;

	pthread_mutex_lock(&host->intx_mutex);
	uint32_t before = host->intx_slots[line];
	uint32_t after = level ? before | 1U << slot : before & ~(1U << slot);
	host->intx_slots[line] = after;
	if (!before != !after)
		irq_set(host->config.intx[line], level);
	pthread_mutex_unlock(&host->intx_mutex);
}

/* --- plugging in --------------------------------------------------------------------------------------------- */

/* The next naturally aligned piece of the window; 0 when there is none (the window does not begin at 0). */
static uint64_t window_take(const struct pci_host *host, uint64_t size_bytes, uint64_t *used)
{
	uint64_t at = align_up(host->config.window_base + *used, size_bytes) - host->config.window_base;

	if (at > host->config.window_size_bytes || host->config.window_size_bytes - at < size_bytes)
		return 0;
	*used = at + size_bytes;
	return host->config.window_base + at;
}

static int bars_choose(struct pci_host *host, const struct pci_function *pci, uint64_t addrs[PCI_BARS], struct err *err)
{
	uint64_t used = host->window_used;

	for (unsigned i = 0; i < PCI_BARS; i++) {
		uint64_t size_bytes = pci->bars[i].size_bytes;
		addrs[i] = size_bytes > 0 ? window_take(host, size_bytes, &used) : 0;
		if (size_bytes > 0 && addrs[i] == 0)
			return err_config(err, -ENOSPC, "PCI: no room for the %llu KiB of BAR %u of %s in the window",
					  (unsigned long long)(size_bytes >> 10), i, pci->ops->name);
	}
	host->window_used = used;
	return 0;
}

/* As firmware would. Memory decoding stays off; the driver turns it on. */
static void configure(struct pci_function *pci, const uint64_t addrs[PCI_BARS], uint8_t irq)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		if (pci->bars[i].size_bytes == 0)
			continue;
		pci_config_write(pci, PCI_BASE_ADDRESS_0 + 4 * i, 4, (uint32_t)addrs[i]);
		pci_config_write(pci, PCI_BASE_ADDRESS_0 + 4 * (i + 1), 4, (uint32_t)(addrs[i] >> 32));
	}
	if (pci_config_read(pci, PCI_INTERRUPT_PIN, 1) > 0)
		pci_config_write(pci, PCI_INTERRUPT_LINE, 1, irq);
}

static unsigned free_slot(const struct pci_host *host)
{
	unsigned slot = 0;

	while (slot < PCI_SLOTS && host->slots[slot])
		slot++;
	return slot;
}

int pci_host_add(struct pci_host *host, struct pci_function *pci, struct err *err)
{
	uint64_t addrs[PCI_BARS] = {0};
	unsigned slot = free_slot(host);

	if (slot == PCI_SLOTS)
		return err_config(err, -ENOSPC, "PCI: no free slot for %s: all %d are taken", pci->ops->name,
				  PCI_SLOTS);
	int r = bars_choose(host, pci, addrs, err);
	if (r < 0)
		return r;

	pci_plug(pci, &(struct pci_wires){
			      .mmio = host->config.mmio,
			      .intx = {.set = intx_set, .ctx = host, .line = slot},
			      .msi = host->config.msi,
		      });
	configure(pci, addrs, host->config.intx_irq[slot % PCI_INTX_LINES]);
	host->slots[slot] = pci;
	return (int)slot;
}

void pci_host_remove(struct pci_host *host, struct pci_function *pci)
{
	for (unsigned i = 0; i < PCI_SLOTS; i++) {
		if (host->slots[i] != pci)
			continue;
		pci_unplug(pci);
		host->slots[i] = NULL;
	}
}

/* --- the bridge itself --------------------------------------------------------------------------------------- */

/* "QEMU PCIe Host bridge" of Red Hat's vendor id: guests know it, and no driver wants anything of it. */
static const struct pci_ids bridge_ids = {.vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000};
static const struct pci_function_ops bridge_ops = {.name = "pci_host"}; /* no BARs, no capabilities */

static int check(const struct pci_host_config *config, struct err *err)
{
	uint64_t base = config->window_base, size_bytes = config->window_size_bytes;

	if (base == 0 || base >= GIB(4) || size_bytes > GIB(4) - base)
		return err_set(err, -EINVAL, "PCI: the window %#llx, %#llx bytes, is not between 0 and 4 GiB",
			       (unsigned long long)base, (unsigned long long)size_bytes);
	return 0;
}

struct pci_host *pci_host_new(const struct pci_host_config *config, struct err *err)
{
	if (check(config, err) < 0)
		return NULL;
	struct pci_host *host = calloc(1, sizeof(*host));
	if (!host) {
		err_set(err, -ENOMEM, "PCI host bridge: out of memory");
		return NULL;
	}

	host->config = *config;
	device_init(&host->pio, &pio_ops);
	device_init(&host->ecam, &ecam_ops);
	pthread_mutex_init(&host->intx_mutex, NULL);
	pci_function_init(&host->bridge, &bridge_ops, &bridge_ids);
	pci_host_add(host, &host->bridge, NULL); /* the first, and without BARs: cannot fail */
	return host;
}

/* Functions that are gone may still have their slots here; they are not touched. */
void pci_host_free(struct pci_host *host)
{
	if (!host)
		return;
	pci_function_fini(&host->bridge);
	pthread_mutex_destroy(&host->intx_mutex);
	device_fini(&host->ecam);
	device_fini(&host->pio);
	free(host);
}
