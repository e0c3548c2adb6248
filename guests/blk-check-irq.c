/* blk-check: interrupts by MSI-X and by the interrupt line, and a BAR that moves. */
#include "blk-check.h"

enum { VECTOR_MSIX = 0x70, VECTOR_LINE = 0x72, CONFIG_ENTRY = 0, QUEUE_ENTRY = 1, MANY = 50 };

static struct pci_msix msix;
static volatile uint32_t taken[2];        /* by MSI-X entry */
static volatile uint32_t lines, spurious; /* spurious: the device knows nothing of it */

static void on_msix(struct trap_frame *f)
{
	taken[f->vector - VECTOR_MSIX]++;
	lapic_eoi();
}

static void on_line(struct trap_frame *f)
{
	(void)f;
	if (virtio_isr(&blk.dev) & 1) /* which takes the level away */
		lines++;
	else
		spurious++;
	lapic_eoi();
}

void irq_prepare(void)
{
	irq_quiet();
	lapic_enable(false);
	trap_set(VECTOR_MSIX, on_msix);
	trap_set(VECTOR_MSIX + 1, on_msix);
	trap_set(VECTOR_LINE, on_line);
}

static void begin_read(void)
{
	blk_push(&blk, 0, VIRTIO_BLK_T_IN, area_first, chunk, BLK_SECTOR);
	blk_kick(&blk);
}

/* A read of which the interrupt comes first, and then the answer; `counter` must go from `from` to `from` + 1. */
static bool interrupted_read(const volatile uint32_t *counter, uint32_t from)
{
	begin_read();
	return clock_wait(counter, from + 1, IRQ_MS) && blk_drain(&blk, 1) && *counter == from + 1;
}

/*
 * A read that ends without an interrupt. Its entry is taken at the end only: taking it moves the used event, which
 * the device may not have looked at yet.
 */
static bool silent_read(const volatile uint32_t *counter, uint32_t from)
{
	uint16_t before = blk.q.next_used;

	begin_read();
	for (unsigned ms = 0; ms < IRQ_MS && *(volatile uint16_t *)&blk.q.used->idx == before; ms++)
		clock_delay_us(1000);
	clock_delay_us(QUIET_US);
	return *counter == from && blk_drain(&blk, 1);
}

static void check_msix_vectors(void)
{
	uint16_t v = virtio_config_vector(&blk.dev, (uint16_t)msix.vectors);

	check(v == VIRTIO_NO_VECTOR, STATUS_MSIX + 1, "vector %u of %u is refused: 0x%x", msix.vectors, msix.vectors,
	      v);
	v = virtio_config_vector(&blk.dev, CONFIG_ENTRY);
	check(v == CONFIG_ENTRY, STATUS_MSIX + 1, "vector 0 is not: 0x%x", v);
}

/* Masked by either of the two masks, an interrupt is pending until the mask goes away. */
static void check_msix_mask(bool whole)
{
	const char *name = whole ? "the function" : "the vector";
	uint8_t status = whole ? STATUS_MSIX + 6 : STATUS_MSIX + 4;
	uint32_t from = taken[1];

	if (whole)
		pci_msix_enable(&msix, true, true);
	else
		pci_msix_mask(&msix, QUEUE_ENTRY, true);
	check(!pci_msix_is_pending(&msix, QUEUE_ENTRY), status, "%s is masked: nothing is pending", name);
	check(silent_read(&taken[1], from), status, "no interrupt comes: %u", taken[1] - from);
	check(pci_msix_is_pending(&msix, QUEUE_ENTRY), status, "it is pending");
	if (whole)
		pci_msix_enable(&msix, true, false);
	else
		pci_msix_mask(&msix, QUEUE_ENTRY, false);
	check(clock_wait(&taken[1], from + 1, IRQ_MS), status + 1, "it comes when the mask goes");
	check(!pci_msix_is_pending(&msix, QUEUE_ENTRY), status + 1, "and is pending no more");
}

static void msix_start(void)
{
	bool found = pci_msix_init(&msix, blk.dev.devfn);

	check(found && msix.vectors >= 2, STATUS_MSIX, "MSI-X with %u vectors", msix.vectors);
	pci_msix_enable(&msix, true, false);
	for (unsigned i = 0; i < 2; i++) {
		pci_msix_route(&msix, i, lapic_id(), (uint8_t)(VECTOR_MSIX + i));
		pci_msix_mask(&msix, i, false);
	}
	restart(0, QUEUE_ENTRY);
}

void check_msix(void)
{
	uint32_t i;

	msix_start();
	check_msix_vectors();
	virtq_interrupts(&blk.q, true);
	for (i = 0; i < MANY && interrupted_read(&taken[1], i); i++)
		;
	check(i == MANY && taken[0] == 0, STATUS_MSIX + 2, "%u reads, %u interrupts, %u for the configuration", i,
	      taken[1], taken[0]);
	virtq_interrupts(&blk.q, false);
	check(silent_read(&taken[1], MANY), STATUS_MSIX + 3, "none where none is wanted");
	virtq_interrupts(&blk.q, true);
	check_msix_mask(false);
	check_msix_mask(true);
	pci_msix_mask(&msix, QUEUE_ENTRY, true); /* an entry may change only while it is masked (PCI 3.0, 6.8.2.9) */
	pci_msix_route(&msix, QUEUE_ENTRY, lapic_id(), VECTOR_MSIX);
	pci_msix_mask(&msix, QUEUE_ENTRY, false);
	i = taken[0];
	check(interrupted_read(&taken[0], i), STATUS_MSIX + 8, "it goes where the table says");
	pci_msix_enable(&msix, false, false);
	restart(0, VIRTIO_NO_VECTOR);
}

/* --- the interrupt line --- */

/* `line-gsi=N`; else what firmware or the monitor has written into the Interrupt Line register. */
static unsigned line_gsi(void)
{
	unsigned gsi = (unsigned)arg_u64("line-gsi", 0);

	return gsi || !blk.dev.is_pci ? gsi : pci_read8(blk.dev.devfn, PCI_INTERRUPT_LINE);
}

static void check_intx_disable(void)
{
	uint32_t from = lines;

	pci_command(blk.dev.devfn, PCI_COMMAND_INTX_DISABLE, 0);
	check(silent_read(&lines, from), STATUS_INTX + 3, "none while it is disabled");
	check(pci_read16(blk.dev.devfn, PCI_STATUS) & PCI_STATUS_INTERRUPT, STATUS_INTX + 4,
	      "the status register tells");
	pci_command(blk.dev.devfn, 0, PCI_COMMAND_INTX_DISABLE);
	check(clock_wait(&lines, from + 1, IRQ_MS), STATUS_INTX + 5, "it comes when that ends");
	check(!(pci_read16(blk.dev.devfn, PCI_STATUS) & PCI_STATUS_INTERRUPT), STATUS_INTX + 4,
	      "and the status is clear");
}

void check_intx(void)
{
	unsigned gsi = line_gsi();
	uint32_t i;

	restart(0, VIRTIO_NO_VECTOR);
	irq_attach_level(gsi, VECTOR_LINE);
	virtq_interrupts(&blk.q, true);
	for (i = 0; i < MANY && interrupted_read(&lines, i); i++)
		;
	check(i == MANY, STATUS_INTX, "%u reads, %u interrupts through GSI %u", i, lines, gsi);
	clock_delay_us(QUIET_US);
	/* kvm-pvm delivers one twice where the handler leaves to user space. More would be a line that stays up. */
	check(lines == MANY && spurious <= MANY && virtio_isr(&blk.dev) == 0, STATUS_INTX + 1,
	      "and no more: %u spurious", spurious);
	virtq_interrupts(&blk.q, false);
	check(silent_read(&lines, MANY), STATUS_INTX + 2, "none where none is wanted");
	virtq_interrupts(&blk.q, true);
	if (blk.dev.is_pci)
		check_intx_disable();
	irq_detach_level(gsi);
	restart(0, VIRTIO_NO_VECTOR);
}

/* --- a BAR that moves --- */

static unsigned common_bar(void)
{
	struct pci_bar bar;

	for (unsigned i = 0; i < 6; i += bar.is_64 ? 2 : 1) {
		pci_bar_read(blk.dev.devfn, i, &bar);
		if (!bar.is_io && bar.size && blk.dev.common - bar.addr < bar.size)
			return i;
	}
	check(false, STATUS_BAR, "a BAR with the common configuration");
	return 0;
}

/* Moves it without a reset: the queue goes on at the new address, and the old one is nobody's. */
static void move(unsigned index, uint64_t to)
{
	struct pci_bar bar;
	uint64_t common = blk.dev.common, doorbell = blk.q.doorbell;
	uint8_t status = virtio_status(&blk.dev), old;

	pci_bar_read(blk.dev.devfn, index, &bar);
	map_phys(to);
	pci_bar_move(blk.dev.devfn, index, to);
	virtio_pci_locate(&blk.dev);
	check(blk.dev.common == common - bar.addr + to, STATUS_BAR, "BAR %u moved from 0x%lx to 0x%lx", index, bar.addr,
	      to);
	blk.q.doorbell = doorbell - bar.addr + to;
	check(virtio_status(&blk.dev) == status, STATUS_BAR + 1, "its status there is 0x%x", virtio_status(&blk.dev));
	old = mmio_read8(common + 20);
	check(old != status, STATUS_BAR + 2, "and not at the old address: 0x%x", old);
	mmio_write16(doorbell, 0);
	check_alive(STATUS_BAR + 3, "through the doorbell there");
}

void check_bar(void)
{
	uint64_t to = arg_u64("bar-to", 0xc1000000), high = arg_u64("bar-high", 0);
	unsigned index = common_bar();
	struct pci_bar bar;
	uint8_t off;

	restart(0, VIRTIO_NO_VECTOR);
	pci_bar_read(blk.dev.devfn, index, &bar);
	move(index, to);
	move(index, to + bar.size);
	if (high)
		move(index, high);
	move(index, bar.addr);
	pci_command(blk.dev.devfn, 0, PCI_COMMAND_MEMORY);
	off = virtio_status(&blk.dev);
	pci_command(blk.dev.devfn, PCI_COMMAND_MEMORY, 0);
	check(off != virtio_status(&blk.dev), STATUS_BAR + 4, "with decoding off it reads 0x%x", off);
	check_alive(STATUS_BAR + 3, "with decoding on again");
}
