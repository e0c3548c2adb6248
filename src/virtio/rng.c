#include "virtio/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "util.h"

enum {
	REQUESTQ, /* 5.4.2 */
	QUEUE_COUNT,
	QUEUE_SIZE = 64,
	PCI_CLASS_OTHER = 0x00ff00,
};

/* How long the host's pool may take to fill, early in the host's own boot: it is asked again, not waited for. */
static const uint64_t NO_ENTROPY_RETRY_NS = 100000000;

struct virtio_rng {
	struct virtio_device dev;
	struct rate_limit limit;
	struct loop_timer wait_timer;
	bool waits; /* for wait_timer; requests stay in the ring */
};

static struct virtio_rng *to_rng(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_rng, dev);
}

static void wait_until(struct virtio_rng *rng, uint64_t time_ns)
{
	rng->waits = true;
	loop_timer_arm(rng->dev.loop, &rng->wait_timer, time_ns);
}

static void wait_is_over(struct loop_timer *timer)
{
	struct virtio_rng *rng = container_of(timer, struct virtio_rng, wait_timer);
	virtio_lock(&rng->dev);
	rng->waits = false;
	virtio_kick(&rng->dev, REQUESTQ);
	virtio_unlock(&rng->dev);
}

/*
 * Into private memory first: the guest cannot watch, or change, what getrandom works on. True: the chain is done with.
 * A token of the limit that an empty pool wastes is lost; that is over when the host has booted.
 */
static bool answer(struct virtio_rng *rng, const struct virtq_chain *chain)
{
	uint8_t bytes[VIRTIO_RNG_REQUEST_MAX];
	size_t size = min_u64(chain->in_bytes, sizeof(bytes));
	uint64_t now_ns = loop_now_ns();
	uint64_t again_ns = rate_limit_take(&rng->limit, 1, size, now_ns);
	if (again_ns) {
		wait_until(rng, again_ns);
		return false;
	}
	ssize_t got = getrandom(bytes, size, GRND_NONBLOCK);
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		wait_until(rng, now_ns + NO_ENTROPY_RETRY_NS);
		return false;
	}
	if (got < 0)
		virtio_break(&rng->dev, "getrandom: %s", err_name(errno));
	size_t written = got > 0 ? iov_write(chain->iov + chain->out_count, chain->in_count, 0, bytes, (size_t)got) : 0;
	virtio_push(&rng->dev, REQUESTQ, chain, (uint32_t)written);
	return true;
}

/* 5.4.6.1: no readable parts. As a chain has at least one part, of at least one byte, there is room in the others. */
static void rng_serve(struct virtio_device *dev, unsigned queue)
{
	struct virtio_rng *rng = to_rng(dev);
	struct virtq_chain chain;
	while (!rng->waits && virtio_pop(dev, queue, &chain) == 1) {
		if (chain.out_count) {
			virtio_break(dev, "a request with %u bytes for the device to read", chain.out_bytes);
			virtio_push(dev, queue, &chain, 0);
		} else if (!answer(rng, &chain)) {
			virtio_unpop(dev, queue, &chain);
		}
	}
}

static void rng_reset(struct virtio_device *dev)
{
	struct virtio_rng *rng = to_rng(dev);
	rng->waits = false;
	loop_timer_disarm(dev->loop, &rng->wait_timer);
}

static void rng_destroy(struct virtio_device *dev)
{
	struct virtio_rng *rng = to_rng(dev);
	loop_timer_disarm(dev->loop, &rng->wait_timer);
	free(rng);
}

/*
 * No `cancel`: what waits, waits in the ring. A queue that is reset alone waits on, or it would get around its rate.
 */
static const struct virtio_model rng_model = {
	.id = VIRTIO_ID_RNG,
	.name = "virtio-rng",
	.pci_class = PCI_CLASS_OTHER,
	.serve = rng_serve,
	.reset = rng_reset,
	.destroy = rng_destroy,
};

struct virtio_device *virtio_rng_new(struct loop *loop, const struct gmem *gmem, const struct log *log,
				     const struct virtio_rng_init *init, struct err *err)
{
	struct virtio_rng *rng = calloc(1, sizeof(*rng));
	if (!rng) {
		err_set(err, -ENOMEM, "virtio-rng: %s", err_name(ENOMEM));
		return NULL;
	}
	rng->wait_timer.fn = wait_is_over;
	rate_limit_init(&rng->limit, &init->limit, loop_now_ns());
	struct virtio_init virtio = {
		.model = &rng_model,
		.loop = loop,
		.gmem = gmem,
		.log = log,
		.packed = init->packed,
		.queue_count = QUEUE_COUNT,
		.queue_size_max = QUEUE_SIZE,
	};
	if (virtio_init(&rng->dev, &virtio, err) < 0) {
		free(rng);
		return NULL;
	}
	return &rng->dev;
}
