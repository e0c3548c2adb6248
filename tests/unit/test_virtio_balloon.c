/* virtio-balloon: pages that come and go, reports of free ones, statistics, queue numbers, drivers that break the
 * rules. */
#include "small_rig.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <sys/mman.h>

#include "virtio/balloon.h"

enum {
	PAGE = 4096,
	INFLATEQ = 0,
	DEFLATEQ = 1,
	STATSQ = 2,
	REPORTING_LINUX = 3,
	REPORTING_SPECIFIED = 4,
	REPORTING_LINUX_NO_STATS = 2,
	LIST_MAX = 4096, /* pages in a chain */
	FILL = 0x5a,
	PAGES = 0x200000, /* for the balloon: from here to SR_HOLE */
};
static const uint64_t RAM_BYTES = SR_HOLE + SR_HIGH_END - SR_HIGH;

/* --- a host that counts, and refuses when it is told to --------------------------------------------------------- */

static unsigned given_back; /* calls */
static bool host_refuses;

int __real_madvise(void *addr, size_t size, int advice);
int __wrap_madvise(void *addr, size_t size, int advice);

int __wrap_madvise(void *addr, size_t size, int advice)
{
	given_back++;
	errno = EPERM;
	return host_refuses ? -1 : __real_madvise(addr, size, advice);
}

static void new_device(struct sr *s, const struct virtio_balloon_init *init)
{
	struct err err = {0};
	sr_attach(s, virtio_balloon_new(s->loop, s->gmem, &s->log, init, &err), &err);
}

static int setup(void **state)
{
	struct sr *s = sr_new();
	const struct virtio_balloon_init init = {.deflate_on_oom = true, .reporting = true, .packed = true};
	new_device(s, &init);
	assert_int_equal(gmem_fill(s->gmem, PAGES, FILL, SR_HOLE - PAGES), 0);
	assert_int_equal(gmem_fill(s->gmem, SR_HIGH, FILL, SR_HIGH_END - SR_HIGH), 0);
	given_back = 0;
	host_refuses = false;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	sr_free(*state);
	return 0;
}

/* Is the page in the host's memory? One that was given back reads as zeroes (and is back then). */
static bool is_resident(struct sr *s, gpa_t gpa)
{
	unsigned char here;
	assert_int_equal(mincore(gmem_view(s->gmem, gpa, PAGE, PAGE), PAGE, &here), 0);
	return here & 1;
}

static void check_pages(struct sr *s, gpa_t gpa, unsigned count, bool resident)
{
	for (unsigned i = 0; i < count; i++) {
		if (is_resident(s, gpa + i * PAGE) != resident)
			fail_msg("page %#llx", (unsigned long long)(gpa + i * PAGE));
	}
}

static struct virtio_balloon_info info(struct sr *s)
{
	struct virtio_balloon_info result;
	virtio_balloon_get_info(s->dev, &result);
	return result;
}

static const uint32_t NO_PFN = UINT32_MAX;

/* A list in guest memory, as one buffer. */
static void send_pfns(struct sr *s, unsigned queue, const uint32_t *pfns, unsigned count)
{
	const struct virtq_buffer buffer = {SR_DATA, (uint32_t)(count * sizeof(*pfns)), false};
	assert_int_equal(gmem_write(s->gmem, SR_DATA, pfns, count * sizeof(*pfns)), 0);
	sr_send(s, queue, &buffer, 1);
}

static void do_pfns(struct sr *s, unsigned queue, const uint32_t *pfns, unsigned count)
{
	send_pfns(s, queue, pfns, count);
	assert_int_equal(sr_wait(s, queue), 0);
	assert_false(sr_is_broken(s));
}

/* `count` pages from `gpa` on, every `step`th (-1: downwards). */
static void make_pfns(uint32_t *pfns, gpa_t gpa, unsigned count, int step)
{
	for (unsigned i = 0; i < count; i++)
		pfns[i] = (uint32_t)((int)(gpa / PAGE) + step * (int)i);
}

/* --- inflate and deflate ------------------------------------------------------------------------------------------ */

static void inflated_pages_go_back_to_the_host(void **state)
{
	struct sr *s = *state;
	uint32_t pfns[256];
	for (unsigned kind = 0; kind < 4; kind++) {
		s->packed = kind & 1;
		s->event_idx = kind & 2;
		gpa_t gpa = PAGES + kind * MIB(1);
		uint64_t before = info(s).discarded_bytes;
		sr_start(s);
		make_pfns(pfns, gpa + 10 * PAGE, 236, kind & 1 ? 1 : -1);
		if (!(kind & 1))
			make_pfns(pfns, gpa + 245 * PAGE, 236, -1);
		do_pfns(s, INFLATEQ, pfns, 236);
		check_pages(s, gpa, 10, true);
		check_pages(s, gpa + 10 * PAGE, 236, false);
		check_pages(s, gpa + 246 * PAGE, 10, true);
		assert_int_equal(info(s).discarded_bytes - before, 236 * PAGE);
		assert_true(s->interrupts[INFLATEQ] >= 1);

		/* And can be used again, told or not. */
		uint64_t word = 1;
		assert_int_equal(gmem_read(s->gmem, gpa + 10 * PAGE, &word, 8), 0);
		assert_int_equal(word, 0);
		do_pfns(s, DEFLATEQ, pfns, 236);
		check_pages(s, gpa + 10 * PAGE, 1, true);
		check_pages(s, gpa + 11 * PAGE, 235, false);
		assert_int_equal(info(s).discarded_bytes - before, 236 * PAGE);
	}
}

/* Any order, with gaps, twice the same, across touching regions: what is listed goes, and nothing else. */
static void lists_of_every_kind(void **state)
{
	struct sr *s = *state;
	const uint32_t at = PAGES / PAGE, seam = SR_SEAM / PAGE, high = SR_HIGH / PAGE, end = SR_HIGH_END / PAGE;
	const uint32_t lists[][8] = {
		{at, NO_PFN},
		{at + 2, at + 1, at, at + 3, at + 5, NO_PFN},
		{at, at, at + 1, at, at + 9, at + 9, NO_PFN},
		{at + 7, at + 5, at + 3, at + 1, NO_PFN},
		{seam - 2, seam - 1, seam, seam + 1, NO_PFN},
		{seam + 1, seam, seam - 1, NO_PFN},
		{end - 1, high, seam, at, high + 1, NO_PFN},
		{end - 1, end - 2, high + 1, high, NO_PFN},
	};
	sr_start(s);
	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++) {
		assert_int_equal(gmem_fill(s->gmem, PAGES, FILL, SR_HOLE - PAGES), 0);
		assert_int_equal(gmem_fill(s->gmem, SR_HIGH, FILL, SR_HIGH_END - SR_HIGH), 0);
		unsigned count = 0;
		while (lists[i][count] != NO_PFN)
			count++;
		do_pfns(s, INFLATEQ, lists[i], count);
		for (uint32_t pfn = at; pfn < end; pfn++) {
			bool listed = false;
			for (unsigned n = 0; n < count; n++)
				listed |= lists[i][n] == pfn;
			if (pfn < SR_HOLE / PAGE || pfn >= high)
				check_pages(s, (gpa_t)pfn * PAGE, 1, !listed);
		}
	}
}

/* Neighbours go together, whichever way the driver counts; also where a list is cut for copying. */
static void runs_go_in_one_piece(void **state)
{
	struct sr *s = *state;
	const struct {
		gpa_t gpa;
		unsigned count;
		int step;
		unsigned calls;
	} lists[] = {
		{PAGES, 1, 1, 1},
		{PAGES, 256, 1, 1},
		{PAGES + 255 * PAGE, 256, -1, 1},
		{PAGES, 500, 1, 1},
		{PAGES + 499 * PAGE, 500, -1, 1},
		{PAGES, 100, 0, 1}, /* the same */
		{PAGES, 100, 2, 100},
		{SR_SEAM - 10 * PAGE, 20, 1, 2}, /* two regions */
	};
	sr_start(s);
	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++) {
		uint32_t pfns[500];
		make_pfns(pfns, lists[i].gpa, lists[i].count, lists[i].step);
		given_back = 0;
		do_pfns(s, INFLATEQ, pfns, lists[i].count);
		assert_int_equal(given_back, lists[i].calls);
		do_pfns(s, DEFLATEQ, pfns, lists[i].count);
		assert_int_equal(given_back, lists[i].calls);
	}
}

/* Its affair: the guest is not to blame, and is answered. */
static void a_host_that_refuses(void **state)
{
	struct sr *s = *state;
	const uint32_t pfn = PAGES / PAGE;
	const struct virtq_buffer page = {PAGES + PAGE, PAGE, true};
	sr_start(s);
	host_refuses = true;
	do_pfns(s, INFLATEQ, &pfn, 1);
	assert_non_null(strstr(s->log_text, "virtio-balloon: the host did not take memory back"));
	sr_send(s, REPORTING_LINUX, &page, 1);
	assert_int_equal(sr_wait(s, REPORTING_LINUX), 0);
	assert_false(sr_is_broken(s));
	assert_int_equal(given_back, 2);
	assert_int_equal(info(s).discarded_bytes + info(s).reported_bytes, 0);
	for (unsigned i = 0; i < 100; i++)
		do_pfns(s, INFLATEQ, &pfn, 1);
	assert_true(s->log_lines <= 2 * LOG_LIMIT_BURST);
}

/* As long as a chain may be, in parts that cut it at odd places; and then one longer. */
static void the_longest_list(void **state)
{
	struct sr *s = *state;
	static uint32_t pfns[LIST_MAX + 1];
	for (unsigned i = 0; i <= LIST_MAX; i++)
		pfns[i] = (i & 1 ? SR_HIGH : PAGES) / PAGE + i / 2 % 1024;
	assert_int_equal(gmem_write(s->gmem, SR_DATA, pfns, sizeof(pfns)), 0);
	const struct virtq_buffer whole[] = {
		{SR_DATA, 1, false}, {SR_DATA + 1, 1022, false}, {SR_DATA + 1023, LIST_MAX * 4 - 1023, false}};
	sr_start(s);
	sr_send(s, INFLATEQ, whole, ARRAY_SIZE(whole));
	assert_int_equal(sr_wait(s, INFLATEQ), 0);
	assert_false(sr_is_broken(s));
	check_pages(s, PAGES, 1024, false);
	check_pages(s, SR_HIGH, 1024, false);

	const struct virtq_buffer longer[] = {{SR_DATA, LIST_MAX * 4 + 4, false}};
	sr_send(s, INFLATEQ, longer, 1);
	sr_wait_until_broken(s, "virtio-balloon: a list of pages of 16388 bytes");
}

/* More in the ring than is done in one round: all of it is done, and others get their turn in between. */
struct other {
	struct loop_timer timer;
	bool fired;
};

static void other_fired(struct loop_timer *timer)
{
	container_of(timer, struct other, timer)->fired = true;
}

static void full_rings_leave_time_for_others(void **state)
{
	struct sr *s = *state;
	struct other other = {.timer = {.fn = other_fired}};
	static uint32_t pfns[LIST_MAX];
	make_pfns(pfns, PAGES, LIST_MAX / 4, 1);
	for (unsigned i = LIST_MAX / 4; i < LIST_MAX; i++)
		pfns[i] = pfns[i - LIST_MAX / 4];
	sr_start(s);
	for (unsigned i = 0; i < SR_QUEUE_SIZE; i++)
		send_pfns(s, INFLATEQ, pfns, LIST_MAX);
	loop_timer_arm(s->loop, &other.timer, loop_now_ns());
	unsigned done = 0;
	uint32_t written;
	while (!other.fired) {
		assert_int_equal(loop_wait(s->loop, UINT64_MAX), 0);
		done += sr_take(s, INFLATEQ, &written);
	}
	while (sr_take(s, INFLATEQ, &written))
		done++;
	assert_true(done < SR_QUEUE_SIZE);
	for (; done < SR_QUEUE_SIZE; done++)
		assert_int_equal(sr_wait(s, INFLATEQ), 0);
	check_pages(s, PAGES, LIST_MAX / 4, false);
	assert_int_equal(s->dev->queues[INFLATEQ].in_flight, 0);
}

/* --- free page reporting ------------------------------------------------------------------------------------------ */

static void report(struct sr *s, unsigned queue, gpa_t gpa)
{
	const struct virtq_buffer buffers[] = {
		{gpa, 16 * PAGE, true}, {SR_HIGH_END - 8 * PAGE, 8 * PAGE, true}, {SR_SEAM - PAGE, 2 * PAGE, true}};
	sr_send(s, queue, buffers, ARRAY_SIZE(buffers));
}

static void reported_pages_go_back_to_the_host(void **state)
{
	struct sr *s = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		s->packed = kind & 1;
		s->event_idx = kind & 2;
		sr_start(s);
		uint64_t before = info(s).reported_bytes;
		assert_int_equal(gmem_fill(s->gmem, SR_SEAM - PAGE, FILL, 2 * PAGE), 0);
		assert_int_equal(gmem_fill(s->gmem, SR_HIGH_END - 8 * PAGE, FILL, 8 * PAGE), 0);
		gpa_t gpa = PAGES + kind * MIB(1) / 4;
		report(s, REPORTING_LINUX, gpa);
		assert_int_equal(sr_wait(s, REPORTING_LINUX), 0);
		assert_false(sr_is_broken(s));
		check_pages(s, gpa, 16, false);
		check_pages(s, gpa + 16 * PAGE, 16, true);
		check_pages(s, SR_HIGH_END - 8 * PAGE, 8, false);
		check_pages(s, SR_SEAM - PAGE, 2, false);
		check_pages(s, SR_SEAM + PAGE, 1, true);
		assert_int_equal(info(s).reported_bytes - before, 26 * PAGE);
	}
	assert_int_equal(info(s).discarded_bytes, 0);
}

static void a_report_of_everything(void **state)
{
	struct sr *s = *state;
	const struct virtq_buffer all[] = {{PAGES, SR_HOLE - PAGES, true}, {SR_HIGH, SR_HIGH_END - SR_HIGH, true}};
	sr_start(s);
	sr_send(s, REPORTING_LINUX, all, 2);
	assert_int_equal(sr_wait(s, REPORTING_LINUX), 0);
	check_pages(s, PAGES, (SR_HOLE - PAGES) / PAGE, false);
	check_pages(s, SR_HIGH, (SR_HIGH_END - SR_HIGH) / PAGE, false);
}

static void reports_of_parts_of_pages_break_it(void **state)
{
	struct sr *s = *state;
	const struct virtq_buffer bad[] = {
		{PAGES + 1, PAGE, true}, {PAGES, PAGE - 1, true}, {PAGES, 1, true}, {PAGES + 2048, 2048, true}};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct virtq_buffer buffers[] = {{PAGES, 4 * PAGE, true}, bad[i]};
		sr_start(s);
		sr_send(s, REPORTING_LINUX, buffers, 2);
		sr_wait_until_broken(s, "virtio-balloon: a report of free memory that is not whole pages");
		check_pages(s, PAGES, 4, true);
	}
	assert_int_equal(info(s).reported_bytes, 0);
}

/* --- which queue is which ---------------------------------------------------------------------------------------- */

static void refuse(struct sr *s, bool stats, bool reporting)
{
	s->refused =
		(stats ? 0 : 1ULL << VIRTIO_BALLOON_F_STATS_VQ) | (reporting ? 0 : 1ULL << VIRTIO_BALLOON_F_REPORTING);
	sr_start(s);
}

static void check_reporting(struct sr *s, unsigned queue, bool is_reporting)
{
	gpa_t gpa = PAGES + queue * MIB(1);
	assert_int_equal(gmem_fill(s->gmem, gpa, FILL, MIB(1)), 0);
	const struct virtq_buffer buffer = {gpa, MIB(1), true};
	sr_send(s, queue, &buffer, 1);
	if (is_reporting) {
		assert_int_equal(sr_wait(s, queue), 0);
		assert_false(sr_is_broken(s));
	} else {
		sr_wait_until_broken(s, "is of no feature that was negotiated");
	}
	check_pages(s, gpa, 256, !is_reporting);
}

static void send_stats(struct sr *s, uint16_t tag, uint64_t value)
{
	struct virtio_balloon_stat stat = {tag, value};
	const struct virtq_buffer buffer = {SR_DATA, sizeof(stat), false};
	assert_int_equal(gmem_write(s->gmem, SR_DATA, &stat, sizeof(stat)), 0);
	sr_send(s, STATSQ, &buffer, 1);
	sr_settle(s);
}

static void wait_for_stats(struct sr *s)
{
	while (info(s).stats.updated_ns == 0)
		assert_int_equal(loop_wait(s->loop, 100 * SR_MS), 0);
}

static void queues_are_numbered_by_the_features(void **state)
{
	struct sr *s = *state;
	refuse(s, true, true); /* Linux, with everything */
	send_stats(s, VIRTIO_BALLOON_S_MEMFREE, 12345);
	wait_for_stats(s);
	assert_int_equal(info(s).stats.free_bytes, 12345);
	check_reporting(s, REPORTING_LINUX, true);
	check_reporting(s, REPORTING_SPECIFIED, true);

	refuse(s, false, true);
	check_reporting(s, REPORTING_LINUX_NO_STATS, true);
	check_reporting(s, REPORTING_SPECIFIED, true);
	check_reporting(s, REPORTING_LINUX, false);

	refuse(s, true, false);
	send_stats(s, VIRTIO_BALLOON_S_MEMFREE, 54321);
	wait_for_stats(s);
	assert_int_equal(info(s).stats.free_bytes, 54321);
	check_reporting(s, REPORTING_LINUX, false);
	refuse(s, true, false);
	check_reporting(s, REPORTING_SPECIFIED, false);

	for (unsigned queue = 2; queue < SR_QUEUES_MAX; queue++) {
		refuse(s, false, false);
		check_reporting(s, queue, false);
	}
	refuse(s, false, false); /* these two are always there */
	const uint32_t pfn = PAGES / PAGE;
	do_pfns(s, INFLATEQ, &pfn, 1);
	do_pfns(s, DEFLATEQ, &pfn, 1);
}

static void offers_only_what_was_asked_for(void **state)
{
	struct sr *s = *state;
	const uint64_t mask = (1 << 24) - 1; /* the device's own */
	const uint64_t stats = 1 << VIRTIO_BALLOON_F_STATS_VQ, oom = 1 << VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
		       reporting = 1 << VIRTIO_BALLOON_F_REPORTING;
	for (unsigned kind = 0; kind < 4; kind++) {
		struct virtio_balloon_init init = {.deflate_on_oom = kind & 1, .reporting = kind & 2};
		virtio_free(s->dev);
		new_device(s, &init);
		assert_int_equal(s->dev->features & mask, stats | (kind & 1 ? oom : 0) | (kind & 2 ? reporting : 0));
		assert_int_equal(s->dev->queue_count, kind & 2 ? 5 : 3);
		assert_int_equal(s->dev->features >> VIRTIO_F_RING_PACKED & 1, 0);
		sr_start(s);
		const uint32_t pfn = PAGES / PAGE + kind;
		do_pfns(s, INFLATEQ, &pfn, 1);
	}
}

/* --- statistics -------------------------------------------------------------------------------------------------- */

static void check_no_stats(struct sr *s)
{
	struct virtio_balloon_stats expected;
	memset(&expected, 0xff, sizeof(expected));
	expected.updated_ns = 0;
	struct virtio_balloon_stats stats = info(s).stats;
	assert_memory_equal(&stats, &expected, sizeof(stats));
}

/* All that are known, in any order, among others that are not. */
static void every_statistic(void **state)
{
	struct sr *s = *state;
	static const uint16_t tags[] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10, 500, UINT16_MAX};
	struct virtio_balloon_stat stats[ARRAY_SIZE(tags)];
	for (unsigned i = 0; i < ARRAY_SIZE(tags); i++)
		stats[i] = (struct virtio_balloon_stat){tags[i], 0x1122334455660000 + tags[i]};
	for (unsigned kind = 0; kind < 4; kind++) {
		s->packed = kind & 1;
		s->event_idx = kind & 2;
		sr_start(s);
		check_no_stats(s);
		/* In pieces, and with a part of an entry behind them. */
		const struct virtq_buffer buffers[] = {{SR_DATA, 5, false},
						       {SR_DATA + 5, 10, false},
						       {SR_DATA + 15, sizeof(stats) - 15, false},
						       {SR_DATA, 9, false}};
		uint64_t begin_ns = loop_now_ns();
		assert_int_equal(gmem_write(s->gmem, SR_DATA, stats, sizeof(stats)), 0);
		sr_send(s, STATSQ, buffers, ARRAY_SIZE(buffers));
		wait_for_stats(s);
		struct virtio_balloon_stats got = info(s).stats;
		assert_int_equal(got.swap_in, 0x1122334455660000);
		assert_int_equal(got.swap_out, 0x1122334455660001);
		assert_int_equal(got.major_faults, 0x1122334455660002);
		assert_int_equal(got.minor_faults, 0x1122334455660003);
		assert_int_equal(got.free_bytes, 0x1122334455660004);
		assert_int_equal(got.total_bytes, 0x1122334455660005);
		assert_int_equal(got.available_bytes, 0x1122334455660006);
		assert_int_equal(got.disk_cache_bytes, 0x1122334455660007);
		assert_int_equal(got.hugetlb_allocations, 0x1122334455660008);
		assert_int_equal(got.hugetlb_failures, 0x1122334455660009);
		assert_true(got.updated_ns >= begin_ns && got.updated_ns <= loop_now_ns());
	}
}

/* The driver's buffer stays with the device until somebody asks. */
static void statistics_come_when_asked_for(void **state)
{
	struct sr *s = *state;
	uint32_t written;
	for (unsigned kind = 0; kind < 2; kind++) {
		s->packed = kind;
		virtio_balloon_request_stats(s->dev); /* no driver: nothing */
		sr_start(s);
		virtio_balloon_request_stats(s->dev); /* no buffer yet: nothing */
		for (unsigned i = 1; i <= 5; i++) {
			send_stats(s, VIRTIO_BALLOON_S_CACHES, i);
			while (info(s).stats.disk_cache_bytes != i)
				assert_int_equal(loop_wait(s->loop, 100 * SR_MS), 0);
			assert_int_equal(info(s).stats.free_bytes, UINT64_MAX); /* not said */
			assert_int_equal(s->dev->queues[STATSQ].in_flight, 1);
			assert_false(sr_take(s, STATSQ, &written));
			assert_int_equal(s->interrupts[STATSQ], i - 1);

			virtio_balloon_request_stats(s->dev);
			virtio_balloon_request_stats(s->dev); /* asked already */
			assert_int_equal(sr_wait(s, STATSQ), 0);
			sr_settle(s);
			assert_int_equal(s->interrupts[STATSQ], i);
			assert_false(sr_take(s, STATSQ, &written));
			virtq_driver_enable_interrupts(&s->drivers[STATSQ]);
		}
		sr_reset(s);
		check_no_stats(s);
	}
}

static void resets_with_the_buffer_held(void **state)
{
	struct sr *s = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		s->packed = kind & 1;
		sr_start(s);
		send_stats(s, VIRTIO_BALLOON_S_CACHES, 1);
		wait_for_stats(s);
		assert_int_equal(s->dev->queues[STATSQ].in_flight, 1);
		if (kind & 2) {
			sr_reset_queue(s, STATSQ);
			virtio_balloon_request_stats(s->dev);
			sr_set_up_queue(s, STATSQ);
			sr_settle(s);
			send_stats(s, VIRTIO_BALLOON_S_CACHES, 2);
			while (info(s).stats.disk_cache_bytes != 2)
				assert_int_equal(loop_wait(s->loop, 100 * SR_MS), 0);
		}
		sr_reset_queue(s, INFLATEQ); /* another's */
		assert_int_equal(s->dev->queues[STATSQ].in_flight, 1);
		sr_reset(s);
		assert_int_equal(s->dev->queues[STATSQ].in_flight, 0);
		virtio_balloon_request_stats(s->dev);
	}
	sr_start(s);
	send_stats(s, VIRTIO_BALLOON_S_CACHES, 1); /* and freed with it */
}

static void a_driver_with_many_buffers(void **state)
{
	struct sr *s = *state;
	struct virtio_balloon_stat stat = {VIRTIO_BALLOON_S_MEMFREE, 7};
	const struct virtq_buffer buffer = {SR_DATA, sizeof(stat), false};
	assert_int_equal(gmem_write(s->gmem, SR_DATA, &stat, sizeof(stat)), 0);
	for (unsigned kind = 0; kind < 2; kind++) {
		s->packed = kind;
		sr_start(s);
		for (unsigned i = 0; i < SR_QUEUE_SIZE; i++)
			sr_send(s, STATSQ, &buffer, 1);
		for (unsigned i = 1; i < SR_QUEUE_SIZE; i++)
			assert_int_equal(sr_wait(s, STATSQ), 0);
		assert_int_equal(s->dev->queues[STATSQ].in_flight, 1);
		assert_int_equal(info(s).stats.free_bytes, 7);
	}
}

/* Far more than is known, and nothing at all but room. */
static void odd_statistics(void **state)
{
	struct sr *s = *state;
	const struct virtq_buffer huge = {0, SR_HOLE, false}, room = {SR_DATA, 100, true};
	sr_start(s);
	sr_send(s, STATSQ, &huge, 1);
	wait_for_stats(s);
	virtio_balloon_request_stats(s->dev);
	sr_wait(s, STATSQ);
	sr_send(s, STATSQ, &room, 1);
	sr_settle(s);
	virtio_balloon_request_stats(s->dev);
	assert_int_equal(sr_wait(s, STATSQ), 0);
	assert_false(sr_is_broken(s));
	assert_int_equal(info(s).stats.free_bytes, UINT64_MAX);
}

/* --- configuration --------------------------------------------------------------------------------------------------
 */

static struct virtio_balloon_config read_config(struct sr *s)
{
	struct virtio_balloon_config config;
	virtio_lock(s->dev);
	virtio_read_config(s->dev, 0, &config, sizeof(config));
	virtio_unlock(s->dev);
	return config;
}

static void write_config(struct sr *s, uint32_t offset, const void *data, unsigned size)
{
	virtio_lock(s->dev);
	virtio_write_config(s->dev, offset, data, size);
	virtio_unlock(s->dev);
}

static void a_target(void **state)
{
	struct sr *s = *state;
	struct virtio_balloon_init init = {.target_bytes = MIB(3) + 1};
	virtio_free(s->dev);
	new_device(s, &init);
	assert_int_equal(read_config(s).num_pages, MIB(3) / PAGE);
	virtio_balloon_set_target(s->dev, MIB(2) + PAGE - 1);
	assert_int_equal(s->config_interrupts, 0); /* nobody there */
	assert_int_equal(info(s).target_bytes, MIB(2));

	sr_start(s);
	assert_int_equal(read_config(s).num_pages, MIB(2) / PAGE);
	uint8_t generation = s->dev->config_generation;
	virtio_balloon_set_target(s->dev, MIB(5));
	assert_int_equal(s->config_interrupts, 1);
	assert_true(s->dev->config_generation != generation);
	assert_int_equal(read_config(s).num_pages, MIB(5) / PAGE);
	assert_int_equal(info(s).target_bytes, MIB(5));

	sr_reset(s); /* it is for the next driver too */
	assert_int_equal(read_config(s).num_pages, MIB(5) / PAGE);
	virtio_balloon_set_target(s->dev, UINT64_MAX);
	assert_int_equal(info(s).target_bytes, RAM_BYTES);
	virtio_balloon_set_target(s->dev, 0);
	assert_int_equal(read_config(s).num_pages, 0);
}

static void only_actual_is_the_drivers(void **state)
{
	struct sr *s = *state;
	const uint32_t actual = MIB(1) / PAGE;
	const uint8_t ones[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
				  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	virtio_balloon_set_target(s->dev, MIB(4));
	sr_start(s);
	write_config(s, 4, &actual, 4);
	assert_int_equal(info(s).actual_bytes, MIB(1));
	assert_int_equal(read_config(s).actual, actual);
	for (unsigned i = 0; i < 4; i++)
		write_config(s, 4 + i, (const uint8_t[]){0, 2, 0, 0} + i, 1);
	assert_int_equal(info(s).actual_bytes, MIB(2));

	for (unsigned at = 0; at < 16; at++) {
		write_config(s, at, ones, 16 - at);
		assert_int_equal(info(s).target_bytes, MIB(4));
	}
	write_config(s, UINT32_MAX - 3, ones, 8);
	assert_int_equal(read_config(s).actual, UINT32_MAX);
	assert_int_equal(info(s).actual_bytes, RAM_BYTES); /* a lie has a limit */
	assert_int_equal(read_config(s).poison_val, 0);
	assert_int_equal(read_config(s).free_page_hint_cmd_id, 0);
	sr_reset(s);
	assert_int_equal(info(s).actual_bytes, 0);
}

/* --- bad drivers
 * ------------------------------------------------------------------------------------------------------
 */

static void pages_outside_ram_break_it(void **state)
{
	struct sr *s = *state;
	const struct {
		uint32_t pfn;
		const char *text;
	} bad[] = {
		{SR_HOLE / PAGE, "virtio-balloon: page 0x800 is not RAM"},
		{SR_HIGH / PAGE - 1, "virtio-balloon: page 0xfff is not RAM"},
		{SR_HIGH_END / PAGE, "virtio-balloon: page 0x1400 is not RAM"},
		{UINT32_MAX, "virtio-balloon: page 0xffffffff is not RAM"},
	};
	assert_true(2 * ARRAY_SIZE(bad) <= LOG_LIMIT_BURST);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(bad); i++) {
		unsigned queue = i & 1 ? DEFLATEQ : INFLATEQ;
		uint32_t pfns[600];
		make_pfns(pfns, PAGES, ARRAY_SIZE(pfns), 1);
		pfns[i * 60] = bad[i / 2].pfn;
		sr_start(s);
		send_pfns(s, queue, pfns, ARRAY_SIZE(pfns));
		sr_wait_until_broken(s, bad[i / 2].text);
		check_pages(s, PAGES + ARRAY_SIZE(pfns) * PAGE, 10, true);
		check_pages(s, PAGES + 599 * PAGE, 1, true);
		assert_int_equal(s->dev->queues[queue].in_flight, 0);
	}
	sr_start(s);
	const uint32_t pfn = PAGES / PAGE;
	do_pfns(s, INFLATEQ, &pfn, 1);
}

static void lists_that_are_none_break_it(void **state)
{
	struct sr *s = *state;
	const struct virtq_buffer bad[] = {{SR_DATA, 1, false},
					   {SR_DATA, 3, false},
					   {SR_DATA, 1023, false},
					   {SR_DATA, SR_HOLE - SR_DATA, false},
					   {SR_DATA, 4, true}};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		sr_start(s);
		sr_send(s, i & 1 ? DEFLATEQ : INFLATEQ, &bad[i], 1);
		sr_wait_until_broken(s, "virtio-balloon: a list of pages of ");
	}
	check_pages(s, PAGES, 100, true);
}

/* The guest gives up what the device itself works with: rings and the list. Nothing but the guest suffers. */
static void pages_in_use(void **state)
{
	struct sr *s = *state;
	uint32_t pfns[SR_DATA / PAGE + 1];
	for (unsigned kind = 0; kind < 2; kind++) {
		s->packed = kind;
		sr_start(s);
		make_pfns(pfns, 0, ARRAY_SIZE(pfns), 1);
		send_pfns(s, INFLATEQ, pfns, ARRAY_SIZE(pfns));
		sr_settle(s);
		virtio_ring(s->dev, INFLATEQ);
		sr_settle(s);
		sr_reset(s);
	}
	sr_start(s);
	do_pfns(s, DEFLATEQ, pfns, 1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(inflated_pages_go_back_to_the_host),
		TEST(lists_of_every_kind),
		TEST(runs_go_in_one_piece),
		TEST(a_host_that_refuses),
		TEST(the_longest_list),
		TEST(full_rings_leave_time_for_others),
		TEST(reported_pages_go_back_to_the_host),
		TEST(a_report_of_everything),
		TEST(reports_of_parts_of_pages_break_it),
		TEST(queues_are_numbered_by_the_features),
		TEST(offers_only_what_was_asked_for),
		TEST(every_statistic),
		TEST(statistics_come_when_asked_for),
		TEST(resets_with_the_buffer_held),
		TEST(a_driver_with_many_buffers),
		TEST(odd_statistics),
		TEST(a_target),
		TEST(only_actual_is_the_drivers),
		TEST(pages_outside_ram_break_it),
		TEST(lists_that_are_none_break_it),
		TEST(pages_in_use),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
