#include "virtio/virtq.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "virtio/virtq_impl.h"

/* --- for both kinds ---------------------------------------------------------------------------------------- */

int virtq_break(struct virtq *q, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vsnprintf(q->error, sizeof(q->error), fmt, args);
	va_end(args);
	q->broken = true;
	return -EPROTO;
}

int virtq_add(struct virtq *q, struct virtq_chain *chain, gpa_t gpa, uint32_t size_bytes, bool writable)
{
	uint32_t *sum_bytes = writable ? &chain->in_bytes : &chain->out_bytes;
	unsigned *count = writable ? &chain->in_count : &chain->out_count;
	if (size_bytes == 0)
		return virtq_break(q, "a buffer of zero bytes");
	if (!writable && chain->in_count)
		return virtq_break(q, "a device-readable buffer after a device-writable one");
	if (size_bytes > UINT32_MAX - *sum_bytes)
		return virtq_break(q, "a chain of 4 GiB or more");

	unsigned filled = chain->out_count + chain->in_count;
	int spans = gmem_iov(q->gmem, gpa, size_bytes, q->iov + filled, q->iov_max - filled);
	if (spans < 0)
		return virtq_break(q, "a buffer that is not RAM: %u bytes at 0x%llx", size_bytes,
				   (unsigned long long)gpa);
	*count += (unsigned)spans;
	*sum_bytes += size_bytes;
	return 0;
}

int virtq_load_table(struct virtq *q, gpa_t gpa, uint32_t size_bytes, unsigned max_count)
{
	if (!q->config.indirect)
		return virtq_break(q, "an indirect table, which was not negotiated");
	if (size_bytes == 0 || size_bytes % VIRTQ_DESC_BYTES)
		return virtq_break(q, "an indirect table of %u bytes", size_bytes);

	/* The copy makes it private: what is checked is what is used. */
	uint32_t count = size_bytes / VIRTQ_DESC_BYTES;
	if (count > max_count)
		return virtq_break(q, "an indirect table of %u descriptors, for a chain of at most %d", count,
				   VIRTQ_SIZE_MAX);
	if (gmem_read(q->gmem, gpa, q->table, size_bytes) < 0)
		return virtq_break(q, "an indirect table that is not RAM: %u bytes at 0x%llx", size_bytes,
				   (unsigned long long)gpa);
	return (int)count;
}

void *virtq_map_area(const struct virtq *q, const char *name, gpa_t gpa, size_t size_bytes, size_t align_bytes,
		     struct err *err)
{
	void *area = gmem_view(q->gmem, gpa, size_bytes, align_bytes);
	if (!area)
		err_set(err, -EFAULT, "%s area (%zu bytes at 0x%llx): not RAM, or not a multiple of %zu", name,
			size_bytes, (unsigned long long)gpa, align_bytes);
	return area;
}

/* --- life -------------------------------------------------------------------------------------------------- */

static bool size_is_possible(const struct virtq_config *config)
{
	if (config->size == 0 || config->size > VIRTQ_SIZE_MAX)
		return false;
	return config->packed || (config->size & (config->size - 1)) == 0;
}

/* How many spans a buffer can have: one, and one more for each place where two regions touch. */
static unsigned spans_per_buffer(const struct gmem *gmem)
{
	unsigned spans = 1;
	for (unsigned i = 1; i < gmem->region_count; i++) {
		const struct gmem_region *below = &gmem->regions[i - 1];
		spans += below->base + below->size_bytes == gmem->regions[i].base;
	}
	return spans;
}

static int alloc_scratch(struct virtq *q)
{
	/* A driver with a small ring may still use long tables (Linux does), so the ring's size bounds only chains
	 * without them. */
	unsigned buffers = q->config.indirect ? VIRTQ_SIZE_MAX : q->config.size;
	q->iov_max = buffers * spans_per_buffer(q->gmem);
	q->iov = calloc(q->iov_max, sizeof(*q->iov));
	if (!q->iov)
		return -ENOMEM;
	if (!q->config.indirect)
		return 0;
	q->table = calloc(VIRTQ_SIZE_MAX, VIRTQ_DESC_BYTES);
	return q->table ? 0 : -ENOMEM;
}

struct virtq *virtq_new(const struct gmem *gmem, const struct virtq_config *config, struct err *err)
{
	if (!size_is_possible(config)) {
		err_set(err, -EINVAL, "a %s ring of %u descriptors", config->packed ? "packed" : "split", config->size);
		return NULL;
	}
	struct virtq *q = calloc(1, sizeof(*q));
	if (!q)
		goto fail_memory;
	q->ops = config->packed ? &virtq_packed_ops : &virtq_split_ops;
	q->gmem = gmem;
	q->config = *config;
	if (alloc_scratch(q) < 0)
		goto fail_memory;
	if (q->ops->map(q, err) < 0)
		goto fail;
	return q;
fail_memory:
	err_set(err, -ENOMEM, "virtqueue: %s", err_name(ENOMEM));
fail:
	virtq_free(q);
	return NULL;
}

void virtq_free(struct virtq *q)
{
	if (!q)
		return;
	free(q->table);
	free(q->iov);
	free(q);
}

/* By its older name: of __atomic_thread_fence gcc warns under ThreadSanitizer. */
static void full_fence(void)
{
	__sync_synchronize();
}

/* --- the door ---------------------------------------------------------------------------------------------- */

int virtq_pop(struct virtq *q, struct virtq_chain *ret_chain)
{
	if (q->broken)
		return -EPROTO;

	struct virtq_chain chain = {.descriptors = 1, .iov = q->iov};
	q->can_unpop = false;
	int r = q->ops->pop(q, &chain);
	if (r <= 0)
		return r;
	q->in_flight++;
	q->can_unpop = true;
	*ret_chain = chain;
	return 1;
}

const char *virtq_error(const struct virtq *q)
{
	return q->error;
}

void virtq_unpop(struct virtq *q, const struct virtq_chain *chain)
{
	assert(q->can_unpop);
	q->can_unpop = false;
	q->in_flight--;
	q->ops->unpop(q, chain);
}

void virtq_push_many(struct virtq *q, const struct virtq_used *used, unsigned count)
{
	assert(count > 0 && q->in_flight >= count);
	q->in_flight -= count;
	q->can_unpop = false;
	q->ops->push(q, used, count);
}

void virtq_push(struct virtq *q, uint16_t id, uint16_t descriptors, uint32_t written_bytes)
{
	const struct virtq_used used = {id, descriptors, written_bytes};
	virtq_push_many(q, &used, 1);
}

bool virtq_wants_interrupt(struct virtq *q)
{
	if (q->unasked == 0)
		return false;

	/*
	 * The driver enables interrupts, then looks at the ring once more; we filled the ring, now we look whether
	 * they are enabled. With a full fence between the two steps on both sides, at least one of us sees what the
	 * other did; release and acquire alone let the load pass the store, and both sleep.
	 */
	full_fence();
	bool wants = q->ops->wants_interrupt(q);
	q->unasked = 0;
	return wants;
}

bool virtq_enable_doorbell(struct virtq *q)
{
	if (q->broken)
		return false;

	q->ops->enable_doorbell(q);
	/* The mirror image: the driver makes a chain available, fences, and reads whether we want to be told. */
	full_fence();
	return q->ops->has_chains(q);
}

bool virtq_has_chains(const struct virtq *q)
{
	return !q->broken && q->ops->has_chains(q);
}

void virtq_disable_doorbell(struct virtq *q)
{
	if (!q->broken)
		q->ops->disable_doorbell(q);
}
