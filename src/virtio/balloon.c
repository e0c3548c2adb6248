/*
 * Which queue is which (5.5.2). The specification gives fixed numbers to all five; Linux (virtio_find_vqs, in every
 * version that knows more than three), QEMU and Firecracker number in order only those whose feature was negotiated. As
 * FREE_PAGE_HINT is never offered, no number means two things, and drivers of both kinds are served:
 *
 *                                      Linux           the specification
 *     inflateq                         0               0
 *     deflateq                         1               1
 *     statsq (STATS_VQ)                2               2
 *     reporting_vq (REPORTING)         3               4
 *      the same without STATS_VQ       2               4
 *
 * PAGE_POISON is not offered, on purpose. A Linux guest that relies on what is in its free pages (init_on_free,
 * page_poison) then switches reporting off by itself (virtballoon_validate); all others do not look. With the feature
 * it would report, and trust that it finds zeroes (or its poison) again; but pages of a mapped kernel or initrd read as
 * the file afterwards.
 *
 * FREE_PAGE_HINT is for migration. MUST_TELL_HOST is not needed: a page that is used again is just there.
 *
 * Time. What a chain asks for is limited, and what is done in a round: see CHAIN_PAGES_MAX and ROUND_WORK.
 */
#include "virtio/balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "util.h"

enum {
	INFLATEQ,
	DEFLATEQ,
	STATSQ_OR_REPORTING,
	REPORTING_LINUX,
	REPORTING_SPECIFIED,
	QUEUES_MAX,
	QUEUE_SIZE = 128, /* Linux reports 32 ranges in a chain, and wants room for them */
	PCI_CLASS_OTHER = 0x00ff00,

	PAGE_BYTES = 1 << VIRTIO_BALLOON_PFN_SHIFT,
	PFN_BYTES = sizeof(uint32_t),
	PIECE_PFNS = 256,       /* of a list, copied at once: all of Linux's */
	CHAIN_PAGES_MAX = 4096, /* Linux and FreeBSD send 256, Windows 1024 */
	ROUND_WORK = 1024,      /* in system calls, more or less: a few milliseconds */
	WORK_BYTES = 256 << 10, /* that take about as long to free as a system call to make */
	CHAIN_STATS_MAX = 64,   /* entries; 10 are known */
	CONFIG_SIZE = offsetof(struct virtio_balloon_config, free_page_hint_cmd_id),
};

struct virtio_balloon {
	struct virtio_device dev;
	struct gmem *gmem;
	struct virtio_balloon_info info; /* but for what the configuration space holds */
	unsigned work_left;              /* in this call of serve */

	struct virtq_chain stats_chain; /* without its spans; the driver's, until we want new numbers */
	bool has_stats_chain;
};

static struct virtio_balloon *to_balloon(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_balloon, dev);
}

static void spend(struct virtio_balloon *balloon, uint64_t work)
{
	balloon->work_left -= (unsigned)min_u64(balloon->work_left, work);
}

/* The host's trouble, not the guest's: it keeps its memory, which costs nobody anything but that. */
static void tell_refusal(struct virtio_balloon *balloon)
{
	struct virtio_device *dev = &balloon->dev;
	(void)log_guest(dev->log, &dev->log_limit, "virtio-balloon: the host did not take memory back");
}

/* --- inflate and deflate (5.5.6) ----------------------------------------------------------------------------- */

/* Pages [first, last]. A driver takes them from its allocator in runs, upwards or downwards. */
struct run {
	uint64_t first, last;
	bool is_empty;
};

static bool extend_run(struct run *run, uint64_t pfn)
{
	if (run->is_empty)
		*run = (struct run){pfn, pfn, false};
	else if (pfn == run->last + 1)
		run->last++;
	else if (pfn + 1 == run->first)
		run->first--;
	else
		return pfn >= run->first && pfn <= run->last;
	return true;
}

static void discard_run(struct virtio_balloon *balloon, struct run *run)
{
	uint64_t size_bytes = (run->last - run->first + 1) * PAGE_BYTES;
	if (run->is_empty)
		return;
	run->is_empty = true;
	if (gmem_discard(balloon->gmem, run->first * PAGE_BYTES, size_bytes) < 0)
		tell_refusal(balloon);
	else
		balloon->info.discarded_bytes += size_bytes;
}

static bool is_ram(const struct gmem *gmem, uint64_t pfn)
{
	struct iovec span;
	return gmem_iov(gmem, pfn * PAGE_BYTES, PAGE_BYTES, &span, 1) == 1;
}

/* One piece of a list. False: the driver broke the rules. */
static bool take_pfns(struct virtio_balloon *balloon, bool inflates, const uint8_t *pfns, size_t count, struct run *run)
{
	for (size_t i = 0; i < count; i++) {
		uint32_t pfn = le32_load(pfns + i * PFN_BYTES);
		if (!is_ram(balloon->gmem, pfn)) {
			virtio_break(&balloon->dev, "page %#x is not RAM", pfn);
			return false;
		}
		if (!inflates || extend_run(run, pfn))
			continue;
		discard_run(balloon, run);
		(void)extend_run(run, pfn);
	}
	return true;
}

static void take_list(struct virtio_balloon *balloon, bool inflates, const struct virtq_chain *chain)
{
	if (chain->out_bytes % PFN_BYTES || chain->out_bytes == 0 || chain->out_bytes > CHAIN_PAGES_MAX * PFN_BYTES) {
		virtio_break(&balloon->dev, "a list of pages of %u bytes", chain->out_bytes);
		return;
	}
	spend(balloon, chain->out_bytes / PFN_BYTES);
	struct run run = {.is_empty = true};
	uint8_t pfns[PIECE_PFNS * PFN_BYTES];
	for (size_t done = 0, size; done < chain->out_bytes; done += size) {
		size = iov_read(chain->iov, chain->out_count, done, pfns, sizeof(pfns));
		if (!take_pfns(balloon, inflates, pfns, size / PFN_BYTES, &run))
			break;
	}
	discard_run(balloon, &run);
}

/* --- free page reporting (5.5.6.7) ------------------------------------------------------------------------------
 */

static void take_report(struct virtio_balloon *balloon, const struct virtq_chain *chain)
{
	spend(balloon, chain->in_count + chain->in_bytes / WORK_BYTES);
	int r = gmem_discard_iov(balloon->gmem, chain->iov + chain->out_count, chain->in_count);
	if (r == -EIO)
		tell_refusal(balloon);
	else if (r < 0)
		virtio_break(&balloon->dev, "a report of free memory that is not whole pages");
	else
		balloon->info.reported_bytes += chain->in_bytes;
}

/* --- statistics (5.5.6.3) ------------------------------------------------------------------------------------------
 */

static void forget_stats(struct virtio_balloon_stats *stats)
{
	memset(stats, 0xff, sizeof(*stats)); /* UINT64_MAX each */
	stats->updated_ns = 0;
}

/* NULL: a number that we do not know (5.5.6.4: ignored). */
static uint64_t *find_stat(struct virtio_balloon_stats *stats, uint16_t tag)
{
	switch (tag) {
	case VIRTIO_BALLOON_S_SWAP_IN:
		return &stats->swap_in;
	case VIRTIO_BALLOON_S_SWAP_OUT:
		return &stats->swap_out;
	case VIRTIO_BALLOON_S_MAJFLT:
		return &stats->major_faults;
	case VIRTIO_BALLOON_S_MINFLT:
		return &stats->minor_faults;
	case VIRTIO_BALLOON_S_MEMFREE:
		return &stats->free_bytes;
	case VIRTIO_BALLOON_S_MEMTOT:
		return &stats->total_bytes;
	case VIRTIO_BALLOON_S_AVAIL:
		return &stats->available_bytes;
	case VIRTIO_BALLOON_S_CACHES:
		return &stats->disk_cache_bytes;
	case VIRTIO_BALLOON_S_HTLB_PGALLOC:
		return &stats->hugetlb_allocations;
	case VIRTIO_BALLOON_S_HTLB_PGFAIL:
		return &stats->hugetlb_failures;
	default:
		return NULL;
	}
}

static void read_stats(struct virtio_balloon *balloon, const struct virtq_chain *chain)
{
	struct virtio_balloon_stats *stats = &balloon->info.stats;
	uint8_t entries[CHAIN_STATS_MAX * sizeof(struct virtio_balloon_stat)];
	size_t size = iov_read(chain->iov, chain->out_count, 0, entries, sizeof(entries));
	forget_stats(stats);
	for (size_t at = 0; size - at >= sizeof(struct virtio_balloon_stat); at += sizeof(struct virtio_balloon_stat)) {
		uint64_t *stat = find_stat(stats, le16_load(entries + at));
		if (stat)
			*stat = le64_load(entries + at + offsetof(struct virtio_balloon_stat, val));
	}
	stats->updated_ns = loop_now_ns();
}

static void return_stats_chain(struct virtio_balloon *balloon)
{
	if (!balloon->has_stats_chain)
		return;
	balloon->has_stats_chain = false;
	virtio_push(&balloon->dev, STATSQ_OR_REPORTING, &balloon->stats_chain, 0);
}

/* The driver has one buffer only. One that sends more gets the older ones back, and interrupts for them: its affair. */
static void take_stats(struct virtio_balloon *balloon, const struct virtq_chain *chain)
{
	read_stats(balloon, chain);
	spend(balloon, 1);
	return_stats_chain(balloon);
	balloon->stats_chain = *chain;
	balloon->stats_chain.iov = NULL; /* valid until the next pop only */
	balloon->has_stats_chain = true;
}

void virtio_balloon_request_stats(struct virtio_device *dev)
{
	virtio_lock(dev);
	return_stats_chain(to_balloon(dev));
	virtio_unlock(dev);
}

/* --- serving -------------------------------------------------------------------------------------------------------
 */

enum role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORTING, ROLE_NONE };

static enum role role_of(const struct virtio_device *dev, unsigned queue)
{
	bool has_stats = virtio_has_feature(dev, VIRTIO_BALLOON_F_STATS_VQ);
	if (queue == INFLATEQ)
		return ROLE_INFLATE;
	if (queue == DEFLATEQ)
		return ROLE_DEFLATE;
	if (queue == STATSQ_OR_REPORTING && has_stats)
		return ROLE_STATS;
	if (queue == REPORTING_LINUX && !has_stats)
		return ROLE_NONE;
	return virtio_has_feature(dev, VIRTIO_BALLOON_F_REPORTING) ? ROLE_REPORTING : ROLE_NONE;
}

static void take_chain(struct virtio_balloon *balloon, unsigned queue, const struct virtq_chain *chain)
{
	enum role role = role_of(&balloon->dev, queue);
	switch (role) {
	case ROLE_INFLATE:
	case ROLE_DEFLATE:
		take_list(balloon, role == ROLE_INFLATE, chain);
		break;
	case ROLE_STATS:
		take_stats(balloon, chain);
		return; /* it is kept */
	case ROLE_REPORTING:
		take_report(balloon, chain);
		break;
	case ROLE_NONE:
		virtio_break(&balloon->dev, "queue %u is of no feature that was negotiated", queue);
	}
	virtio_push(&balloon->dev, queue, chain, 0);
}

static void balloon_serve(struct virtio_device *dev, unsigned queue)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	struct virtq_chain chain;
	balloon->work_left = ROUND_WORK;
	while (balloon->work_left && virtio_pop(dev, queue, &chain) == 1)
		take_chain(balloon, queue, &chain);
	if (!balloon->work_left)
		virtio_kick(dev, queue);
}

static void balloon_cancel(struct virtio_device *dev, unsigned queue)
{
	if (queue == STATSQ_OR_REPORTING)
		return_stats_chain(to_balloon(dev));
}

/* --- configuration (5.5.4) ------------------------------------------------------------------------------------------
 */

static void store_pages(struct virtio_balloon *balloon, size_t offset, uint64_t pages)
{
	le32_store(balloon->dev.config + offset, (uint32_t)min_u64(pages, UINT32_MAX));
}

static uint64_t load_bytes(const struct virtio_balloon *balloon, size_t offset)
{
	return (uint64_t)le32_load(balloon->dev.config + offset) * PAGE_BYTES;
}

static void store_target(struct virtio_balloon *balloon, uint64_t bytes)
{
	bytes = min_u64(bytes, gmem_size_bytes(balloon->gmem));
	store_pages(balloon, offsetof(struct virtio_balloon_config, num_pages), bytes / PAGE_BYTES);
}

/* Only `actual` is the driver's; in whatever pieces it writes it. */
static void balloon_write_config(struct virtio_device *dev, unsigned offset, const uint8_t *data, unsigned size_bytes)
{
	const unsigned start = offsetof(struct virtio_balloon_config, actual), end = start + sizeof(uint32_t);
	for (unsigned i = 0; i < size_bytes; i++) {
		if (offset + i >= start && offset + i < end)
			dev->config[offset + i] = data[i];
	}
}

void virtio_balloon_set_target(struct virtio_device *dev, uint64_t target_bytes)
{
	virtio_lock(dev);
	store_target(to_balloon(dev), target_bytes);
	virtio_config_changed(dev);
	virtio_unlock(dev);
}

void virtio_balloon_get_info(struct virtio_device *dev, struct virtio_balloon_info *ret_info)
{
	const struct virtio_balloon *balloon = to_balloon(dev);
	virtio_lock(dev);
	*ret_info = balloon->info;
	ret_info->target_bytes = load_bytes(balloon, offsetof(struct virtio_balloon_config, num_pages));
	uint64_t actual_bytes = load_bytes(balloon, offsetof(struct virtio_balloon_config, actual));
	ret_info->actual_bytes = min_u64(actual_bytes, gmem_size_bytes(balloon->gmem));
	virtio_unlock(dev);
}

/* --- life -----------------------------------------------------------------------------------------------------------
 */

/* The driver is gone, and with it its balloon and what it knew; what is asked for stays. */
static void balloon_reset(struct virtio_device *dev)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	store_pages(balloon, offsetof(struct virtio_balloon_config, actual), 0);
	forget_stats(&balloon->info.stats);
}

static void balloon_destroy(struct virtio_device *dev)
{
	free(to_balloon(dev));
}

static const struct virtio_model balloon_model = {
	.id = VIRTIO_ID_BALLOON,
	.name = "virtio-balloon",
	.pci_class = PCI_CLASS_OTHER,
	.serve = balloon_serve,
	.cancel = balloon_cancel,
	.reset = balloon_reset,
	.write_config = balloon_write_config,
	.destroy = balloon_destroy,
};

static uint64_t features_of(const struct virtio_balloon_init *init)
{
	uint64_t features = 1ULL << VIRTIO_BALLOON_F_STATS_VQ;
	if (init->deflate_on_oom)
		features |= 1ULL << VIRTIO_BALLOON_F_DEFLATE_ON_OOM;
	if (init->reporting)
		features |= 1ULL << VIRTIO_BALLOON_F_REPORTING;
	return features;
}

struct virtio_device *virtio_balloon_new(struct loop *loop, struct gmem *gmem, const struct log *log,
					 const struct virtio_balloon_init *init, struct err *err)
{
	struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
	if (!balloon) {
		err_set(err, -ENOMEM, "virtio-balloon: %s", err_name(ENOMEM));
		return NULL;
	}
	struct virtio_init virtio = {
		.model = &balloon_model,
		.loop = loop,
		.gmem = gmem,
		.log = log,
		.features = features_of(init),
		.packed = init->packed,
		.queue_count = init->reporting ? QUEUES_MAX : REPORTING_LINUX,
		.queue_size_max = QUEUE_SIZE,
		.config_size_bytes = CONFIG_SIZE,
	};
	if (virtio_init(&balloon->dev, &virtio, err) < 0) {
		free(balloon);
		return NULL;
	}
	balloon->gmem = gmem;
	forget_stats(&balloon->info.stats);
	store_target(balloon, init->target_bytes);
	return &balloon->dev;
}
