/*
 * A disk at full speed: requests of one kind, `depth` of them under way at any time, for some seconds. It runs in ring
 * 3 and polls the used ring with interrupts off (irq: takes them as well), so that what is measured is the way from the
 * doorbell to the used ring, and not this guest. Prints one line of JSON.
 *
 *   op=randread|randwrite|read|write  bs=BYTES  depth=N  seconds=N or count=N (requests)  span-mib=N  seed=N
 *   transport=pci|mmio  mmio=...  pci=...  disk=N  queue=N  event-idx=0  indirect=0  irq  tsc-khz=N
 *   hold: prints `ready` and waits for a byte on the serial port before it begins; waits for another at the end
 */
#include "blk.h"
#include "latency.h"

enum { IRQ_VECTOR = 0x70, DEPTH_MAX = 512, FIRST_BUFFER = 0x2000000 };
enum { EXIT_NO_DISK = 1, EXIT_ARGUMENTS, EXIT_REFUSED, EXIT_IO, EXIT_STALLED };

static struct latency latency;
static uint64_t begun[DEPTH_MAX]; /* by tag */

static struct {
	uint32_t type, bytes;
	unsigned depth;
	bool random;
	uint64_t seconds, count; /* count 0: by time */
	uint64_t places, next, random_state;
	uint64_t kick_ticks;
	bool irq;
} job;

static struct blk blk;
static struct pci_msix msix;
static volatile uint32_t interrupts;

static void on_interrupt(struct trap_frame *f)
{
	(void)f;
	interrupts++;
	lapic_eoi();
}

/* --- the job --- */

static uint64_t place(void)
{
	if (!job.random) {
		job.next = job.next + 1 < job.places ? job.next + 1 : 0;
		return job.next;
	}
	job.random_state ^= job.random_state << 13; /* xorshift64 */
	job.random_state ^= job.random_state >> 7;
	job.random_state ^= job.random_state << 17;
	return (uint64_t)(((unsigned __int128)job.random_state * job.places) >> 64);
}

static void *buffer(unsigned tag)
{
	return (void *)(FIRST_BUFFER + (uint64_t)tag * job.bytes);
}

static void begin(unsigned tag, uint64_t now)
{
	begun[tag] = now;
	if (!blk_push(&blk, tag, job.type, place() * (job.bytes / BLK_SECTOR), buffer(tag), job.bytes))
		check(false, EXIT_STALLED, "the ring is full");
}

static void account(unsigned tag, uint64_t now)
{
	uint64_t took = now - begun[tag];

	if (blk_status(tag) != VIRTIO_BLK_S_OK)
		check(false, EXIT_IO, "status %u", blk_status(tag));
	latency_add(&latency, took);
}

/* How long a doorbell keeps us is a figure of its own: it is the exit, and on the vCPU's time. */
static void kick(void)
{
	uint64_t start = rdtsc();

	if (blk_kick(&blk))
		job.kick_ticks += rdtsc() - start;
}

/* Takes all that has ended; begins as many anew while there is more to do. Returns how many are under way less. */
static unsigned turn(uint64_t end)
{
	unsigned ended = 0, tag;
	uint32_t len;

	while (blk_take(&blk, &tag, &len)) {
		uint64_t now = rdtsc();

		account(tag, now);
		if (job.count ? latency.count + job.depth <= job.count : now < end)
			begin(tag, now);
		else
			ended++;
	}
	kick();
	return ended;
}

static uint64_t run(void)
{
	uint64_t start = rdtsc(), end = start + job.seconds * tsc_khz() * 1000, last = start;

	for (unsigned tag = 0; tag < job.depth; tag++)
		begin(tag, start);
	kick();
	for (unsigned under_way = job.depth; under_way;) {
		uint64_t before = latency.count;

		under_way -= turn(end);
		if (latency.count != before)
			last = rdtsc();
		else if (rdtsc() - last > 10 * tsc_khz() * 1000)
			check(false, EXIT_STALLED, "no answer for 10 s, %u under way", under_way);
	}
	return last - start;
}

/* --- set-up and report --- */

static void read_arguments(void)
{
	bool reads = !arg_is("op", "write") && !arg_is("op", "randwrite");
	uint64_t span = arg_u64("span-mib", 0) << 20, size = blk.sectors * BLK_SECTOR;

	job.type = reads ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
	job.random = !arg_is("op", "read") && !arg_is("op", "write");
	job.bytes = (uint32_t)arg_u64("bs", 4096);
	job.depth = (unsigned)arg_u64("depth", 1);
	job.seconds = arg_u64("seconds", 2);
	job.count = arg_u64("count", 0);
	job.random_state = arg_u64("seed", 1) * 0x9e3779b97f4a7c15;
	if (job.bytes)
		job.places = (span && span < size ? span : size) / job.bytes;
	check(job.bytes && job.bytes % BLK_SECTOR == 0 && job.depth && job.depth <= DEPTH_MAX && job.places &&
		      (!job.count || job.count >= job.depth),
	      EXIT_ARGUMENTS, "%s of %u bytes, depth %u, %lu places, TSC %lu kHz", reads ? "reads" : "writes",
	      job.bytes, job.depth, job.places, tsc_khz());
}

static void report(uint64_t ticks)
{
	uint64_t us = tsc_to_ns(ticks) / 1000;

	print("{\"requests\": %lu, \"us\": %lu, \"iops\": %lu, \"bytes_per_request\": %u, \"depth\": %u, ",
	      latency.count, us, latency.count * 1000000 / us, job.bytes, job.depth);
	print("\"mean_ns\": %lu, \"median_ns\": %lu, \"p99_ns\": %lu, ", tsc_to_ns(latency.sum / latency.count),
	      tsc_to_ns(latency_percentile(&latency, 500)), tsc_to_ns(latency_percentile(&latency, 990)));
	print("\"kick_ns\": %lu, ", tsc_to_ns(job.kick_ticks / blk.q.kicks));
	print("\"kicks\": %u, \"interrupts\": %u, \"event_idx\": %u, \"indirect\": %u, \"queue\": %u, \"tsc_khz\": "
	      "%lu}\n",
	      blk.q.kicks, interrupts, blk.q.event_idx, blk.q.indirect != NULL, blk.q.size, tsc_khz());
}

/* Every buffer present and different, so that nothing is measured but I/O. */
static void fill_buffers(void)
{
	for (unsigned tag = 0; tag < job.depth; tag++)
		memset(buffer(tag), (int)(tag + 1), job.bytes);
}

static void in_ring3(void)
{
	bool ok = blk_open(&blk);
	uint64_t ticks;

	check(ok, EXIT_NO_DISK, "a virtio-blk disk");
	if (job.irq && blk.dev.is_pci && pci_msix_init(&msix, blk.dev.devfn)) {
		pci_msix_enable(&msix, true, false);
		pci_msix_route(&msix, 0, lapic_id(), IRQ_VECTOR);
		pci_msix_mask(&msix, 0, false);
	}
	ok = blk_start(&blk, blk_features(), (unsigned)arg_u64("queue", 0), msix.vectors ? 0 : VIRTIO_NO_VECTOR);
	check(ok, EXIT_REFUSED, "%lu sectors, queue of %u", blk.sectors, blk.q.size);
	read_arguments();
	fill_buffers();
	virtq_interrupts(&blk.q, msix.vectors != 0);
	hold("ready");
	ticks = run();
	report(ticks);
	hold("done");
	guest_exit(0);
}

int guest_main(void)
{
	job.irq = arg_has("irq");
	if (job.irq) {
		lapic_enable(false);
		trap_set(IRQ_VECTOR, on_interrupt);
		irq_quiet();
	}
	user_start(in_ring3, job.irq);
}
