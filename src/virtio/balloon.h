/*
 * virtio-balloon (virtio 1.3, 5.5): memory that the guest gives back. Inflated and reported pages are taken from the
 * process at once (gmem_discard), in runs; pages outside RAM break the device.
 *
 * Offered: STATS_VQ, DEFLATE_ON_OOM and PAGE_REPORTING as asked for. The traditional interface, so that the guest may
 * use an inflated page again without asking when DEFLATE_ON_OOM is there.
 */
#pragma once

#include "err.h"
#include "gmem.h"
#include "log.h"
#include "loop.h"
#include "virtio/virtio.h"

struct virtio_balloon_init {
	uint64_t target_bytes; /* at first; at most the guest's RAM */
	bool deflate_on_oom;
	bool reporting; /* free page reporting */
	bool packed;
};

/* What the guest says of itself (5.5.6.4), in bytes or counts; UINT64_MAX: it has not said. */
struct virtio_balloon_stats {
	uint64_t swap_in, swap_out, major_faults, minor_faults;
	uint64_t free_bytes, total_bytes, available_bytes, disk_cache_bytes;
	uint64_t hugetlb_allocations, hugetlb_failures;
	uint64_t updated_ns; /* CLOCK_MONOTONIC of the last answer; 0: none came yet */
};

struct virtio_balloon_info {
	uint64_t target_bytes, actual_bytes; /* asked for; as the driver says it is, at most the guest's RAM */
	uint64_t discarded_bytes;            /* ever: inflated */
	uint64_t reported_bytes;             /* ever: by free page reporting */
	struct virtio_balloon_stats stats;
};

/* `gmem` is not const here: its pages are given up. NULL with `err` set. [setup] */
struct virtio_device *virtio_balloon_new(struct loop *loop, struct gmem *gmem, const struct log *log,
					 const struct virtio_balloon_init *init, struct err *err);

/*
 * How much the guest is to give up: at most its RAM (the caller has refused more), rounded down to whole pages. It
 * stays when the driver resets the device. [loop]
 */
void virtio_balloon_set_target(struct virtio_device *dev, uint64_t target_bytes);
void virtio_balloon_get_info(struct virtio_device *dev, struct virtio_balloon_info *ret_info); /* [any] */
/*
 * Ask the guest for new statistics; they are in the info when it has answered. Nothing happens while it has not
 * answered the last time, or has no driver that offers them. [loop]
 */
void virtio_balloon_request_stats(struct virtio_device *dev);
